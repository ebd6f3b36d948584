//! The control socket: everything that changes anything. Mode 0600 in the data folder, so that only
//! the service's own user (and root) can. One JSON object a line, each way.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chancery_signer_api::{Request, Response, Rotate};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use crate::audit::retention::{self, Hold};
use crate::config::Config;
use crate::service::{CompromiseFact, Service};

/// The longest command line, in bytes: a reason of one kilobyte and some names.
const MAX_LINE_BYTES: u64 = 16 * 1024;
/// The longest answer that a command reads, in bytes: a thousand keys.
const MAX_ANSWER_BYTES: u64 = 4 * 1024 * 1024;
/// A command waits this long for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// What may be commanded.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Where the service is and what it runs on.
    Info,
    /// Every key but the Gone ones.
    Keys,
    /// Start a new key in a realm.
    Rotate {
        /// The realm.
        realm: String,
    },
    /// A key must no longer be believed.
    Compromise {
        /// RFC 7638 thumbprint, base64url; of an imported key also its `kid`.
        kid: String,
        /// The operator's words.
        reason: String,
        /// Whether retired keys of the realm fall too.
        #[serde(default)]
        include_retired: bool,
    },
    /// Read the configuration file again: clients, grants, realms, schedules.
    Reload,
    /// End the signer, and its keys with it; a new one starts a new log.
    EndSigner,
    /// Keep the audit's records of a window, whatever their age.
    AddHold(Hold),
    /// End a hold.
    ReleaseHold {
        /// Its name.
        name: String,
    },
    /// What is held.
    Holds,
    /// Delete audit segments that are too old, now.
    PruneAudit {
        /// Only say what would go.
        dry_run: bool,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No service listens there.
    #[error("no service at `{socket}`: {why}; start `chancery serve`, or name its --data folder")]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// The operating system's word.
        why: String,
    },
    /// It answered nonsense.
    #[error("the service answered nothing that this version understands: {0}")]
    Answer(String),
    /// It refused.
    #[error("{0}")]
    Refused(String),
}

/// Sends a command to the service of a data folder.
///
/// # Errors
/// [`ControlError`].
pub fn send(socket: &Path, command: &Command) -> Result<Value, ControlError> {
    let unreachable = |e: std::io::Error| ControlError::Unreachable {
        socket: socket.to_owned(),
        why: e.to_string(),
    };
    let mut stream = UnixStream::connect(socket).map_err(unreachable)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN)).map_err(unreachable)?;
    let mut line = serde_json::to_vec(command).map_err(|e| ControlError::Answer(e.to_string()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(unreachable)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(MAX_ANSWER_BYTES))
        .read_until(b'\n', &mut answer)
        .map_err(unreachable)?;
    let value: Value =
        serde_json::from_slice(&answer).map_err(|e| ControlError::Answer(e.to_string()))?;
    match value.get("error").and_then(Value::as_str) {
        Some(error) => Err(ControlError::Refused(error.to_owned())),
        None => Ok(value),
    }
}

/// Binds the control socket with mode 0600, replacing a stale one: the data folder is locked, so
/// nobody else listens.
///
/// # Errors
/// The operating system's.
pub fn bind(socket: &Path) -> std::io::Result<tokio::net::UnixListener> {
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = tokio::net::UnixListener::bind(socket)?;
    // The folder is 0700, so nobody gets through before this.
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves commands, forever. `config_file` is read again on reload.
pub async fn serve(
    listener: tokio::net::UnixListener,
    service: Arc<Service>,
    config_file: Option<PathBuf>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = service.clone();
        let config_file = config_file.clone();
        tokio::spawn(async move {
            let serve = converse(stream, &service, config_file.as_deref());
            // Whoever says nothing is sent away.
            let _ = tokio::time::timeout(ANSWER_WITHIN, serve).await;
        });
    }
}

