//! No file names the machine that it was written on.

use super::Finding;
use super::tree::File;

/// Folders and hosts of build machines; split, so that this file does not name them itself.
const MACHINE: [&str; 4] = [
    concat!("/", "work/"),
    concat!("/", "root/"),
    concat!("/", "farm/"),
    concat!("arti", "factory"),
];

/// Checks every text file, line by line.
pub fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            for name in MACHINE.into_iter().filter(|name| names(line, name)) {
                let what = format!("line {} says `{name}`; say it relative", number + 1);
                findings.push(Finding::new(&file.path, "machine paths", what));
            }
        }
    }
    findings
}

/// Whether `line` holds `name` as the start of a path: `~/a/b/` and `example.com/a/` are other
/// people's folders.
fn names(line: &str, name: &str) -> bool {
    let lower = line.to_lowercase();
    lower.match_indices(name).any(|(at, _)| {
        let before = lower.get(..at).and_then(|text| text.chars().next_back());
        !name.starts_with('/')
            || !before.is_some_and(|c| c.is_alphanumeric() || "_.-}>)*~".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tree::file;
    use super::*;

    #[test]
    fn machine_paths_are_found_with_their_line() {
        for name in MACHINE {
            let text = format!("fine\nsee \"{name}x\"\n");
            let found = check(&[file("docs/a.md", &text)]);
            assert_eq!(
                found[0].to_string(),
                format!("docs/a.md: machine paths: line 2 says `{name}`; say it relative")
            );
        }
        let host = format!("https://x.{}.example", MACHINE[3].to_uppercase());
        assert_eq!(check(&[file("a", &host)]).len(), 1);
    }

    #[test]
    fn paths_inside_other_paths_are_not() {
        for name in MACHINE.into_iter().filter(|name| name.starts_with('/')) {
            let text = format!("./net{name}a log{name}b https://example.com{name}c");
            assert_eq!(check(&[file("docs/a.md", &text)]), []);
        }
    }
}
