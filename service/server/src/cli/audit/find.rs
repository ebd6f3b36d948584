//! `chancery audit find`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use chancery_audit::scan::{self, Column, Filter, Group};
use chancery_audit::{Outcome, Record, hour_of, output, parse_time, segment};
use chancery_token::{b64, jws};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::ArchiveArgs;
use super::archive::Chosen;
use crate::cli::{complain, read_token};

/// Records shown where no limit is named.
const LIMIT: usize = 1_000;

/// `chancery audit find`
#[derive(Debug, Args)]
#[command(
    after_help = "Times are UTC: 2026-11-23, 2026-11-23T19:05, or Unix seconds.\nExamples:\n  \
    chancery audit find --client orders --last 1h\n  \
    chancery audit find --token - < token.txt\n  \
    chancery audit find --from 2026-11-23 --count-by client,audience\n  \
    chancery audit find --blast-radius KID --json\n  \
    chancery audit find --first-seen client,audience --last 24h"
)]
pub struct FindArgs {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// From this time on
    #[arg(long, value_parser = time, value_name = "TIME")]
    from: Option<u64>,
    /// Before this time
    #[arg(long, value_parser = time, value_name = "TIME")]
    to: Option<u64>,
    /// The last 30s, 15m, 24h or 7d
    #[arg(long, value_parser = duration, conflicts_with = "from", value_name = "DURATION")]
    last: Option<u64>,
    /// Realm
    #[arg(long)]
    realm: Option<String>,
    /// Client
    #[arg(long)]
    client: Option<String>,
    /// Subject (`sub`)
    #[arg(long)]
    subject: Option<String>,
    /// One of the audiences (`aud`)
    #[arg(long)]
    audience: Option<String>,
    /// Key id
    #[arg(long, allow_hyphen_values = true)]
    kid: Option<String>,
    /// granted, refused, voided or changed
    #[arg(long, value_parser = outcome)]
    outcome: Option<Outcome>,
    /// Reason code of a refusal, or kind of a change
    #[arg(long)]
    code: Option<String>,
    /// Source address
    #[arg(long)]
    address: Option<String>,
    /// Request id, from the header `x-request-id`
    #[arg(long, allow_hyphen_values = true)]
    request_id: Option<String>,
    /// One token, by its `jti`
    #[arg(long, allow_hyphen_values = true)]
    jti: Option<String>,
    /// One token, by the SHA-256 of its signing input, hexadecimal or base64url
    #[arg(long, value_parser = digest, conflicts_with = "jti", allow_hyphen_values = true)]
    digest: Option<[u8; 32]>,
    /// One token, by itself; `-` reads standard input
    #[arg(long, conflicts_with_all = ["jti", "digest"])]
    token: Option<String>,
    /// Count instead, grouped by these columns: outcome, code, realm, client, subject, audience,
    /// scope, grant_name, kid, address, user_agent
    #[arg(long, value_delimiter = ',', value_parser = column, value_name = "COLUMNS")]
    count_by: Vec<Column>,
    /// Groups of these columns that were first seen in the window, all earlier records considered
    #[arg(long, value_delimiter = ',', value_parser = column, value_name = "COLUMNS",
        conflicts_with = "count_by")]
    first_seen: Vec<Column>,
    /// What a key signed: how many tokens, for whom, until when the last one is valid
    #[arg(long, value_name = "KID", conflicts_with_all = ["kid", "count_by", "first_seen"],
        allow_hyphen_values = true)]
    blast_radius: Option<String>,
    /// At most so many records, the oldest first
    #[arg(long, default_value_t = LIMIT)]
    limit: usize,
    /// table, json (one document a line), csv, or parquet (with --out)
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Write to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Say how long it took and what was read, on standard error
    #[arg(long)]
    timing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
    Parquet,
}

fn time(text: &str) -> Result<u64, String> {
    parse_time(text).ok_or_else(|| "write 2026-11-23, 2026-11-23T19:05:00 or Unix seconds".into())
}

fn duration(text: &str) -> Result<u64, String> {
    let wrong = || "write 30s, 15m, 24h or 7d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number = text.strip_suffix(unit).and_then(|n| n.parse::<u64>().ok()).ok_or_else(wrong)?;
    let ms = match unit {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(ms).ok_or_else(wrong)
}

fn outcome(text: &str) -> Result<Outcome, String> {
    Outcome::parse(text).ok_or_else(|| "granted, refused, voided or changed".into())
}

fn column(text: &str) -> Result<Column, String> {
    Column::parse(text).ok_or_else(|| format!("columns are {}", Column::NAMES.join(", ")))
}

fn digest(text: &str) -> Result<[u8; 32], String> {
    if let Ok(digest) = b64::decode_array(text) {
        return Ok(digest);
    }
    let nibble = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(wrong_digest()) };
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect();
    bytes.and_then(|b| b.try_into().ok()).ok_or_else(wrong_digest)
}

