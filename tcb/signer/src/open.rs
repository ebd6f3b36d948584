//! Batches that are prepared and not yet committed, and the tokens held back in them.

use chancery_entry::VoidReason;
use chancery_policy::Policy;
use chancery_signer_api::Prepared;
use chancery_tlog::Hash;
use chancery_token::{KeyId, jws};

use crate::clock::Now;
use crate::keys::{Keys, LaneId};
use crate::lifecycle::LATE_SIGNATURE_MS;

/// What is not committed within this many milliseconds is dropped and void.
pub const COMMIT_WITHIN_MS: u64 = 30_000;

/// A token whose leaf is in the tree, before its signature exists. Only [`crate::issue`] makes one,
/// by appending.
#[derive(Debug)]
pub struct Appended {
    /// Index of its entry.
    pub index: u64,
    /// The complete JWS signing input.
    pub signing_input: String,
    /// The lane whose key signs.
    pub lane: LaneId,
    /// The key that signs.
    pub kid: KeyId,
    /// End of the key's window, Unix seconds.
    pub signs_until: u64,
    /// Whether the signature is verified before it is believed: somebody else assembles the token.
    pub verify: bool,
}

/// A place in a batch.
#[derive(Debug)]
enum Held {
    /// Not signed yet.
    Unsigned(Appended),
    /// Signed, held back until the commit.
    Signed { index: u64, token: String, lane: LaneId, kid: KeyId },
    /// Never to be released.
    Void { index: u64, reason: VoidReason },
}

/// One open batch.
#[derive(Debug)]
pub struct OpenBatch {
    /// The answer to its `Prepare`, for a hand-over.
    pub prepared: Prepared,
    /// Size of the tree that it ends with.
    pub size: u64,
    /// Root of that tree.
    pub root: Hash,
    /// A policy whose entry is in this batch.
    pub policy: Option<Policy>,
    opened_boot_ms: u64,
    held: Vec<Held>,
}

/// A released batch.
#[derive(Debug)]
pub struct Released {
    /// Tokens, or `None` where one was voided.
    pub tokens: Vec<Option<String>>,
    /// The voided ones.
    pub voided: Vec<(u64, VoidReason)>,
}

impl OpenBatch {
    /// A batch as prepared.
    pub fn new(
        prepared: Prepared,
        size: u64,
        root: Hash,
        policy: Option<Policy>,
        tokens: Vec<Appended>,
        now: Now,
    ) -> Self {
        let held = tokens.into_iter().map(Held::Unsigned).collect();
        Self { prepared, size, root, policy, opened_boot_ms: now.boot_ms, held }
    }

    /// Step 5: signs what is unsigned. A signature that would be made too long after its key's
    /// window, or whose key is gone, is void.
    ///
    /// Stops at `until` (boot-time milliseconds); `true` when nothing is left to sign.
    pub fn sign(&mut self, keys: &Keys, until: u64, mut now: impl FnMut() -> Now) -> bool {
        for place in &mut self.held {
            if let Held::Unsigned(token) = place {
                let now = now();
                if now.boot_ms >= until {
                    return false;
                }
                *place = sign_one(token, keys, now);
            }
        }
        true
    }

    /// Drops the tokens of a batch that the service did not acknowledge in time; returns the void
    /// indexes. The entries stay to be committed: the tree cannot forget them.
    pub fn expire(&mut self, now: Now) -> Vec<(u64, VoidReason)> {
        if now.boot_ms.saturating_sub(self.opened_boot_ms) < COMMIT_WITHIN_MS {
            return Vec::new();
        }
        self.void()
    }

    /// Drops the tokens that are held; returns the void indexes.
    pub fn void(&mut self) -> Vec<(u64, VoidReason)> {
        let mut voided = Vec::new();
        for place in &mut self.held {
            let index = match place {
                Held::Unsigned(token) => token.index,
                Held::Signed { index, .. } => *index,
                Held::Void { .. } => continue,
            };
            voided.push((index, VoidReason::NotCommitted));
            *place = Held::Void { index, reason: VoidReason::NotCommitted };
        }
        voided
    }

    /// Whether there is a token that could leave.
    pub fn holds_tokens(&self) -> bool {
        self.held.iter().any(|place| !matches!(place, Held::Void { .. }))
    }

    /// Step 6 done: the tokens leave. INVARIANT I2: the only way out of a batch.
    pub fn release(self, keys: &Keys) -> Released {
        let mut tokens = Vec::with_capacity(self.held.len());
        let mut voided = Vec::new();
        for place in self.held {
            match place {
                Held::Signed { index, token, lane, kid } => {
                    if keys.find(&lane, &kid).is_none_or(|k| k.facts.compromised) {
                        voided.push((index, VoidReason::KeyCompromised));
                        tokens.push(None);
                    } else {
                        tokens.push(Some(token));
                    }
                }
                Held::Unsigned(token) => {
                    voided.push((token.index, VoidReason::SigningFailed));
                    tokens.push(None);
                }
                Held::Void { index, reason } => {
                    // Voids by expiry have their entry already.
                    if reason != VoidReason::NotCommitted {
                        voided.push((index, reason));
                    }
                    tokens.push(None);
                }
            }
        }
        Released { tokens, voided }
    }
}

fn sign_one(token: &mut Appended, keys: &Keys, now: Now) -> Held {
    let index = token.index;
    let latest = token.signs_until.saturating_mul(1_000).saturating_add(LATE_SIGNATURE_MS);
    if now.ms > latest {
        return Held::Void { index, reason: VoidReason::TooLate };
    }
    let key = keys.find(&token.lane, &token.kid);
    let Some(private) = key.and_then(|k| k.private()) else {
        let compromised = key.is_none_or(|k| k.facts.compromised);
        let reason = if compromised { VoidReason::KeyCompromised } else { VoidReason::TooLate };
        return Held::Void { index, reason };
    };
    let input = token.signing_input.as_bytes();
    let signed = private.sign(input).and_then(|signature| {
        if token.verify {
            private.public().verify(input, &signature)?;
        }
        Ok(signature)
    });
    match signed {
        Ok(signature) => {
            let input = std::mem::take(&mut token.signing_input);
            let token_text = jws::assemble(input, &signature);
            // The place is overwritten; what it named moves on.
            let lane = (std::mem::take(&mut token.lane.0), token.lane.1);
            Held::Signed { index, token: token_text, lane, kid: token.kid }
        }
        Err(_) => Held::Void { index, reason: VoidReason::SigningFailed },
    }
}
