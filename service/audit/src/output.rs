//! Records and groups for people and tools: a table, JSON lines, CSV.

use serde_json::{Map, Value, json};

use crate::Record;
use crate::path::rfc3339;
use crate::scan::{Column, Group};
use crate::segment::join;
use chancery_token::b64;

/// Columns of the table for people: what fits a screen.
pub const TABLE: [&str; 9] =
    ["time", "outcome", "code", "realm", "client", "subject", "audience", "address", "jti"];

/// A record as JSON: members in the order of the columns, empty ones left out.
#[must_use]
pub fn json(record: &Record) -> Value {
    let mut members = Map::new();
    for (name, value) in cells(record) {
        let value = match (name, value) {
            (_, Cell::Text(text)) if text.is_empty() => continue,
            ("audience", _) => json!(record.audiences),
            (_, Cell::Text(text)) => Value::String(text),
            (_, Cell::Number(number)) => json!(number),
        };
        members.insert(name.to_owned(), value);
    }
    Value::Object(members)
}

/// The first line of CSV.
#[must_use]
pub fn csv_head() -> String {
    crate::scan::columns().join(",")
}

/// A record as a line of CSV (RFC 4180).
#[must_use]
pub fn csv(record: &Record) -> String {
    let cells = cells(record).into_iter().map(|(_, cell)| match cell {
        Cell::Text(text) => quoted(&text),
        Cell::Number(number) => number.to_string(),
    });
    cells.collect::<Vec<_>>().join(",")
}

/// Records as a table.
#[must_use]
pub fn table(records: &[Record]) -> String {
    let mut rows = vec![TABLE.map(str::to_owned).to_vec()];
    for record in records {
        let all = cells(record);
        let text = |name: &str| {
            let cell = all.iter().find(|(n, _)| *n == name).map(|(_, cell)| cell);
            match cell {
                Some(Cell::Text(text)) => printable(text),
                Some(Cell::Number(number)) => number.to_string(),
                None => String::new(),
            }
        };
        rows.push(TABLE.iter().map(|name| text(name)).collect());
    }
    aligned(&rows)
}

/// A group as JSON.
#[must_use]
pub fn group_json(group: &Group, by: &[Column]) -> Value {
    let mut members = Map::new();
    for (column, text) in by.iter().zip(&group.texts) {
        members.insert(column.name().to_owned(), json!(text));
    }
    members.insert("count".into(), json!(group.count));
    members.insert("first".into(), json!(rfc3339(group.first_ms)));
    members.insert("last".into(), json!(rfc3339(group.last_ms)));
    if group.until_ms > 0 {
        members.insert("valid_until".into(), json!(rfc3339(group.until_ms)));
    }
    Value::Object(members)
}

/// Groups as a table, or as CSV.
#[must_use]
pub fn group_rows(groups: &[Group], by: &[Column]) -> Vec<Vec<String>> {
    let names = by.iter().map(|column| column.name());
    let head = names.chain(["count", "first", "last", "valid_until"]);
    let mut rows = vec![head.map(str::to_owned).collect::<Vec<_>>()];
    for group in groups {
        let until = if group.until_ms > 0 { rfc3339(group.until_ms) } else { String::new() };
        let sums =
            [group.count.to_string(), rfc3339(group.first_ms), rfc3339(group.last_ms), until];
        rows.push(group.texts.iter().cloned().chain(sums).collect());
    }
    rows
}

/// Rows as CSV lines.
#[must_use]
pub fn csv_rows(rows: &[Vec<String>]) -> String {
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().map(|cell| quoted(cell)).collect();
        cells.join(",")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Rows under each other; the first is the head.
#[must_use]
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        cells.map(|cell| printable(cell).chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{:<width$}  ", printable(cell)));
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

enum Cell {
    Text(String),
    Number(u64),
}

fn cells(record: &Record) -> Vec<(&'static str, Cell)> {
    let token = record.token.as_ref();
    let text = |text: &str| Cell::Text(text.to_owned());
    vec![
        ("time", Cell::Text(rfc3339(record.time_ms))),
        ("outcome", text(record.outcome.as_str())),
        ("code", text(&record.code)),
        ("detail", text(&record.detail)),
        ("realm", text(&record.realm)),
        ("client", text(&record.client)),
        ("subject", text(&record.subject)),
        ("audience", Cell::Text(join(&record.audiences))),
        ("scope", text(&record.scope)),
        ("grant_name", text(&record.grant)),
        ("policy_version", Cell::Number(record.policy_version)),
        ("kid", Cell::Text(token.map(|t| b64::encode(&t.kid)).unwrap_or_default())),
        ("jti", text(token.map_or("", |t| &t.jti))),
        ("digest", Cell::Text(token.map(|t| hex(&t.digest)).unwrap_or_default())),
        (
            "expires",
            Cell::Text(token.map(|t| rfc3339(t.exp.saturating_mul(1_000))).unwrap_or_default()),
        ),
        ("lifetime_s", Cell::Number(token.map_or(0, |t| t.lifetime_s))),
        ("address", text(&record.address)),
        ("user_agent", text(&record.user_agent)),
        ("request_id", text(&record.request_id)),
        ("latency_ms", Cell::Number(u64::from(record.latency_ms))),
        ("count", Cell::Number(record.count)),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What a client sent must not move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn quoted(text: &str) -> String {
    // A spreadsheet would take these for formulas.
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if formula || text.contains(['"', ',', '\n', '\r']) {
        let prefix = if formula { "'" } else { "" };
        return format!("\"{prefix}{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    #[test]
    fn what_strangers_send_stays_in_its_cell() {
        let mut record = Record::new(1_000, Outcome::Refused);
        record.user_agent = "a\",\nb".into();
        record.client = "=1+1".into();
        record.code = "\u{1b}[2J".into();
        let line = csv(&record);
        assert!(line.contains("\"a\"\",\nb\"") && line.contains("\"'=1+1\""), "{line}");
        let table = table(&[record.clone()]);
        assert!(!table.contains('\u{1b}') && table.lines().count() == 2, "{table}");
        let json = json(&record);
        assert_eq!(json.get("time"), Some(&Value::from("1970-01-01T00:00:01.000Z")));
        assert_eq!(json.get("subject"), None);
        assert_eq!(csv_head().split(',').count(), 21);
    }
}
