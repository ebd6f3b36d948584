//! Which proofs were used already, and how often a client asked: bounded, and never evicting.

use std::collections::{BTreeMap, HashSet};

use crate::compiled::Client;
use crate::{Refusal, RefusalCode};

/// First 128 bits of SHA-256 over a proof's `jti`: collisions would only refuse, never admit.
pub type ProofId = [u8; 16];

/// What the signer remembers of one client.
#[derive(Debug, Default)]
pub struct ClientMemory {
    used: HashSet<ProofId>,
    expiring: BTreeMap<u64, Vec<ProofId>>,
    tokens_left_milli: Option<u64>,
    refilled_at_ms: u64,
}

impl ClientMemory {
    /// Takes note of a verified proof that stays acceptable until `forget_at` (Unix seconds), and
    /// takes its tokens from the client's rate. A refusal changes neither: whoever plays an old
    /// proof again uses up nothing of the client's.
    ///
    /// # Errors
    /// [`RefusalCode::ProofReplayed`] when it was used, [`RefusalCode::ReplayMemoryFull`] when the
    /// client's memory is full: an eviction would let an old proof in again.
    /// [`RefusalCode::RateLimited`] when the client asks too often; the proof is still good then.
    pub fn admit(
        &mut self,
        client: &Client,
        proof: ProofId,
        forget_at: u64,
        tokens: u64,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        self.check_unused(client, &proof, now_ms / 1_000)?;
        self.take_rate(client, tokens, now_ms)?;
        self.used.insert(proof);
        self.expiring.entry(forget_at).or_default().push(proof);
        Ok(())
    }

    fn check_unused(&mut self, client: &Client, proof: &ProofId, now: u64) -> Result<(), Refusal> {
        self.forget(now);
        if self.used.contains(proof) {
            return Err(replayed());
        }
        if self.used.len() >= client.replay_capacity as usize {
            return Err(Refusal::new(
                RefusalCode::ReplayMemoryFull,
                format!(
                    "`{}` unexpired proofs of this client are remembered; use shorter lifetimes, \
                     batches, or a higher replay_capacity",
                    self.used.len()
                ),
            ));
        }
        Ok(())
    }

    /// Whether a proof was used and is not forgotten yet.
    #[must_use]
    pub fn was_used(&self, proof: &ProofId) -> bool {
        self.used.contains(proof)
    }

    /// Forgets proofs that have expired by `now`, in Unix seconds. Every use does it for its own
    /// client; a signer does it for all now and then, so that idle clients cost no memory.
    pub fn forget(&mut self, now: u64) {
        while let Some(entry) = self.expiring.first_entry() {
            if *entry.key() > now {
                break;
            }
            for proof in entry.remove() {
                self.used.remove(&proof);
            }
        }
    }

    /// How many proofs are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.used.len()
    }

    /// Takes `tokens` from the client's rate: a bucket of two seconds' worth. Nothing is taken when
    /// there are too few.
    fn take_rate(&mut self, client: &Client, tokens: u64, now_ms: u64) -> Result<(), Refusal> {
        let Some(rate) = client.max_tokens_per_s.map(u64::from) else { return Ok(()) };
        let capacity = rate.saturating_mul(2_000);
        let elapsed = now_ms.saturating_sub(self.refilled_at_ms);
        let before = self.tokens_left_milli.unwrap_or(capacity);
        // Tokens are counted in thousandths, so `rate` per second is `rate` thousandths per ms.
        let left = before.saturating_add(elapsed.saturating_mul(rate)).min(capacity);
        self.refilled_at_ms = now_ms;
        let wanted = tokens.saturating_mul(1_000);
        if let Some(rest) = left.checked_sub(wanted) {
            self.tokens_left_milli = Some(rest);
            return Ok(());
        }
        self.tokens_left_milli = Some(left);
        let detail = if wanted > capacity {
            format!(
                "`{tokens}` tokens at once are more than this client's `{rate}` a second ever allow; ask for fewer at a time"
            )
        } else {
            format!("this client may have `{rate}` tokens a second; slow down")
        };
        Err(Refusal::new(RefusalCode::RateLimited, detail))
    }
}