fn wrong_digest() -> String {
    "a digest has 64 hexadecimal digits, or 43 base64url characters".into()
}

/// Exit 0 when something was found, 1 when nothing was.
pub fn run(args: &FindArgs) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let archive = args.archive.open()?;
    let filter = args.filter()?;
    // First-seen groups are known only from everything before.
    let from_ms = if args.first_seen.is_empty() { filter.from_ms } else { 0 };
    let sections = archive.sections()?;
    let mut names = archive.list(hour_of(from_ms)..=hour_of(filter.to_ms.saturating_sub(1)))?;
    let all = if from_ms == 0 { names.clone() } else { archive.list(0..=u64::MAX)? };
    let mut fresh = archive.fresh(&sections, &all)?;
    // A `jti` of ours is an address, and says in which log.
    let parts: Vec<&str> = filter.jti.iter().flat_map(|jti| jti.split('.')).collect();
    if let [log, index, _] = parts.as_slice()
        && log.len() == 22
        && index.parse::<u64>().is_ok()
    {
        names.retain(|name| name.log == *log);
    }
    let is_empty = names.is_empty() && sections.is_empty();
    if !archive.has_key() && !is_empty {
        anyhow::bail!("no key is at hand to open the audit with; name its file with --key");
    }
    let (sealed, names): (Vec<_>, Vec<_>) = names.into_iter().partition(|n| n.is_sealed);
    fresh.extend(archive.unsealed(&sealed)?);
    let chosen = Chosen { archive: &archive, names };
    let found = args.answer(&chosen, &fresh, filter)?;
    if args.timing {
        complain(&format!(
            "{:.1} ms over {} segments and {} records in none; {} MB of memory",
            started.elapsed().as_secs_f64() * 1e3,
            chosen.names.len(),
            fresh.len(),
            peak_memory_kb() / 1_000
        ));
    }
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The most memory that this process had at a time, in kilobytes; 0 where the system does not say.
fn peak_memory_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

impl FindArgs {
    fn filter(&self) -> anyhow::Result<Filter> {
        let token = self.token.as_deref().map(token_digest).transpose()?;
        let now_ms = crate::now().saturating_mul(1_000).saturating_add(1_000);
        let last = self.last.map(|last| now_ms.saturating_sub(last));
        Ok(Filter {
            from_ms: self.from.or(last).unwrap_or(0),
            to_ms: self.to.unwrap_or(u64::MAX),
            outcome: self.outcome,
            code: self.code.clone(),
            realm: self.realm.clone(),
            client: self.client.clone(),
            subject: self.subject.clone(),
            audience: self.audience.clone(),
            kid: self.kid.clone().or_else(|| self.blast_radius.clone()),
            address: self.address.clone(),
            jti: self.jti.clone(),
            digest: self.digest.or(token),
            request_id: self.request_id.clone(),
        })
    }

    fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }

    fn answer(
        &self,
        chosen: &Chosen<'_>,
        fresh: &[Record],
        filter: Filter,
    ) -> anyhow::Result<bool> {
        if self.blast_radius.is_some() {
            return self.blast(chosen, fresh, &filter);
        }
        if !self.first_seen.is_empty() {
            let (from, to) = (filter.from_ms, filter.to_ms);
            let filter = Filter { from_ms: 0, ..filter };
            let mut groups = scan::count(chosen, fresh, &filter, &self.first_seen)?;
            groups.retain(|group| (from..to).contains(&group.first_ms));
            groups.sort_by_key(|group| group.first_ms);
            self.print(&self.groups(&groups, &self.first_seen)?)?;
            return Ok(!groups.is_empty());
        }
        if !self.count_by.is_empty() {
            let groups = scan::count(chosen, fresh, &filter, &self.count_by)?;
            self.print(&self.groups(&groups, &self.count_by)?)?;
            return Ok(!groups.is_empty());
        }
        let found = scan::find(chosen, fresh, &filter, self.limit)?;
        self.print(&self.records(&found.records)?)?;
        if found.more {
            complain(&format!("there are more than these {}; see --limit", found.records.len()));
        }
        Ok(!found.records.is_empty())
    }

    /// Which tokens, audiences and subjects a key's compromise touches, until when.
    fn blast(
        &self,
        chosen: &Chosen<'_>,
        fresh: &[Record],
        filter: &Filter,
    ) -> anyhow::Result<bool> {
        let mut parts = Vec::new();
        for name in ["realm", "client", "audience", "subject"] {
            let by: Vec<Column> = Column::parse(name).into_iter().collect();
            parts.push((name, by.clone(), scan::count(chosen, fresh, filter, &by)?));
        }
        let tokens: u64 =
            parts.first().map_or(0, |(_, _, groups)| groups.iter().map(|g| g.count).sum());
        let until = parts.iter().flat_map(|(_, _, groups)| groups).map(|g| g.until_ms).max();
        let until = until.unwrap_or(0) / 1_000;
        if self.format() == Format::Json {
            let mut document = json!({
                "kid": self.blast_radius,
                "tokens": tokens,
                "valid_until": until,
                "still_valid": until > crate::now(),
            });
            for (name, by, groups) in &parts {
                let groups: Vec<_> = groups.iter().map(|g| output::group_json(g, by)).collect();
                if let Some(members) = document.as_object_mut() {
                    members.insert(format!("by_{name}"), groups.into());
                }
            }
            self.print(document.to_string().as_bytes())?;
            return Ok(tokens > 0);
        }
        let left = until.saturating_sub(crate::now());
        let mut text = format!("{tokens} tokens; the last one expires in {left} s ({until})\n");
        for (_, by, groups) in &parts {
            let shown = groups.get(..groups.len().min(self.limit)).unwrap_or_default();
            text.push_str(&format!("\n{}\n", output::aligned(&output::group_rows(shown, by))));
        }
        self.print(text.trim_end().as_bytes())?;
        Ok(tokens > 0)
    }

    fn records(&self, records: &[Record]) -> anyhow::Result<Vec<u8>> {
        Ok(match self.format() {
            Format::Table => output::table(records).into_bytes(),
            Format::Json => {
                let lines: Vec<_> = records.iter().map(|r| output::json(r).to_string()).collect();
                lines.join("\n").into_bytes()
            }
            Format::Csv => {
                let lines = records.iter().map(output::csv);
                let lines: Vec<_> = std::iter::once(output::csv_head()).chain(lines).collect();
                lines.join("\n").into_bytes()
            }
            Format::Parquet => segment::write_plain(records)?.into(),
        })
    }

    fn groups(&self, groups: &[Group], by: &[Column]) -> anyhow::Result<Vec<u8>> {
        let rows = output::group_rows(groups, by);
        Ok(match self.format() {
            Format::Table => output::aligned(&rows).into_bytes(),
            Format::Json => {
                let lines = groups.iter().map(|g| output::group_json(g, by).to_string());
                lines.collect::<Vec<_>>().join("\n").into_bytes()
            }
            Format::Csv => output::csv_rows(&rows).into_bytes(),
            Format::Parquet => anyhow::bail!("counts have no Parquet form; use csv or json"),
        })
    }

    fn print(&self, bytes: &[u8]) -> anyhow::Result<()> {
        match &self.out {
            Some(file) => std::fs::write(file, bytes)
                .map_err(|e| anyhow::anyhow!("`{}`: {e}", file.display())),
            None if self.format() == Format::Parquet => {
                anyhow::bail!("a Parquet file needs a name: --out FILE")
            }
            None if bytes.is_empty() => Ok(()),
            None => {
                let mut out = std::io::stdout().lock();
                out.write_all(bytes)?;
                Ok(out.write_all(b"\n")?)
            }
        }
    }
}

/// The digest of a token's signing input; nothing of the token is believed.
fn token_digest(argument: &str) -> anyhow::Result<[u8; 32]> {
    let token = read_token(argument)?;
    let signing_input = token.rsplit_once('.').map(|(input, _)| input);
    match signing_input {
        Some(input) if token.len() <= jws::MAX_TOKEN_BYTES && input.contains('.') => {
            Ok(chancery_entry::sha256(input.as_bytes()))
        }
        _ => anyhow::bail!("that is no token: three parts, separated by dots"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_as_people_write_them() {
        assert_eq!(duration("90s"), Ok(90_000));
        assert_eq!(duration("7d"), Ok(604_800_000));
        for wrong in ["", "h", "1", "1y", "-1h", "99999999999999999d", "1é"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        let bytes: [u8; 32] = std::array::from_fn(|at| at as u8);
        assert_eq!(digest(&crate::service::hex(&bytes)), Ok(bytes));
        assert_eq!(digest(&b64::encode(&bytes)), Ok(bytes));
        for wrong in ["", "00", &"z".repeat(64), &"0".repeat(66)] {
            assert!(digest(wrong).is_err(), "{wrong}");
        }
        assert!(token_digest("a.b.c").is_ok());
        for wrong in ["", "a", "a.b", &format!("a.{}.c", "b".repeat(1 << 20))] {
            assert!(token_digest(wrong).is_err());
        }
    }
}
