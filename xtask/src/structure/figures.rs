//! The signer's size, as ARCHITECTURE.md tells it: what has to be read to trust it.
//!
//! The table's figures are bounds that the code keeps and comes near to, so that they stay true
//! without being touched by every change.

use super::tree::File;
use super::{ARCHITECTURE, Finding, dependencies};

const RULE: &str = "signer size";
/// The section that holds the table.
const HEADING: &str = "## The signer's size";
/// What the bound is not to exceed: the figure and a sixth of it.
const SLACK: u64 = 6;

/// The rows of the table.
const LINES: &str = "lines of own code";
const CRATES: &str = "crates from outside";
const UNSAFE: &str = "`unsafe` blocks";

/// Compares what the sources and the dependency `tree` say with the table.
pub fn check(files: &[File], tree: &str, architecture: &str) -> Vec<Finding> {
    let own: Vec<&File> = files.iter().filter(|f| is_trusted(f)).collect();
    let crates = u64::try_from(dependencies::foreign_crates(tree).len()).unwrap_or(u64::MAX);
    let lines = own.iter().map(|file| code_lines(file)).sum();
    let unsafes = own.iter().map(|file| unsafe_blocks(file)).sum();
    [(LINES, lines), (CRATES, crates), (UNSAFE, unsafes)]
        .into_iter()
        .filter_map(|(row, found)| judge(architecture, row, found))
        .collect()
}

fn judge(architecture: &str, row: &str, found: u64) -> Option<Finding> {
    let what = match bound(architecture, row) {
        None => format!("`{HEADING}` has no row `{row}`; it is {found}"),
        Some(bound) if found > bound => {
            format!("`{row}` is {found}, more than the {bound} told: take something out, or tell")
        }
        Some(bound) if bound > found.saturating_add(found / SLACK) => {
            format!("`{row}` is {found}, far below the {bound} told: tell less")
        }
        Some(_) => return None,
    };
    Some(Finding::new(ARCHITECTURE, RULE, what))
}

fn bound(architecture: &str, row: &str) -> Option<u64> {
    let (_, section) = architecture.split_once(HEADING)?;
    let section = section.split("\n## ").next()?;
    let line = section.lines().find(|line| line.starts_with(&format!("| {row} |")))?;
    line.split('|').nth(2)?.trim().replace(',', "").parse().ok()
}

/// The code that ends up in the signer.
fn is_trusted(file: &File) -> bool {
    file.path.starts_with("tcb/")
        && file.path.contains("/src/")
        && file.is_rust()
        && !file.is_test()
}

fn code_lines(file: &File) -> u64 {
    let is_code = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    let count = file.lines().iter().filter(|(line, test)| !test && is_code(line)).count();
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Blocks, functions and implementations that say `unsafe`.
fn unsafe_blocks(file: &File) -> u64 {
    let says = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|w| code.contains(w))
    };
    let count = file.lines().iter().filter(|(line, test)| !test && says(line)).count();
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    const PAGE: &str = "# A\n## The signer's size\n\n| figure | at most |\n|---|---|\n\
        | lines of own code | 1,200 |\n\n## Next\n| crates from outside | 3 |\n";

    #[test]
    fn a_figure_beyond_its_bound_or_far_below_it_is_found() {
        assert_eq!(judge(PAGE, LINES, 1_200), None);
        assert_eq!(judge(PAGE, LINES, 1_100), None);
        let text = |found| judge(PAGE, LINES, found).unwrap().what;
        assert!(text(1_201).contains("more than the 1200"));
        assert!(text(900).contains("far below"));
        assert!(judge(PAGE, CRATES, 3).unwrap().what.contains("no row"), "another section's row");
    }

    #[test]
    fn comments_and_tests_are_no_code() {
        let text = "//! Doc.\n\nfn a() {\n    // SAFETY: none\n    unsafe { b() }\n}\n\n\
            #[cfg(test)]\nmod tests {\n    fn t() { unsafe { b() } }\n}\n";
        let file = tree::file("tcb/x/src/a.rs", text);
        // The function, and the attribute of the module.
        assert_eq!(code_lines(&file), 4);
        assert_eq!(unsafe_blocks(&file), 1);
        let table = "## The signer's size\n| lines of own code | 4 |\n| `unsafe` blocks | 0 |\n\
            | crates from outside | 0 |\n";
        let elsewhere = tree::file("service/src/a.rs", text);
        let findings = check(&[file, elsewhere], "", table);
        assert_eq!(findings.len(), 1, "{findings:?}");
    }
}
