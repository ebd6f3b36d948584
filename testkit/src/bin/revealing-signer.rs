//! A signer that reveals its keys to a test: the real one, but for a thread that writes the whole
//! secret memory to standard output whenever it reads a byte. It shows what a search has to look for,
//! and without `--secret` the same search must find it. Never shipped, and nothing imports it.

#![expect(clippy::expect_used, reason = "a broken expectation of the harness is a failed test")]

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use chancery_signer::clock::SystemClock;
use chancery_signer::door::Door;
use chancery_signer::signer::Signer;
use chancery_signer::{memory, sandbox, serve};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let socket = arguments.next().expect("usage: revealing-signer SOCKET [--secret]");
    let secret = arguments.next().as_deref() == Some("--secret");
    let mut protections = Vec::new();
    if secret {
        protections.push(memory::protect().expect("secret memory"));
    }
    let start = if secret { secret_mapping() } else { None };
    let listener = UnixListener::bind(socket).expect("socket");
    listener.set_nonblocking(true).expect("socket");
    protections.extend(sandbox::enter());
    // So that a core dump can be forced: what keeps keys out of it is then secret memory alone.
    set_dumpable_behavior(DumpableBehavior::Dumpable).expect("dumpable");
    std::thread::spawn(move || reveal(start));
    let mut signer = Signer::new(SystemClock).expect("signer");
    protections.push(sandbox::close());
    signer.set_sandbox(protections);
    let door = Door::Socket { listener, peer_uid: None };
    serve::run(&door, &mut signer, Duration::from_secs(60)).expect("serve");
}

fn secret_mapping() -> Option<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let line = maps.lines().find(|l| l.contains("secretmem"))?;
    usize::from_str_radix(line.split('-').next()?, 16).ok()
}

/// Answers each byte with the length of what was ever used of the secret memory, and its contents.
fn reveal(start: Option<usize>) {
    let mut byte = [0];
    while matches!(std::io::stdin().read(&mut byte), Ok(1)) {
        let bytes = start.map_or(&[][..], secret_bytes);
        let length = u64::try_from(bytes.len()).expect("a length");
        let mut out = std::io::stdout();
        out.write_all(&length.to_be_bytes()).expect("standard output");
        out.flush().expect("standard output");
        let mut rest = bytes;
        // Straight from the secret pages into the pipe: no copy of them in ordinary memory.
        while !rest.is_empty() {
            let written = rustix::io::write(&out, rest).expect("standard output");
            rest = rest.get(written..).unwrap_or_default();
        }
    }
}

#[expect(unsafe_code, reason = "the pages belong to the arena, which hands out no view of them")]
fn secret_bytes(start: usize) -> &'static [u8] {
    let length = chancery_secret_memory::figures().touched;
    // SAFETY: the mapping lives as long as the process and is at least that long. Tests ask at rest,
    // when no other thread writes.
    unsafe { std::slice::from_raw_parts(start as *const u8, length) }
}
