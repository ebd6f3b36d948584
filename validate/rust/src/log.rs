//! Looking a token up in the log that it names: five verdicts, never mixed up.
//!
//! The token alone gives its leaf and, by `jti`, its place. Where somebody else composes the tokens,
//! whoever serves the log is asked for the place of the leaf; a false answer is found out, and "not
//! there" is no proof of anything, so it is [`Verdict::Missing`] and never [`Verdict::Forged`]. The log gives a signed checkpoint and
//! tiles. Nothing that is read is trusted: the log's key must be the one that the log id names, the
//! checkpoint must be signed by it, and the leaf must stand under its root. So the reader, and
//! whoever serves the log to it, can cause [`Verdict::Unknown`], or hold back news; it cannot make a
//! forged token look logged, nor a logged one forged.

use std::cell::RefCell;
use std::fmt::Display;

use chancery_entry::{Entry, TokenEntry};
use chancery_tlog::note::{KeyType, VerifierKey};
use chancery_tlog::{
    Checkpoint, Hash, LogId, ProofError, TileId, TileSource, TlogProof, inclusion_proof,
    leaf_from_tiles, leaf_hash, verify_inclusion,
};

use chancery_token::json;
use serde_json::Value;

use crate::explain::shown;
use crate::{Rejection, RejectionCode, Validated};

/// Seconds within which a token's entry is under a published checkpoint: the service publishes
/// about once a second, and stores and caches get the rest.
pub const DEFAULT_PUBLISH_WITHIN_S: u64 = 10;
/// Seconds by which the clock of whoever composes tokens that are found by digest may lag behind the
/// signer's, which signs no others: their entries are published that much later after `iat`.
pub const COMPOSERS_LAG_S: u64 = 10;

/// Reads one log, that of [`Validated::log_address`]. Whatever it answers is checked.
pub trait LogReader {
    /// Why something could not be read.
    type Error: Display;

    /// The log's latest signed checkpoint, a C2SP signed note; where there is a
    /// [`LogReader::cosigning_key`], the latest that both keys signed (`checkpoint.cosigned`).
    ///
    /// # Errors
    /// Whatever kept it from being read; the verdict is then [`Verdict::Unknown`].
    fn checkpoint(&self) -> Result<Vec<u8>, Self::Error>;

    /// The bytes of a tile of hashes: the partial tile of that width, or the full tile at its place.
    ///
    /// # Errors
    /// As for [`LogReader::checkpoint`].
    fn tile(&self, id: TileId) -> Result<Vec<u8>, Self::Error>;

    /// The log's verifier key, `name+hex+base64` (c2sp.org/signed-note), in the first line. It is believed
    /// only if the log id is that of its public key, so it may come from anywhere.
    ///
    /// # Errors
    /// As for [`LogReader::checkpoint`].
    fn vkey(&self) -> Result<String, Self::Error>;

    /// A key that must have signed the checkpoint too, from whoever asks and not from whoever serves
    /// the log: what a trust anchor pins ([`crate::anchor::Anchor::cosigning_key`]). Then nobody can make
    /// up a history who has broken or stolen one of the two keys.
    fn cosigning_key(&self) -> Option<VerifierKey> {
        None
    }

    /// Where the leaf stands, as whoever serves the log says. Asked only for tokens that are found by
    /// digest, after the checkpoint was read.
    ///
    /// # Errors
    /// As for [`LogReader::checkpoint`].
    fn search(&self, leaf: &Hash) -> Result<Search, Self::Error>;
}

/// What whoever serves a log says about where a leaf stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// There.
    At(u64),
    /// Nowhere among so many leaves from the first on.
    Absent {
        /// How many.
        searched: u64,
    },
}

impl Search {
    /// The path to ask below a log, `by-digest/<leaf hash in hexadecimal>`.
    #[must_use]
    pub fn path(leaf: &Hash) -> String {
        let mut path = "by-digest/".to_owned();
        for byte in leaf.0 {
            path.push_str(&format!("{byte:02x}"));
        }
        path
    }

    /// Reads the body of an answer: the JSON member `index`, or `searched` alone.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let members = json::parse_object(body).ok()?;
        let number = |name: &str| members.get(name).map(Value::as_u64);
        match (number("index"), number("searched")) {
            (Some(index), _) => index.map(Self::At),
            (None, searched) => searched.flatten().map(|searched| Self::Absent { searched }),
        }
    }
}

