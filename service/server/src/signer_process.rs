//! Starting the signer: the binary beside this one, in a session of its own.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The signer binds its socket within milliseconds; a loaded machine gets some patience.
const BIND_WITHIN: Duration = Duration::from_secs(10);

/// Why no signer could be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The binary is missing.
    #[error("`{0}` is missing: chancery-signer must stand beside chancery; build or install both")]
    Missing(PathBuf),
    /// The operating system refused.
    #[error("cannot start `{program}`: {why}")]
    Failed {
        /// The binary.
        program: PathBuf,
        /// Why.
        why: String,
    },
    /// It started and ended, or never opened its socket.
    #[error("the signer did not open its socket `{socket}`: {why}")]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// Its last words.
        why: String,
    },
}

/// Where the signer's binary must be: beside the running one, and nowhere else.
#[must_use]
pub fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name("chancery-signer")
}

/// Whether a signer is alive behind the socket. A stale socket file is removed.
#[must_use]
pub fn is_alive(socket: &Path) -> bool {
    match UnixStream::connect(socket) {
        Ok(_) => true,
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            let _ = std::fs::remove_file(socket);
            false
        }
        Err(_) => false,
    }
}

/// Starts a signer that serves `socket`, logging its last words to `log`, and waits until it
/// listens.
///
/// # Errors
/// [`StartError`].
pub fn start(socket: &Path, log: &Path) -> Result<(), StartError> {
    let program = program();
    if !program.is_file() {
        return Err(StartError::Missing(program));
    }
    let failed =
        |why: std::io::Error| StartError::Failed { program: program.clone(), why: why.to_string() };
    let file =
        OpenOptions::new().create(true).append(true).mode(0o600).open(log).map_err(failed)?;
    let before = file.metadata().map(|m| m.len()).unwrap_or(0);
    let mut child = Command::new(&program)
        .arg("--socket")
        .arg(socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(file))
        .env_clear()
        .spawn()
        .map_err(failed)?;
    let deadline = Instant::now() + BIND_WITHIN;
    loop {
        if socket.exists() {
            // Nobody else waits for the child; it may outlive us.
            let _ = std::thread::Builder::new().name("signer-wait".into()).spawn(move || {
                let _ = child.wait();
            });
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            let why = format!("it ended with {status}: {}", last_words(log, before));
            return Err(StartError::Silent { socket: socket.to_owned(), why });
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            let why = format!("nothing within {BIND_WITHIN:?}");
            return Err(StartError::Silent { socket: socket.to_owned(), why });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn last_words(log: &Path, from: u64) -> String {
    let Ok(mut file) = std::fs::File::open(log) else { return String::new() };
    if file.seek(SeekFrom::Start(from)).is_err() {
        return String::new();
    }
    let lines = BufReader::new(file.take(4_096)).lines();
    lines.map_while(Result::ok).collect::<Vec<_>>().join(" | ")
}
