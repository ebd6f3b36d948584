//! `chancery validate` and `chancery prove`.

use std::path::PathBuf;
use std::process::ExitCode;

use chancery_entry::{Entry, TokenEntry};
use chancery_relying_party::Explained;
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{LogId, TlogProof, leaf_hash};
use chancery_token::{json, jws};
use chancery_validate::{Rejection, Step};
use clap::Args;
use serde_json::{Value, json};

use super::fetch::Place;
use super::relying_party::RelyingPartyArgs;
use super::{DEFAULT_DATA, complain, read_token, say, send};
use crate::control::Command;

/// `chancery validate`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 valid, 1 rejected, 2 not judged: a wrong option, or, with \"valid\": null \
    in JSON,\nno key set (keys_unavailable), a log that does not say yet (log_pending), a log that \
    cannot be\nread (log_unknown).\n\nExample:\n  chancery token --realm consumers --audience https://api.example | \
    \n    chancery validate --issuer http://127.0.0.1:8420/consumers --audience https://api.example \
    --log require -"
)]
pub struct ValidateArgs {
    #[command(flatten)]
    relying_party: RelyingPartyArgs,
    /// Judge at this Unix time instead of now
    #[arg(long, value_name = "UNIX_SECONDS")]
    at: Option<u64>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// The token, or - for standard input
    token: String,
}

/// Judges a token: 0 valid, 1 rejected, 2 could not judge.
pub fn validate(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    let token = read_token(&args.token)?;
    let builder = args.relying_party.builder()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let explained = runtime.block_on(async {
        let relying_party = builder.build()?;
        Ok::<_, anyhow::Error>(match args.at {
            None => relying_party.explain(&token).await,
            Some(at) => relying_party.explain_at(&token, at).await,
        })
    });
    // A fetch that nobody waits for any more does not keep the command.
    runtime.shutdown_background();
    report(args.json, &explained?)
}

fn report(as_json: bool, explained: &Explained) -> anyhow::Result<ExitCode> {
    if as_json {
        say(&document(explained).to_string())?;
    } else {
        for step in &explained.steps {
            say(&format!("{} {:<12} {}", outcome(step), step.name, step.value))?;
        }
    }
    match &explained.verdict {
        Ok(_) if as_json => {}
        Ok(_) => say("valid")?,
        Err(rejection) if is_unjudged(rejection) => {
            complain(&format!("error: {}", rejection.detail()));
            return Ok(ExitCode::from(2));
        }
        Err(_) if as_json => return Ok(ExitCode::from(1)),
        Err(rejection) => {
            say(&format!("rejected: {rejection}"))?;
            return Ok(ExitCode::from(1));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A step in a word. What was not passed, and was only asked to be reported, is noted.
fn outcome(step: &Step) -> &'static str {
    match (step.passed, step.counts) {
        (true, _) => "passed",
        (false, true) => "FAILED",
        (false, false) => "noted ",
    }
}

fn document(explained: &Explained) -> Value {
    let steps = &explained.steps;
    match &explained.verdict {
        Ok(accepted) => json!({
            "valid": true,
            "claims": accepted.token.to_map(),
            "kid": accepted.token.kid(),
            "steps": steps,
        }),
        Err(rejection) => json!({
            // Neither yes nor no where it could not be judged.
            "valid": if is_unjudged(rejection) { Value::Null } else { Value::Bool(false) },
            "code": rejection.code().as_str(),
            "detail": rejection.detail(),
            "retryable": rejection.retryable(),
            "steps": steps,
        }),
    }
}

/// Whether the rejection says nothing about the token: there was no key set to judge it by, or its
/// log does not say yet.
fn is_unjudged(rejection: &Rejection) -> bool {
    rejection.retryable()
}

/// `chancery prove`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  chancery prove --url http://127.0.0.1:8420 $TOKEN > token.tlog-proof"
)]
pub struct ProveArgs {
    /// Service whose logs to ask
    #[arg(long, conflicts_with = "data")]
    url: Option<String>,
    /// Data folder of the running service
    #[arg(long, env = "CHANCERY_DATA", default_value = DEFAULT_DATA)]
    data: PathBuf,
    /// The token, or - for standard input
    token: String,
}

/// Prints a proof, after checking it against the token: exit 1 when the log holds another leaf or
/// none at the token's address.
pub fn prove(args: &ProveArgs) -> anyhow::Result<ExitCode> {
    let token = read_token(&args.token)?;
    let compact = jws::parse(&token, jws::MAX_TOKEN_BYTES)?;
    let (log, index, leaf) = address(&compact)?;
    let base = match &args.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => {
            let info = send(&args.data, &Command::Info)?;
            info.get("url").and_then(Value::as_str).unwrap_or_default().to_owned()
        }
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
        complain(&format!("not proved: the log does not hold this token at its address: {e}"));
        return Ok(ExitCode::from(1));
    }
    say(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// The token's address in its log, and its leaf, from the token alone.
fn address(compact: &jws::Compact<'_>) -> anyhow::Result<(LogId, u64, chancery_tlog::Hash)> {
    let claims = json::parse_object(&compact.payload)?;
    let jti = json::required_str(&claims, "jti")?;
    let mut parts = jti.split('.');
    let (Some(log), Some(index), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        anyhow::bail!("`jti` is not an address in a log: this is no token of Chancery");
    };
    let log: LogId = log.parse()?;
    let index: u64 = index.parse()?;
    let kid = compact.header.kid.as_deref().unwrap_or_default();
    let kid: chancery_token::KeyId = kid.parse()?;
    let number = |name: &'static str| {
        let value = claims.get(name).ok_or_else(|| anyhow::anyhow!("`{name}` is missing"))?;
        Ok::<u64, anyhow::Error>(json::seconds(name, value)?)
    };
    let entry = TokenEntry::of(
        *kid.as_bytes(),
        number("iat")?,
        number("exp")?,
        compact.signing_input.as_bytes(),
    );
    Ok((log, index, leaf_hash(&Entry::Token(entry).encode()?)))
}
