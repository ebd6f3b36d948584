//! The raw costs: one signature and one verification by the library itself, without a line of ours
//! around them, and one `fdatasync` of a file that is prewritten as the write-ahead log is.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self as lc, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, ParsedPublicKey, PqdsaKeyPair,
    RsaKeyPair, RsaSignatureEncoding, VerificationAlgorithm,
};
use chancery_token::Algorithm;
use rustix::time::{ClockId, clock_gettime};

use super::report::{self, Sync};

/// Bytes that are signed and verified: the signing input of a token or proof with a dozen claims.
const MESSAGE_BYTES: usize = 640;
/// Bytes of one raw write: a page, the least that a disk writes for a commit.
const WRITE_BYTES: usize = 4096;
/// The prewritten file; writes go round in it.
const FILE_BYTES: u64 = 1024 * 1024;
/// Pause between two looks during a run: some two hundred samples in five seconds, for about one
/// percent of a core.
const PROBE_EVERY: Duration = Duration::from_millis(20);
/// How long each operation is repeated before a run.
const QUIET_FOR: Duration = Duration::from_millis(200);
/// Syncs before a run.
const QUIET_SYNCS: usize = 100;

/// The library's key pair.
enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair, &'static RsaSignatureEncoding, Vec<u8>),
    MlDsa(PqdsaKeyPair, Vec<u8>),
}

/// A key pair, its parsed public half, a message and a signature over it.
pub struct RawKey {
    pair: Pair,
    random: SystemRandom,
    public: ParsedPublicKey,
    message: Vec<u8>,
    signature: Vec<u8>,
}

fn failed<E>(_: E) -> anyhow::Error {
    anyhow::anyhow!("the cryptographic library failed")
}

impl RawKey {
    /// A fresh key for an algorithm; RSA keys have 2048 bits.
    pub fn generate(algorithm: Algorithm) -> anyhow::Result<Self> {
        let pair = Pair::generate(algorithm)?;
        let public =
            ParsedPublicKey::new(verification(algorithm), pair.public()).map_err(failed)?;
        let message = vec![b'x'; MESSAGE_BYTES];
        let random = SystemRandom::new();
        let mut key = Self { pair, random, public, message, signature: Vec::new() };
        key.signature = key.sign(<[u8]>::to_vec)?;
        Ok(key)
    }

    /// One signature, over a message that differs from the one before: rejection sampling takes a
    /// different time for each.
    fn sign<T>(&mut self, take: impl FnOnce(&[u8]) -> T) -> anyhow::Result<T> {
        let message = &self.message;
        match &mut self.pair {
            Pair::Ecdsa(pair) => {
                pair.sign(&self.random, message).map(|s| take(s.as_ref())).map_err(failed)
            }
            Pair::Ed25519(pair) => pair.try_sign(message).map(|s| take(s.as_ref())).map_err(failed),
            Pair::Rsa(pair, encoding, room) => {
                pair.sign(*encoding, &self.random, message, room).map_err(failed)?;
                Ok(take(room))
            }
            Pair::MlDsa(pair, room) => {
                pair.sign(message, room).map_err(failed)?;
                Ok(take(room))
            }
        }
    }

    /// CPU microseconds of a signature, over `count` of them after one that warms the caches.
    fn sign_us(&mut self, count: u32) -> anyhow::Result<f64> {
        let kept = self.message.clone();
        let mut one = |number: u32| {
            for (to, from) in self.message.iter_mut().zip(number.to_be_bytes()) {
                *to = from;
            }
            self.sign(|s| {
                black_box(s);
            })
        };
        let us = timed(count, &mut one);
        self.message = kept;
        us
    }

    /// CPU microseconds of a verification.
    fn verify_us(&self, count: u32) -> anyhow::Result<f64> {
        timed(count, &mut |_| {
            self.public.verify_sig(black_box(&self.message), &self.signature).map_err(failed)
        })
    }

    /// The median of many repetitions, for [`QUIET_FOR`] each.
    pub fn quiet(&mut self) -> anyhow::Result<(f64, f64)> {
        let (mut signs, mut verifies) = (Vec::new(), Vec::new());
        let begun = Instant::now();
        while begun.elapsed() < QUIET_FOR || signs.is_empty() {
            signs.push(self.sign_us(20)?);
        }
        let begun = Instant::now();
        while begun.elapsed() < QUIET_FOR || verifies.is_empty() {
            verifies.push(self.verify_us(20)?);
        }
        Ok((report::median(&mut signs), report::median(&mut verifies)))
    }
}

/// The library's verification, for `bench validate`.
pub struct RawPublic(ParsedPublicKey);

impl RawPublic {
    /// From the octets that `PublicKey::raw` documents.
    pub fn of(algorithm: Algorithm, raw: &[u8]) -> anyhow::Result<Self> {
        ParsedPublicKey::new(verification(algorithm), raw).map(Self).map_err(failed)
    }

    /// Verifies.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> anyhow::Result<()> {
        self.0.verify_sig(message, signature).map_err(failed)
    }
}

