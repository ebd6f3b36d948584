//! `[[audit.export]]`

use std::path::PathBuf;

use serde::Deserialize;

/// Each is a task with a batch of records in memory.
pub const MAX_EXPORTS: usize = 8;
/// Names are those of files and of a metric's label.
const MAX_NAME_BYTES: usize = 32;

/// One receiver of what is recorded.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportSettings {
    /// Its name: of its cursor and in metrics. Another name begins anew.
    pub name: String,
    /// What it is sent.
    pub format: ExportFormat,
    /// `file:/absolute/path`, or the whole `http:` or `https:` URL that takes a POST.
    pub to: String,
    /// A file whose content is the value of the header `Authorization`; read for every request.
    pub authorization_file: Option<PathBuf>,
}

/// The form of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    /// JSON lines.
    Json,
    /// JSON lines of OCSF events.
    Ocsf,
    /// OpenTelemetry's protocol, its JSON encoding; over HTTP only.
    Otlp,
}

impl ExportSettings {
    /// The file, where it is one.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        self.to.strip_prefix("file:").map(PathBuf::from)
    }

    /// Whether they can be followed.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn check(all: &[Self]) -> Result<(), String> {
        if all.len() > MAX_EXPORTS {
            return Err(format!("audit.export: at most {MAX_EXPORTS} of them"));
        }
        for (at, one) in all.iter().enumerate() {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            let name = &one.name;
            if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !name.bytes().all(plain) {
                return Err(format!(
                    "audit.export: name `{name}` must be 1 to {MAX_NAME_BYTES} of a-z, 0-9 and `-`"
                ));
            }
            if all.iter().take(at).any(|other| other.name == *name) {
                return Err(format!("audit.export: two are named `{name}`"));
            }
            one.check_receiver()?;
        }
        Ok(())
    }

    fn check_receiver(&self) -> Result<(), String> {
        let (name, to) = (&self.name, &self.to);
        match self.file() {
            Some(_) if self.format == ExportFormat::Otlp => {
                Err(format!("audit.export `{name}`: otlp goes to an http(s) URL"))
            }
            Some(file) if !file.is_absolute() => {
                Err(format!("audit.export `{name}`: `{to}` must be `file:` and an absolute path"))
            }
            Some(_) => Ok(()),
            None => match url::Url::parse(to) {
                Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => Ok(()),
                _ => Err(format!(
                    "audit.export `{name}`: `{to}` must be `file:/path` or an http(s) URL"
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, format: ExportFormat, to: &str) -> ExportSettings {
        ExportSettings { name: name.into(), format, to: to.into(), authorization_file: None }
    }

    #[test]
    fn receivers_are_checked_in_words() {
        use ExportFormat::{Json, Ocsf, Otlp};
        let good = [
            one("a", Json, "file:/var/log/audit.jsonl"),
            one("b-2", Ocsf, "https://siem.example/in?x=1"),
            one("c", Otlp, "http://127.0.0.1:4318/v1/logs"),
        ];
        assert_eq!(ExportSettings::check(&good), Ok(()));
        for (wrong, word) in [
            (vec![one("A", Json, "file:/x")], "name"),
            (vec![one("", Json, "file:/x")], "name"),
            (vec![one("a", Json, "file:x")], "absolute"),
            (vec![one("a", Otlp, "file:/x")], "otlp"),
            (vec![one("a", Json, "ftp://x/")], "http"),
            (vec![one("a", Json, "file:/x"), one("a", Ocsf, "file:/y")], "two"),
            (vec![one("a", Json, "file:/x"); MAX_EXPORTS + 1], "at most"),
        ] {
            let said = ExportSettings::check(&wrong).unwrap_err();
            assert!(said.contains(word), "{said}");
        }
    }
}
