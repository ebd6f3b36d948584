//! INVARIANT I1 against root beside the signer: `/proc/PID/mem`, `process_vm_readv` and a forced core
//! dump are searched for the private keys. With the library's heap in secret memory none is found at
//! rest; in ordinary memory the same search finds every one, and they sign.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test panics where it fails"
)]

#[path = "memory/keys.rs"]
mod keys;
#[path = "memory/process.rs"]
mod process;

use std::sync::atomic::{AtomicBool, Ordering};

use keys::{Found, recover};
use process::{Image, Revealing};

/// Tokens of each algorithm before the search: stacks and heaps have seen them all.
const TOKENS: usize = 40;
/// How often memory is read while the signer signs.
const LOOKS: usize = 5;

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root may read another process's memory");
    }
    root
}

#[test]
fn root_finds_no_key_at_rest_in_a_signer_with_secret_memory() {
    if !is_root() {
        return;
    }
    let mut signer = Revealing::start("secret", true);
    let mut peer = signer.connect();
    let welcome = peer.hello();
    let memory = welcome.sandbox.iter().find(|p| p.name == "secret_memory").unwrap();
    if !memory.in_force {
        eprintln!("skipped: {}", memory.detail);
        return;
    }
    let publics = peer.begin();
    peer.issue(TOKENS);
    // What there is to be found: by its own word, and only its own.
    let revealed = signer.reveal();
    let found = recover(&[Image::of("revealed", &revealed)], &publics);
    assert_eq!(names(&found), publics.iter().map(|p| p.name.as_str()).collect::<Vec<_>>());

    let images = [signer.proc_mem(), signer.vm_readv()];
    assert!(images.iter().all(|i| i.bytes() > 100_000), "the rest of the memory was read");
    assert!(images.iter().all(|i| i.refused > 0), "the secret pages were refused");
    report("at rest", &images, &found);
    for image in &images {
        assert_eq!(image.hits(&found), [""; 0], "in {}", image.name);
    }

    // Under load, registers are spilt and stacks hold what a signature is made of.
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peer.issue(1);
            }
        });
        for look in 0..LOOKS {
            report(&format!("under load, look {look}"), &[signer.proc_mem()], &found);
        }
        done.store(true, Ordering::Relaxed);
        load.join().unwrap();
    });

    let Some(core) = signer.core_dump() else { return };
    report("forced core dump", std::slice::from_ref(&core), &found);
    assert_eq!(core.hits(&found), [""; 0]);
}

#[test]
fn the_same_search_finds_every_key_in_ordinary_memory() {
    if !is_root() {
        return;
    }
    let mut signer = Revealing::start("ordinary", false);
    let mut peer = signer.connect();
    peer.hello();
    let publics = peer.begin();
    peer.issue(TOKENS);
    let images = [signer.proc_mem(), signer.vm_readv()];
    let found = recover(&images[..1], &publics);
    let all: Vec<&str> = publics.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names(&found), all, "root has every private key");
    report("ordinary memory", &images, &found);
    for image in &images {
        assert_eq!(image.hits(&found), all, "in {}", image.name);
    }
    let Some(core) = signer.core_dump() else { return };
    assert_eq!(core.hits(&found), all);
}

fn names(found: &[Found]) -> Vec<&str> {
    found.iter().map(|f| f.name.as_str()).collect()
}

fn report(when: &str, images: &[Image], found: &[Found]) {
    for image in images {
        eprintln!(
            "{when}: {} of {} bytes, {} ranges refused, keys seen: {:?}",
            image.name,
            image.bytes(),
            image.refused,
            image.hits(found)
        );
    }
}
