//! `chancery validate` and `chancery prove`.

use std::path::PathBuf;
use std::process::ExitCode;

use chancery_entry::{Entry, TokenEntry};
use chancery_tlog::note::VerifierKey;
use chancery_tlog::{LogId, TlogProof, leaf_hash};
use chancery_token::jwks::KeySet;
use chancery_token::{json, jws};
use chancery_validate::log::{LogPolicy, Verdict, apply, look_up};
use chancery_validate::{Rejection, Validated, Validator, ValidatorConfig};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::fetch::{LogPlace, Place, Web};
use super::{DEFAULT_DATA, complain, read_token, say, send};
use crate::control::Command;

/// Seconds after which a committed entry is under a served checkpoint: design section 5.
const PUBLISH_WITHIN_S: u64 = 10;

/// Whether to ask the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogMode {
    /// Do not ask.
    Off,
    /// Ask and say, but reject nothing for it.
    Report,
    /// Accept only what is in the log.
    Require,
}

/// `chancery validate`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  chancery token --realm consumers --audience https://api.example | \
    \n    chancery validate --issuer http://127.0.0.1:8420/consumers --audience https://api.example \
    --log require -"
)]
pub struct ValidateArgs {
    /// The only issuer to accept
    #[arg(long)]
    issuer: String,
    /// The audience that must be named
    #[arg(long)]
    audience: String,
    /// Key set file; then nothing is fetched but, with --log, the log
    #[arg(long)]
    jwks: Option<PathBuf>,
    /// Judge at this Unix time instead of now
    #[arg(long, value_name = "UNIX_SECONDS")]
    at: Option<u64>,
    /// Rules; this version knows one profile
    #[arg(long, default_value = "strict", value_parser = ["strict"])]
    profile: String,
    /// Whether to ask the log
    #[arg(long, value_enum, default_value = "off")]
    log: LogMode,
    /// Where the log is, a URL or folder that ends before `checkpoint` (default: from discovery)
    #[arg(long)]
    log_at: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// The token, or - for standard input
    token: String,
}

/// What discovery found.
struct Discovered {
    keys: Vec<u8>,
    log_prefix: Option<String>,
}

/// Judges a token.
pub fn validate(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    let token = read_token(&args.token)?;
    let discovered = discover(args)?;
    let keys = KeySet::parse(&discovered.keys)?;
    let config = ValidatorConfig::new(args.issuer.clone(), args.audience.clone());
    let now = args.at.unwrap_or_else(crate::now);
    let explanation = Validator::new(config, keys).explain(&token, now);
    let mut steps: Vec<Value> = explanation
        .steps
        .iter()
        .map(|s| json!({"check": s.name, "passed": s.passed, "value": s.value}))
        .collect();
    let verdict = explanation.verdict.and_then(|validated| {
        check_log(args, &discovered, &validated, now, &mut steps).map(|()| validated)
    });
    report(args, &steps, verdict)
}

fn check_log(
    args: &ValidateArgs,
    discovered: &Discovered,
    validated: &Validated,
    now: u64,
    steps: &mut Vec<Value>,
) -> Result<(), Rejection> {
    if args.log == LogMode::Off {
        return Ok(());
    }
    let place = match (&args.log_at, &discovered.log_prefix) {
        (Some(place), _) => Some(place.clone()),
        (None, Some(prefix)) => {
            validated.key_log().and_then(|l| l.split('.').next()).map(|id| format!("{prefix}/{id}"))
        }
        (None, None) => None,
    };
    let verdict = match place {
        Some(place) => look_up(validated, &LogPlace(Place::parse(&place)), now, PUBLISH_WITHIN_S),
        None => Verdict::Unknown { why: "no log is known: name --log-at".into() },
    };
    let policy = if args.log == LogMode::Require { LogPolicy::Require } else { LogPolicy::Report };
    let result = apply(&verdict, policy);
    let value = match &verdict {
        Verdict::InLog { index } => format!("in log at index {index}"),
        Verdict::Pending => "pending".to_owned(),
        Verdict::Missing => "missing".to_owned(),
        Verdict::Forged { index, .. } => format!("FORGED: another leaf stands at index {index}"),
        Verdict::Unknown { why } => format!("unknown: {why}"),
    };
    let good = matches!(verdict, Verdict::InLog { .. });
    steps.push(json!({"check": "log", "passed": good, "value": value}));
    result
}

fn report(
    args: &ValidateArgs,
    steps: &[Value],
    verdict: Result<Validated, Rejection>,
) -> anyhow::Result<ExitCode> {
    let code = match &verdict {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    };
    if args.json {
        let document = match verdict {
            Ok(validated) => json!({
                "valid": true,
                "claims": claims(&validated),
                "kid": validated.kid(),
                "steps": steps,
            }),
            Err(rejection) => json!({
                "valid": false,
                "code": rejection.code().as_str(),
                "detail": rejection.detail(),
                "retryable": rejection.retryable(),
                "steps": steps,
            }),
        };
        say(&document.to_string())?;
        return Ok(code);
    }
    for step in steps {
        let passed = step.get("passed").and_then(Value::as_bool).unwrap_or(false);
        let text = |name| step.get(name).and_then(Value::as_str).unwrap_or("");
        say(&format!(
            "{} {:<12} {}",
            if passed { "passed" } else { "FAILED" },
            text("check"),
            text("value")
        ))?;
    }
    match verdict {
        Ok(_) => say("valid")?,
        Err(rejection) => {
            say(&format!("rejected: {}: {}", rejection.code().as_str(), rejection.detail()))?;
        }
    }
    Ok(code)
}

fn claims(validated: &Validated) -> Value {
    let payload = validated.signing_input().split('.').nth(1).unwrap_or("");
    let bytes = chancery_token::b64::decode(payload).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or(Value::Null)
}

fn discover(args: &ValidateArgs) -> anyhow::Result<Discovered> {
    if let Some(file) = &args.jwks {
        let keys = std::fs::read(file)
            .map_err(|e| anyhow::anyhow!("key set `{}`: {e}", file.display()))?;
        return Ok(Discovered { keys, log_prefix: None });
    }
    let web = Web::new();
    let url = format!("{}/.well-known/openid-configuration", args.issuer);
    let metadata = json::parse_object(&web.get(&url)?)?;
    let member = |name: &str| metadata.get(name).and_then(Value::as_str);
    if member("issuer") != Some(args.issuer.as_str()) {
        anyhow::bail!("{url} names another issuer than `{}`", args.issuer);
    }
    let jwks = member("jwks_uri").ok_or_else(|| anyhow::anyhow!("{url} names no jwks_uri"))?;
    let log_prefix = member("chancery_signers_uri").and_then(|u| u.strip_suffix("/signers"));
    Ok(Discovered {
        keys: web.get(jwks)?,
        log_prefix: log_prefix.map(|base| format!("{base}/log")),
    })
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
