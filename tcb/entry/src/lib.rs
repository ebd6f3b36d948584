//! What stands in a signer log: every entry kind, in deterministic CBOR.
//!
//! An entry is one CBOR array (RFC 8949) whose first element is its kind. Encoding is the core
//! deterministic encoding of RFC 8949 section 4.2.1: definite lengths, shortest integers.
//! [`Entry::decode`] accepts exactly the bytes that [`Entry::encode`] makes, so that one fact has
//! one leaf hash and a relying party can recompute a token's leaf from the token alone.
//!
//! No entry holds personal data: what a log shows the world is volume and timing per key
//! (`docs/token-life.md`). Entries made by the signer carry its word; whatever the service asserts
//! gets kinds of its own, so that nobody mistakes one for the other.

mod codec;
pub mod directory;
pub mod evidence;

use aws_lc_rs::digest::{SHA256, digest};

/// The largest entry, in bytes: a tlog-tiles entry bundle length is a 16-bit number.
pub const MAX_ENTRY_BYTES: usize = 65_535;

/// The longest reason text in a [`Compromise`], in bytes: one paragraph for an auditor.
pub const MAX_REASON_BYTES: usize = 1_024;

/// Bytes of an ML-DSA-44 public key (FIPS 204 section 4, table 2).
pub const COSIGNING_KEY_BYTES: usize = 1_312;

/// Version of the entry formats, stated by each log's genesis.
pub const FORMAT_VERSION: u64 = 1;

/// One entry of a signer log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The first entry of every log.
    Genesis(Genesis),
    /// A policy version; it decides nothing before this entry is committed (INVARIANT I6).
    Policy(PolicyVersion),
    /// A key's public half with its window, before or at its first use.
    Announcement(Announcement),
    /// One token.
    Token(TokenEntry),
    /// A token entry whose signature was never released.
    Void(Void),
    /// A key that must no longer be believed.
    Compromise(Compromise),
    /// An announced window that ends earlier than announced.
    Narrowing(Narrowing),
    /// Somebody else's public key that a realm's key set lists for a while.
    Imported(Imported),
    /// The service's word, not the signer's: which audit records a stored segment holds.
    AuditSegment(AuditSegment),
    /// The service's word: which segments it deletes because they are too old.
    AuditRemoval(AuditRemoval),
    /// The service's word, not the signer's: how it appraised this signer's evidence.
    Appraised(Appraised),
}

/// The first entry: which software, policy and evidence stand behind this log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// Name and version of the signer software.
    pub software: String,
    /// Unix seconds at which the signer made its identity key.
    pub started_at: u64,
    /// SHA-256 of the policy document in force at the start.
    pub policy_digest: [u8; 32],
    /// SHA-256 of the evidence for the identity keys, as the signer made it ([`evidence`]); `None` in
    /// logs of signers that made none.
    pub evidence_digest: Option<[u8; 32]>,
    /// The last checkpoint of the log that this one continues; `None` says explicitly that there
    /// is none.
    pub predecessor: Option<Predecessor>,
    /// The signer's second identity key, which cosigns its checkpoints so that the history outlives
    /// quantum attacks: ML-DSA-44 of [`COSIGNING_KEY_BYTES`] as FIPS 204 encodes it. `None` only in
    /// logs of signers that had none.
    pub cosigning_key: Option<Vec<u8>>,
}

/// The log that a new signer continues, as the new signer verified it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// The predecessor's verifier key (C2SP signed-note `vkey`).
    pub vkey: String,
    /// Its last checkpoint known to the service, a signed note, verified by the new signer.
    pub checkpoint: String,
}

/// A policy version that the signer accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyVersion {
    /// Its version, strictly increasing within a log.
    pub version: u64,
    /// SHA-256 of the policy document as handed over.
    pub digest: [u8; 32],
}

/// Why a key may sign without having been published for `publish_lead`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Announced `publish_lead` before it signs: the normal case.
    Led,
    /// The first key of its realm and algorithm in this log.
    First,
    /// Replaces a compromised key.
    Replacement,
}

/// A key's announcement. Its window is never widened afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The realm's name.
    pub realm: String,
    /// The only issuer that the key may speak for (INVARIANT I3).
    pub issuer: String,
    /// The public JWK: the required members of RFC 7638 section 3.2 and `alg`, as compact JSON.
    pub jwk: String,
    /// RFC 7638 thumbprint, SHA-256.
    pub kid: [u8; 32],
    /// JOSE algorithm name.
    pub algorithm: String,
    /// First second in which the key may sign.
    pub nbf: u64,
    /// First second in which it no longer may.
    pub signs_until: u64,
    /// The longest lifetime, in seconds, of a token that it may sign.
    pub max_lifetime_s: u64,
    /// Whether it signs only after `publish_lead`.
    pub start: Start,
}