/// What a log says about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The token's leaf stands at its place under a verified root.
    InLog {
        /// The place.
        index: u64,
    },
    /// The place is beyond the log's end, or the leaf is not found, and the time to publish the entry
    /// is not over.
    Pending,
    /// The place is beyond the log's end, or the leaf is not found, although the time to publish the
    /// entry is over.
    Missing,
    /// Another leaf stands at the token's place under a verified root: a proof that the log's owner
    /// never logged this token there.
    Forged {
        /// The place.
        index: u64,
        /// The token's leaf.
        expected: Hash,
        /// The leaf that stands there.
        found: Hash,
        /// The log's verifier key.
        vkey: String,
        /// The proof that `found` stands at the place; it verifies with `vkey` alone.
        proof: Box<TlogProof>,
    },
    /// The log could not be read, or what was read does not agree with its signed checkpoint.
    Unknown {
        /// Why, for a person.
        why: String,
    },
}

/// What a verdict means for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogPolicy {
    /// The log is not asked.
    #[default]
    Off,
    /// No verdict rejects a token; the caller reports those that would, and looks at a pending one
    /// again after the publishing time.
    Report,
    /// Only a token that is in the log is accepted.
    Require,
}

/// Whether evidence of the signer's isolation is demanded.
///
/// This version appraises no evidence: [`Attestation::Report`] finds it unknown, and under
/// [`Attestation::Require`] every token is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Attestation {
    /// Evidence is not looked at.
    #[default]
    Off,
    /// What is found is told, and rejects nothing.
    Report,
    /// Only tokens of signers whose evidence is accepted are accepted.
    Require,
}

impl Attestation {
    /// Whether a token is acceptable whose signer's evidence nobody could appraise.
    ///
    /// # Errors
    /// [`RejectionCode::AttestationUnknown`] under [`Attestation::Require`].
    pub fn without_evidence(self) -> Result<(), Rejection> {
        match self {
            Self::Off | Self::Report => Ok(()),
            Self::Require => Err(Rejection::new(
                RejectionCode::AttestationUnknown,
                "this version of Chancery appraises no evidence",
            )),
        }
    }
}

/// Looks `token` up at the time `now`, in seconds since 1970; its entry should be under a published
/// root within `publish_within_s` seconds after its `iat`. Reads each tile at most once.
pub fn look_up(
    token: &Validated,
    reader: &impl LogReader,
    now: u64,
    publish_within_s: u64,
) -> Verdict {
    find(token, reader, now, publish_within_s).unwrap_or_else(|why| Verdict::Unknown { why })
}

/// When the token's entry is to be published at the latest, in seconds since 1970: `publish_within_s`
/// after its `iat`, and [`COMPOSERS_LAG_S`] later if it is found by digest.
#[must_use]
pub fn published_by(token: &Validated, publish_within_s: u64) -> u64 {
    let lag_s = if token.log_address().is_some() { 0 } else { COMPOSERS_LAG_S };
    token.claims().iat.saturating_add(publish_within_s).saturating_add(lag_s)
}

/// Whether a token with this verdict is acceptable; one that is in no log by its nature is not unknown
/// for a while, but never acceptable where the log is demanded.
///
/// # Errors
/// [`RejectionCode::KeyNotLogged`], or those of [`apply`].
pub fn judge(token: &Validated, verdict: &Verdict, policy: LogPolicy) -> Result<(), Rejection> {
    let names_a_log = token.log_address().is_some() || token.key_log().is_some();
    if policy == LogPolicy::Require && !names_a_log {
        let kid = token.kid();
        let detail = format!("key `{}` was announced in no log", shown(kid));
        return Err(Rejection::new(RejectionCode::KeyNotLogged, detail));
    }
    apply(verdict, policy)
}

/// Whether this verdict is acceptable.
///
/// # Errors
/// Under [`LogPolicy::Require`] the code of every verdict but [`Verdict::InLog`]; those of
/// [`Verdict::Pending`] and [`Verdict::Unknown`] are retryable.
pub fn apply(verdict: &Verdict, policy: LogPolicy) -> Result<(), Rejection> {
    if policy != LogPolicy::Require {
        return Ok(());
    }
    let (code, detail) = match verdict {
        Verdict::InLog { .. } => return Ok(()),
        Verdict::Pending => {
            (RejectionCode::LogPending, "the entry is not published yet".to_owned())
        }
        Verdict::Missing => {
            (RejectionCode::LogMissing, "the log does not hold the entry".to_owned())
        }
        Verdict::Forged { index, expected, found, .. } => (
            RejectionCode::LogForged,
            format!("at index {index} stands leaf `{found}`, the token's is `{expected}`"),
        ),
        Verdict::Unknown { why } => (RejectionCode::LogUnknown, why.clone()),
    };
    Err(Rejection::new(code, detail))
}

