//! `cargo xtask docs-smoke`: what the pages tell a reader to type works.
//!
//! The `sh` blocks of a page are one script: `bash -euo pipefail` in an empty folder, with the
//! built programs first in PATH. A page starts the service that it needs, on the default ports, and
//! ends it. What is not to be run (other machines, long builds, printed output) stands in blocks
//! of another kind: `console`, `text`. Blocks in Python, JavaScript and Rust are parts of files that
//! other recipes run or compile.

use crate::recipes::Outcome;
use crate::run::works;
use crate::service::{Binaries, TempFolder, tail, wait_within};
use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The addresses of a service without configuration: public, and health and metrics.
const DEFAULTS: [&str; 2] = ["127.0.0.1:8420", "127.0.0.1:8421"];
/// No page is a long read; most of its time goes to waiting for a service.
const PAGE_LIMIT: Duration = Duration::from_secs(240);
/// A service that was told to end finishes its requests first.
const ENDED_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// Lines of a failed page's output that are shown.
const OUTPUT_LINES: usize = 40;
/// Where blocks of these kinds come from, and the endings of the files.
const SOURCES: [(&str, &str, &str); 8] = [
    ("python", "interop/python", "py"),
    ("python", "validate/python/examples", "py"),
    ("js", "interop/node", "js"),
    ("js", "validate/node/examples", "js"),
    ("rust", "validate/rust/examples", "rs"),
    ("rust", "validate/relying-party/examples", "rs"),
    ("nginx", "interop/nginx", "conf"),
    ("yaml", "interop/envoy", "yaml"),
];

