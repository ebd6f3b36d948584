//! `chancery prove`: a token's tlog-proof, from the token and a service alone.

use std::path::PathBuf;
use std::process::ExitCode;

use chancery_entry::{Entry, TokenEntry};
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{
    Checkpoint, Frontier, HASH_BYTES, Hash, LogId, TILE_WIDTH, TileId, TlogProof, leaf_hash,
};
use chancery_token::jwks::Member;
use chancery_token::{KeyId, json, jws};
use chancery_validate::LogAddress;
use chancery_validate::log::Search;
use clap::Args;
use serde_json::{Map, Value};

use super::fetch::{Place, Web};
use super::monitor::open_signed_set;
use super::{DEFAULT_DATA, complain, read_token, say, send};
use crate::control::Command;

/// The most logs that a token is looked for in: those whose keys live. More are named with `--log`.
const MAX_LOGS: usize = 64;

/// `chancery prove`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 proved, 1 the log does not hold the token, 2 not found out.\n\n\
    Example:\n  chancery prove --url http://127.0.0.1:8420 $TOKEN > token.tlog-proof"
)]
pub struct ProveArgs {
    /// Service whose logs to ask
    #[arg(long, conflicts_with = "data")]
    url: Option<String>,
    /// Data folder of the running service
    #[arg(long, env = "CHANCERY_DATA", default_value = DEFAULT_DATA)]
    data: PathBuf,
    /// The log to look in for a token that names none, as Kubernetes' tokens do (default: those in
    /// /signers whose signer has the token's key)
    // One in 64 begins with a hyphen.
    #[arg(long, value_name = "LOG_ID", allow_hyphen_values = true)]
    log: Option<LogId>,
    /// Read every leaf of the log, and ask no index: for logs whose keys are gone
    #[arg(long, requires = "log")]
    walk: bool,
    /// The token, or - for standard input
    token: String,
}

/// Prints a proof, after checking it against the token: exit 1 when the log holds another leaf or
/// none at the token's address, or no log holds its leaf.
pub fn prove(args: &ProveArgs) -> anyhow::Result<ExitCode> {
    let token = read_token(&args.token)?;
    let compact = jws::parse(&token, jws::MAX_TOKEN_BYTES)?;
    let claims = json::parse_object(&compact.payload)?;
    let leaf = leaf_of(&compact, &claims)?;
    let base = match &args.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => {
            let info = send(&args.data, &Command::Info)?;
            info.get("url").and_then(Value::as_str).unwrap_or_default().to_owned()
        }
    };
    let jti = claims.get("jti").and_then(Value::as_str);
    let named = jti.and_then(LogAddress::in_jti).map(|place| (place.log(), place.index()));
    let found = match named {
        Some(address) if args.log.is_none_or(|log| log == address.0) => Some(address),
        Some((log, _)) => anyhow::bail!("the token names log `{log}`; leave `--log` out"),
        None => match args.log.filter(|_| args.walk) {
            Some(log) => walk(&base, log, &leaf)?.map(|index| (log, index)),
            None => search(&base, &logs_of(&base, args.log, &compact)?, &leaf)?,
        },
    };
    let Some((log, index)) = found else {
        complain("not proved: no log that was searched holds this token");
        return Ok(ExitCode::from(1));
    };
    let place = Place::parse(&format!("{base}/log/{log}"));
    let vkey = key_of(&place, log)?;
    let text = String::from_utf8(place.read(&format!("proof/{index}"))?)?;
    let proof = TlogProof::parse(&text)?;
    if proof.index != index {
        anyhow::bail!("the server proved entry {} instead of {index}", proof.index);
    }
    if let Err(e) = proof.verify(&leaf, &[vkey]) {
        if named.is_none() {
            // The token did not name this place: a false answer says nothing about the token.
            anyhow::bail!("the server says that the token is at {log}.{index}, and it is not: {e}");
        }
        complain(&format!("not proved: the log does not hold this token at {log}.{index}: {e}"));
        return Ok(ExitCode::from(1));
    }
    say(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// The token's leaf, from the token alone.
fn leaf_of(compact: &jws::Compact<'_>, claims: &Map<String, Value>) -> anyhow::Result<Hash> {
    let kid = compact.header.kid.as_deref().unwrap_or_default();
    let kid: KeyId = kid.parse()?;
    let number = |name: &'static str| {
        let value = claims.get(name).ok_or_else(|| anyhow::anyhow!("`{name}` is missing"))?;
        Ok::<u64, anyhow::Error>(json::seconds(name, value)?)
    };
    let input = compact.signing_input.as_bytes();
    let entry = TokenEntry::of(*kid.as_bytes(), number("iat")?, number("exp")?, input);
    Ok(leaf_hash(&Entry::Token(entry).encode()?))
}

/// The verifier key of a log, which certifies itself.
pub(super) fn key_of(place: &Place, log: LogId) -> anyhow::Result<VerifierKey> {
    let vkey = String::from_utf8(place.read("vkey")?)?;
    // The first line; a second one has the key that cosigns.
    let vkey = VerifierKey::parse(vkey.lines().next().unwrap_or_default())?;
    let public: Result<[u8; 32], _> = vkey.public_key().try_into();
    if !public.is_ok_and(|p| LogId::of(&p) == log) {
        anyhow::bail!("the server's verifier key is not that of log `{log}`");
    }
    Ok(vkey)
}

