//! The signer's own log: identity key, frontier, and the entries that the service has not got yet.

use std::collections::VecDeque;

use chancery_entry::Entry;
use chancery_tlog::note::{KeyType, VerifierKey};
use chancery_tlog::{Checkpoint, Frontier, Hash, LogId, cosignature, leaf_hash, note};
use chancery_token::{Algorithm, RsaBits, SigningKey, b64};

/// Entries that the signer makes itself wait for the next `Prepare`; with this many waiting, no
/// further key is announced: a service that never asks must not make the signer's memory grow.
pub const MAX_WAITING_ENTRIES: usize = 1_024;

/// Trees that may still be cosigned. The service asks for the latest that it committed, about once a
/// second, and knows of at most a few batches less than this signer; the rest is for batches that
/// are closed while its question is under way.
const MAX_SIGNED: usize = 256;

/// A cosignature says nothing about the time (c2sp.org/tlog-cosignature): with a time it would say
/// that no larger tree was seen by then, which is false of a tree that has grown meanwhile, and by a
/// clock that the host sets.
const NO_TIME: u64 = 0;

/// Why the log cannot go on: each is fatal for the signer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The identity key cannot be made or used.
    #[error("identity key failed: {0}")]
    Identity(String),
    /// An entry cannot be encoded.
    #[error("entry cannot be encoded: {0}")]
    Entry(#[from] chancery_entry::Error),
    /// A note cannot be made.
    #[error("checkpoint cannot be signed: {0}")]
    Note(#[from] chancery_tlog::Error),
}

/// The log.
#[derive(Debug)]
pub struct Log {
    identity: SigningKey,
    public: [u8; 32],
    id: LogId,
    id_text: String,
    key: Option<VerifierKey>,
    /// The second identity key: its signatures outlive quantum attacks on the first one's.
    cosigner: SigningKey,
    cosigning_key: Option<VerifierKey>,
    /// The latest trees that the identity key signed.
    signed: VecDeque<(u64, Hash)>,
    frontier: Frontier,
    waiting: Vec<Vec<u8>>,
}

/// Entries that leave for the service, with the checkpoint that closes them.
#[derive(Debug)]
pub struct Segment {
    /// Index of the first entry.
    pub first_index: u64,
    /// The entries.
    pub entries: Vec<Vec<u8>>,
    /// Signed note over the tree that ends with them.
    pub checkpoint: String,
    /// Size of that tree.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

impl Log {
    /// A new log with a new identity key (INVARIANT I1: it exists nowhere else).
    ///
    /// # Errors
    /// [`Error::Identity`].
    pub fn new() -> Result<Self, Error> {
        let failed = |e: chancery_token::Error| Error::Identity(e.to_string());
        let identity = SigningKey::generate(Algorithm::Ed25519, RsaBits::B2048).map_err(failed)?;
        let cosigner = SigningKey::generate(Algorithm::MlDsa44, RsaBits::B2048).map_err(failed)?;
        let jwk = identity.public().jwk();
        let x = jwk.get("x").and_then(|x| x.as_str()).unwrap_or_default();
        let public: [u8; 32] = b64::decode(x)
            .map_err(failed)?
            .try_into()
            .map_err(|_| Error::Identity("public key is not 32 bytes".into()))?;
        let id = LogId::of(&public);
        Ok(Self {
            identity,
            public,
            id,
            id_text: id.to_string(),
            key: None,
            cosigner,
            cosigning_key: None,
            signed: VecDeque::new(),
            frontier: Frontier::new(),
            waiting: Vec::new(),
        })
    }

    /// Fixes the origin, once the policy has told its prefix.
    ///
    /// # Errors
    /// [`Error::Note`] when the prefix cannot be part of a key name.
    pub fn open(&mut self, prefix: &str) -> Result<(), Error> {
        let origin = format!("{prefix}/{}", self.id_text);
        let public =
            <&[u8; chancery_entry::COSIGNING_KEY_BYTES]>::try_from(self.cosigning_public());
        let public = public.map_err(|e| Error::Identity(e.to_string()))?;
        self.cosigning_key = Some(VerifierKey::new_ml_dsa_44_cosigner(&origin, public)?);
        self.key = Some(VerifierKey::new_ed25519(&origin, &self.public)?);
        Ok(())
    }

    /// The identity public key.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The public half of the second identity key, ML-DSA-44.
    pub fn cosigning_public(&self) -> &[u8] {
        self.cosigner.public().raw()
    }

    /// Every identity key as a note names it: the byte of its signature type, and the public key.
    pub fn identity_keys(&self) -> Vec<Vec<u8>> {
        let mut ed25519 = vec![KeyType::Ed25519.byte()];
        ed25519.extend_from_slice(&self.public);
        let mut ml_dsa = vec![KeyType::MlDsa44Cosignature.byte()];
        ml_dsa.extend_from_slice(self.cosigning_public());
        vec![ed25519, ml_dsa]
    }

    /// The log id.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// The log id as text.
    pub fn id_text(&self) -> &str {
        &self.id_text
    }

    /// The origin; empty before [`Log::open`].
    pub fn origin(&self) -> &str {
        self.key.as_ref().map_or("", |k| k.name())
    }

    /// The verifier key of its checkpoints; none before [`Log::open`].
    pub fn key(&self) -> Option<&VerifierKey> {
        self.key.as_ref()
    }

    /// The identity key, for the signed key set.
    pub fn identity(&self) -> &SigningKey {
        &self.identity
    }

    /// Index that the next entry gets.
    pub fn next_index(&self) -> u64 {
        self.frontier.size()
    }

    /// Number of entries that the service has not got.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Appends an entry; its leaf is in the tree from now on.
    ///
    /// # Errors
    /// [`Error::Entry`]; nothing was appended then.
    pub fn append(&mut self, entry: &Entry) -> Result<u64, Error> {
        let bytes = entry.encode()?;
        let index = self.frontier.size();
        self.frontier.append(leaf_hash(&bytes));
        self.waiting.push(bytes);
        Ok(index)
    }

    /// Hands out all waiting entries under one checkpoint.
    ///
    /// # Errors
    /// [`Error::Identity`] or [`Error::Note`]; the entries stay waiting then.
    pub fn close_segment(&mut self) -> Result<Segment, Error> {
        let size = self.frontier.size();
        let root = self.frontier.root();
        let checkpoint = self.sign_checkpoint(size, root)?;
        if self.signed.back() != Some(&(size, root)) {
            if self.signed.len() >= MAX_SIGNED {
                self.signed.pop_front();
            }
            self.signed.push_back((size, root));
        }
        let entries = std::mem::take(&mut self.waiting);
        let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        Ok(Segment { first_index: size.saturating_sub(count), entries, checkpoint, size, root })
    }

    /// The second signature of a checkpoint, as it stands in its line behind the key id; `None` for a
    /// tree that this log did not sign lately: nobody else chooses what this key signs.
    ///
    /// # Errors
    /// [`Error::Identity`] or [`Error::Note`].
    pub fn cosign(&self, size: u64, root: Hash) -> Result<Option<Vec<u8>>, Error> {
        if !self.signed.contains(&(size, root)) {
            return Ok(None);
        }
        let key = self.cosigning_key.as_ref();
        let key = key.ok_or_else(|| Error::Identity("log is not open".into()))?;
        let text = Checkpoint::new(key.name(), size, root)?.body();
        let message = cosignature::message(key, NO_TIME, &text)?;
        let signature = self.cosigner.sign(&message).map_err(|e| Error::Identity(e.to_string()))?;
        Ok(Some(cosignature::sign(key, NO_TIME, &text, |_| signature)?.bytes))
    }

    fn sign_checkpoint(&self, size: u64, root: Hash) -> Result<String, Error> {
        let key = self.key.as_ref().ok_or_else(|| Error::Identity("log is not open".into()))?;
        let body =
            Checkpoint { origin: key.name().to_owned(), size, root, extensions: Vec::new() }.body();
        let signature =
            self.identity.sign(body.as_bytes()).map_err(|e| Error::Identity(e.to_string()))?;
        Ok(note::sign(&body, key, |_| signature)?)
    }
}