/// The verdict, or why it is unknown.
fn find(
    token: &Validated,
    reader: &impl LogReader,
    now: u64,
    publish_within_s: u64,
) -> Result<Verdict, String> {
    let address = token.log_address();
    let log = address.or(token.key_log()).ok_or("the token's key was announced in no log")?.log();
    let expected = leaf(token)?;
    let key = log_key(reader, log)?;

    let note = reader.checkpoint().map_err(|error| unread("checkpoint", &error))?;
    let keys: Vec<_> = std::iter::once(key.clone()).chain(reader.cosigning_key()).collect();
    let (checkpoint, note) = Checkpoint::open_by_all(&note, &keys)
        .map_err(|error| format!("the log's checkpoint is not believed: {error}"))?;
    let index = match address {
        Some(address) => Some(address.index()),
        None => searched(reader, &expected, checkpoint.size)?,
    };
    let Some(index) = index.filter(|index| *index < checkpoint.size) else {
        let published = published_by(token, publish_within_s);
        return Ok(if now < published { Verdict::Pending } else { Verdict::Missing });
    };

    // Which leaf stands there is believed only under the verified root. A leaf that is not under it
    // shows that whoever serves the tiles is broken or lies, and nothing about the token.
    let tiles = Tiles { reader, read: RefCell::default() };
    let found = leaf_from_tiles(&tiles, index, checkpoint.size).map_err(unproven)?;
    let hashes = inclusion_proof(&tiles, index, checkpoint.size).map_err(unproven)?;
    verify_inclusion(&found, index, checkpoint.size, &hashes, &checkpoint.root)
        .map_err(|error| format!("the log's tiles do not agree with its checkpoint: {error}"))?;
    if found == expected {
        return Ok(Verdict::InLog { index });
    }
    if address.is_none() {
        // The token did not name this place: the answer is false, which says nothing about the token.
        return Err(format!("the log is said to hold the token at {index}, and it does not"));
    }
    let proof = TlogProof { extra: None, index, hashes, checkpoint: note.encode() };
    Ok(Verdict::Forged { index, expected, found, vkey: key.to_string(), proof: Box::new(proof) })
}

/// The place of a leaf, as whoever serves the log says. That it is nowhere is an answer only if the
/// whole tree at hand was searched.
fn searched<R: LogReader>(reader: &R, leaf: &Hash, size: u64) -> Result<Option<u64>, String> {
    match reader.search(leaf).map_err(|error| unread("index of digests", &error))? {
        Search::At(index) => Ok(Some(index)),
        Search::Absent { searched } if searched >= size => Ok(None),
        Search::Absent { searched } => Err(format!(
            "only the first {searched} of the log's {size} entries can be searched yet"
        )),
    }
}

/// The leaf of the token's entry, from the token alone.
fn leaf(token: &Validated) -> Result<Hash, String> {
    let claims = token.claims();
    let kid = *token.key_thumbprint().as_bytes();
    let entry = TokenEntry::of(kid, claims.iat, claims.exp, token.signing_input().as_bytes());
    let bytes = Entry::Token(entry).encode().map_err(|error| error.to_string())?;
    Ok(leaf_hash(&bytes))
}

/// The log's key, which certifies itself: the log id is its hash.
fn log_key<R: LogReader>(reader: &R, log: LogId) -> Result<VerifierKey, String> {
    let vkey = reader.vkey().map_err(|error| unread("verifier key", &error))?;
    let key = VerifierKey::parse(vkey.lines().next().unwrap_or_default())
        .map_err(|error| format!("the log's verifier key is not believed: {error}"))?;
    let public = <&[u8; 32]>::try_from(key.public_key()).ok();
    match public {
        Some(public) if key.key_type() == KeyType::Ed25519 && LogId::of(public) == log => Ok(key),
        _ => Err(format!("verifier key `{}` is not that of log `{log}`", shown(&vkey))),
    }
}

/// A reader's tiles, each read once: leaf and proof want the same ones.
struct Tiles<'r, R> {
    reader: &'r R,
    read: RefCell<Vec<(TileId, Vec<u8>)>>,
}

impl<R: LogReader> TileSource for Tiles<'_, R> {
    type Error = R::Error;

    fn tile(&self, id: TileId) -> Result<Vec<u8>, R::Error> {
        let known = self.read.borrow().iter().find(|(known, _)| *known == id).cloned();
        if let Some((_, bytes)) = known {
            return Ok(bytes);
        }
        let bytes = self.reader.tile(id)?;
        self.read.borrow_mut().push((id, bytes.clone()));
        Ok(bytes)
    }
}

fn unread(what: &str, error: &impl Display) -> String {
    format!("the log's {what} could not be read: {}", shown(&error.to_string()))
}

fn unproven<E: Display>(error: ProofError<E>) -> String {
    match error {
        ProofError::Source(error) => unread("tile", &error),
        ProofError::Log(error) => format!("the log's tiles are malformed: {error}"),
    }
}
