//! The repository's own text files.

use anyhow::{Context as _, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// Folders that hold nothing of our own: what `.gitignore` names, and tools' private folders.
/// Other hidden folders are ours when they are `.cargo`, `.ci` or `.github`.
const NOT_OURS: [&str; 6] =
    ["target", "node_modules", "__pycache__", "corpus", "artifacts", "chancery-data"];
const OURS: [&str; 3] = [".cargo", ".ci", ".github"];

/// One text file.
#[derive(Debug)]
pub struct File {
    /// Path relative to the root, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
    /// Whether all of it serves tests.
    test: bool,
}

impl File {
    /// Whether this is Rust source.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether all of this file serves tests: test modules and folders, the testkit, fuzz targets.
    pub fn is_test(&self) -> bool {
        self.test
    }

    /// Each line with whether it serves tests: in a test file all, otherwise those of inline
    /// `#[cfg(test)] mod` blocks (which rustfmt closes with a brace at the same indentation).
    pub fn lines(&self) -> Vec<(&str, bool)> {
        let mut lines = Vec::new();
        let mut attribute = None;
        let mut block = None;
        for line in self.text.lines() {
            let indent = indentation(line);
            let code = line.trim_start();
            if block.is_none() && attribute == Some(indent) && code.contains("mod ") {
                block = code.ends_with('{').then_some(indent);
            }
            // Further attributes may stand between `#[cfg(test)]` and its module.
            if code == "#[cfg(test)]" {
                attribute = Some(indent);
            } else if !code.starts_with("#[") {
                attribute = None;
            }
            lines.push((line, self.is_test() || block.is_some()));
            if block == Some(indent) && code == "}" {
                block = None;
            }
        }
        lines
    }
}

/// Whether the path alone says that a file serves tests.
fn is_test_path(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name == "tests.rs"
        || name.ends_with("_tests.rs")
        || path.split('/').any(|folder| folder == "tests" || folder == "benches")
        || path.starts_with("testkit/")
        || path.starts_with("fuzz/")
}

/// Marks the files of modules that are declared `#[cfg(test)] mod name;`.
fn mark_test_modules(files: &mut [File]) {
    let mut modules = BTreeSet::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let stem = file.path.trim_end_matches(".rs");
        let (parent, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        let folder = if matches!(name, "lib" | "main" | "mod") { parent } else { stem };
        let mut attribute = false;
        for line in file.text.lines().map(str::trim) {
            if attribute && let Some(module) = module_file(line) {
                modules.insert(format!("{folder}/{module}"));
            }
            attribute = line == "#[cfg(test)]" || (attribute && line.starts_with("#["));
        }
    }
    for file in files {
        let stem = file.path.trim_end_matches(".rs");
        let mut folders = stem.match_indices('/').filter_map(|(at, _)| stem.get(..at));
        file.test |= modules.contains(stem) || folders.any(|folder| modules.contains(folder));
    }
}

/// `name` of a line `mod name;`, whatever its visibility.
fn module_file(line: &str) -> Option<&str> {
    let (before, name) = line.strip_suffix(';')?.rsplit_once("mod ")?;
    (before.is_empty() || before.starts_with("pub")).then_some(name)
}

/// The number of leading spaces.
pub fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Every text file below `root`, sorted by path; files that are not UTF-8 are not text.
pub fn text_files(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("cannot list `{}`", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() && is_ours(&name) {
                folders.push(entry.path());
            } else if kind.is_file()
                && let Ok(text) = String::from_utf8(std::fs::read(entry.path())?)
            {
                let path = entry.path();
                let path = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
                files.push(File { test: is_test_path(&path), path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    mark_test_modules(&mut files);
    Ok(files)
}

fn is_ours(folder: &str) -> bool {
    if folder.starts_with('.') { OURS.contains(&folder) } else { !NOT_OURS.contains(&folder) }
}

#[cfg(test)]
pub fn file(path: &str, text: &str) -> File {
    File { test: is_test_path(path), path: path.to_owned(), text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_files_are_known_by_their_path() {
        for path in ["tcb/a/src/tests.rs", "a/src/codec_tests.rs", "a/tests/x.rs", "fuzz/a/b.rs"] {
            assert!(file(path, "").is_test(), "{path}");
        }
        for path in ["tcb/a/src/lib.rs", "a/src/contests.rs", "a/src/tests_of.rs"] {
            assert!(!file(path, "").is_test(), "{path}");
        }
    }

    #[test]
    fn inline_test_modules_are_test_lines_and_code_after_them_is_not() {
        let text = "fn a() {}\n#[cfg(test)]\n#[expect(x)]\nmod tests {\n    fn t() {\n    }\n}\nfn b() {}\n#[cfg(test)]\nmod tests;\nfn c() {}\n#[cfg(test)]\nfn d() {}\n";
        let file = file("a/src/lib.rs", text);
        let tests: Vec<&str> =
            file.lines().into_iter().filter(|(_, test)| *test).map(|(line, _)| line).collect();
        assert_eq!(tests, ["mod tests {", "    fn t() {", "    }", "}"]);
    }

    #[test]
    fn files_of_test_modules_are_test_files() {
        let mut files = [
            file("a/src/lib.rs", "#[cfg(test)]\n#[expect(x)]\npub(crate) mod f;\nmod g;\n"),
            file("a/src/f.rs", ""),
            file("a/src/f/x.rs", ""),
            file("a/src/g.rs", "#[cfg(test)]\nmod h;\n"),
            file("a/src/g/h.rs", ""),
            file("a/src/h.rs", ""),
            file("b/src/f.rs", ""),
        ];
        mark_test_modules(&mut files);
        let tests: Vec<&str> =
            files.iter().filter(|file| file.is_test()).map(|file| file.path.as_str()).collect();
        assert_eq!(tests, ["a/src/f.rs", "a/src/f/x.rs", "a/src/g/h.rs"]);
    }

    #[test]
    fn the_walk_finds_this_file_and_no_build_output() {
        let files = text_files(crate::repository()).unwrap();
        assert!(files.iter().any(|file| file.path == "xtask/src/structure/tree.rs"));
        assert!(files.iter().any(|file| file.path == ".cargo/config.toml"));
        assert!(!files.iter().any(|file| file.path.starts_with("target/")));
        assert!(!files.iter().any(|file| file.path.starts_with(".git/")));
    }
}
