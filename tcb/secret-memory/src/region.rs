//! The pages: one mapping of `memfd_secret`, as large as the limit on locked memory allows.

#![expect(unsafe_code, reason = "memfd_secret and its mapping have no safe interface")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::Error;

/// What is tried, in bytes, largest first. Pages cost memory when they are first touched, the
/// mapping itself costs only room under `RLIMIT_MEMLOCK`. The largest holds the client keys of the
/// largest policies, twice, since a new version is parsed while the old one is in force; 8 MiB is the
/// usual limit of an unprivileged process.
const SIZES: [usize; 6] = [256 << 20, 64 << 20, 16 << 20, 8 << 20, 4 << 20, LEAST];
/// Below this even one realm with every algorithm would be cramped.
const LEAST: usize = 2 << 20;

/// A mapping that lives as long as the process.
#[derive(Debug)]
pub struct Region {
    pub base: NonNull<u8>,
    pub len: usize,
}

/// Maps the largest region that the limit allows.
pub fn map() -> Result<Region, Error> {
    let fd = create()?;
    let mut cause = io::Error::from_raw_os_error(libc::EAGAIN);
    for len in SIZES {
        match map_len(&fd, len) {
            Ok(base) => return Ok(Region { base, len }),
            Err(e) => cause = e,
        }
    }
    Err(Error::Limit { least: LEAST, cause })
}

fn create() -> Result<OwnedFd, Error> {
    // SAFETY: the call takes a flag and no pointer. Its manual names FD_CLOEXEC, the kernel wants this.
    let result = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    match RawFd::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => match io::Error::last_os_error() {
            absent if absent.raw_os_error() == Some(libc::ENOSYS) => Err(Error::Absent),
            other => Err(Error::Refused(other)),
        },
    }
}

fn map_len(fd: &OwnedFd, len: usize) -> io::Result<NonNull<u8>> {
    // The size of secret memory can be set once, so each attempt that got this far maps first.
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the address, so no mapping of ours is replaced. Nothing touches the
    // pages before the file has its size: until then they would raise SIGBUS.
    let base = unsafe {
        rustix::mm::mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, fd, 0)?
    };
    rustix::fs::ftruncate(fd, u64::try_from(len).unwrap_or(u64::MAX))?;
    // A child would inherit the pages; one that cannot read them has no use for them.
    // SAFETY: exactly the mapping made above; the advice concerns children only.
    unsafe { rustix::mm::madvise(base, len, Advice::LinuxDontFork)? };
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))
}