/// One token. Whoever holds the token can recompute this; nobody else can guess it, because the
/// signing input holds 128 bits of randomness in `jti`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenEntry {
    /// Thumbprint of the signing key.
    pub kid: [u8; 32],
    /// The token's `iat`, Unix seconds.
    pub iat: u64,
    /// The token's `exp`, Unix seconds.
    pub exp: u64,
    /// SHA-256 of the JWS signing input (RFC 7515 section 5.1).
    pub digest: [u8; 32],
}

impl TokenEntry {
    /// The entry for the token whose JWS signing input is `signing_input`.
    #[must_use]
    pub fn of(kid: [u8; 32], iat: u64, exp: u64, signing_input: &[u8]) -> Self {
        Self { kid, iat, exp, digest: sha256(signing_input) }
    }
}

/// Why a signature was never released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoidReason {
    /// The service did not acknowledge the batch in time.
    NotCommitted,
    /// The signature would have been made too long after the key's window.
    TooLate,
    /// The key was compromised before the release.
    KeyCompromised,
    /// Signing failed.
    SigningFailed,
}

/// A note for auditors: the token at `index` was never released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Void {
    /// Index of the token's entry in this log.
    pub index: u64,
    /// Why.
    pub reason: VoidReason,
}

/// A key that must no longer be believed, of this log or of a dead signer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compromise {
    /// Thumbprint of the key.
    pub kid: [u8; 32],
    /// Unix seconds at which the signer logged the fact.
    pub at: u64,
    /// The operator's words, or `same realm as <kid>` for keys that fell with a named one.
    pub reason: String,
}

/// An announced window that ends earlier: an explicit rotation took over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Narrowing {
    /// Thumbprint of the key.
    pub kid: [u8; 32],
    /// The new end, earlier than the announced one.
    pub signs_until: u64,
}

/// A public key that was made elsewhere and never signs here: tokens under it are in no log. It is
/// listed so that what it signed before stays valid while issuing moves here. A later entry of the
/// same realm and `kid` takes this one's place; one whose `until` is not after `at` takes it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The realm's name.
    pub realm: String,
    /// The only issuer that the key may speak for (INVARIANT I3).
    pub issuer: String,
    /// The `kid` that tokens under it name, as its maker chose it.
    pub kid: String,
    /// The public JWK: the required members of RFC 7638 section 3.2 and `alg`, as compact JSON.
    pub jwk: String,
    /// Unix seconds at which the signer logged the fact.
    pub at: u64,
    /// First second in which it is no longer listed.
    pub until: u64,
    /// Whether the key set that everybody reads lists it, or only the cluster's own verifier.
    pub in_discovery: bool,
}

/// What the service says it stored of its audit. The signer does not see records or segments; it
/// only logs the statement, so that what was stated can neither be changed nor left out later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSegment {
    /// Id of the log whose decisions the records are about: this one, or a dead signer's.
    pub log: [u8; 16],
    /// Number of the segment in that log, from 0.
    pub number: u64,
    /// Number of its first record in that log, from 0.
    pub first: u64,
    /// How many records.
    pub records: u64,
    /// Hour since 1970 in which all of them were made.
    pub hour: u64,
    /// SHA-256 of the segment as it is stored.
    pub digest: [u8; 32],
}

/// Which segments of its audit the service says it deletes. It says so before, so that what is gone
/// without a word was not deleted by retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRemoval {
    /// Id of the log whose decisions the records are about: this one, or a dead signer's.
    pub log: [u8; 16],
    /// Number of the first segment in that log.
    pub first: u64,
    /// How many segments, whose numbers follow each other.
    pub segments: u64,
    /// Hour since 1970 before which all their records were made.
    pub before: u64,
    /// Unix seconds at which the signer logged the statement.
    pub at: u64,
}

/// How the service says that it appraised the evidence of this log's signer. The signer does not look
/// at it; whoever cares appraises the evidence again, by reference values of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appraised {
    /// Unix seconds at which the evidence was judged.
    pub at: u64,
    /// SHA-256 of the evidence as the signer made it.
    pub evidence: [u8; 32],
    /// SHA-256 of the appraisal policy.
    pub policy: [u8; 32],
    /// Whether the evidence was accepted.
    pub accepted: bool,
    /// SHA-256 of the attestation result as the service publishes it.
    pub result: [u8; 32],
}

/// Why bytes are not an entry, or a value cannot become one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not CBOR of the expected shape.
    #[error("entry is not CBOR of a known shape: {0}")]
    Shape(String),
    /// The kind is not one of this format version.
    #[error("entry kind `{0}` is unknown to format version {FORMAT_VERSION}; use a newer reader")]
    UnknownKind(u64),
    /// The bytes mean an entry but are not its one encoding.
    #[error("entry is not in deterministic encoding")]
    NotDeterministic,
    /// The entry is larger than a tile bundle can hold.
    #[error("entry of `{0}` bytes exceeds the limit of {MAX_ENTRY_BYTES}")]
    TooLarge(usize),
}

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests;
