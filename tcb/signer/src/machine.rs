//! The signer as the only program of a virtual machine: `/init` of an initramfs that holds nothing
//! else (docs/deploy.md).
//!
//! No shell, no module, no network, no disk. When the signer ends, process 1 ends, and the kernel's
//! panic ends the machine and everything in its memory: its command line says `panic=-1`.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, setrlimit};

/// The first port of the machine's virtio-serial device.
const PORT: &str = "/dev/vport0p1";
/// The device is there before process 1 starts, or a moment later.
const PORT_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Whether this process is such a machine's first: number and name, because a container's first
/// process has that number too.
#[must_use]
pub fn is_ours(program: Option<&str>) -> bool {
    std::process::id() == 1 && program == Some("/init")
}

/// Makes the machine's devices appear, and opens the port to the host.
///
/// # Errors
/// The sentence for the console.
pub fn prepare() -> Result<OwnedFd, String> {
    // There is nobody else in this machine whom memory could be kept from.
    let all = Rlimit { current: None, maximum: None };
    setrlimit(Resource::Memlock, all).map_err(|e| format!("limit of locked memory: {e}"))?;
    mount("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, None)
        .map_err(|e| format!("cannot mount /dev: {e}"))?;
    let started = Instant::now();
    while !Path::new(PORT).exists() {
        if started.elapsed() > PORT_WITHIN {
            return Err(format!("`{PORT}` is missing: the machine needs a virtio-serial port"));
        }
        std::thread::sleep(LOOK_AGAIN_AFTER);
    }
    open(PORT, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| format!("cannot open `{PORT}`: {e}"))
}
