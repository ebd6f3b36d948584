//! The trust anchor: which logs a relying party believes, and so which keys.
//!
//! Without an anchor whoever serves `jwks.json` decides which keys exist. With one, a key counts
//! only if its announcement stands in a log of the anchor: under a checkpoint that the log's own key
//! signed, for this issuer, and with a window that the served one does not widen. All logs of an anchor
//! are believed about every issuer whose keys they announce.
//!
//! An anchor names logs by their keys, or the directory of a deployment by its key. The directory names
//! the logs then: a signer that is restarted needs no change of the anchor, and nothing of a log counts
//! that the directory does not hold. With witnesses, nothing of the directory counts that not enough of
//! them have cosigned, so that whoever holds its key cannot show different directories to different
//! relying parties.
//!
//! While the log's signer lives, its signed key set (`keys.jwt`) must list the key as well, so that
//! what it has withdrawn is gone, and stays gone ([`Recollection`]) although that set is withheld
//! later. Who serves the logs can withhold it from the beginning, and with it a withdrawal, but
//! cannot make up a key (INVARIANT I8).

mod named;

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;

use chancery_entry::{Announcement, Entry};
use chancery_tlog::note::{KeyType, VerifierKey};
use chancery_tlog::policy::Policy;
use chancery_tlog::{
    Checkpoint, EntriesTileId, LogId, ProofError, TILE_WIDTH, TileId, TileSource, decode_entries,
    inclusion_proof, leaf_hash, verify_inclusion,
};
use chancery_token::jwks::{KeySet, MAX_SET_BYTES, Member, Window};
use chancery_token::{Algorithm, KeyId, PublicKey, json, jws};
use serde_json::Value;

use crate::explain::shown;
use crate::keys::Doubt;
use crate::{DEFAULT_LEEWAY_S, Keys, LogAddress, MAX_LEEWAY_S};

use self::named::{Names, Older};

pub use self::named::{DirectoryObject, HeldLog, NotHeld};

/// `typ` of a signer's own part of the key set.
const KEY_SET_TYP: &str = "jwk-set+jwt";

/// Bytes of a signer's own key set as a JWS: the largest set, in base64url, with some room.
const MAX_SIGNED_SET_BYTES: usize = MAX_SET_BYTES / 3 * 4 + 4096;

/// Log keys of one anchor: a fleet of a few dozen signers, each with its predecessors of a year.
const MAX_LOGS: usize = 10_000;

/// Directories of one anchor: those of the deployments that one relying party accepts tokens of.
const MAX_DIRECTORIES: usize = 64;

/// What a line that names a directory begins with; the second is the word of c2sp.org/tlog-policy.
const DIRECTORY: [&str; 2] = ["directory", "log"];

/// What the lines of a c2sp.org/tlog-policy begin with that say who must have cosigned.
const WITNESSING: [&str; 3] = ["witness", "group", "quorum"];

/// The logs that are believed, each by the key that signs its checkpoints, or by a directory that names
/// it.
#[derive(Clone, Debug)]
pub struct Anchor {
    logs: HashMap<LogId, VerifierKey>,
    /// Keys that must have signed the checkpoints of such a log too.
    cosigning: HashMap<LogId, VerifierKey>,
    directories: Vec<VerifierKey>,
    /// Who must have cosigned the directory; `None` if nobody is named.
    witnesses: Option<Policy>,
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

    /// A log's latest checkpoint that both of its keys signed (`checkpoint.cosigned`). Asked for instead
    /// of the other one where the anchor has both keys.
    ///
    /// # Errors
    /// As for [`AnchorReader::checkpoint`].
    fn cosigned(&self, log: LogId) -> Result<Vec<u8>, Self::Error> {
        self.checkpoint(log)
    }

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

    /// An object of the directory that names the logs. Nothing asks for it where the anchor names none.
    ///
    /// # Errors
    /// As for [`AnchorReader::checkpoint`].
    fn directory(&self, object: DirectoryObject) -> Result<Vec<u8>, Self::Error>;
}

