//! `chancery token` and `chancery assertion`: a client on the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::client::Client;
use super::fetch::Web;
use super::{DEFAULT_DATA, complain, say, send};
use crate::config::DEMO_CLIENT;
use crate::control::Command;
use crate::folder::Paths;

/// Who asks, and where.
#[derive(Debug, Args)]
struct ClientArgs {
    /// Data folder of the running service
    #[arg(long, env = "CHANCERY_DATA", default_value = DEFAULT_DATA)]
    data: PathBuf,
    /// Realm
    #[arg(long)]
    realm: String,
    /// Client id
    #[arg(long, default_value = DEMO_CLIENT)]
    client: String,
    /// PKCS#8 PEM file with the client's private key (default: the demo client's)
    #[arg(long)]
    key: Option<PathBuf>,
}

/// `chancery token`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  chancery token --realm consumers --audience https://api.example"
)]
pub struct TokenArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Audience (`aud`)
    #[arg(long)]
    audience: String,
    /// Subject (`sub`); the client itself by default
    #[arg(long)]
    subject: Option<String>,
    /// Scope values, separated by spaces
    #[arg(long)]
    scope: Option<String>,
    /// Lifetime in seconds
    #[arg(long)]
    lifetime: Option<u64>,
    /// JOSE algorithm, where the grant leaves a choice
    #[arg(long)]
    alg: Option<String>,
    /// Print the token's tlog-proof behind it
    #[arg(long)]
    proof: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// `chancery assertion`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  curl -d grant_type=client_credentials \\\n    \
    -d client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer \\\n    \
    -d client_assertion=$(chancery assertion --realm consumers) \\\n    \
    http://127.0.0.1:8420/consumers/token")]
pub struct AssertionArgs {
    #[command(flatten)]
    client: ClientArgs,
}

struct Session {
    client: Client,
    url: String,
    issuer: String,
    log: Option<String>,
}

impl ClientArgs {
    fn open(&self) -> anyhow::Result<Session> {
        let info = send(&self.data, &Command::Info)?;
        let text = |v: &Value| v.as_str().map(str::to_owned);
        let issuer = info.get("issuers").and_then(|i| i.get(&self.realm)).and_then(text);
        let issuer = issuer.ok_or_else(|| anyhow::anyhow!("no realm `{}` here", self.realm))?;
        let url = info.get("url").and_then(text).unwrap_or_default();
        let log = info.get("signer").and_then(|s| s.get("log_id")).and_then(text);
        let file = self.key.clone().unwrap_or_else(|| Paths::new(&self.data).demo_key());
        Ok(Session { client: Client::load(&self.client, &file)?, url, issuer, log })
    }
}

/// Prints an assertion.
pub fn assertion(args: &AssertionArgs) -> anyhow::Result<ExitCode> {
    let session = args.client.open()?;
    say(&session.client.assertion(&session.issuer, session.log.as_deref())?)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a token, asked for by a signed issuance request.
pub fn token(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    let session = args.client.open()?;
    let mut wanted = json!({"aud": args.audience});
    if let Some(members) = wanted.as_object_mut() {
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                members.insert(name.to_owned(), value);
            }
        };
        set("sub", args.subject.clone().map(Value::from));
        set("scope", args.scope.clone().map(Value::from));
        set("lifetime", args.lifetime.map(Value::from));
        set("alg", args.alg.clone().map(Value::from));
    }
    let request = session.client.request(&session.issuer, session.log.as_deref(), vec![wanted])?;
    let realm = &args.client.realm;
    let url = format!("{}/{realm}/issue?proof={}", session.url, args.proof);
    let (status, body) = Web::new().post(&url, "application/jwt", &request)?;
    let body: Value = serde_json::from_slice(&body)
        .map_err(|_| anyhow::anyhow!("{url}: HTTP {status} with no JSON"))?;
    let issued = body.get("tokens").and_then(|t| t.get(0));
    let token = issued.and_then(|t| t.get("access_token")).and_then(Value::as_str);
    let (Some(issued), Some(token)) = (issued, token) else {
        let code = body.get("code").and_then(Value::as_str).unwrap_or("unknown");
        let detail = body.get("detail").and_then(Value::as_str).unwrap_or("");
        complain(&format!("refused: {code}: {detail}"));
        return Ok(ExitCode::from(if status >= 500 { 2 } else { 1 }));
    };
    if args.json {
        say(&issued.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    say(token)?;
    if let Some(proof) = issued.get("proof").and_then(Value::as_str) {
        say(proof.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}
