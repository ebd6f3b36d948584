//! Judging a checkpoint by a policy.

use super::{Log, Member, Policy, Witness, shown};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, excerpt};
use crate::note::{self, Note, VerifierKey};

/// What a policy says about a checkpoint. All signatures by keys of the policy have been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The checkpoint. It is a log's statement only if [`logs`](Self::logs) is not empty.
    pub checkpoint: Checkpoint,
    /// The keys of the checkpoint's log that signed it: indexes first into [`Policy::logs`], then,
    /// counted on, into the log keys that were given beside the policy. Ascending.
    pub logs: Vec<usize>,
    /// The witnesses that cosigned it, in the order of the policy, whether the quorum needs them or
    /// not.
    pub witnesses: Vec<Witnessed>,
    /// Whether enough witnesses cosigned it; always so under `quorum none`.
    pub quorum_met: bool,
}

/// A witness that cosigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witnessed {
    /// Its index in [`Policy::witnesses`].
    pub witness: usize,
    /// When it cosigned, in seconds since 1970: the latest time if it did so more than once, 0 if it
    /// makes no statement about the time.
    pub timestamp: u64,
}

/// A checkpoint that a policy accepts: a log of the policy signed it, and the quorum is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Its note, with all signatures, known or not.
    pub note: Note,
    /// The witnesses of the policy that cosigned it.
    pub witnesses: Vec<Witnessed>,
}

impl Policy {
    /// Reads a signed checkpoint and accepts it if the policy does: at least one log of the policy,
    /// or one of `log_keys`, which are known from elsewhere, signed it under its origin as the key's
    /// name, and the witnesses that cosigned it meet the quorum.
    ///
    /// Fails as [`Note::parse`] and [`evaluate`](Self::evaluate) do, with [`Error::Origin`] or with
    /// [`Error::Quorum`].
    pub fn open(&self, note_bytes: &[u8], log_keys: &[VerifierKey]) -> Result<Accepted, Error> {
        let note = Note::parse(note_bytes)?;
        let Evaluation { checkpoint, logs, witnesses, quorum_met } =
            self.evaluate(&note, log_keys)?;
        if logs.is_empty() {
            return Err(Error::Origin(excerpt(&checkpoint.origin)));
        }
        if !quorum_met {
            return Err(Error::Quorum(shown(self.quorum_name())));
        }
        Ok(Accepted { checkpoint, note, witnesses })
    }

    /// Says which logs signed a checkpoint, which witnesses cosigned it, and whether the quorum is
    /// met. Signatures by other keys are ignored; one by a key of the policy or of `log_keys` that
    /// does not verify refuses the checkpoint, even if the policy could do without it.
    ///
    /// Fails with [`Error::Checkpoint`] or [`Error::TreeSize`], or as [`note::signers`] does.
    pub fn evaluate(&self, note: &Note, log_keys: &[VerifierKey]) -> Result<Evaluation, Error> {
        let checkpoint = Checkpoint::parse(&note.text)?;
        let logs: Vec<&VerifierKey> = self.logs.iter().map(Log::key).chain(log_keys).collect();
        let witnesses = self.witnesses.iter().map(Witness::key);
        let known: Vec<&VerifierKey> = logs.iter().copied().chain(witnesses).collect();
        let signers = note::signers(note, &known)?;

        let is_log = |key: &&VerifierKey| key.name() == checkpoint.origin;
        let signed = signers.iter().filter(|s| logs.get(s.key).is_some_and(is_log));
        let signed = signed.map(|s| s.key).collect();
        let witnessed: Vec<Witnessed> = signers
            .iter()
            .filter_map(|s| {
                let witness = s.key.checked_sub(logs.len())?;
                Some(Witnessed { witness, timestamp: s.timestamp? })
            })
            .collect();
        let quorum_met = self.is_met_by(&witnessed);
        Ok(Evaluation { checkpoint, logs: signed, witnesses: witnessed, quorum_met })
    }

    fn is_met_by(&self, witnessed: &[Witnessed]) -> bool {
        let mut cosigned = vec![false; self.witnesses.len()];
        for Witnessed { witness, .. } in witnessed {
            cosigned.get_mut(*witness).into_iter().for_each(|has| *has = true);
        }
        // Groups have earlier groups as members, so that one pass settles them all.
        let mut groups: Vec<bool> = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let members = group.members.iter();
            let met = members.filter(|member| is_met(**member, &cosigned, &groups)).count();
            groups.push(met >= group.threshold);
        }
        self.quorum.is_none_or(|quorum| is_met(quorum, &cosigned, &groups))
    }
}

fn is_met(member: Member, witnesses: &[bool], groups: &[bool]) -> bool {
    let met = match member {
        Member::Witness(at) => witnesses.get(at),
        Member::Group(at) => groups.get(at),
    };
    met.copied().unwrap_or(false)
}
