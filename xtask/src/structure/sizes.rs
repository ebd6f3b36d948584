//! Files and functions far out of proportion.

use super::Finding;
use super::lists::List;
use super::tree::{File, indentation};

/// The longest source file, in lines: what STYLE calls a long one, twice a comfortable one.
const FILE_LINES: usize = 800;
/// The longest test file: tests are lists of cases, read one at a time.
const TEST_FILE_LINES: usize = 1_000;
/// The longest function, from `fn` to its closing brace: about a screen.
const FUNCTION_LINES: usize = 70;
/// The longest test function: a scenario told from start to end.
const TEST_FUNCTION_LINES: usize = 120;

/// The languages whose files are source.
const SOURCE: [&str; 5] = [".rs", ".py", ".js", ".ts", ".sh"];

/// Checks every file against the limits; a file or function in `exceptions` may exceed them.
pub fn check(files: &[File], exceptions: &mut List) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| SOURCE.iter().any(|end| file.path.ends_with(end))) {
        let lines = file.text.lines().count();
        let limit = if file.is_test() { TEST_FILE_LINES } else { FILE_LINES };
        if lines > limit && !exceptions.allows("long-files", &file.path) {
            let what = format!("{lines} lines, the limit is {limit}; split it by topic");
            findings.push(Finding::new(&file.path, "file size", what));
        }
        if file.is_rust() {
            findings.extend(long_functions(file, exceptions));
        }
    }
    findings
}

fn long_functions(file: &File, exceptions: &mut List) -> Vec<Finding> {
    let mut findings = Vec::new();
    for function in functions(file) {
        let limit = if function.test { TEST_FUNCTION_LINES } else { FUNCTION_LINES };
        let key = format!("{}::{}", file.path, function.name);
        if function.lines > limit && !exceptions.allows("long-functions", &key) {
            let what = format!(
                "`{}` in line {} has {} lines, the limit is {limit}; split it by step",
                function.name, function.start, function.lines
            );
            findings.push(Finding::new(&file.path, "function size", what));
        }
    }
    findings
}

#[derive(Debug, PartialEq, Eq)]
struct Function<'a> {
    name: &'a str,
    start: usize,
    lines: usize,
    test: bool,
}

/// The functions of a file in rustfmt's layout: a body that spans lines ends at the first `}` with
/// the indentation of its `fn`. Closures and inner functions count to the outer function too.
fn functions(file: &File) -> Vec<Function<'_>> {
    let lines = file.lines();
    let mut found = Vec::new();
    for (start, (line, test)) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = indentation(line);
        let length = if line.ends_with([';', '}']) {
            1
        } else {
            let rest = lines.iter().skip(start + 1);
            // A declaration without a body (in a trait) ends with `;` at the same indentation.
            let inside = rest.take_while(|(line, _)| {
                indentation(line) != indent || line.is_empty() || !line.ends_with(['}', ';'])
            });
            inside.count() + 2
        };
        found.push(Function { name, start: start + 1, lines: length, test: *test });
    }
    found
}

/// The name, if `line` starts a function.
fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    if rest.starts_with("pub(") {
        rest = rest.split_once(") ").map_or(rest, |(_, after)| after);
    }
    for word in ["pub ", "default ", "const ", "async ", "unsafe ", "extern \"C\" "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::tree::file;
    use super::*;

    fn body(name: &str, lines: usize) -> String {
        format!("fn {name}() {{\n{}}}\n", "    work();\n".repeat(lines - 2))
    }

    #[test]
    fn a_long_file_is_found_unless_listed_and_tests_may_be_longer() {
        let text = "//\n".repeat(FILE_LINES + 1);
        let check = |path: &str, list: &str| {
            check(&[file(path, &text)], &mut List::parse(list).unwrap()).len()
        };
        assert_eq!(check("a/src/lib.rs", ""), 1);
        assert_eq!(check("a/src/lib.py", ""), 1);
        assert_eq!(check("a/tests/lib.rs", ""), 0);
        assert_eq!(check("a/notes.md", ""), 0);
        assert_eq!(check("a/src/lib.rs", "[long-files]\n\"a/src/lib.rs\" = \"a table\""), 0);
        assert_eq!(check("a/src/lib.rs", "[long-functions]\n\"a/src/lib.rs\" = \"a table\""), 1);
    }

    #[test]
    fn a_long_function_is_found_unless_listed_and_tests_may_be_longer() {
        let check = |text: &str, list: &str| {
            check(&[file("a/src/lib.rs", text)], &mut List::parse(list).unwrap())
        };
        assert_eq!(check(&body("f", FUNCTION_LINES), ""), []);
        let found = check(&body("f", FUNCTION_LINES + 1), "");
        assert_eq!(
            found[0].to_string(),
            "a/src/lib.rs: function size: `f` in line 1 has 71 lines, the limit is 70; \
             split it by step"
        );
        let list = "[long-functions]\n\"a/src/lib.rs::f\" = \"a table\"";
        assert_eq!(check(&body("f", FUNCTION_LINES + 1), list), []);
        let test = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", body("f", 100));
        assert_eq!(check(&test, ""), []);
        let test = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", body("f", 121));
        assert_eq!(check(&test, "").len(), 1);
    }

    #[test]
    fn lengths_are_those_of_rustfmt_layout() {
        let text = "impl A {\n    pub(crate) async fn a<T>(\n        x: T,\n    ) -> T\n    where\n        T: X,\n    {\n        if x {\n        }\n\n        x\n    }\n\n    pub const fn b() {}\n}\ntrait T {\n    fn c();\n    fn d(\n        x: u8,\n    ) -> u8;\n}\n// fn e() {\n";
        let file = file("a/src/lib.rs", text);
        let found: Vec<(&str, usize)> =
            functions(&file).into_iter().map(|one| (one.name, one.lines)).collect();
        assert_eq!(found, [("a", 11), ("b", 1), ("c", 1), ("d", 3)]);
    }
}