/// What is wrong with an anchor's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// Not one key.
    #[error(
        "the anchor names no log; write `directory ` and the key that `/directory/vkey` serves, or one \
         verifier key a line, as `/log/<log id>/vkey` serves it"
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
    /// A cosigning key without the log that it belongs to.
    #[error(
        "the anchor has a cosigning key of log `{0}` and not the log's own; write both lines that \
         `/log/<log id>/vkey` serves"
    )]
    CosigningAlone(LogId),
    /// A log that is named twice, perhaps with two names of which one is wrong.
    #[error("line {line} of the anchor names a log that an earlier line names already")]
    Repeated {
        /// One-based.
        line: usize,
    },
    /// What the anchor says about witnesses is no policy.
    #[error("the anchor's witnesses: {0}")]
    Witnesses(String),
    /// Witnesses that would cosign nothing.
    #[error(
        "the anchor names witnesses and no directory, which is what they cosign; write `directory ` and \
         the key that `/directory/vkey` serves"
    )]
    NothingToWitness,
    /// More keys than any deployment has.
    #[error(
        "the anchor names more than {MAX_LOGS} logs, or more than {MAX_DIRECTORIES} directories"
    )]
    TooMany,
}

impl Anchor {
    /// Reads verifier keys (c2sp.org/signed-note), one a line; `#` begins a comment. A line that begins
    /// with `directory` has a directory's key: it names the logs. Any other key is that of one log: a
    /// signer that is restarted has a new log, whose key has to be taken in.
    ///
    /// Beside a log's Ed25519 key the anchor may have its ML-DSA-44 key of the same name. Then nothing of
    /// the log counts that not both signed: what a quantum computer forges, it forges with one of them.
    ///
    /// Lines that begin with `witness`, `group` and `quorum` say who must have cosigned the directory, as
    /// in c2sp.org/tlog-policy; `log` means `directory` there, so that such a policy is an anchor. Where
    /// witnesses are named, so must the quorum be.
    ///
    /// # Errors
    /// What is wrong with the text, and in which line.
    pub fn parse(text: &str) -> Result<Self, AnchorError> {
        let (mut logs, mut cosigning) = (HashMap::new(), HashMap::<LogId, VerifierKey>::new());
        let mut directories: Vec<VerifierKey> = Vec::new();
        // Lines keep their numbers, by which a policy's faults are told.
        let mut policy = String::new();
        let mut has_witnesses = false;
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
            if WITNESSING.contains(&word) {
                has_witnesses = true;
                policy.push_str(line);
            }
            policy.push('\n');
            if line.is_empty() || WITNESSING.contains(&word) {
                continue;
            }
            let is_directory = DIRECTORY.contains(&word);
            // A policy's log may have a URL behind its key.
            let key = if is_directory {
                rest.split_whitespace().next().unwrap_or_default()
            } else {
                line
            };
            let at = index.saturating_add(1);
            if !is_directory && let Some((id, key)) = cosigning_key(key) {
                if cosigning.insert(id, key).is_some() {
                    return Err(AnchorError::Repeated { line: at });
                }
                continue;
            }
            let key = ed25519(key).map_err(|why| AnchorError::Line { line: at, why })?;
            let is_known = match is_directory {
                true if directories.contains(&key.1) => true,
                true => {
                    directories.push(key.1);
                    false
                }
                false => logs.insert(key.0, key.1).is_some(),
            };
            if is_known {
                return Err(AnchorError::Repeated { line: at });
            }
            if logs.len() > MAX_LOGS || directories.len() > MAX_DIRECTORIES {
                return Err(AnchorError::TooMany);
            }
        }
        let witnesses = has_witnesses.then(|| Policy::parse(policy)).transpose();
        let witnesses = witnesses.map_err(|error| AnchorError::Witnesses(error.to_string()))?;
        let of_log = |id: &LogId, key: &VerifierKey| {
            logs.get(id).is_some_and(|log: &VerifierKey| log.name() == key.name())
        };
        if let Some((id, _)) = cosigning.iter().find(|(id, key)| !of_log(id, key)) {
            return Err(AnchorError::CosigningAlone(*id));
        }
        match (logs.is_empty(), directories.is_empty()) {
            (true, true) => Err(AnchorError::Empty),
            (false, true) if witnesses.is_some() => Err(AnchorError::NothingToWitness),
            _ => Ok(Self { logs, cosigning, directories, witnesses }),
        }
    }

    /// The keys of the directories that the anchor names.
    #[must_use]
    pub fn directories(&self) -> &[VerifierKey] {
        &self.directories
    }

    /// Whether the anchor itself names a log, without a directory.
    #[must_use]
    pub fn names(&self, log: LogId) -> bool {
        self.logs.contains_key(&log)
    }

    /// The key that must have signed a log's checkpoints beside the log's own, if the anchor has one.
    #[must_use]
    pub fn cosigning_key(&self, log: LogId) -> Option<&VerifierKey> {
        self.cosigning.get(&log)
    }

    /// The logs that the anchor itself names, in no order.
    pub fn logs(&self) -> impl Iterator<Item = LogId> {
        self.logs.keys().copied()
    }

    /// The keys of a set, of which those are believed whose announcement `reader` shows, at the
    /// time `now` in seconds since 1970. A window is believed as far as signer and server agree.
    /// What signers have said before is taken from `recollection`, and kept there.
    #[must_use]
    pub fn announced(
        &self,
        set: &KeySet,
        now: u64,
        reader: &impl AnchorReader,
        recollection: &mut Recollection,
    ) -> Keys {
        let mut unannounced = HashMap::new();
        let mut members = Vec::with_capacity(set.members().len());
        let mut logs = HashMap::new();
        let mut names = None;
        for member in set.members() {
            let believed = address_of(member).and_then(|address| {
                let id = address.log();
                let log = logs
                    .entry(id)
                    .or_insert_with(|| self.open(id, &mut names, now, reader, recollection));
                let log = log.as_ref().map_err(Clone::clone)?;
                log.believe(member, address.index(), reader, recollection)
            });
            match believed {
                Ok(believed) => members.push(believed),
                Err(doubt) => {
                    unannounced.insert(member.kid.clone(), doubt);
                    members.push(member.clone());
                }
            }
        }
        // Names and number are those of a set, so this cannot fail; without keys nothing is believed.
        let mut believed = KeySet::from_members(members).unwrap_or_default();
        believed.refused.clone_from(&set.refused);
        Keys::announced(Arc::new(believed), unannounced)
    }

    /// A log, by its pinned key, or by what the directory says of it; the directory is read once.
    fn open(
        &self,
        id: LogId,
        names: &mut Option<Result<Names, Doubt>>,
        now: u64,
        reader: &impl AnchorReader,
        recollection: &mut Recollection,
    ) -> Result<Log, Doubt> {
        if let Some(key) = self.logs.get(&id) {
            let second = self.cosigning_key(id);
            return Ok(Log::open(key, second, id, now, reader, recollection));
        }
        if self.directories.is_empty() {
            return Err(refuted(format!("log `{id}` is not in the anchor")));
        }
        let names =
            names.get_or_insert_with(|| Names::open(self, Older::Refused, reader, recollection));
        let names = names.as_ref().map_err(|doubt| doubt.clone())?;
        let named = names.log(id, reader, recollection)?;
        recollection.hear(&named.key, id, now, reader);
        Ok(Log { id, checkpoint: Ok(named.checkpoint), now })
    }
}

