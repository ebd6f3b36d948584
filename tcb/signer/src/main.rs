//! `chancery-signer`: the trusted signer as a process. It binds its socket, gives up what it does
//! not need, and serves one peer.

mod self_test;

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use chancery_signer::clock::SystemClock;
use chancery_signer::door::Door;
use chancery_signer::signer::Signer;
use chancery_signer::{SOFTWARE, machine, memory, sandbox, serve};
use chancery_signer_api::Protection;

const USAGE: &str = "\
usage: chancery-signer --socket PATH [--peer-uid UID] [--alone-seconds N]
       chancery-signer self-test
       chancery-signer --version

  --socket PATH       the Unix socket to serve; must not exist yet
  --peer-uid UID      accept the service under this user id too (default: the own one only); the
                      socket is then its group's as well (mode 0660)
  --alone-seconds N   end, and destroy all keys, after N seconds without a service (default 60)
  self-test           enter the sandbox, try what it forbids, report as JSON; exit 0 if all failed
";

/// Without a service the signer ends, and all keys with it, after this long: on a developer's
/// machine, and in a virtual one, whose host may be replacing the service.
const ALONE_FOR: Duration = Duration::from_secs(60);
const MACHINE_ALONE_FOR: Duration = Duration::from_secs(300);

struct Arguments {
    socket: PathBuf,
    peer_uid: Option<u32>,
    alone_for: Duration,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let program = arguments.next();
    let arguments: Vec<String> = arguments.collect();
    let result = match arguments.first().map(String::as_str) {
        // Whatever the kernel's command line adds: a machine's first process does one thing.
        _ if machine::is_ours(program.as_deref()) => run_machine(),
        Some("--version") => say(&format!("{SOFTWARE}\n")),
        Some("--help" | "-h") => say(USAGE),
        Some("self-test") => self_test::run(),
        _ => parse(&arguments).and_then(|a| run(&a)),
    };
    match result {
        Ok(code) => code,
        Err(text) => {
            complain(&text);
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<Arguments, String> {
    let mut socket = None;
    let (mut peer_uid, mut alone_for) = (None, ALONE_FOR);
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("`{name}` needs a value\n{USAGE}"))?;
        let wrong = || format!("`{value}` is not a number\n{USAGE}");
        match name.as_str() {
            "--socket" => socket = Some(PathBuf::from(value)),
            "--peer-uid" => peer_uid = Some(value.parse().map_err(|_| wrong())?),
            "--alone-seconds" => {
                alone_for = Duration::from_secs(value.parse().map_err(|_| wrong())?);
            }
            _ => return Err(format!("unknown option `{name}`\n{USAGE}")),
        }
    }
    let socket = socket.ok_or_else(|| format!("--socket is missing\n{USAGE}"))?;
    Ok(Arguments { socket, peer_uid, alone_for })
}

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    // The signer outlives the service: no signal to the service's session reaches it. Where it
    // leads a session already, there is nothing to do.
    let _ = rustix::process::setsid();
    let protections = vec![memory::protect()?];
    let listener = bind(&arguments.socket, arguments.peer_uid.is_some())?;
    let door = Door::Socket { listener, peer_uid: arguments.peer_uid };
    serve_at(&door, protections, arguments.alone_for)
}

fn run_machine() -> Result<ExitCode, String> {
    let port = machine::prepare()?;
    let protections = vec![memory::protect()?];
    complain(&format!("{SOFTWARE} in a machine of its own"));
    serve_at(&Door::Port(Rc::new(port)), protections, MACHINE_ALONE_FOR)
}

fn serve_at(
    door: &Door,
    mut protections: Vec<Protection>,
    alone_for: Duration,
) -> Result<ExitCode, String> {
    protections.extend(sandbox::enter());
    // The RSA thread starts in here, so the seccomp filter comes after it, for both threads.
    let mut signer = Signer::new(SystemClock).map_err(|e| e.to_string())?;
    protections.push(sandbox::close());
    signer.set_sandbox(protections);
    serve::run(door, &mut signer, alone_for).map_err(|e| e.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// The socket gets its mode by the umask: there is no moment at which others may connect. It is 0600,
/// or 0660 where the service is another user, which reaches it by the group and is then asked who it
/// is: the user id decides, the group only opens the way.
fn bind(path: &Path, grouped: bool) -> Result<UnixListener, String> {
    use rustix::fs::Mode;
    let group = if grouped { Mode::XGRP } else { Mode::RWXG };
    let old = rustix::process::umask(Mode::XUSR | group | Mode::RWXO);
    let listener = UnixListener::bind(path)
        .map_err(|e| format!("cannot bind `{}`: {e}; is another signer there?", path.display()));
    rustix::process::umask(old);
    let listener = listener?;
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    Ok(listener)
}

fn say(text: &str) -> Result<ExitCode, String> {
    use std::io::Write;
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| e.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn complain(text: &str) {
    use std::io::Write;
    // There is nobody left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "chancery-signer: {text}");
}
