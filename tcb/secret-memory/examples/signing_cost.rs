//! What secret memory costs a signature: `signing_cost heap|secret [SLICES]` prints the processor time
//! of one for each algorithm, with the library's ordinary heap or with the secret one: the best of
//! many short slices, so that a machine that does other things too can still be compared with itself.

#![expect(clippy::expect_used, reason = "a measurement that fails has nothing to say")]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, ML_DSA_44_SIGNING, PqdsaKeyPair,
    RSA_PKCS1_SHA256, RsaKeyPair,
};
use rustix::time::{ClockId, clock_gettime};

/// Signatures in a slice: some milliseconds.
const IN_A_SLICE: u32 = 64;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let heap = arguments.next().unwrap_or_default();
    let slices: u32 = arguments.next().and_then(|s| s.parse().ok()).unwrap_or(200);
    if heap == "secret" {
        chancery_secret_memory::install().expect("secret memory");
    }
    let random = SystemRandom::new();
    let message = [7; 640];
    let ecdsa = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let ed25519 = Ed25519KeyPair::generate().expect("a key");
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let ml_dsa = PqdsaKeyPair::generate(&ML_DSA_44_SIGNING).expect("a key");
    let mut signature = vec![0; 8_192];
    let run = |name: &str, sign: &mut dyn FnMut()| {
        let mut best = f64::MAX;
        for _ in 0..slices {
            let begun = processor_us();
            for _ in 0..IN_A_SLICE {
                sign();
            }
            best = best.min((processor_us() - begun) / f64::from(IN_A_SLICE));
        }
        println!("{name:<10} {best:>8.2} us, {:>7.0} a second and core", 1e6 / best);
    };
    run("ES256", &mut || {
        ecdsa.sign(&random, &message).expect("signs");
    });
    run("Ed25519", &mut || {
        ed25519.try_sign(&message).expect("signs");
    });
    run("RS256", &mut || {
        let length = rsa.public_modulus_len();
        let room = signature.get_mut(..length).expect("room");
        rsa.sign(&RSA_PKCS1_SHA256, &random, &message, room).expect("signs");
    });
    run("ML-DSA-44", &mut || {
        let length = ml_dsa.algorithm().signature_len();
        let room = signature.get_mut(..length).expect("room");
        ml_dsa.sign(&message, room).expect("signs");
    });
    println!("{:?}", chancery_secret_memory::figures());
}

/// Microseconds that this process has had of the processor.
fn processor_us() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let part = |count: i64| f64::from(i32::try_from(count).unwrap_or(i32::MAX));
    part(time.tv_sec) * 1e6 + part(time.tv_nsec) / 1e3
}
