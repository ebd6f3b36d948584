//! The trust anchor: which logs a relying party believes, and so which keys.
//!
//! Without an anchor whoever serves `jwks.json` decides which keys exist. With one, a key counts
//! only if its announcement stands in a log of the anchor: under a checkpoint that the log's own key
//! signed, for this issuer, and with a window that the served one does not widen. While the log's
//! signer lives, its signed key set (`keys.jwt`) must list the key as well, so that what it has
//! withdrawn is gone. Who serves the logs can withhold that set, and with it a withdrawal, but cannot
//! make up a key (INVARIANT I8).

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use chancery_entry::{Announcement, Entry};
use chancery_tlog::note::{KeyType, VerifierKey};
use chancery_tlog::{
    Checkpoint, EntriesTileId, LogId, TILE_WIDTH, TileId, TileSource, decode_entries,
    inclusion_proof, leaf_hash, verify_inclusion,
};
use chancery_token::jwks::{KeySet, Member, Window};
use chancery_token::{Algorithm, PublicKey, json, jws};
use serde_json::Value;

use crate::explain::shown;
use crate::{DEFAULT_LEEWAY_S, Keys, LogAddress, MAX_LEEWAY_S};

/// `typ` of a signer's own part of the key set.
const KEY_SET_TYP: &str = "jwk-set+jwt";

/// Log keys of one anchor: a fleet of a few dozen signers, each with its predecessors of a year.
const MAX_LOGS: usize = 10_000;

/// The logs that are believed, each by the key that signs its checkpoints.
#[derive(Clone, Debug)]
pub struct Anchor {
    logs: HashMap<LogId, VerifierKey>,
}

/// Reads logs by their id. Whatever it answers is checked.
pub trait AnchorReader {
    /// Why something could not be read.
    type Error: Display;

    /// A log's latest signed checkpoint.
    ///
    /// # Errors
    /// Whatever kept it from being read; keys announced in the log are then not believed.
    fn checkpoint(&self, log: LogId) -> Result<Vec<u8>, Self::Error>;

    /// A tile of hashes: the partial tile of that width, or the full tile at its place.
    ///
    /// # Errors
    /// As for [`AnchorReader::checkpoint`].
    fn tile(&self, log: LogId, id: TileId) -> Result<Vec<u8>, Self::Error>;

    /// A bundle of entries: of that width, or the full one at its place.
    ///
    /// # Errors
    /// As for [`AnchorReader::checkpoint`].
    fn entries(&self, log: LogId, id: EntriesTileId) -> Result<Vec<u8>, Self::Error>;

    /// The signer's own part of the key set, `keys.jwt`.
    ///
    /// # Errors
    /// Whatever kept it from being read; announcements alone then count.
    fn key_set(&self, log: LogId) -> Result<Vec<u8>, Self::Error>;
}

/// What is wrong with an anchor's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// Not one key.
    #[error(
        "the anchor names no log; write one verifier key a line, as `/log/<log id>/vkey` serves it"
    )]
    Empty,
    /// A line that is no key.
    #[error("line {line} of the anchor is not an Ed25519 verifier key `name+hash+key`: {why}")]
    Line {
        /// One-based.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// More keys than any deployment has.
    #[error("the anchor names more than {MAX_LOGS} logs")]
    TooMany,
}