pub(crate) fn replayed() -> Refusal {
    Refusal::new(
        RefusalCode::ProofReplayed,
        "this proof's `jti` was used already; make a new proof for each request",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compiled::Policy;
    use crate::document::tests::sample;

    fn client(change: impl FnOnce(&mut crate::document::ClientDocument)) -> std::sync::Arc<Client> {
        let mut document = sample();
        change(&mut document.realms[0].clients[0]);
        let policy = Policy::parse(&document.to_json().unwrap()).unwrap();
        policy.realm("consumers").unwrap().client("shop").unwrap().clone()
    }

    #[test]
    fn a_proof_is_used_once_until_it_expires() {
        let client = client(|_| {});
        let mut memory = ClientMemory::default();
        memory.admit(&client, [1; 16], 100, 1, 10_000).unwrap();
        let again = memory.admit(&client, [1; 16], 100, 1, 99_000).unwrap_err();
        assert_eq!(again.code, RefusalCode::ProofReplayed);
        assert_eq!(memory.remembered(), 1);
        memory.admit(&client, [2; 16], 200, 1, 100_000).unwrap();
        assert_eq!(memory.remembered(), 1, "the expired proof is forgotten");
    }

    #[test]
    fn a_full_memory_refuses_and_never_evicts() {
        let client = client(|c| c.replay_capacity = 3);
        let mut memory = ClientMemory::default();
        for id in 0..3 {
            memory.admit(&client, [id; 16], 100, 1, 10_000).unwrap();
        }
        let full = memory.admit(&client, [9; 16], 100, 1, 10_000).unwrap_err();
        assert_eq!(full.code, RefusalCode::ReplayMemoryFull);
        let replay = memory.admit(&client, [0; 16], 100, 1, 10_000).unwrap_err();
        assert_eq!(replay.code, RefusalCode::ProofReplayed);
        memory.admit(&client, [9; 16], 200, 1, 100_000).unwrap();
    }

    #[test]
    fn the_rate_holds_over_time() {
        let client = client(|c| c.max_tokens_per_s = Some(10));
        let mut memory = ClientMemory::default();
        let mut granted = 0;
        for ms in 0..10_000 {
            if memory.take_rate(&client, 1, 1_000_000 + ms).is_ok() {
                granted += 1;
            }
        }
        assert!((100..=120).contains(&granted), "granted {granted}");
        let refused = memory.take_rate(&client, 21, 9_000_000).unwrap_err();
        assert_eq!(refused.code, RefusalCode::RateLimited);
    }

    #[test]
    fn a_replayed_proof_costs_the_client_nothing() {
        let client = client(|c| c.max_tokens_per_s = Some(1));
        let mut memory = ClientMemory::default();
        memory.admit(&client, [1; 16], 100, 1, 10_000).unwrap();
        for _ in 0..100 {
            let again = memory.admit(&client, [1; 16], 100, 1, 10_000).unwrap_err();
            assert_eq!(again.code, RefusalCode::ProofReplayed);
        }
        memory.admit(&client, [2; 16], 100, 1, 10_000).unwrap();
    }

    #[test]
    fn a_proof_that_came_too_early_is_still_good() {
        let client = client(|c| c.max_tokens_per_s = Some(1));
        let mut memory = ClientMemory::default();
        memory.admit(&client, [1; 16], 100, 2, 10_000).unwrap();
        let early = memory.admit(&client, [2; 16], 100, 2, 11_000).unwrap_err();
        assert_eq!(early.code, RefusalCode::RateLimited);
        memory.admit(&client, [2; 16], 100, 2, 12_000).unwrap();
        let never = memory.admit(&client, [3; 16], 100, 3, 90_000).unwrap_err();
        assert!(never.detail.contains("ask for fewer"), "{}", never.detail);
    }
}
