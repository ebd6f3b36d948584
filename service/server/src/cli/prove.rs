//! `chancery prove`: a token's tlog-proof, from the token and a service alone.

use std::path::PathBuf;
use std::process::ExitCode;

use chancery_entry::{Entry, TokenEntry};
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{Hash, LogId, TlogProof, leaf_hash};
use chancery_token::{KeyId, json, jws};
use chancery_validate::log::Search;
use clap::Args;
use serde_json::{Map, Value};

use super::fetch::{Place, Web};
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
    /// The log to look in for a token that names none, as Kubernetes' tokens do (default: every log
    /// in /signers)
    #[arg(long, value_name = "LOG_ID")]
    log: Option<LogId>,
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
    let found = match jti.and_then(address) {
        Some(address) if args.log.is_none_or(|log| log == address.0) => Some(address),
        Some((log, _)) => anyhow::bail!("the token names log `{log}`; leave `--log` out"),
        None => search(&base, args.log, &leaf)?,
    };
    let Some((log, index)) = found else {
        complain("not proved: no log that was searched holds this token");
        return Ok(ExitCode::from(1));
    };
    let place = Place::parse(&format!("{base}/log/{log}"));
    let vkey = String::from_utf8(place.read("vkey")?)?;
    let vkey = VerifierKey::parse(vkey.trim_end())?;
    let public: Result<[u8; 32], _> = vkey.public_key().try_into();
    if !public.is_ok_and(|p| LogId::of(&p) == log) {
        anyhow::bail!("the server's verifier key is not that of log `{log}`");
    }
    let text = String::from_utf8(place.read(&format!("proof/{index}"))?)?;
    let proof = TlogProof::parse(&text)?;
    if proof.index != index {
        anyhow::bail!("the server proved entry {} instead of {index}", proof.index);
    }
    if let Err(e) = proof.verify(&leaf, &[vkey]) {
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

/// The token's address in its log, from its `jti`; `None` where that is none.
fn address(jti: &str) -> Option<(LogId, u64)> {
    let mut parts = jti.split('.');
    let (Some(log), Some(index), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    Some((log.parse().ok()?, index.parse().ok()?))
}

/// Asks the service where the leaf stands. Its answer is believed only with a proof.
fn search(base: &str, log: Option<LogId>, leaf: &Hash) -> anyhow::Result<Option<(LogId, u64)>> {
    let web = Web::new();
    let logs = match log {
        Some(log) => vec![log],
        None => living(&web, base)?,
    };
    for log in logs {
        let url = format!("{base}/log/{log}/{}", Search::path(leaf));
        let (status, body) = web.get_with_status(&url)?;
        match (status, Search::parse(&body)) {
            (200, Some(Search::At(index))) => return Ok(Some((log, index))),
            (404, Some(Search::Absent { searched })) => {
                complain(&format!("log {log}: not among its first {searched} entries"));
            }
            _ => {
                let text = String::from_utf8_lossy(&body);
                anyhow::bail!("GET {url}: HTTP {status}: {}", text.trim().escape_debug());
            }
        }
    }
    Ok(None)
}

/// The logs that the service lists, that of the attached signer first.
fn living(web: &Web, base: &str) -> anyhow::Result<Vec<LogId>> {
    let signers: Value = serde_json::from_slice(&web.get(&format!("{base}/signers"))?)?;
    let list = signers.as_array().or_else(|| signers.get("signers")?.as_array());
    let list = list.map_or(&[][..], Vec::as_slice);
    let is_attached = |s: &&Value| s.get("attached").and_then(Value::as_bool) == Some(true);
    let (attached, others): (Vec<&Value>, Vec<&Value>) = list.iter().partition(is_attached);
    let ids = attached.into_iter().chain(others).filter_map(|s| s.get("log_id")?.as_str());
    Ok(ids.filter_map(|id| id.parse().ok()).take(MAX_LOGS).collect())
}