fn verification(algorithm: Algorithm) -> &'static dyn VerificationAlgorithm {
    match algorithm {
        Algorithm::Es256 => &lc::ECDSA_P256_SHA256_FIXED,
        Algorithm::Es384 => &lc::ECDSA_P384_SHA384_FIXED,
        Algorithm::Ed25519 => &lc::ED25519,
        Algorithm::Rs256 => &lc::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Ps256 => &lc::RSA_PSS_2048_8192_SHA256,
        Algorithm::MlDsa44 => &lc::ML_DSA_44,
        Algorithm::MlDsa65 => &lc::ML_DSA_65,
        Algorithm::MlDsa87 => &lc::ML_DSA_87,
    }
}

impl Pair {
    fn generate(algorithm: Algorithm) -> anyhow::Result<Self> {
        let ecdsa = |scheme| EcdsaKeyPair::generate(scheme).map(Pair::Ecdsa).map_err(failed);
        let rsa = |encoding| {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
            let room = vec![0; pair.public_modulus_len()];
            Ok(Pair::Rsa(pair, encoding, room))
        };
        let ml_dsa = |scheme| {
            let pair = PqdsaKeyPair::generate(scheme).map_err(failed)?;
            let room = vec![0; pair.algorithm().signature_len()];
            Ok(Pair::MlDsa(pair, room))
        };
        match algorithm {
            Algorithm::Es256 => ecdsa(&lc::ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::Es384 => ecdsa(&lc::ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::Ed25519 => Ed25519KeyPair::generate().map(Pair::Ed25519).map_err(failed),
            Algorithm::Rs256 => rsa(&lc::RSA_PKCS1_SHA256),
            Algorithm::Ps256 => rsa(&lc::RSA_PSS_SHA256),
            Algorithm::MlDsa44 => ml_dsa(&lc::ML_DSA_44_SIGNING),
            Algorithm::MlDsa65 => ml_dsa(&lc::ML_DSA_65_SIGNING),
            Algorithm::MlDsa87 => ml_dsa(&lc::ML_DSA_87_SIGNING),
        }
    }

    fn public(&self) -> &[u8] {
        match self {
            Pair::Ecdsa(pair) => pair.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::Rsa(pair, ..) => pair.public_key().as_ref(),
            Pair::MlDsa(pair, _) => pair.public_key().as_ref(),
        }
    }
}

/// CPU time of this thread.
pub fn thread_cpu() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = u32::try_from(t.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), nanos)
}

fn timed(count: u32, act: &mut impl FnMut(u32) -> anyhow::Result<()>) -> anyhow::Result<f64> {
    act(0)?;
    let before = thread_cpu();
    for number in 1..=count {
        act(number)?;
    }
    let took = thread_cpu().saturating_sub(before);
    Ok(took.as_secs_f64() * 1e6 / f64::from(count.max(1)))
}

/// A prewritten file.
struct Disk {
    file: File,
    at: u64,
    path: PathBuf,
}

impl Disk {
    fn prewritten(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("raw-sync");
        let file = File::create(&path)?;
        let zeros = vec![0; WRITE_BYTES];
        for at in (0..FILE_BYTES).step_by(WRITE_BYTES) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(Self { file, at: 0, path })
    }

    /// Wall microseconds of one write and its `fdatasync`.
    fn sync_us(&mut self) -> anyhow::Result<f64> {
        let begun = Instant::now();
        self.file.write_all_at(&[1; WRITE_BYTES], self.at)?;
        self.file.sync_data()?;
        self.at = self.at.saturating_add(WRITE_BYTES as u64) % FILE_BYTES;
        Ok(begun.elapsed().as_secs_f64() * 1e6)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The folder goes with the bench anyway.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Syncs of the folder's disk while nothing else is going on.
pub fn quiet_syncs(folder: &Path) -> anyhow::Result<Sync> {
    let mut disk = Disk::prewritten(folder)?;
    let samples = (0..QUIET_SYNCS).map(|_| disk.sync_us()).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Sync::of(samples))
}

/// What a [`Probe`] saw.
#[derive(Debug, Default)]
pub struct Samples {
    /// CPU microseconds of a signature.
    pub sign_us: Vec<f64>,
    /// CPU microseconds of a verification.
    pub verify_us: Vec<f64>,
    /// Wall microseconds of a sync.
    pub sync_us: Vec<f64>,
}

/// Looks at the raw costs now and then while something else runs: under the same load, with the
/// same caches, on the same cores and the same disk.
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Samples>>,
}

impl Probe {
    /// Starts looking. `token` signs as the signer does, `client` verifies as it does.
    pub fn start(token: Algorithm, client: Algorithm, folder: &Path) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut signing = RawKey::generate(token)?;
        let verifying = RawKey::generate(client)?;
        let mut disk = Disk::prewritten(folder)?;
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("probe".into()).spawn(move || {
            let mut samples = Samples::default();
            while !stopped.load(Ordering::Relaxed) {
                samples.sign_us.push(signing.sign_us(3)?);
                samples.verify_us.push(verifying.verify_us(3)?);
                samples.sync_us.push(disk.sync_us()?);
                std::thread::sleep(PROBE_EVERY);
            }
            Ok(samples)
        })?;
        Ok(Self { stop, thread })
    }

    /// Stops, and answers what was seen.
    pub fn finish(self) -> anyhow::Result<Samples> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the probe failed"))?
    }
}