/// A log's id and key.
fn ed25519(vkey: &str) -> Result<(LogId, VerifierKey), String> {
    let key = VerifierKey::parse(vkey).map_err(|error| error.to_string())?;
    let public = <&[u8; 32]>::try_from(key.public_key()).ok();
    match public.filter(|_| key.key_type() == KeyType::Ed25519) {
        Some(public) => Ok((LogId::of(public), key)),
        None => Err("it is of another algorithm".to_owned()),
    }
}

/// The id of the log whose checkpoints an ML-DSA-44 key cosigns, by the end of its name, and the key;
/// `None` if the text is something else.
fn cosigning_key(vkey: &str) -> Option<(LogId, VerifierKey)> {
    let key = VerifierKey::parse(vkey).ok()?;
    let id = key.name().rsplit('/').next()?.parse().ok()?;
    (key.key_type() == KeyType::MlDsa44Cosignature).then_some((id, key))
}

/// Where a key was announced.
fn address_of(member: &Member) -> Result<LogAddress, Doubt> {
    let text = member.log.as_deref().ok_or_else(|| refuted("it has no member `log`"))?;
    LogAddress::of_key(text)
        .ok_or_else(|| refuted(format!("`{}` is no place in a log", shown(text))))
}

/// What signers have said about their keys, so that nobody can make a relying party forget it by
/// withholding it later. It holds what is in memory: a relying party that starts anew knows nothing.
#[derive(Clone, Debug, Default)]
pub struct Recollection {
    signers: HashMap<LogId, Said>,
    /// Keys of logs that a directory named: an entry of a log stays in it.
    named: HashMap<LogId, VerifierKey>,
    /// The last checkpoint of each directory, by origin.
    directories: HashMap<String, Checkpoint>,
}

/// What one signer said last.
#[derive(Clone, Debug)]
struct Said {
    sequence: u64,
    /// Until when the set counts as that of a living signer.
    exp: u64,
    /// `None` if it cannot be understood, although the signer signed it: then none of its keys is
    /// believed.
    keys: Option<Arc<KeySet>>,
    /// Keys that were asked for and not in the latest set.
    withdrawn: HashSet<KeyId>,
}