impl Anchor {
    /// Reads verifier keys (c2sp.org/signed-note), one a line; `#` begins a comment. Keys are pinned
    /// by log: a signer that is restarted has a new log, whose key has to be taken in.
    ///
    /// # Errors
    /// What is wrong with the text, and in which line.
    pub fn parse(text: &str) -> Result<Self, AnchorError> {
        let mut logs = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let fault = |why: String| AnchorError::Line { line: index.saturating_add(1), why };
            let key = VerifierKey::parse(line).map_err(|error| fault(error.to_string()))?;
            let public = <&[u8; 32]>::try_from(key.public_key()).ok();
            let public = public.filter(|_| key.key_type() == KeyType::Ed25519);
            let public = public.ok_or_else(|| fault("it is of another algorithm".to_owned()))?;
            logs.insert(LogId::of(public), key);
            if logs.len() > MAX_LOGS {
                return Err(AnchorError::TooMany);
            }
        }
        if logs.is_empty() { Err(AnchorError::Empty) } else { Ok(Self { logs }) }
    }

    /// Whether the anchor names a log.
    #[must_use]
    pub fn names(&self, log: LogId) -> bool {
        self.logs.contains_key(&log)
    }

    /// The logs that the anchor names, in no order.
    pub fn logs(&self) -> impl Iterator<Item = LogId> {
        self.logs.keys().copied()
    }

    /// The keys of a set, of which those are believed whose announcement `reader` shows, at the
    /// time `now` in seconds since 1970. A window is believed as far as signer and server agree.
    #[must_use]
    pub fn announced(&self, set: &KeySet, now: u64, reader: &impl AnchorReader) -> Keys {
        let mut unannounced = HashMap::new();
        let mut signed_sets = HashMap::new();
        let mut members = Vec::with_capacity(set.members().len());
        for member in set.members() {
            match self.believe(member, now, reader, &mut signed_sets) {
                Ok(believed) => members.push(believed),
                Err(why) => {
                    unannounced.insert(member.kid.clone(), why);
                    members.push(member.clone());
                }
            }
        }
        // Names and number are those of a set, so this cannot fail; without keys nothing is believed.
        let mut believed = KeySet::from_members(members).unwrap_or_default();
        believed.refused.clone_from(&set.refused);
        Keys::announced(Arc::new(believed), unannounced)
    }

    fn believe(
        &self,
        member: &Member,
        now: u64,
        reader: &impl AnchorReader,
        signed_sets: &mut HashMap<LogId, Option<KeySet>>,
    ) -> Result<Member, String> {
        let text = member.log.as_deref().ok_or("it has no member `log`")?;
        let address = LogAddress::of_key(text)
            .ok_or_else(|| format!("`{}` is no place in a log", shown(text)))?;
        let log = address.log();
        let key = self.logs.get(&log).ok_or_else(|| format!("log `{log}` is not in the anchor"))?;
        let announcement = announcement(key, address, reader)?;
        let mut window = compare(member, &announcement)?;
        let signed =
            signed_sets.entry(log).or_insert_with(|| signed_set(key, log, now, reader).ok());
        if let Some(signed) = signed {
            let listed = signed.get(&member.kid).filter(|listed| listed.key == member.key);
            let listed = listed
                .ok_or_else(|| format!("the signer of log `{log}` does not list it any more"))?;
            let own = listed.window.ok_or("the signer lists it without a window")?;
            window = Window {
                nbf: window.nbf.max(own.nbf),
                signs_until: window.signs_until.min(own.signs_until),
            };
        }
        // No token of the key lives longer, so a later end in a served set means nothing good.
        let last = [announcement.max_lifetime_s, MAX_LEEWAY_S]
            .into_iter()
            .fold(announcement.signs_until, u64::saturating_add);
        let exp = Some(member.exp.map_or(last, |exp| exp.min(last)));
        Ok(Member { window: Some(window), exp, ..member.clone() })
    }
}

