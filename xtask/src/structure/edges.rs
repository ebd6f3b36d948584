//! Which workspace crate uses which: Cargo's view against ARCHITECTURE.md's table.

use super::{ARCHITECTURE, Finding};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const HEADING: &str = "## Allowed edges";
const RULE: &str = "allowed edges";

/// The crates that hold secrets or speak to the world: nobody but the testkit may import them.
const NOT_IMPORTED: [&str; 2] = ["chancery-signer", "chancery"];
const TESTKIT: &str = "chancery-testkit";

/// A workspace crate as Cargo sees it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Crate {
    /// Package name.
    pub name: String,
    /// Its folder relative to the root, with `/`.
    pub folder: String,
    /// Workspace crates that its build (or build script) uses.
    pub uses: BTreeSet<String>,
    /// Workspace crates that only its tests use.
    pub tests_use: BTreeSet<String>,
    /// Its cargo features.
    pub features: BTreeSet<String>,
}

/// The workspace's crates, from the JSON that `cargo metadata` prints.
pub fn crates(metadata: &str) -> Result<Vec<Crate>> {
    let metadata: Value = serde_json::from_str(metadata).context("cargo metadata is not JSON")?;
    let root = text(&metadata, "workspace_root")?;
    let members = strings(&metadata, "workspace_members");
    let mut crates = Vec::new();
    for package in array(&metadata, "packages") {
        if members.contains(text(package, "id")?) {
            crates.push(crate_of(package, root)?);
        }
    }
    let names: BTreeSet<String> = crates.iter().map(|one| one.name.clone()).collect();
    for one in &mut crates {
        one.uses.retain(|name| names.contains(name));
        one.tests_use.retain(|name| names.contains(name));
    }
    Ok(crates)
}

fn crate_of(package: &Value, root: &str) -> Result<Crate> {
    let manifest = text(package, "manifest_path")?;
    let folder = manifest.strip_prefix(root).unwrap_or(manifest).replace('\\', "/");
    let mut one = Crate {
        name: text(package, "name")?.to_owned(),
        folder: folder.trim_start_matches('/').trim_end_matches("/Cargo.toml").to_owned(),
        features: package
            .get("features")
            .and_then(Value::as_object)
            .map(|features| features.keys().cloned().collect())
            .unwrap_or_default(),
        ..Crate::default()
    };
    for dependency in array(package, "dependencies") {
        let name = text(dependency, "name")?.to_owned();
        let tests_only = dependency.get("kind").and_then(Value::as_str) == Some("dev");
        if tests_only { &mut one.tests_use } else { &mut one.uses }.insert(name);
    }
    Ok(one)
}

/// Compares `crates` with the table in `architecture`, and with the rules that no table may bend.
pub fn check(crates: &[Crate], architecture: &str) -> Vec<Finding> {
    let finding = |what: String| Finding::new(ARCHITECTURE, RULE, what);
    let rows = rows(architecture);
    let mut findings = Vec::new();
    if rows.is_empty() {
        findings.push(finding(format!("no table under `{HEADING}`")));
    }
    for name in rows.keys().filter(|name| !crates.iter().any(|one| one.name == **name)) {
        findings.push(finding(format!("row `{name}` names no workspace crate; remove it")));
    }
    for one in crates {
        match rows.get(one.name.as_str()) {
            None => findings.push(finding(format!("crate `{}` has no row", one.name))),
            Some(row) => findings.extend(row.compare(one).into_iter().map(finding)),
        }
        findings.extend(firm_rules(one, crates));
    }
    findings
}

/// One row of the table.
#[derive(Debug, Default)]
struct Row<'a> {
    any: bool,
    uses: BTreeSet<&'a str>,
    tests_use: BTreeSet<&'a str>,
}

impl Row<'_> {
    fn compare(&self, one: &Crate) -> Vec<String> {
        if self.any {
            return Vec::new();
        }
        let mut said = Vec::new();
        for name in one.uses.iter().filter(|name| !self.uses.contains(name.as_str())) {
            said.push(format!("`{}` uses `{name}`, which its row does not show", one.name));
        }
        for name in one.tests_use.iter().filter(|name| {
            !self.uses.contains(name.as_str()) && !self.tests_use.contains(name.as_str())
        }) {
            said.push(format!("tests of `{}` use `{name}`, which its row does not show", one.name));
        }
        // A `(tests)` edge is a permission and may lie idle; a use that is gone is a stale table.
        for name in self.uses.iter().filter(|name| !one.uses.contains(**name)) {
            said.push(format!("row `{}` shows `{name}`, which it does not use", one.name));
        }
        said
    }
}