/// One log, opened for a set of keys.
struct Log {
    id: LogId,
    checkpoint: Result<Checkpoint, Doubt>,
    now: u64,
}

impl Log {
    fn open(
        key: &VerifierKey,
        second: Option<&VerifierKey>,
        id: LogId,
        now: u64,
        reader: &impl AnchorReader,
        recollection: &mut Recollection,
    ) -> Self {
        recollection.hear(key, id, now, reader);
        let keys: Vec<_> = std::iter::once(key).chain(second).cloned().collect();
        let note = if second.is_some() { reader.cosigned(id) } else { reader.checkpoint(id) };
        let checkpoint = match note {
            Err(error) => Err(unread("checkpoint", &error)),
            Ok(note) => Checkpoint::open_by_all(&note, &keys)
                .map(|(checkpoint, _)| checkpoint)
                .map_err(|error| {
                    refuted(format!("the checkpoint of log `{id}` is not believed: {error}"))
                }),
        };
        Self { id, checkpoint, now }
    }

    fn believe(
        &self,
        member: &Member,
        index: u64,
        reader: &impl AnchorReader,
        recollection: &mut Recollection,
    ) -> Result<Member, Doubt> {
        let announcement = self.announcement(index, reader)?;
        let mut window = compare(member, &announcement)?;
        // No token of the key lives longer, so a later end in a served set means nothing good.
        let last = [announcement.max_lifetime_s, MAX_LEEWAY_S]
            .into_iter()
            .fold(announcement.signs_until, u64::saturating_add);
        let mut exp = member.exp.map_or(last, |exp| exp.min(last));
        if let Some(own) = recollection.listed(self.id, member, self.now)? {
            let signed = own.window.ok_or_else(|| refuted("its signer lists no window for it"))?;
            window = Window {
                nbf: window.nbf.max(signed.nbf),
                signs_until: window.signs_until.min(signed.signs_until),
            };
            exp = exp.min(own.exp.unwrap_or(exp));
        }
        Ok(Member { window: Some(window), exp: Some(exp), ..member.clone() })
    }

    /// The announcement at a place, under a root that the log's key signed.
    fn announcement(&self, index: u64, reader: &impl AnchorReader) -> Result<Announcement, Doubt> {
        let Self { id, .. } = self;
        let checkpoint = self.checkpoint.as_ref().map_err(Clone::clone)?;
        let read = |bundle| reader.entries(*id, bundle);
        let tiles = Tiles { reader, log: *id };
        let entry = proven(&format!("log `{id}`"), checkpoint, index, read, &tiles)?;
        match Entry::decode(&entry) {
            Ok(Entry::Announcement(announcement)) => Ok(announcement),
            Ok(_) => Err(refuted(format!("entry {index} of log `{id}` announces no key"))),
            Err(error) => {
                Err(refuted(format!("entry {index} of log `{id}` is not understood: {error}")))
            }
        }
    }
}

impl Recollection {
    /// Takes in what a log's signer says now, unless it has said something later already.
    fn hear(&mut self, key: &VerifierKey, log: LogId, now: u64, reader: &impl AnchorReader) {
        let Ok(said) = Said::read(key, log, now, reader) else { return };
        match self.signers.get_mut(&log) {
            Some(known) if said.sequence < known.sequence => {}
            Some(known) => {
                let listed = |kid: &KeyId| said.lists(kid);
                let withdrawn = known.withdrawn.drain().filter(|kid| !listed(kid)).collect();
                *known = Said { withdrawn, ..said };
            }
            None => drop(self.signers.insert(log, said)),
        }
    }

    /// The key as its signer lists it; `None` if the signer has said nothing that still counts.
    fn listed(&mut self, log: LogId, member: &Member, now: u64) -> Result<Option<Member>, Doubt> {
        let Some(said) = self.signers.get_mut(&log) else { return Ok(None) };
        let kid = member.key.kid();
        let gone = || refuted(format!("the signer of log `{log}` does not list it any more"));
        if said.withdrawn.contains(&kid) {
            return Err(gone());
        }
        if now >= said.exp {
            // A dead signer's announcements stand for themselves.
            return Ok(None);
        }
        let Some(keys) = &said.keys else {
            return Err(refuted(format!("what the signer of log `{log}` lists is not understood")));
        };
        match keys.members().iter().find(|listed| listed.key == member.key) {
            Some(listed) => Ok(Some(listed.clone())),
            None => {
                said.withdrawn.insert(kid);
                Err(gone())
            }
        }
    }
}

