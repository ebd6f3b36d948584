//! Private keys where no other process of the machine can read them (INVARIANT I1).
//!
//! The cryptographic library copies every private key to its own heap. [`install`] puts that heap
//! into memory of `memfd_secret` (Linux 5.14): its pages are out of the kernel's own map, so neither
//! `/proc/PID/mem` nor `process_vm_readv`, ptrace, a core dump or a swap device gets at them, not
//! even for root. What it does not stop: code that is made to run inside the process, and whoever
//! controls the kernel. Registers and stacks are outside of it.
//!
//! Three modules, all of the `unsafe` code of the signer: `region` maps the pages, the arena
//! hands them out, the hooks give the arena to the library.

mod arena;
mod hooks;
mod region;

pub use hooks::{Figures, figures, install, refuse_overflow};

/// Why the library's heap is not in secret memory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has no `memfd_secret`.
    #[error(
        "this kernel has no memfd_secret; Linux 5.14 or later has it, before 6.5 with \
         `secretmem.enable=1` on its command line"
    )]
    Absent,
    /// The kernel has it and gives none, out of descriptors or by a filter of system calls.
    #[error("memfd_secret: {0}")]
    Refused(std::io::Error),
    /// The limit on locked memory leaves no room.
    #[error("RLIMIT_MEMLOCK leaves no room for {least} bytes of secret memory: {cause}")]
    Limit {
        /// The smallest region that is worth while.
        least: usize,
        /// What the kernel said.
        cause: std::io::Error,
    },
    /// The library already has other functions for its memory.
    #[error(
        "the cryptographic library did not take the arena: its memory functions are set already"
    )]
    Taken,
    /// The library took the arena and does not use it: two versions of it are linked.
    #[error("the cryptographic library does not use the arena that it was given")]
    Unused,
}
