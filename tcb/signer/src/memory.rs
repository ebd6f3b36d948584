//! Where the private keys are (INVARIANT I1): in memory that no other process can read, where the
//! kernel has it. Where it has none, or too little, that is said, and a policy may demand it.

use chancery_policy::Policy;
use chancery_secret_memory::{Error, figures, install, refuse_overflow};
use chancery_signer_api::{Notice, Protection, SecretMemory};

/// The protection's name.
const NAME: &str = "secret_memory";

/// Moves the cryptographic library's heap, and every private key with it, into secret memory. The
/// first thing that the process does: keys that exist already stay where they are.
///
/// # Errors
/// When nobody knows where keys would be; the process must end then.
pub fn protect() -> Result<Protection, String> {
    let (in_force, detail) = match install() {
        Ok(figures) => {
            let mib = figures.capacity >> 20;
            (true, format!("private keys are where no process reads them, {mib} MiB of room"))
        }
        Err(e @ Error::Unused) => return Err(e.to_string()),
        Err(e) => (false, format!("not available, keys are in ordinary memory: {e}")),
    };
    Ok(Protection { name: NAME.to_owned(), in_force, detail })
}

/// What is in force now: secret memory that overflowed protects not all keys.
pub(crate) fn amended(mut protections: Vec<Protection>) -> Vec<Protection> {
    let overflow = figures().overflow;
    for protection in protections.iter_mut().filter(|p| p.name == NAME && overflow > 0) {
        protection.in_force = false;
        protection.detail = overflow_text(overflow);
    }
    protections
}

/// What a policy demands and this process does not have; from then on keys go nowhere else.
///
/// # Errors
/// The sentence for the operator.
pub(crate) fn demand(policy: &Policy, protections: &[Protection]) -> Result<(), String> {
    let protections = amended(protections.to_vec());
    for name in policy.protections() {
        let found = protections.iter().find(|p| p.name == *name);
        if let Some(missing) = found.filter(|p| !p.in_force) {
            return Err(format!(
                "the policy demands `{name}`, which is missing here: {}",
                missing.detail
            ));
        }
        if found.is_none() {
            return Err(format!("the policy demands `{name}`, which this signer does not know"));
        }
    }
    if policy.protections().iter().any(|name| name == NAME) {
        refuse_overflow();
    }
    Ok(())
}

/// Tells once that the room was too small.
#[derive(Debug, Default)]
pub(crate) struct Overflow {
    told: bool,
}

impl Overflow {
    pub(crate) fn note(&mut self, notices: &mut Vec<Notice>) {
        let figures = figures();
        if figures.overflows > 0 && !self.told {
            self.told = true;
            let text = overflow_text(figures.overflow);
            notices.push(Notice { code: "secret_memory_full".into(), text });
        }
    }
}

fn overflow_text(bytes: usize) -> String {
    format!(
        "secret memory is full: `{bytes}` bytes are in ordinary memory, private keys may be among \
         them; raise RLIMIT_MEMLOCK and restart the signer"
    )
}

/// For the status.
pub(crate) fn status() -> SecretMemory {
    let figures = figures();
    let bytes = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    SecretMemory {
        capacity: bytes(figures.capacity),
        touched: bytes(figures.touched),
        in_use: bytes(figures.in_use),
        overflow: bytes(figures.overflow),
    }
}
