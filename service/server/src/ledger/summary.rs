//! What a ledger learnt up to some checkpoint, kept beside it so that a start need not read a log
//! of days whole.
//!
//! A summary is the service's own cache, never a source of truth. What can be checked is checked: its
//! checkpoint is one that the log's key signed, and the log's later checkpoint is shown to extend it
//! (`logs/load.rs`). What cannot be checked without reading the log is that nothing is left out of it,
//! for example that a key fell. So it carries an HMAC by a key that lies in the service's data folder
//! and not in the store:
//!
//! - A damaged summary, one of another log or of another installation, and one that somebody wrote who
//!   can write to the store, are refused, and the log is read whole.
//! - An older one of the same log changes nothing: the entries after it are read.
//! - Who has the data folder too is the host. It could leave out keys or bring back fallen ones of this
//!   log in the key sets that it serves, which it can do without a summary as well (SECURITY.md, I5);
//!   keys that an operator named stay out all the same, and the log still says what happened.
//!
//! ```text
//! chancery ledger summary 2 <HMAC-SHA256 of the rest, hexadecimal>
//! {"checkpoint":"...","genesis":"...","policy":"...","keys":[...],"compromised":["..."],...}
//! ```

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::hmac;
use chancery_entry::Entry;
use chancery_tlog::Checkpoint;
use chancery_tlog::note::VerifierKey;
use chancery_token::b64;
use serde::{Deserialize, Serialize};

use super::{Audited, KeyRecord, Ledger};

/// How a summary begins; the number rises when the format changes.
const FORMAT: &str = "chancery ledger summary 2 ";
/// The HMAC is over this too: nothing else that the key is used for can pass for a summary.
const PURPOSE: &[u8] = b"chancery ledger summary 2\n";
/// A year of keys that live for minutes. What is larger is not a summary.
const MAX_BYTES: usize = 256 * 1024 * 1024;
/// Bytes of the key: as many as its hash function makes.
const KEY_BYTES: usize = 32;

/// The key that makes a summary this service's own.
#[derive(Clone, Debug)]
pub struct SummaryKey(hmac::Key);

impl SummaryKey {
    /// A key from its bytes.
    #[must_use]
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Reads the key from a file, or makes one. One that cannot be read is replaced: older summaries
    /// are foreign then, and logs are read whole once.
    ///
    /// # Errors
    /// The operating system's, when no key can be written; summaries are done without then.
    pub fn load_or_make(file: &Path) -> std::io::Result<Self> {
        let mut bytes = [0; KEY_BYTES];
        let read = File::open(file).and_then(|mut file| {
            file.read_exact(&mut bytes)?;
            // A longer file is not what was written.
            Ok(file.read(&mut [0])? == 0)
        });
        if matches!(read, Ok(true)) {
            return Ok(Self::new(&bytes));
        }
        aws_lc_rs::rand::fill(&mut bytes).map_err(std::io::Error::other)?;
        let draft = file.with_extension("new");
        let mut options = OpenOptions::new();
        let mut out = options.create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
        out.write_all(&bytes)?;
        out.sync_all()?;
        std::fs::rename(&draft, file)?;
        Ok(Self::new(&bytes))
    }
}

/// A ledger as it was at a checkpoint.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The checkpoint, a signed note.
    pub note: String,
    /// What it says.
    pub checkpoint: Checkpoint,
    /// What the entries under it say.
    pub ledger: Ledger,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    checkpoint: String,
    /// Entries, as they stand in the log.
    genesis: Option<String>,
    policy: Option<String>,
    keys: Vec<Key>,
    compromised: Vec<String>,
    /// By log id.
    audited: BTreeMap<String, Audited>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    announcement: String,
    announced_at: u64,
    signs_until: u64,
    last_iat: Option<u64>,
    last_exp: u64,
}