/// The announcement at a place, under a root that the log's key signed.
fn announcement(
    key: &VerifierKey,
    address: LogAddress,
    reader: &impl AnchorReader,
) -> Result<Announcement, String> {
    let (log, index) = (address.log(), address.index());
    let note = reader.checkpoint(log).map_err(|error| unread("checkpoint", &error))?;
    let (checkpoint, _) = Checkpoint::open(&note, std::slice::from_ref(key))
        .map_err(|error| format!("the checkpoint of log `{log}` is not believed: {error}"))?;
    let size = checkpoint.size;
    let bundle = EntriesTileId::at(index / TILE_WIDTH, size)
        .filter(|_| index < size)
        .ok_or_else(|| format!("log `{log}` ends before entry {index}"))?;
    let bytes = reader.entries(log, bundle).map_err(|error| unread("entries", &error))?;
    let entries =
        decode_entries(&bytes, usize::from(bundle.width)).map_err(|error| error.to_string())?;
    let place = usize::try_from(index % TILE_WIDTH).unwrap_or(usize::MAX);
    let entry = entries.get(place).ok_or("the bundle of entries is too short")?;

    let tiles = Tiles { reader, log };
    let hashes = inclusion_proof(&tiles, index, size).map_err(|error| error.to_string())?;
    verify_inclusion(&leaf_hash(entry), index, size, &hashes, &checkpoint.root)
        .map_err(|error| format!("entry {index} is not under the root of log `{log}`: {error}"))?;
    match Entry::decode(entry) {
        Ok(Entry::Announcement(announcement)) => Ok(announcement),
        Ok(_) => Err(format!("entry {index} of log `{log}` announces no key")),
        Err(error) => Err(format!("entry {index} of log `{log}` is not understood: {error}")),
    }
}

/// A served key must be the announced one; its window may be narrower, never wider.
fn compare(member: &Member, announced: &Announcement) -> Result<Window, String> {
    if announced.kid != *member.key.kid().as_bytes()
        || announced.algorithm != member.key.algorithm().as_str()
    {
        return Err("another key is announced there".to_owned());
    }
    if member.issuer.as_deref() != Some(announced.issuer.as_str()) {
        return Err(format!("it is announced for issuer `{}`", shown(&announced.issuer)));
    }
    let window = member.window.ok_or("it has no window")?;
    if window.nbf < announced.nbf || window.signs_until > announced.signs_until {
        return Err(format!(
            "its window is wider than the announced one, {} to {}",
            announced.nbf, announced.signs_until
        ));
    }
    Ok(window)
}

/// The signer's own key set, if it is fresh; `Err` says why it does not count.
fn signed_set(
    key: &VerifierKey,
    log: LogId,
    now: u64,
    reader: &impl AnchorReader,
) -> Result<KeySet, String> {
    let bytes = reader.key_set(log).map_err(|error| unread("keys.jwt", &error))?;
    let text = str::from_utf8(&bytes).map_err(|error| error.to_string())?;
    let token = jws::parse(text.trim_end(), chancery_token::jwks::MAX_SET_BYTES)
        .map_err(|error| error.to_string())?;
    let public = PublicKey::from_raw(Algorithm::Ed25519, key.public_key())
        .map_err(|error| error.to_string())?;
    jws::verify(&token, &public, false).map_err(|error| error.to_string())?;
    if token.header.typ.as_deref() != Some(KEY_SET_TYP) {
        return Err("it is not a key set".to_owned());
    }
    let set = json::parse_object(&token.payload).map_err(|error| error.to_string())?;
    let seconds = |name: &'static str| {
        set.get(name).and_then(|value| json::seconds(name, value).ok()).ok_or("a time is missing")
    };
    if set.get("log").and_then(Value::as_str) != Some(log.to_string().as_str()) {
        return Err("it is of another log".to_owned());
    }
    if seconds("iat")? > now.saturating_add(DEFAULT_LEEWAY_S) || seconds("exp")? <= now {
        return Err("its time is over".to_owned());
    }
    KeySet::from_object(&set).map_err(|error| error.to_string())
}

/// One log's tiles.
struct Tiles<'r, R> {
    reader: &'r R,
    log: LogId,
}

impl<R: AnchorReader> TileSource for Tiles<'_, R> {
    type Error = R::Error;

    fn tile(&self, id: TileId) -> Result<Vec<u8>, R::Error> {
        self.reader.tile(self.log, id)
    }
}

fn unread(what: &str, error: &impl Display) -> String {
    format!("the log's {what} could not be read: {}", shown(&error.to_string()))
}