/// The logs to search: the one that is named, or those whose signers sign that the token's key is
/// theirs. In any other the token is not to be expected, so its absence there says nothing.
fn logs_of(
    base: &str,
    named: Option<LogId>,
    compact: &jws::Compact<'_>,
) -> anyhow::Result<Vec<LogId>> {
    if let Some(log) = named {
        return Ok(vec![log]);
    }
    let kid = compact.header.kid.as_deref().unwrap_or_default();
    let (logs, is_cut) = living(&Web::new(), base)?;
    let mut own = Vec::new();
    for log in logs {
        let place = Place::parse(&format!("{base}/log/{log}"));
        let Some(set) = place.read_if_there("keys.jwt")? else { continue };
        let (_, members) = open_signed_set(&set, &key_of(&place, log)?, log)
            .map_err(|why| anyhow::anyhow!("the keys of log `{log}`: {why}"))?;
        // An imported key names no log: its tokens are in none.
        let here = |named: &str| named.starts_with(&format!("{log}."));
        let is_own = |member: &Member| member.kid == kid && member.log.as_deref().is_some_and(here);
        if members.iter().any(is_own) {
            own.push(log);
        }
    }
    if own.is_empty() {
        let more = if is_cut { "; not all of its logs were looked at" } else { "" };
        anyhow::bail!(
            "no signer of this service says that key `{}` is its own{more}; name the log to look in \
             with `--log`",
            kid.escape_debug()
        );
    }
    Ok(own)
}

/// Asks the service where the leaf stands. Its answer is believed only with a proof, and that the leaf
/// is nowhere only if the whole log was searched, as long as the log's signer said that it is.
fn search(base: &str, logs: &[LogId], leaf: &Hash) -> anyhow::Result<Option<(LogId, u64)>> {
    let web = Web::new();
    let mut unsearched = None;
    for &log in logs {
        let place = Place::parse(&format!("{base}/log/{log}"));
        let key = key_of(&place, log)?;
        let (checkpoint, _) = Checkpoint::open(&place.read("checkpoint")?, &[key])?;
        let url = format!("{base}/log/{log}/{}", Search::path(leaf));
        let (status, body) = web.get_with_status(&url)?;
        match (status, Search::parse(&body)) {
            (200, Some(Search::At(index))) => return Ok(Some((log, index))),
            (404, Some(Search::Absent { searched })) if searched >= checkpoint.size => {
                complain(&format!("log {log}: not among its first {searched} entries"));
            }
            (404, Some(Search::Absent { searched })) => {
                unsearched = Some((log, searched, checkpoint.size));
            }
            _ => {
                let text = String::from_utf8_lossy(&body);
                anyhow::bail!("GET {url}: HTTP {status}: {}", text.trim().escape_debug());
            }
        }
    }
    if let Some((log, searched, size)) = unsearched {
        anyhow::bail!(
            "log {log}: only the first {searched} of its {size} entries can be searched yet; ask again"
        );
    }
    Ok(None)
}

/// Reads all leaf hashes of a log, which must hash to the root that its signer signed: then the leaf
/// is in it or it is not, whatever the service says.
fn walk(base: &str, log: LogId, leaf: &Hash) -> anyhow::Result<Option<u64>> {
    let place = Place::parse(&format!("{base}/log/{log}"));
    let key = key_of(&place, log)?;
    let (checkpoint, _) = Checkpoint::open(&place.read("checkpoint")?, &[key])?;
    let (mut tree, mut found) = (Frontier::new(), None);
    while tree.size() < checkpoint.size
        && let Some(id) = TileId::at(0, tree.size() / TILE_WIDTH, checkpoint.size)
    {
        let tile = place.read(&id.path())?;
        if tile.len() != id.byte_len() {
            anyhow::bail!(
                "log {log}: `{}` has {} bytes, not {}",
                id.path(),
                tile.len(),
                id.byte_len()
            );
        }
        for hash in tile.chunks_exact(HASH_BYTES) {
            let hash = Hash(hash.try_into()?);
            if hash == *leaf && found.is_none() {
                found = Some(tree.size());
            }
            tree.append(hash);
        }
    }
    if tree.size() != checkpoint.size || tree.root() != checkpoint.root {
        anyhow::bail!("log {log}: its leaves do not hash to the root that its signer signed");
    }
    if found.is_none() {
        complain(&format!("log {log}: none of its {} entries", checkpoint.size));
    }
    Ok(found)
}

/// The logs that the service lists, that of the attached signer first, and whether there are more
/// than are looked at.
fn living(web: &Web, base: &str) -> anyhow::Result<(Vec<LogId>, bool)> {
    let signers: Value = serde_json::from_slice(&web.get(&format!("{base}/signers"))?)?;
    let list = signers.as_array().or_else(|| signers.get("signers")?.as_array());
    let list = list.map_or(&[][..], Vec::as_slice);
    let is_attached = |s: &&Value| s.get("attached").and_then(Value::as_bool) == Some(true);
    let (attached, others): (Vec<&Value>, Vec<&Value>) = list.iter().partition(is_attached);
    let ids = attached.into_iter().chain(others).filter_map(|s| s.get("log_id")?.as_str());
    let mut ids = ids.filter_map(|id| id.parse().ok());
    let logs = ids.by_ref().take(MAX_LOGS).collect();
    Ok((logs, ids.next().is_some()))
}