/// Runs every page, or those named (`docs/clients.md`).
pub fn recipe(root: &Path, arguments: &[String]) -> Result<Outcome> {
    let pages = if arguments.is_empty() { pages(root)? } else { named_pages(root, arguments)? };
    for tool in ["bash", "curl"] {
        if !works(Command::new(tool).arg("--version")) {
            return Ok(Outcome::Skipped(format!("`{tool}` is not installed")));
        }
    }
    let binaries = Binaries::build(root)?;
    let mut failed = Vec::new();
    for page in pages {
        let name = page.strip_prefix(root).unwrap_or(&page).display().to_string();
        let text = std::fs::read_to_string(&page).with_context(|| format!("cannot read {name}"))?;
        let started = Instant::now();
        let result = try_page(root, &binaries, &name, &text);
        let took = started.elapsed().as_secs();
        match result {
            Ok(0) => println!("docs {name}: ok, nothing to run"),
            Ok(blocks) => println!("docs {name}: ok, {blocks} blocks in {took} s"),
            Err(error) => {
                println!("docs {name}: FAILED: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(Outcome::Passed)
}

fn named_pages(root: &Path, names: &[String]) -> Result<Vec<PathBuf>> {
    let page = |name: &String| match root.join(name) {
        page if page.is_file() => Ok(page),
        _ => bail!("no page `{name}`; name it from the repository's root, as `docs/clients.md`"),
    };
    names.iter().map(page).collect()
}

/// README.md and the pages of `docs/`, in order.
fn pages(root: &Path) -> Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(root.join("docs")).context("cannot read docs/")? {
        pages.push(entry?.path());
    }
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    let readme = root.join("README.md");
    if readme.exists() {
        pages.insert(0, readme);
    }
    Ok(pages)
}

fn try_page(root: &Path, binaries: &Binaries, name: &str, text: &str) -> Result<usize> {
    let blocks = blocks(text).with_context(|| format!("{name} cannot be read"))?;
    for block in &blocks {
        check_source(root, block)?;
    }
    let script = script(name, &blocks);
    let count = blocks.iter().filter(|block| block.kind == "sh").count();
    if count > 0 {
        run_page(binaries, &script)?;
    }
    Ok(count)
}

/// A fenced block of a page.
#[derive(Debug, PartialEq, Eq)]
struct Block<'a> {
    kind: &'a str,
    /// The line of its first line, from 1.
    line: usize,
    text: String,
}

/// The fenced blocks of a page, in order; those in lists without their indentation.
fn blocks(text: &str) -> Result<Vec<Block<'_>>> {
    let mut blocks = Vec::new();
    let mut open: Option<(Block<'_>, usize)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(kind)) => {
                let indent = line.len().saturating_sub(line.trim_start().len());
                let text = String::new();
                open = Some((Block { kind: kind.trim(), line: number + 1, text }, indent));
            }
            (Some(_), Some("")) => blocks.extend(open.take().map(|(block, _)| block)),
            (Some((block, indent)), _) => {
                let spaces = line.len().saturating_sub(line.trim_start_matches(' ').len());
                block.text.push_str(line.get(spaces.min(*indent)..).unwrap_or(line));
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    if let Some((block, _)) = open {
        bail!("the block before line {} has no end", block.line);
    }
    Ok(blocks)
}

/// Blocks in a language that another recipe runs must be parts of what it runs.
fn check_source(root: &Path, block: &Block<'_>) -> Result<()> {
    let sources = SOURCES.iter().filter(|source| source.0 == block.kind);
    let mut folders = Vec::new();
    for (_, folder, ending) in sources {
        folders.push(*folder);
        for entry in std::fs::read_dir(root.join(folder)).with_context(|| format!("no {folder}"))? {
            let path = entry?.path();
            let right = path.extension().is_some_and(|extension| extension == *ending);
            if right && std::fs::read_to_string(&path)?.contains(&block.text) {
                return Ok(());
            }
        }
    }
    if folders.is_empty() {
        return Ok(());
    }
    let (kind, folders) = (block.kind, folders.join(" or "));
    bail!("line {}: this `{kind}` block is no part of a file in {folders}", block.line)
}

/// The page's `sh` blocks as one script that says on standard error where it is.
fn script(name: &str, blocks: &[Block<'_>]) -> String {
    let mut script = String::new();
    for block in blocks.iter().filter(|block| block.kind == "sh") {
        script.push_str(&format!("echo '== {name}:{}' >&2\n{}", block.line, block.text));
    }
    script
}

/// Runs a page's script in an empty folder; whatever it started is gone afterwards.
fn run_page(binaries: &Binaries, script: &str) -> Result<()> {
    if let Some(taken) = taken() {
        bail!("{taken} is taken; end what listens there, for example another `chancery serve`");
    }
    let folder = TempFolder::new("docs")?;
    // The page's own folder is empty; what it prints goes beside it.
    let (work, log) = (folder.path().join("page"), folder.path().join("output"));
    std::fs::create_dir(&work).context("cannot create the page's folder")?;
    let mut bash = spawn(binaries, script, &work, &log)?;
    let group = format!("-{}", bash.id());
    let status = wait_within(&mut bash, PAGE_LIMIT)?;
    let tidy = status.is_some_and(|status| status.success()) && freed_within(ENDED_WITHIN);
    if !tidy {
        works(Command::new("kill").args(["-TERM", "--", &group]));
        if !freed_within(ENDED_WITHIN) {
            works(Command::new("kill").args(["-KILL", "--", &group]));
        }
    }
    let told = || tail(&std::fs::read_to_string(&log).unwrap_or_default(), OUTPUT_LINES);
    match status {
        None => bail!("stopped after {} s\n{}", PAGE_LIMIT.as_secs(), told()),
        Some(status) if !status.success() => bail!("bash ended with {status}\n{}", told()),
        Some(_) if !tidy => bail!("the page leaves its service running; it must end with `kill`"),
        Some(_) => Ok(()),
    }
}

fn spawn(binaries: &Binaries, script: &str, work: &Path, log: &Path) -> Result<Child> {
    let output = File::create(log).context("cannot write the page's output")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(binaries.folder.clone()).chain(std::env::split_paths(&path));
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", script]).current_dir(work);
    bash.env("PATH", std::env::join_paths(path).context("PATH cannot be extended")?);
    bash.env_remove("CHANCERY_DATA");
    bash.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    // What the page leaves behind is ended with its group.
    bash.process_group(0).spawn().context("cannot start bash")
}

/// A default address on which something listens.
fn taken() -> Option<&'static str> {
    DEFAULTS.into_iter().find(|address| TcpListener::bind(address).is_err())
}

/// Waits until nothing listens on the default addresses.
fn freed_within(limit: Duration) -> bool {
    let started = Instant::now();
    while taken().is_some() {
        if started.elapsed() > limit {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A\n```sh\none\n\ntwo\n```\n1. x\n   ```sh\n   three\n     four\n   ```\n\
        ```text\nnot run\n```\n";

    #[test]
    fn blocks_come_in_order_with_their_kinds_and_lines() {
        let blocks = blocks(PAGE).unwrap();
        let seen: Vec<_> = blocks.iter().map(|b| (b.kind, b.line, b.text.as_str())).collect();
        let wanted =
            [("sh", 3, "one\n\ntwo\n"), ("sh", 9, "three\n  four\n"), ("text", 13, "not run\n")];
        assert_eq!(seen, wanted);
        let error = super::blocks("```sh\nx\n").unwrap_err().to_string();
        assert_eq!(error, "the block before line 2 has no end");
    }

    #[test]
    fn only_sh_blocks_are_run_and_each_says_where_it_stands() {
        let script = script("p.md", &blocks(PAGE).unwrap());
        let wanted = "echo '== p.md:3' >&2\none\n\ntwo\n\
            echo '== p.md:9' >&2\nthree\n  four\n";
        assert_eq!(script, wanted);
    }

    #[test]
    fn blocks_of_other_languages_are_what_other_recipes_run() {
        let root = crate::repository();
        for page in pages(root).unwrap() {
            let text = std::fs::read_to_string(&page).unwrap();
            for block in blocks(&text).unwrap() {
                check_source(root, &block).unwrap();
            }
        }
        let own = Block { kind: "python", line: 7, text: "print('not in a file')\n".to_owned() };
        let error = check_source(root, &own).unwrap_err().to_string();
        assert_eq!(
            error,
            "line 7: this `python` block is no part of a file in interop/python or \
             validate/python/examples"
        );
    }

    #[test]
    fn an_unknown_page_and_an_unknown_flag_are_errors() {
        let root = crate::repository();
        assert!(recipe(root, &["--fast".to_owned()]).is_err());
        assert!(named_pages(root, &["docs/none.md".to_owned()]).is_err());
        let pages = named_pages(root, &["docs/rejections.md".to_owned()]).unwrap();
        assert_eq!(pages, [root.join("docs/rejections.md")]);
    }
}
