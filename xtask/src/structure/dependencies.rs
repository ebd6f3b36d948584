//! The signer's dependency tree against its allow-list.

use super::{ALLOW_LIST, Finding, PLATFORM};
use crate::structure::lists::List;
use std::collections::BTreeSet;

const RULE: &str = "signer dependencies";

/// Prints the signer's tree with the features that it gets when it is built alone; the unified
/// features of `cargo metadata` would also hold those that the service asks for.
pub const TREE_COMMAND: [&str; 12] = [
    "tree",
    "--locked",
    "--package",
    "chancery-signer",
    "--edges",
    "normal",
    "--target",
    PLATFORM,
    "--prefix",
    "none",
    "--format",
    "{p}",
];

/// Compares the crates that `tree` names with the allow-list.
pub fn check(tree: &str, allowed: &List) -> Vec<Finding> {
    let used = foreign_crates(tree);
    let allowed = allowed.names();
    let mut findings = Vec::new();
    for name in used.difference(&allowed) {
        findings.push(Finding::new(
            ALLOW_LIST,
            RULE,
            format!("`{name}` is in the signer's tree; remove it, or add it with its reason"),
        ));
    }
    for name in allowed.difference(&used) {
        let what = format!("`{name}` is no longer in the signer's tree; remove the line");
        findings.push(Finding::new(ALLOW_LIST, RULE, what));
    }
    findings
}

/// The names in lines such as `syn v2.0.1 (proc-macro) (*)`; a folder in parentheses marks a crate
/// of this workspace.
pub fn foreign_crates(tree: &str) -> BTreeSet<&str> {
    tree.lines()
        .filter(|line| !line.contains(" (/"))
        .filter_map(|line| line.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "chancery-signer v0.1.0 (/somewhere/tcb/signer)\naws-lc-rs v1.19.0\n\
        chancery-entry v0.1.0 (/somewhere/tcb/entry) (*)\nserde_derive v1.0.1 (proc-macro)\n\
        aws-lc-rs v1.19.0 (*)\n\n";

    #[test]
    fn a_complete_list_has_no_finding() {
        let list = List::parse("aws-lc-rs = \"r\"\nserde_derive = \"r\"").unwrap();
        assert_eq!(check(TREE, &list), []);
    }

    #[test]
    fn an_unlisted_crate_and_an_idle_line_are_found() {
        let list = List::parse("aws-lc-rs = \"r\"\nring = \"r\"").unwrap();
        let found: Vec<String> = check(TREE, &list).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("`serde_derive` is in the signer's tree"), "{found:?}");
        assert!(found[1].contains("`ring` is no longer"), "{found:?}");
    }
}