impl Said {
    /// The signer's own key set, if the log's key signed it and its time is not over; else why it
    /// does not count.
    fn read(
        key: &VerifierKey,
        log: LogId,
        now: u64,
        reader: &impl AnchorReader,
    ) -> Result<Self, String> {
        let text = |error: &dyn Display| error.to_string();
        let bytes = reader.key_set(log).map_err(|error| text(&error))?;
        let jwt = str::from_utf8(&bytes).map_err(|error| text(&error))?;
        let token = jws::parse(jwt.trim_end(), MAX_SIGNED_SET_BYTES).map_err(|e| text(&e))?;
        let public = PublicKey::from_raw(Algorithm::Ed25519, key.public_key())
            .map_err(|error| text(&error))?;
        jws::verify(&token, &public, false).map_err(|error| text(&error))?;
        if token.header.typ.as_deref() != Some(KEY_SET_TYP) {
            return Err("it is not a key set".to_owned());
        }
        let set = json::parse_object(&token.payload).map_err(|error| text(&error))?;
        let number = |name: &'static str| {
            set.get(name).and_then(Value::as_u64).ok_or_else(|| format!("it has no `{name}`"))
        };
        if set.get("log").and_then(Value::as_str) != Some(log.to_string().as_str()) {
            return Err("it is of another log".to_owned());
        }
        let exp = number("exp")?;
        if number("iat")? > now.saturating_add(DEFAULT_LEEWAY_S) || exp <= now {
            return Err("its time is over".to_owned());
        }
        let keys = KeySet::from_object(&set).ok().map(Arc::new);
        Ok(Self { sequence: number("seq")?, exp, keys, withdrawn: HashSet::new() })
    }

    fn lists(&self, kid: &KeyId) -> bool {
        self.keys.iter().flat_map(|keys| keys.members()).any(|member| member.key.kid() == *kid)
    }
}

/// The entry at a place, proven to be under a checkpoint.
fn proven<S: TileSource<Error: Display>>(
    log: &str,
    checkpoint: &Checkpoint,
    index: u64,
    read: impl FnOnce(EntriesTileId) -> Result<Vec<u8>, S::Error>,
    tiles: &S,
) -> Result<Vec<u8>, Doubt> {
    let size = checkpoint.size;
    // It may have grown since this checkpoint.
    let bundle = EntriesTileId::at(index / TILE_WIDTH, size)
        .filter(|_| index < size)
        .ok_or_else(|| Doubt::Unread(format!("{log} ends before entry {index}")))?;
    let bytes = read(bundle).map_err(|error| unread("entries", &error))?;
    let entries = decode_entries(&bytes, usize::from(bundle.width))
        .map_err(|error| refuted(error.to_string()))?;
    let place = usize::try_from(index % TILE_WIDTH).unwrap_or(usize::MAX);
    let entry = entries.into_iter().nth(place).ok_or_else(|| refuted("the bundle is too short"))?;
    let hashes = inclusion_proof(tiles, index, size).map_err(|error| match error {
        ProofError::Source(error) => unread("tile", &error),
        ProofError::Log(error) => refuted(format!("the log's tiles are malformed: {error}")),
    })?;
    verify_inclusion(&leaf_hash(&entry), index, size, &hashes, &checkpoint.root).map_err(
        |error| refuted(format!("entry {index} is not under the root of {log}: {error}")),
    )?;
    Ok(entry)
}

/// A served key must be the announced one; its window may be narrower, never wider.
fn compare(member: &Member, announced: &Announcement) -> Result<Window, Doubt> {
    if announced.kid != *member.key.kid().as_bytes()
        || announced.algorithm != member.key.algorithm().as_str()
    {
        return Err(refuted("another key is announced there"));
    }
    if member.issuer.as_deref() != Some(announced.issuer.as_str()) {
        return Err(refuted(format!("it is announced for issuer `{}`", shown(&announced.issuer))));
    }
    let window = member.window.ok_or_else(|| refuted("it has no window"))?;
    if window.nbf < announced.nbf || window.signs_until > announced.signs_until {
        return Err(refuted(format!(
            "its window is wider than the announced one, {} to {}",
            announced.nbf, announced.signs_until
        )));
    }
    Ok(window)
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

fn unread(what: &str, error: &impl Display) -> Doubt {
    let error = shown(&error.to_string());
    Doubt::Unread(format!("the log's {what} could not be read: {error}"))
}

fn refuted(why: impl Into<String>) -> Doubt {
    Doubt::Refuted(why.into())
}
