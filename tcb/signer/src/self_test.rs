//! Tries what the sandbox forbids, before and after it closes: each attempt must work without the
//! sandbox, so that the test can fail, and must not work within.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use chancery_signer::{memory, sandbox};
use serde_json::json;

/// What the limit on locked memory may not allow; the report says so.
const OPTIONAL: [&str; 2] = ["memory_locked", "secret_memory"];

type Attempt = (&'static str, fn(&Path) -> std::io::Result<()>);

const ATTEMPTS: &[Attempt] = &[
    ("open_for_reading", |_| std::fs::File::open("/proc/self/status").map(drop)),
    ("write_a_file", |dir| std::fs::write(dir.join("written"), b"x")),
    ("list_a_folder", |_| std::fs::read_dir("/").map(drop)),
    ("remove_a_file", |dir| {
        // Present or not, without a sandbox the call itself is answered.
        match std::fs::remove_file(dir.join("absent")) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }),
    ("listen_tcp", |_| std::net::TcpListener::bind("127.0.0.1:0").map(drop)),
    ("connect_tcp", |_| match std::net::TcpStream::connect("127.0.0.1:9") {
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => other.map(drop),
    }),
    ("send_udp", |_| std::net::UdpSocket::bind("127.0.0.1:0").map(drop)),
    ("open_unix_socket", |_| std::os::unix::net::UnixDatagram::unbound().map(drop)),
    ("run_a_program", |_| std::process::Command::new("/bin/true").status().map(drop)),
    ("start_a_thread", |_| std::thread::Builder::new().spawn(|| {}).map(drop)),
];

/// Runs all attempts twice and prints one JSON document.
pub fn run() -> Result<ExitCode, String> {
    let dir = std::env::temp_dir().join(format!("chancery-self-test-{}", std::process::id()));
    std::fs::create_dir(&dir).map_err(|e| format!("cannot create `{}`: {e}", dir.display()))?;
    let before: Vec<_> = ATTEMPTS.iter().map(|(_, attempt)| attempt(&dir)).collect();
    // Clean up while it is still possible.
    std::fs::remove_dir_all(&dir).map_err(|e| e.to_string())?;
    let mut protections = vec![memory::protect()?];
    protections.extend(sandbox::enter());
    protections.push(sandbox::close());
    let mut all_as_expected =
        protections.iter().all(|p| p.in_force || OPTIONAL.contains(&p.name.as_str()));
    let mut attempts = Vec::new();
    for ((name, attempt), before) in ATTEMPTS.iter().zip(before) {
        let within = attempt(&dir);
        all_as_expected &= before.is_ok() && within.is_err();
        attempts.push(json!({
            "attempt": name,
            "worked_before": before.is_ok(),
            "denied_within": within.is_err(),
            "error": within.err().map(|e| e.to_string()),
        }));
    }
    let protections: Vec<_> = protections
        .iter()
        .map(|p| json!({"name": p.name, "in_force": p.in_force, "detail": p.detail}))
        .collect();
    let report = json!({"protections": protections, "attempts": attempts});
    writeln!(std::io::stdout(), "{report:#}").map_err(|e| e.to_string())?;
    Ok(if all_as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
