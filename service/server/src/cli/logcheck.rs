//! `chancery log check`: walks a whole log, every byte of it.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;

use chancery_entry::Entry;
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{
    Checkpoint, EntriesTileId, LogId, TILE_WIDTH, TileBuilder, TileId, decode_entries, leaf_hash,
};
use clap::Args;
use serde_json::json;

use super::fetch::Place;
use super::{complain, say};

/// `chancery log check`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  chancery log check http://127.0.0.1:8420/log/LOG_ID\n  \
    chancery log check chancery-data/store/log/LOG_ID")]
pub struct CheckArgs {
    /// The log: a URL or folder that ends before `checkpoint`
    log: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What the entries say, checked as they are read.
#[derive(Default)]
struct Story {
    windows: BTreeMap<[u8; 32], Window>,
    tokens: u64,
    voids: u64,
    compromised: u64,
}

struct Window {
    nbf: u64,
    signs_until: u64,
    max_lifetime_s: u64,
}

/// Walks a log. Exit 0: every byte agrees with the signed checkpoint; 1: something does not.
pub fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let place = Place::parse(&args.log);
    let vkey = String::from_utf8(place.read("vkey")?)?;
    let note = place.read("checkpoint")?;
    // Where the place names a log id, it must be this log's: the key then cannot be another's.
    let named = args.log.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let named = named.parse::<LogId>().ok();
    match walk(&place, vkey.trim_end(), &note, named) {
        Ok((checkpoint, story)) => {
            let document = json!({
                "ok": true,
                "origin": checkpoint.origin,
                "size": checkpoint.size,
                "root": checkpoint.root.to_string(),
                "keys": story.windows.len(),
                "tokens": story.tokens,
                "voids": story.voids,
                "compromised": story.compromised,
            });
            if args.json {
                say(&document.to_string())?;
            } else {
                say(&format!(
                    "{}: {} entries agree with the signed checkpoint ({} tokens, {} keys, {} voids, \
                     {} compromised)",
                    checkpoint.origin,
                    checkpoint.size,
                    story.tokens,
                    story.windows.len(),
                    story.voids,
                    story.compromised
                ))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(e) => {
            if args.json {
                say(&json!({"ok": false, "error": format!("{e:#}")}).to_string())?;
            } else {
                complain(&format!("NOT OK: {e:#}"));
            }
            Ok(ExitCode::from(1))
        }
    }
}

fn walk(
    place: &Place,
    vkey: &str,
    note: &[u8],
    named: Option<LogId>,
) -> anyhow::Result<(Checkpoint, Story)> {
    let vkey = VerifierKey::parse(vkey)?;
    let public: Result<[u8; 32], _> = vkey.public_key().try_into();
    let id = LogId::of(&public.map_err(|_| anyhow::anyhow!("vkey is not an Ed25519 key"))?);
    if Some(id.to_string().as_str()) != vkey.name().rsplit('/').next() {
        anyhow::bail!("origin `{}` does not end in the log id of its key", vkey.name());
    }
    if named.is_some_and(|named| named != id) {
        anyhow::bail!("the verifier key there is that of log `{id}`");
    }
    let (checkpoint, _) = Checkpoint::open(note, std::slice::from_ref(&vkey))?;
    let size = checkpoint.size;
    let mut builder = TileBuilder::new();
    let mut story = Story::default();
    let mut progress = Progress::new(size);
    for bundle in 0..size.div_ceil(TILE_WIDTH) {
        let Some(id) = EntriesTileId::at(bundle, size) else { break };
        let bytes = place.read(&id.path())?;
        let entries = decode_entries(&bytes, usize::from(id.width))
            .map_err(|e| anyhow::anyhow!("{}: {e}", id.path()))?;
        for (index, bytes) in (bundle.saturating_mul(TILE_WIDTH)..).zip(&entries) {
            let entry = Entry::decode(bytes).map_err(|e| anyhow::anyhow!("entry {index}: {e}"))?;
            story.read(index, entry)?;
            for (tile, expected) in builder.append(leaf_hash(bytes)) {
                compare(place, tile, &expected)?;
            }
        }
        progress.at(builder.size());
    }
    progress.done();
    for (tile, expected) in builder.edge().filter(|(tile, _)| !tile.is_full()) {
        compare(place, tile, expected)?;
    }
    if builder.root() != checkpoint.root {
        anyhow::bail!(
            "the entries hash to `{}`, the checkpoint says `{}`",
            builder.root(),
            checkpoint.root
        );
    }
    Ok((checkpoint, story))
}

fn compare(place: &Place, tile: TileId, expected: &[u8]) -> anyhow::Result<()> {
    if place.read(&tile.path())? != expected {
        anyhow::bail!("{} does not hash its entries", tile.path());
    }
    Ok(())
}

impl Story {
    fn read(&mut self, index: u64, entry: Entry) -> anyhow::Result<()> {
        if (index == 0) != matches!(entry, Entry::Genesis(_)) {
            anyhow::bail!("entry {index}: genesis is the first entry and only that");
        }
        match entry {
            Entry::Announcement(a) => {
                if !names_its_key(&a) {
                    anyhow::bail!(
                        "entry {index}: the announcement names another key than it shows"
                    );
                }
                let window = Window {
                    nbf: a.nbf,
                    signs_until: a.signs_until,
                    max_lifetime_s: a.max_lifetime_s,
                };
                if self.windows.insert(a.kid, window).is_some() {
                    anyhow::bail!("entry {index}: the key was announced before");
                }
            }
            Entry::Narrowing(n) => match self.windows.get_mut(&n.kid) {
                Some(w) if n.signs_until <= w.signs_until => w.signs_until = n.signs_until,
                _ => anyhow::bail!("entry {index}: a window can only be narrowed"),
            },
            Entry::Token(t) => {
                self.tokens = self.tokens.saturating_add(1);
                let window = self.windows.get(&t.kid);
                let fits = window.is_some_and(|w| {
                    w.nbf <= t.iat
                        && t.iat < w.signs_until
                        && t.exp.saturating_sub(t.iat) <= w.max_lifetime_s
                });
                if !fits {
                    anyhow::bail!("entry {index}: a token outside its key's announced window");
                }
            }
            Entry::Void(v) => {
                self.voids = self.voids.saturating_add(1);
                if v.index >= index {
                    anyhow::bail!("entry {index}: voids an entry that is not before it");
                }
            }
            Entry::Compromise(_) => self.compromised = self.compromised.saturating_add(1),
            Entry::Genesis(_) | Entry::Policy(_) => {}
        }
        Ok(())
    }
}

fn names_its_key(announcement: &chancery_entry::Announcement) -> bool {
    let jwk = chancery_token::json::parse_object(announcement.jwk.as_bytes());
    let key = jwk.and_then(|jwk| chancery_token::PublicKey::from_jwk(&jwk));
    key.is_ok_and(|k| {
        *k.kid().as_bytes() == announcement.kid && k.algorithm().as_str() == announcement.algorithm
    })
}

/// A progress line on standard error, when somebody watches.
struct Progress {
    total: u64,
    shown: Option<u64>,
    watched: bool,
}

impl Progress {
    fn new(total: u64) -> Self {
        Self { total, shown: None, watched: std::io::stderr().is_terminal() }
    }

    fn at(&mut self, done: u64) {
        let percent = done.saturating_mul(100).checked_div(self.total);
        if self.watched && percent != self.shown {
            use std::io::Write;
            self.shown = percent;
            let filled = usize::try_from(percent.unwrap_or(0) / 4).unwrap_or(0);
            let bar = "#".repeat(filled);
            let _ = write!(std::io::stderr(), "\r[{bar:<25}] {}%", percent.unwrap_or(0));
        }
    }

    fn done(&self) {
        if self.watched && self.shown.is_some() {
            complain("");
        }
    }
}
