//! What the process gives up before it has a secret: INVARIANT I1 on a developer's machine.
//!
//! No new privileges, no core dumps, no ptrace by other users, Landlock without a single allowed
//! path or port, and a seccomp allow-list without `open`, `socket`, `connect`, `execve`, `fork` or
//! executable memory. What is missing on this kernel is reported, never silently skipped. None of
//! it stops a root user who injects code; only a confidential VM does (SECURITY.md).

use std::collections::BTreeMap;

use chancery_signer_api::Protection;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus,
    Scope,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// The first half, before any thread and any secret exists: process attributes and Landlock, which
/// threads inherit.
#[must_use]
pub fn enter() -> Vec<Protection> {
    vec![
        report("no_new_privs", "execution grants nothing", rustix::thread::set_no_new_privs(true)),
        report(
            "not_dumpable",
            "no ptrace and no /proc/PID/mem for other users",
            set_dumpable_behavior(DumpableBehavior::NotDumpable),
        ),
        report(
            "no_core_dump",
            "core limit 0",
            setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }),
        ),
        lock_memory(),
        restrict_paths(),
    ]
}

/// The second half, when all threads exist: the system calls that remain, for every thread.
#[must_use]
pub fn close() -> Protection {
    let applied = filter().and_then(|program| {
        seccompiler::apply_filter_all_threads(&program).map_err(|e| e.to_string())
    });
    report("seccomp", "an allow-list: no files, no network, no programs", applied)
}

fn report<E: std::fmt::Display>(name: &str, covers: &str, result: Result<(), E>) -> Protection {
    let (in_force, detail) = match result {
        Ok(()) => (true, covers.to_owned()),
        Err(e) => (false, format!("not available: {e}")),
    };
    Protection { name: name.to_owned(), in_force, detail }
}

/// Keys must not reach a swap device. A limit on locked memory would make later allocations fail,
/// so memory is locked only where there is none.
fn lock_memory() -> Protection {
    use rustix::mm::{MlockAllFlags, mlockall};
    let limit = rustix::process::getrlimit(Resource::Memlock).current;
    let result = match limit {
        None => mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE).map_err(|e| e.to_string()),
        Some(bytes) => Err(format!("RLIMIT_MEMLOCK is {bytes} bytes; set it to unlimited")),
    };
    report("memory_locked", "keys are never swapped out", result)
}

fn restrict_paths() -> Protection {
    let abi = ABI::V6;
    let restricted = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|r| r.handle_access(AccessNet::from_all(abi)))
        .and_then(|r| r.scope(Scope::from_all(abi)))
        .and_then(|r| r.create())
        .and_then(|r| r.restrict_self());
    let result = match restricted {
        Err(e) => Err(e.to_string()),
        Ok(status) => match status.ruleset {
            RulesetStatus::FullyEnforced => Ok(()),
            RulesetStatus::PartiallyEnforced => Err("this kernel enforces only a part".to_owned()),
            RulesetStatus::NotEnforced => Err("this kernel has no Landlock".to_owned()),
        },
    };
    report("landlock", "no path, no port, no foreign socket", result)
}

fn filter() -> Result<BpfProgram, String> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![without_exec()?]);
    }
    let arch = std::env::consts::ARCH.try_into().map_err(|_| "unknown architecture".to_owned())?;
    SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        SeccompAction::Allow,
        arch,
    )
    .and_then(TryInto::try_into)
    .map_err(|e| e.to_string())
}

/// Memory may not become executable: the third argument is the protection.
fn without_exec() -> Result<SeccompRule, String> {
    let exec = u64::from(libc::PROT_EXEC.unsigned_abs());
    SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(exec), 0)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(|e| e.to_string())
}

/// Every system call that the event loop, the allocator and the RSA thread need.
const ALLOWED: &[i64] = &[
    // The socket pair: the listener exists, no other socket can be made.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_accept4,
    libc::SYS_getsockopt,
    libc::SYS_ppoll,
    libc::SYS_close,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads and time.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_geteuid,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_restart_syscall,
    // Randomness.
    libc::SYS_getrandom,
    // Signals and the end.
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
