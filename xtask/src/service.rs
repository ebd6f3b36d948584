//! A service for a recipe: on free ports, in a folder of its own, and gone when the recipe ends,
//! however it ends.

use crate::run::{cargo, output, run, shown, works};
use anyhow::{Context as _, Result, bail};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// From start to readiness: a second on an idle machine, more where both cores are busy.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// From SIGTERM to the end: requests in flight are finished first.
const ENDED_WITHIN: Duration = Duration::from_secs(20);
/// One request of the readiness check, on loopback.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);
/// Lines of the service's log that are shown when a recipe fails.
const LOG_LINES: usize = 20;

/// The built programs.
#[derive(Debug)]
pub struct Binaries {
    /// The folder that holds both.
    pub folder: PathBuf,
    /// The service.
    pub chancery: PathBuf,
}

impl Binaries {
    /// Builds service and signer: two programs, of which the first starts the second.
    pub fn build(root: &Path) -> Result<Self> {
        Self::build_profile(root, "dev", "debug")
    }

    /// The same, optimized, for recipes that measure: this takes minutes.
    pub fn build_release(root: &Path) -> Result<Self> {
        Self::build_profile(root, "release", "release")
    }

    fn build_profile(root: &Path, profile: &str, folder: &str) -> Result<Self> {
        let programs = ["build", "--bin", "chancery", "--bin", "chancery-signer"];
        run(cargo(root, &programs).args(["--profile", profile]))?;
        let metadata = cargo(root, &["metadata", "--no-deps", "--format-version=1"]);
        let metadata: serde_json::Value = serde_json::from_str(&output(&mut { metadata })?)?;
        let target = metadata.get("target_directory").and_then(serde_json::Value::as_str);
        let target = Path::new(target.context("cargo metadata names no target folder")?);
        let folder = target.join(folder);
        Ok(Self { chancery: folder.join("chancery"), folder })
    }
}

/// A folder for one recipe, removed with everything in it. Its path is short, because the paths of
/// sockets in it have a limit of 107 bytes. A signer whose socket lies in it ends with it.
#[derive(Debug)]
pub struct TempFolder(PathBuf);

impl TempFolder {
    /// Makes a new folder.
    pub fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("chancery-{name}-{}", std::process::id()));
        // A process of the same id may have been killed here.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        end_signers(&self.0);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Ends every signer whose socket lies below `folder`: a signer outlives its service by a minute,
/// by design, and whoever crashed here ended none.
fn end_signers(folder: &Path) {
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let name = process.file_name();
        let Some(id) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) else {
            continue;
        };
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if is_signer_below(&command, folder) {
            works(Command::new("kill").arg(id));
        }
    }
}

/// Whether a command line of `/proc`, its words ended by NUL, is that of a signer below `folder`.
fn is_signer_below(command: &[u8], folder: &Path) -> bool {
    let command = String::from_utf8_lossy(command);
    let mut words = command.split('\0');
    let program = words.next().map(Path::new).and_then(Path::file_name);
    program.is_some_and(|name| name == "chancery-signer")
        && words.any(|word| Path::new(word).starts_with(folder))
}

/// A free address of this machine, and another one: both are held until both are known.
pub fn free_addresses() -> Result<(SocketAddr, SocketAddr)> {
    let bind = || TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1");
    let (one, two) = (bind()?, bind()?);
    Ok((one.local_addr()?, two.local_addr()?))
}

/// A running service. Dropping it ends it and its signer.
#[derive(Debug)]
pub struct Service {
    chancery: PathBuf,
    process: Child,
    data: PathBuf,
    log: PathBuf,
    url: String,
}

impl Service {
    /// Starts a service in development mode on free ports.
    pub fn development(binaries: &Binaries, folder: &Path) -> Result<Self> {
        let (listen, admin) = free_addresses()?;
        Self::start(binaries, folder, (listen, admin), &[])
    }

    /// Starts a service with a configuration file, on the addresses that it was written for.
    pub fn configured(
        binaries: &Binaries,
        folder: &Path,
        addresses: (SocketAddr, SocketAddr),
        config: &Path,
    ) -> Result<Self> {
        Self::start(binaries, folder, addresses, &["--config".as_ref(), config.as_os_str()])
    }

    /// Starts a service in development mode with a signer that runs elsewhere. With the folder and the
    /// addresses of an earlier one it goes on there: the addresses are part of the policy.
    pub fn attached(
        binaries: &Binaries,
        folder: &Path,
        addresses: (SocketAddr, SocketAddr),
        signer: &str,
    ) -> Result<Self> {
        Self::start(binaries, folder, addresses, &["--signer".as_ref(), signer.as_ref()])
    }