/// The table's rows: crate name in the first cell, names in backticks in the second.
fn rows(architecture: &str) -> BTreeMap<&str, Row<'_>> {
    let lines = architecture.lines().skip_while(|line| line.trim() != HEADING).skip(1);
    let mut rows = BTreeMap::new();
    for line in lines.take_while(|line| !line.starts_with('#')) {
        let mut cells = line.trim().trim_matches('|').split('|');
        let (Some(first), Some(second), None) = (cells.next(), cells.next(), cells.next()) else {
            continue;
        };
        // Text in backticks is every second piece of a split at backticks.
        let Some(name) = first.split('`').nth(1) else { continue };
        let mut row = Row { any: second.trim() == "any", ..Row::default() };
        let pieces: Vec<&str> = second.split('`').collect();
        for pair in pieces.get(1..).unwrap_or_default().chunks_exact(2) {
            if let [used, after] = pair {
                let tests = after.trim_start().starts_with("(tests)");
                if tests { &mut row.tests_use } else { &mut row.uses }.insert(*used);
            }
        }
        rows.insert(name, row);
    }
    rows
}

/// What holds whatever the table says: nothing in `tcb/` imports from outside it or has cargo
/// features, nobody imports the signer or the server, and the testkit serves tests only.
fn firm_rules(one: &Crate, crates: &[Crate]) -> Vec<Finding> {
    let manifest = format!("{}/Cargo.toml", one.folder);
    let finding = |rule: &'static str, what: String| Finding::new(&manifest, rule, what);
    let in_tcb = |folder: &str| folder.starts_with("tcb/");
    let mut findings = Vec::new();
    for name in &one.uses {
        let outside = crates.iter().any(|other| other.name == *name && !in_tcb(&other.folder));
        if in_tcb(&one.folder) && outside {
            findings.push(finding("tcb imports", format!("`{name}` lies outside tcb/")));
        }
        if name == TESTKIT {
            findings.push(finding("testkit", "is for dev-dependencies only".to_owned()));
        }
    }
    for name in one.uses.union(&one.tests_use) {
        if NOT_IMPORTED.contains(&name.as_str()) && one.name != TESTKIT {
            findings.push(finding("not imported", format!("only the testkit may use `{name}`")));
        }
    }
    if in_tcb(&one.folder) && !one.features.is_empty() {
        findings.push(finding("tcb features", format!("{:?}: tcb/ has none", one.features)));
    }
    findings
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value.get(key).and_then(Value::as_str).with_context(|| format!("metadata has no `{key}`"))
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn strings<'a>(value: &'a Value, key: &str) -> BTreeSet<&'a str> {
    array(value, key).iter().filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, folder: &str, uses: &[&str], tests_use: &[&str]) -> Crate {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Crate {
            name: name.to_owned(),
            folder: folder.to_owned(),
            uses: set(uses),
            tests_use: set(tests_use),
            features: BTreeSet::new(),
        }
    }

    fn table(rows: &str) -> String {
        format!(
            "# A\n\n| `z` | `y` |\n{HEADING}\n\n| crate | may use |\n|---|---|\n{rows}\n## B\n| `z` | `y` |\n"
        )
    }

    fn said(crates: &[Crate], rows: &str) -> Vec<String> {
        check(crates, &table(rows)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_true_table_has_no_finding() {
        let crates = [
            package("a", "tcb/a", &[], &[]),
            package("b", "tcb/b", &["a"], &[]),
            package("c", "service/c", &["a"], &[TESTKIT]),
            package(TESTKIT, "testkit", &["a", "chancery-signer"], &[]),
            package("chancery-signer", "tcb/signer", &["a", "b"], &[]),
        ];
        let rows = "| `a` | none |\n| `b` | `a` |\n| `c` | `a`, `chancery-testkit` (tests) |\n\
                    | `chancery-testkit` | any |\n| `chancery-signer` | `a`, `b` |";
        assert_eq!(said(&crates, rows), Vec::<String>::new());
    }

    #[test]
    fn an_edge_without_a_row_entry_is_found() {
        let crates = [package("a", "a", &[], &[]), package("b", "b", &["a"], &[])];
        assert_eq!(
            said(&crates, "| `a` | none |\n| `b` | none |"),
            ["ARCHITECTURE.md: allowed edges: `b` uses `a`, which its row does not show"]
        );
        // A permission for tests is none for the build.
        assert_eq!(said(&crates, "| `a` | none |\n| `b` | `a` (tests) |").len(), 1);
        let crates = [package("a", "a", &[], &[]), package("b", "b", &[], &["a"])];
        assert_eq!(said(&crates, "| `a` | none |\n| `b` | none |").len(), 1);
        assert!(said(&crates, "| `a` | none |\n| `b` | `a` (tests) |").is_empty());
    }

    #[test]
    fn a_stale_table_is_found() {
        let crates = [package("a", "a", &[], &[]), package("b", "b", &[], &[])];
        let found = said(&crates, "| `a` | none |\n| `b` | `a` |\n| `c` | none |");
        assert_eq!(
            found,
            [
                "ARCHITECTURE.md: allowed edges: row `c` names no workspace crate; remove it",
                "ARCHITECTURE.md: allowed edges: row `b` shows `a`, which it does not use",
            ]
        );
        assert!(said(&crates, "| `a` | none |")[0].ends_with("crate `b` has no row"));
        assert!(check(&crates, "# nothing")[0].what.starts_with("no table"));
    }

    #[test]
    fn no_table_bends_the_firm_rules() {
        let crates = [
            package("chancery-signer", "tcb/signer", &[], &[]),
            package("chancery", "service/server", &["chancery-signer"], &[]),
            package("t", "tcb/t", &["chancery"], &[]),
            package("v", "validate/v", &[TESTKIT], &[]),
            package(TESTKIT, "testkit", &["chancery"], &[]),
        ];
        let rows = "| `chancery-signer` | none |\n| `chancery` | `chancery-signer` |\n\
                    | `t` | `chancery` |\n| `v` | `chancery-testkit` |\n| `chancery-testkit` | any |";
        assert_eq!(
            said(&crates, rows),
            [
                "service/server/Cargo.toml: not imported: only the testkit may use `chancery-signer`",
                "tcb/t/Cargo.toml: tcb imports: `chancery` lies outside tcb/",
                "tcb/t/Cargo.toml: not imported: only the testkit may use `chancery`",
                "validate/v/Cargo.toml: testkit: is for dev-dependencies only",
            ]
        );
        let mut one = package("a", "tcb/a", &[], &[]);
        one.features.insert("mock".to_owned());
        assert_eq!(
            said(&[one], "| `a` | none |"),
            ["tcb/a/Cargo.toml: tcb features: {\"mock\"}: tcb/ has none"]
        );
    }

    #[test]
    fn metadata_gives_workspace_edges_by_kind() {
        let metadata = r#"{"workspace_root": "/r", "workspace_members": ["1", "2", "3"], "packages": [
            {"id": "1", "name": "a", "manifest_path": "/r/tcb/a/Cargo.toml", "features": {"f": []},
             "dependencies": [{"name": "serde", "kind": null}, {"name": "b", "kind": null},
                              {"name": "c", "kind": "dev"}]},
            {"id": "2", "name": "b", "manifest_path": "/r/b/Cargo.toml", "features": {},
             "dependencies": [{"name": "c", "kind": "build"}]},
            {"id": "3", "name": "c", "manifest_path": "/r/c/Cargo.toml", "dependencies": []},
            {"id": "4", "name": "serde", "manifest_path": "/x/Cargo.toml", "dependencies": []}]}"#;
        let mut a = package("a", "tcb/a", &["b"], &["c"]);
        a.features.insert("f".to_owned());
        let expected = [a, package("b", "b", &["c"], &[]), package("c", "c", &[], &[])];
        assert_eq!(crates(metadata).unwrap(), expected);
        assert!(crates("{}").is_err());
    }
}
