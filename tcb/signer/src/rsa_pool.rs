//! RSA keys are generated ahead, off the signing thread: one takes from tens of milliseconds to
//! many seconds, and signing must not wait for it.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};

use chancery_token::{Algorithm, RsaBits, SigningKey};

type Kind = (Algorithm, RsaBits);

/// One worker thread and the keys that it has ready, at most one of each kind ahead of demand.
#[derive(Debug)]
pub struct RsaPool {
    wanted: Sender<Kind>,
    made: Receiver<(Kind, Option<SigningKey>)>,
    ready: HashMap<Kind, Vec<SigningKey>>,
    underway: HashMap<Kind, usize>,
}

impl RsaPool {
    /// Starts the worker; call before the sandbox closes, threads cannot be made afterwards.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let (wanted, orders) = channel::<Kind>();
        let (deliver, made) = channel();
        std::thread::Builder::new().name("rsa-keys".into()).spawn(move || {
            while let Ok((algorithm, bits)) = orders.recv() {
                // A failed generation is told too; the next sweep orders again.
                let key = SigningKey::generate(algorithm, bits).ok();
                if deliver.send(((algorithm, bits), key)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { wanted, made, ready: HashMap::new(), underway: HashMap::new() })
    }

    /// A key of this kind if one is ready; orders one if not, and one ahead if so.
    pub fn take(&mut self, algorithm: Algorithm, bits: RsaBits) -> Option<SigningKey> {
        self.collect();
        let kind = (algorithm, bits);
        let key = self.ready.get_mut(&kind).and_then(Vec::pop);
        let stock = self.ready.get(&kind).map_or(0, Vec::len);
        let underway = self.underway.entry(kind).or_default();
        if stock == 0 && *underway == 0 && self.wanted.send(kind).is_ok() {
            *underway = underway.saturating_add(1);
        }
        key
    }

    fn collect(&mut self) {
        while let Ok((kind, key)) = self.made.try_recv() {
            if let Some(underway) = self.underway.get_mut(&kind) {
                *underway = underway.saturating_sub(1);
            }
            self.ready.entry(kind).or_default().extend(key);
        }
    }
}
