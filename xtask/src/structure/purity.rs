//! Pure crates have no I/O, no clock, no randomness, no async and no logging: those are arguments.

use super::Finding;
use super::lists::List;
use super::tree::File;

/// The folders of the pure crates.
const PURE: [&str; 5] =
    ["tcb/token/src/", "tcb/tlog/src/", "tcb/entry/src/", "tcb/policy/src/", "tcb/signer-api/src/"];

/// What their code must not say, as whole words.
const FORBIDDEN: [&str; 22] = [
    "SystemTime",
    "Instant::now",
    "std::fs",
    "std::net",
    "std::env",
    "std::io",
    "std::process",
    "std::thread",
    "print!",
    "println!",
    "eprint!",
    "eprintln!",
    "tokio",
    "tracing",
    "async",
    "rustix",
    "libc",
    "rand::fill",
    "SystemRandom",
    "getrandom",
    "::generate(",
    "::generate_pkcs8(",
];

/// Modules that `use std::{...}` could bring in without spelling them as above.
const FORBIDDEN_STD: [&str; 6] = ["fs", "net", "env", "io", "process", "thread"];

/// Checks the pure crates' code outside tests; `exceptions` may name a file and a word.
pub fn check(files: &[File], exceptions: &mut List) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| PURE.iter().any(|pure| file.path.starts_with(pure))) {
        for (number, (line, test)) in file.lines().into_iter().enumerate() {
            if test || !file.is_rust() {
                continue;
            }
            for word in forbidden_words(line) {
                if !exceptions.allows("impure", &format!("{}: {word}", file.path)) {
                    let what = format!("line {} says `{word}`; make it an argument", number + 1);
                    findings.push(Finding::new(&file.path, "purity", what));
                }
            }
        }
    }
    findings
}

fn forbidden_words(line: &str) -> Vec<&'static str> {
    let code = if line.trim_start().starts_with("//") { "" } else { line };
    let code = code.split_once(" // ").map_or(code, |(before, _)| before);
    let plain = FORBIDDEN.into_iter().filter(|word| has_word(code, word));
    let group = code.split_once("std::{").map_or("", |(_, inside)| inside);
    plain.chain(FORBIDDEN_STD.into_iter().filter(|word| has_word(group, word))).collect()
}

/// Whether `text` holds `word` as whole identifiers: where `word` begins or ends with an
/// identifier's character, its neighbour in `text` is none.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let joins = |a: Option<char>, b: Option<char>| a.is_some_and(part) && b.is_some_and(part);
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|text| text.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|text| text.chars().next());
        !joins(before, word.chars().next()) && !joins(word.chars().next_back(), after)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tree::file;
    use super::*;

    fn found(path: &str, text: &str, list: &str) -> Vec<String> {
        let findings = check(&[file(path, text)], &mut List::parse(list).unwrap());
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_forbidden_word_is_found_in_a_pure_crate() {
        for word in FORBIDDEN {
            let text = format!("fn a() {{\n    {word}\n}}\n");
            assert_eq!(
                found("tcb/entry/src/a.rs", &text, ""),
                [format!("tcb/entry/src/a.rs: purity: line 2 says `{word}`; make it an argument")]
            );
            assert!(found("tcb/signer/src/a.rs", &text, "").is_empty(), "{word}");
        }
        assert_eq!(found("tcb/tlog/src/a.rs", "use std::{fmt, fs};\n", "").len(), 1);
    }

    #[test]
    fn words_in_comments_tests_and_other_words_are_not() {
        let text = "//! No SystemTime here.\nuse std::{fmt, slice};\nfn generate(asynchronous); // async \
                    things\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert_eq!(found("tcb/tlog/src/lib.rs", text, ""), Vec::<String>::new());
        assert!(found("tcb/tlog/src/tests.rs", "use std::fs;\n", "").is_empty());
        assert!(found("tcb/tlog/src/api.md", "std::fs\n", "").is_empty());
    }

    #[test]
    fn an_exception_holds_for_its_file_and_word_only() {
        let text = "KeyPair::generate();\nSystemRandom::new();\n";
        let list = "[impure]\n\"tcb/token/src/keys.rs: ::generate(\" = \"makes keys\"";
        assert_eq!(found("tcb/token/src/keys.rs", text, list).len(), 1);
        assert_eq!(found("tcb/token/src/jws.rs", text, list).len(), 2);
    }
}