async fn converse(
    mut stream: tokio::net::UnixStream,
    service: &Service,
    config_file: Option<&Path>,
) -> std::io::Result<()> {
    let operator = stream.peer_cred().map_or_else(|_| "?".into(), |c| format!("uid:{}", c.uid()));
    let (reader, mut writer) = stream.split();
    let mut line = Vec::new();
    tokio::io::BufReader::new(reader.take(MAX_LINE_BYTES)).read_until(b'\n', &mut line).await?;
    let answer = match serde_json::from_slice(&line) {
        Ok(command) => {
            let change = change(&command);
            let answer = execute(command, service, config_file).await;
            if let (Ok(_), Some((code, realm, detail))) = (&answer, change) {
                service.audit.note_change(code, &realm, detail, operator);
            }
            answer
        }
        Err(e) => Err(format!("not a command: {e}")),
    };
    let answer = answer.unwrap_or_else(|error| json!({"error": error}));
    let mut bytes = serde_json::to_vec(&answer).unwrap_or_default();
    bytes.push(b'\n');
    writer.write_all(&bytes).await
}

/// What a command changes, for the audit: code, realm, details.
fn change(command: &Command) -> Option<(&'static str, String, String)> {
    match command {
        // What is deleted records itself.
        Command::Info | Command::Keys | Command::Holds | Command::PruneAudit { .. } => None,
        Command::AddHold(hold) => {
            let detail =
                format!("`{}` from {} to {}: {}", hold.name, hold.from_ms, hold.to_ms, hold.reason);
            Some(("hold", String::new(), detail))
        }
        Command::ReleaseHold { name } => Some(("release_hold", String::new(), format!("`{name}`"))),
        Command::Rotate { realm } => Some(("rotate", realm.clone(), String::new())),
        Command::Compromise { kid, reason, include_retired } => {
            let which = if *include_retired { " and retired ones" } else { "" };
            Some(("compromise", String::new(), format!("key `{kid}`{which}: {reason}")))
        }
        Command::Reload => Some(("reload", String::new(), String::new())),
        Command::EndSigner => Some(("end_signer", String::new(), String::new())),
    }
}

async fn execute(
    command: Command,
    service: &Service,
    config_file: Option<&Path>,
) -> Result<Value, String> {
    match command {
        Command::Info => Ok(info(service)),
        Command::Keys => keys(service).await,
        Command::Rotate { realm } => rotate(service, realm).await,
        Command::Compromise { kid, reason, include_retired } => {
            compromise(service, kid, reason, include_retired).await
        }
        Command::Reload => reload(service, config_file).await,
        Command::AddHold(hold) => retention::add_hold(service, hold).await,
        Command::ReleaseHold { name } => retention::release_hold(service, &name).await,
        Command::Holds => retention::holds(service).await,
        Command::PruneAudit { dry_run } => retention::prune(service, dry_run).await,
        Command::EndSigner => {
            // Its last chance; what comes in between stays under one signature.
            service.cosign().await;
            match call(service, Request::End).await? {
                Response::Ending => Ok(json!({"ended": true})),
                other => Err(unexpected(&other)),
            }
        }
    }
}

fn info(service: &Service) -> Value {
    let policy = service.policy();
    let issuers: serde_json::Map<String, Value> = policy
        .document
        .realms
        .iter()
        .map(|r| (r.name.clone(), Value::from(r.issuer.clone())))
        .collect();
    json!({
        "software": crate::SOFTWARE,
        "url": service.config.base_url,
        "development": service.config.development,
        "issuers": issuers,
        "ready": service.issuer.is_ready(),
        "signer": service.attached(),
    })
}

