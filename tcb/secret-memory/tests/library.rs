//! The library with its heap in secret memory: it works, and its keys are where they should be.
//!
//! One test function, because a process has one heap, and this one fills it up.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test panics where it fails")]

use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair,
};
use chancery_secret_memory::{Error, figures, install, refuse_overflow};

#[test]
fn keys_live_in_secret_memory_until_it_is_full() {
    let installed = match install() {
        Ok(installed) => installed,
        Err(e @ (Error::Absent | Error::Limit { .. })) => {
            eprintln!("skipped: {e}");
            return;
        }
        Err(e) => panic!("{e}"),
    };
    assert!(installed.capacity >= 2 << 20);
    assert!(matches!(install(), Err(Error::Taken)), "once in a process");
    assert_eq!(secret_mapping(), installed.capacity);

    let before = figures();
    let pair = Ed25519KeyPair::generate().unwrap();
    assert!(figures().in_use > before.in_use);
    pair.try_sign(b"message").unwrap();
    drop(pair);
    assert_eq!(figures().in_use, before.in_use, "a dropped key leaves nothing");

    // Threads use it at once; steady work takes no new memory.
    let work = || {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let random = aws_lc_rs::rand::SystemRandom::new();
        for _ in 0..200 {
            pair.sign(&random, b"message").unwrap();
        }
    };
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(work)).collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    work();
    let touched = figures().touched;
    work();
    assert_eq!(figures().touched, touched);

    fill_up();
    let full = figures();
    assert!(full.overflows > 0 && full.overflow > 0, "{full:?}");
    RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    refuse_overflow();
    assert!(RsaKeyPair::generate(KeySize::Rsa2048).is_err(), "no key outside of secret memory");
}

/// Bytes of the mapping that the kernel calls secret memory.
fn secret_mapping() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|l| l.contains("secretmem")).expect("no secret mapping");
    let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
    usize::from_str_radix(to, 16).unwrap() - usize::from_str_radix(from, 16).unwrap()
}

/// Takes blocks from the library until one is outside, and keeps them.
#[expect(unsafe_code, reason = "the library's own allocator is what is tested")]
fn fill_up() {
    for size in [1 << 20, 64 << 10, 4 << 10, 256, 16] {
        let overflows = figures().overflows;
        while figures().overflows == overflows {
            // SAFETY: a block that is never used nor freed.
            assert!(!unsafe { aws_lc_sys::OPENSSL_malloc(size) }.is_null());
        }
    }
}