impl Summary {
    /// The summary as it is stored.
    ///
    /// # Errors
    /// A sentence, when an entry has no encoding; none that was decoded has not.
    pub fn encode(note: &str, ledger: &Ledger, key: &SummaryKey) -> Result<Vec<u8>, String> {
        let text =
            |entry: Entry| entry.encode().map(|b| b64::encode(&b)).map_err(|e| e.to_string());
        let keys = ledger.keys.values().map(|record| {
            Ok(Key {
                announcement: text(Entry::Announcement(record.announcement.clone()))?,
                announced_at: record.announced_at,
                signs_until: record.signs_until,
                last_iat: record.last_iat,
                last_exp: record.last_exp,
            })
        });
        let body = Body {
            checkpoint: note.to_owned(),
            genesis: ledger.genesis.clone().map(|g| text(Entry::Genesis(g))).transpose()?,
            policy: ledger.policy.clone().map(|p| text(Entry::Policy(p))).transpose()?,
            keys: keys.collect::<Result<_, String>>()?,
            compromised: ledger.compromised.iter().map(|kid| b64::encode(kid)).collect(),
            audited: ledger.audited.iter().map(|(log, at)| (b64::encode(log), *at)).collect(),
        };
        let body = serde_json::to_vec(&body).map_err(|e| e.to_string())?;
        let tag = hmac::sign(&key.0, &[PURPOSE, &body].concat());
        let mut out = format!("{FORMAT}{}\n", crate::service::hex(tag.as_ref())).into_bytes();
        out.extend_from_slice(&body);
        Ok(out)
    }

    /// Reads a summary back that this service wrote, of the log whose key this is.
    ///
    /// # Errors
    /// A sentence that says what it is not.
    pub fn decode(bytes: &[u8], key: &SummaryKey, vkey: &VerifierKey) -> Result<Self, String> {
        if bytes.len() > MAX_BYTES {
            return Err("it is too large".into());
        }
        let line_end = bytes.iter().position(|b| *b == b'\n').ok_or("it is cut off")?;
        let (head, body) = bytes.split_at_checked(line_end).ok_or("it is cut off")?;
        let body = body.get(1..).unwrap_or_default();
        let tag = head.strip_prefix(FORMAT.as_bytes()).and_then(from_hex);
        let tag = tag.ok_or("its format is not that of this version")?;
        hmac::verify(&key.0, &[PURPOSE, body].concat(), &tag)
            .map_err(|_| "this service did not write it, or it is damaged")?;
        let body: Body = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        let keys = std::slice::from_ref(vkey);
        let (checkpoint, _) = Checkpoint::open(body.checkpoint.as_bytes(), keys)
            .map_err(|e| format!("its checkpoint is not one of this log: {e}"))?;
        Ok(Self { ledger: ledger_of(&body)?, checkpoint, note: body.checkpoint })
    }
}

fn ledger_of(body: &Body) -> Result<Ledger, String> {
    let wrong = || "it holds an entry of another kind".to_owned();
    let mut ledger = Ledger::default();
    if let Some(genesis) = &body.genesis {
        let Entry::Genesis(genesis) = entry(genesis)? else { return Err(wrong()) };
        ledger.genesis = Some(genesis);
    }
    if let Some(policy) = &body.policy {
        let Entry::Policy(policy) = entry(policy)? else { return Err(wrong()) };
        ledger.policy = Some(policy);
    }
    for key in &body.keys {
        let Entry::Announcement(announcement) = entry(&key.announcement)? else {
            return Err(wrong());
        };
        let record = KeyRecord {
            announced_at: key.announced_at,
            signs_until: key.signs_until,
            last_iat: key.last_iat,
            last_exp: key.last_exp,
            announcement,
        };
        ledger.keys.insert(record.announcement.kid, record);
    }
    for kid in &body.compromised {
        ledger.compromised.insert(b64::decode_array(kid).map_err(|e| e.to_string())?);
    }
    for (log, at) in &body.audited {
        ledger.audited.insert(b64::decode_array(log).map_err(|e| e.to_string())?, *at);
    }
    Ok(ledger)
}

fn entry(text: &str) -> Result<Entry, String> {
    let bytes = b64::decode(text).map_err(|e| e.to_string())?;
    Entry::decode(&bytes).map_err(|e| e.to_string())
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    // One spelling only: every changed byte of a summary is found.
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}