    fn start(
        binaries: &Binaries,
        folder: &Path,
        (listen, admin): (SocketAddr, SocketAddr),
        words: &[&OsStr],
    ) -> Result<Self> {
        let (data, log) = (folder.join("data"), folder.join("serve.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(&binaries.chancery);
        command.args(["serve", "--listen", &listen.to_string(), "--admin", &admin.to_string()]);
        command.arg("--data").arg(&data).args(words);
        println!("$ {}", shown(&command));
        let output = (file.try_clone()?, file);
        let process = command.stdin(Stdio::null()).stdout(output.0).stderr(output.1).spawn();
        let process = process.with_context(|| format!("cannot start `{}`", shown(&command)))?;
        let url = format!("http://{listen}");
        let mut service = Self { chancery: binaries.chancery.clone(), process, data, log, url };
        service.await_ready(admin)?;
        Ok(service)
    }

    fn await_ready(&mut self, admin: SocketAddr) -> Result<()> {
        let started = Instant::now();
        while !is_ready(admin) {
            if let Some(status) = self.process.try_wait()? {
                bail!("the service ended with {status}:\n{}", self.log_tail());
            }
            if started.elapsed() > READY_WITHIN {
                let waited = READY_WITHIN.as_secs();
                bail!("the service was not ready within {waited} s:\n{}", self.log_tail());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Its public URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The last lines that it logged.
    pub fn log_tail(&self) -> String {
        tail(&std::fs::read_to_string(&self.log).unwrap_or_default(), LOG_LINES)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // A service that loses its signer starts another one, so the service ends first.
        terminate(&mut self.process);
        works(Command::new(&self.chancery).args(["signer", "end", "--data"]).arg(&self.data));
        end_signers(&self.data);
    }
}

/// Asks a process to end, and ends it when it does not.
pub fn terminate(process: &mut Child) {
    if matches!(process.try_wait(), Ok(Some(_))) {
        // Its id may be another process's by now.
        return;
    }
    works(Command::new("kill").arg(process.id().to_string()));
    if !matches!(wait_within(process, ENDED_WITHIN), Ok(Some(_))) {
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// Waits for a process to end by itself; `None` when it did not in time.
pub fn wait_within(process: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = process.try_wait().context("cannot wait for a process")? {
            return Ok(Some(status));
        }
        if started.elapsed() > limit {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// The last `count` lines.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}

fn is_ready(admin: SocketAddr) -> bool {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&admin, ANSWER_WITHIN)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(1_024).read_to_end(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200 "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signers_below_the_folder_are_ended() {
        let folder = Path::new("/tmp/here");
        let below = |command: &str| is_signer_below(command.as_bytes(), folder);
        assert!(below("/bin/chancery-signer\0--socket\0/tmp/here/data/signer.sock\0"));
        assert!(!below("/bin/chancery-signer\0--socket\0/tmp/hereafter/signer.sock\0"));
        assert!(!below("/bin/chancery-signer\0--socket\0/tmp/there/signer.sock\0"));
        assert!(!below("/bin/chancery\0serve\0--data\0/tmp/here/data\0"));
        assert!(!below(""));
    }

    #[test]
    fn readiness_is_an_http_200_and_nothing_else() {
        for (answer, ready) in [
            ("HTTP/1.1 200 OK\r\n\r\nready\n", true),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
            ("SSH-2.0-x\r\n", false),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                // Read to its end: closing with bytes unread would reset the connection.
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    assert_eq!(stream.read(&mut byte).unwrap(), 1);
                    request.extend(byte);
                }
                stream.write_all(answer.as_bytes()).unwrap();
            });
            assert_eq!(is_ready(address), ready, "{answer}");
            server.join().unwrap();
        }
        let (nobody, _) = free_addresses().unwrap();
        assert!(!is_ready(nobody));
    }

    #[test]
    fn the_end_of_a_text_is_its_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
        assert_eq!(tail("", 2), "");
    }

    #[test]
    fn a_process_is_waited_for_and_no_longer() {
        let spawn = |seconds: &str| Command::new("sleep").arg(seconds).spawn().unwrap();
        let limit = Duration::from_millis(300);
        let mut long = spawn("60");
        assert!(wait_within(&mut long, limit).unwrap().is_none());
        terminate(&mut long);
        assert!(!long.wait().unwrap().success());
        assert!(wait_within(&mut spawn("0"), Duration::from_secs(30)).unwrap().unwrap().success());
    }

    #[test]
    fn a_folder_goes_with_everything_in_it() {
        let folder = TempFolder::new("folder-test").unwrap();
        let path = folder.path().to_owned();
        std::fs::write(path.join("file"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
