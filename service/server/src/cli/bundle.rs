//! `chancery bundle`: what leads from a token to its signer's evidence, in one file, and the walk
//! along it (`chancery attest verify --bundle`), which needs no network.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chancery_attest::{Base64, Bundle, Logged, MAX_BUNDLE_BYTES, Policy, SignerEvidence, Walk};
use chancery_entry::Entry;
use chancery_tlog::{Checkpoint, EntriesTileId, LogId, TILE_WIDTH, decode_entries};
use chancery_token::{KeyId, json, jws};
use chancery_validate::LogAddress;
use clap::Args;
use serde_json::{Value, json};

use super::attest::{printable, read, read_policy};
use super::fetch::Place;
use super::monitor::open_signed_set;
use super::prove::key_of;
use super::{DEFAULT_DATA, read_token, say, send};
use crate::control::Command;

/// Bundles of entries that are searched for an announcement that no key set lists any more: a million
/// entries before the token.
const MAX_SEARCHED: u64 = 4_096;

/// `chancery bundle`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  chancery bundle --url http://127.0.0.1:8420 $TOKEN > bundle.json\n  \
    chancery attest verify --bundle bundle.json --policy policy.toml $TOKEN"
)]
pub struct BundleArgs {
    /// Service whose logs to ask
    #[arg(long, conflicts_with = "data")]
    url: Option<String>,
    /// Data folder of the running service
    #[arg(long, env = "CHANCERY_DATA", default_value = DEFAULT_DATA)]
    data: PathBuf,
    /// The token, or - for standard input
    token: String,
}

/// Prints a bundle. Nothing of it is judged here but that it is complete.
pub fn bundle(args: &BundleArgs) -> anyhow::Result<ExitCode> {
    let token = read_token(&args.token)?;
    let compact = jws::parse(&token, jws::MAX_TOKEN_BYTES)?;
    let claims = json::parse_object(&compact.payload)?;
    let named = claims.get("jti").and_then(Value::as_str).and_then(LogAddress::in_jti);
    let named = named.map(|place| (place.log(), place.index()));
    let Some((id, index)) = named else {
        anyhow::bail!("the token's `jti` names no log, so nothing leads from it to evidence");
    };
    let kid: KeyId = compact.header.kid.as_deref().unwrap_or_default().parse()?;
    let base = match &args.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => {
            let info = send(&args.data, &Command::Info)?;
            info.get("url").and_then(Value::as_str).unwrap_or_default().to_owned()
        }
    };
    let log = TheLog { id, place: Place::parse(&format!("{base}/log/{id}")) };
    let bundle = Bundle::new(
        key_of(&log.place, id)?.to_string(),
        log.proof(index)?,
        log.logged(log.announced_at(kid, index)?)?,
        log.logged(0)?,
        SignerEvidence::parse(&log.place.read("evidence")?)?,
    );
    say(&bundle.to_json())?;
    Ok(ExitCode::SUCCESS)
}

struct TheLog {
    id: LogId,
    place: Place,
}

impl TheLog {
    fn proof(&self, index: u64) -> anyhow::Result<String> {
        Ok(String::from_utf8(self.place.read(&format!("proof/{index}"))?)?)
    }

    fn logged(&self, index: u64) -> anyhow::Result<Logged> {
        let proof = self.proof(index)?;
        let entries = self.entries(index / TILE_WIDTH)?;
        let within = usize::try_from(index % TILE_WIDTH)?;
        let entry = entries.get(within).cloned();
        let entry = entry.ok_or_else(|| anyhow::anyhow!("entry {index} is not in the log"))?;
        Ok(Logged { entry: Base64(entry), proof })
    }

    /// A bundle of entries, as wide as the latest checkpoint has it.
    fn entries(&self, bundle: u64) -> anyhow::Result<Vec<Vec<u8>>> {
        let key = key_of(&self.place, self.id)?;
        let (checkpoint, _) = Checkpoint::open(&self.place.read("checkpoint")?, &[key])?;
        let id = EntriesTileId::at(bundle, checkpoint.size);
        let id = id.ok_or_else(|| anyhow::anyhow!("the log has no entries {}", bundle))?;
        Ok(decode_entries(&self.place.read(&id.path())?, usize::from(id.width))?)
    }

    /// Where a key was announced: its signer says so while it lists the key, else it is searched for
    /// before the token. Whoever answers wrongly makes a bundle that does not verify.
    fn announced_at(&self, kid: KeyId, token: u64) -> anyhow::Result<u64> {
        if let Some(set) = self.place.read_if_there("keys.jwt")? {
            let (_, members) = open_signed_set(&set, &key_of(&self.place, self.id)?, self.id)
                .map_err(|why| anyhow::anyhow!("keys of log `{}`: {why}", self.id))?;
            let prefix = format!("{}.", self.id);
            let mine = members.iter().find(|member| member.kid == kid.to_string());
            let place = mine.and_then(|member| member.log.as_deref()?.strip_prefix(&prefix));
            if let Some(index) = place.and_then(|index| index.parse().ok()) {
                return Ok(index);
            }
        }
        let last = token / TILE_WIDTH;
        for bundle in (0..=last).rev().take(usize::try_from(MAX_SEARCHED)?) {
            for (within, entry) in self.entries(bundle)?.iter().enumerate() {
                if let Ok(Entry::Announcement(said)) = Entry::decode(entry)
                    && said.kid == *kid.as_bytes()
                {
                    let first = bundle.saturating_mul(TILE_WIDTH);
                    return Ok(first.saturating_add(u64::try_from(within)?));
                }
            }
        }
        anyhow::bail!("the log announces no key `{kid}` before the token")
    }
}

/// `chancery attest verify --bundle`: walks from the token to the hardware's root.
pub fn verify(
    file: &Path,
    policy: &Path,
    at: u64,
    token: &str,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let token = read_token(token)?;
    let policy: Policy = read_policy(policy)?;
    let bundle = Bundle::parse(&read(file, MAX_BUNDLE_BYTES)?)?;
    let walk = bundle.walk(&token, &policy, at);
    report(&walk, as_json)?;
    Ok(if walk.accepted { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn report(walk: &Walk, as_json: bool) -> std::io::Result<()> {
    if as_json {
        return say(&json!(walk).to_string());
    }
    let checks = walk.result.as_ref().map_or(&[][..], |result| &result.checks);
    let named = |prefix: &str, name: &str| format!("{prefix}{name}");
    let steps = walk.steps.iter().map(|step| (named("", step.name), step));
    let checks = checks.iter().map(|check| (named("  ", check.name), check));
    for (name, check) in steps.chain(checks) {
        let passed = if check.passed { "passed" } else { "FAILED" };
        say(&format!("{passed} {name:<28} {}", printable(&check.value)))?;
    }
    match &walk.result {
        Some(result) if walk.accepted => say(&format!(
            "accepted: the token's key leads to {} evidence: {}",
            result.kind,
            printable(result.release.as_deref().unwrap_or("no known release"))
        )),
        _ => {
            let failed = walk.steps.iter().filter(|step| !step.passed).count();
            say(&format!("refused: {failed} steps failed"))
        }
    }
}