async fn keys(service: &Service) -> Result<Value, String> {
    let status = match call(service, Request::Status).await? {
        Response::Status(status) => status,
        other => return Err(unexpected(&other)),
    };
    let log = service.attached().map(|s| s.log_id).unwrap_or_default();
    let keys: Vec<Value> = status
        .keys
        .iter()
        .map(|k| {
            json!({
                "realm": k.realm,
                "algorithm": k.algorithm,
                "kid": chancery_token::KeyId::from_bytes(*k.kid).to_string(),
                "state": k.state,
                "nbf": k.nbf,
                "signs_until": k.signs_until,
                "exp": k.exp,
                "log": format!("{log}.{}", k.announced_at),
            })
        })
        .collect();
    let imported: Vec<Value> = service
        .keys
        .imported()
        .into_iter()
        .map(|key| {
            json!({
                "realm": key.realm,
                "algorithm": key.algorithm,
                "kid": key.kid,
                "thumbprint": key.thumbprint,
                "state": key.state,
                "exp": key.until,
                "in_discovery": key.in_discovery,
            })
        })
        .collect();
    Ok(json!({
        "log_id": log,
        "entries": status.committed_size,
        "clock_trusted": status.clock_trusted,
        "policy_version": status.policy_version,
        "keys": keys,
        "imported": imported,
    }))
}

async fn rotate(service: &Service, realm: String) -> Result<Value, String> {
    match call(service, Request::Rotate(Rotate { realm })).await? {
        Response::Rotating(rotating) => {
            let starts: Vec<Value> = rotating
                .active_from
                .iter()
                .map(|(algorithm, at)| json!({"algorithm": algorithm, "active_from": at}))
                .collect();
            Ok(json!({"rotating": starts}))
        }
        Response::Fault(fault) => Err(fault.detail),
        other => Err(unexpected(&other)),
    }
}

async fn compromise(
    service: &Service,
    kid: String,
    reason: String,
    include_retired: bool,
) -> Result<Value, String> {
    let kid = thumbprint_of(service, &kid)?;
    if reason.is_empty() || reason.len() > chancery_entry::MAX_REASON_BYTES {
        let limit = chancery_entry::MAX_REASON_BYTES;
        return Err(format!("the reason must have 1 to {limit} bytes"));
    }
    let fact = CompromiseFact { kid, reason, at: crate::now(), include_retired };
    match service.compromise(fact).await.map_err(|e| e.to_string())? {
        Ok(Response::Compromised(gone)) => {
            let gone: Vec<String> = gone
                .gone
                .iter()
                .map(|k| chancery_token::KeyId::from_bytes(**k).to_string())
                .collect();
            Ok(json!({"stored": true, "gone": gone}))
        }
        Ok(Response::Fault(fault)) => Err(fault.detail),
        Ok(other) => Err(unexpected(&other)),
        // The fact is stored and the key is out of every key set; the next signer logs it.
        Err(e) => Ok(json!({"stored": true, "gone": [], "pending": e.to_string()})),
    }
}

/// The thumbprint of a key that is named by its own, or by the `kid` under which it is imported.
fn thumbprint_of(service: &Service, named: &str) -> Result<String, String> {
    let thumbprint = named.parse::<chancery_token::KeyId>().ok();
    let known = match thumbprint.filter(|kid| service.is_announced(kid.as_bytes())) {
        Some(announced) => Some(announced),
        None => service.keys.imported_under(named)?,
    };
    known.map(|kid| kid.to_string()).ok_or_else(|| {
        format!(
            "no log that still counts announced `{named}`, and no realm imports it; see `chancery \
             keys list` and the key sets"
        )
    })
}

async fn reload(service: &Service, config_file: Option<&Path>) -> Result<Value, String> {
    let Some(path) = config_file else {
        return Err("there is no configuration file: development mode".into());
    };
    let config = Config::load(path).map_err(|e| e.to_string())?;
    let version = service.reload(&config).await.map_err(|e| e.to_string())??;
    Ok(json!({"policy_version": version}))
}

async fn call(service: &Service, request: Request) -> Result<Response, String> {
    service.issuer.call(request).await.map_err(|e| e.to_string())
}

fn unexpected(response: &Response) -> String {
    crate::link::LinkError::out_of_step(response).to_string()
}
