//! Delivery to one receiver. It returns only when the receiver has the records, or with the reason why
//! that is not known.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use chancery_audit::export::{Addressed, json, ocsf, otlp};
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use super::settings::{ExportFormat, ExportSettings};

/// A receiver that takes longer for one batch is away.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is read of an answer: a sentence about what is wrong.
const MAX_ANSWER_BYTES: u64 = 4 * 1024;
/// How far back the end of the last whole line is looked for: longer than the longest record.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

/// A receiver.
#[derive(Debug)]
pub struct Receiver {
    settings: ExportSettings,
    agent: Agent,
}

impl Receiver {
    /// Connects when there is something to deliver.
    pub fn new(settings: ExportSettings) -> Self {
        // A second call finds the provider installed, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .tls_config(tls)
            .user_agent(crate::SOFTWARE)
            .build();
        Self { settings, agent: config.into() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Delivers records, all or none as far as is known.
    ///
    /// # Errors
    /// A sentence.
    pub async fn deliver(&self, records: Vec<Addressed>) -> Result<(), String> {
        let (settings, agent) = (self.settings.clone(), self.agent.clone());
        let work = move || deliver(&settings, &agent, &records);
        tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?
    }
}

fn deliver(settings: &ExportSettings, agent: &Agent, records: &[Addressed]) -> Result<(), String> {
    let body = body(settings.format, records);
    match settings.file() {
        Some(file) => {
            append(&file, body.as_bytes()).map_err(|e| format!("`{}`: {e}", file.display()))
        }
        None => post(settings, agent, &body),
    }
}

fn body(format: ExportFormat, records: &[Addressed]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut lines = String::new();
    for record in records {
        let line = match format {
            ExportFormat::Otlp => return otlp(records, version).to_string(),
            ExportFormat::Json => json(record),
            ExportFormat::Ocsf => ocsf(record, version),
        };
        lines.push_str(&line.to_string());
        lines.push('\n');
    }
    lines
}

/// Opened for each batch, so that it may be moved away at any time.
fn append(path: &Path, lines: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).read(true).append(true).mode(0o600).open(path)?;
    let whole = whole_lines(&mut file)?;
    file.set_len(whole)?;
    file.write_all(lines)?;
    file.sync_data()
}

/// Where the last whole line of a file ends. What follows was cut off by a crash before the cursor was
/// moved, so it is delivered again.
fn whole_lines(file: &mut std::fs::File) -> std::io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    let start = size.saturating_sub(MAX_LINE_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(MAX_LINE_BYTES).read_to_end(&mut tail)?;
    let end = tail.iter().rposition(|b| *b == b'\n').map(|at| at.saturating_add(1));
    match end.map(u64::try_from) {
        Some(Ok(end)) => Ok(start.saturating_add(end)),
        _ if start == 0 => Ok(0),
        // Nobody's lines of ours: left as it is.
        _ => Ok(size),
    }
}

fn post(settings: &ExportSettings, agent: &Agent, body: &str) -> Result<(), String> {
    let kind = match settings.format {
        ExportFormat::Otlp => "application/json",
        ExportFormat::Json | ExportFormat::Ocsf => "application/x-ndjson",
    };
    let mut request = agent.post(&settings.to).content_type(kind);
    if let Some(file) = &settings.authorization_file {
        let value = std::fs::read_to_string(file)
            .map_err(|e| format!("authorization_file `{}`: {e}", file.display()))?;
        request = request.header("authorization", value.trim());
    }
    let mut response =
        request.send(body).map_err(|e| format!("`{}` does not answer: {e}", settings.to))?;
    let status = response.status();
    let said = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
    if !status.is_success() {
        let said = said.unwrap_or_default();
        let said: String = String::from_utf8_lossy(&said).chars().take(200).collect();
        return Err(format!("`{}` answered {status}: {}", settings.to, said.escape_debug()));
    }
    partly_rejected(settings.format, &said.unwrap_or_default())
}

/// OTLP may take a request and refuse some of its records; sending them again would not help, so it is
/// said and no more.
fn partly_rejected(format: ExportFormat, answer: &[u8]) -> Result<(), String> {
    if format != ExportFormat::Otlp {
        return Ok(());
    }
    let answer: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    let partial = answer.get("partialSuccess");
    let rejected = partial.and_then(|p| p.get("rejectedLogRecords"));
    let count = rejected.and_then(|r| r.as_u64().or_else(|| r.as_str()?.parse().ok())).unwrap_or(0);
    if count > 0 {
        let why = partial.and_then(|p| p.get("errorMessage")).and_then(|m| m.as_str());
        tracing::error!(records = count, why, "the receiver of an export refuses records");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_a_crash_cut_off_is_replaced() {
        let file = std::env::temp_dir().join(format!("chancery-lines-{}", std::process::id()));
        let _ = std::fs::remove_file(&file);
        append(&file, b"{\"a\":1}\n{\"b\":2}\n").unwrap();
        for cut in ["", "{", "{\"c\":3}"] {
            let before = std::fs::read_to_string(&file).unwrap();
            std::fs::write(&file, format!("{before}{cut}")).unwrap();
            append(&file, b"{\"d\":4}\n").unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{before}{{\"d\":4}}\n"));
        }
        std::fs::write(&file, "cut").unwrap();
        append(&file, b"{}\n").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "{}\n");
        std::fs::remove_file(&file).unwrap();
    }
}
