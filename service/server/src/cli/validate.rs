//! `chancery validate`.

use std::process::ExitCode;

use chancery_relying_party::Explained;
use chancery_validate::{Rejection, Step};
use clap::Args;
use serde_json::{Value, json};

use super::relying_party::RelyingPartyArgs;
use super::{complain, read_token, say};

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
