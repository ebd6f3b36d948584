//! Submission of the directory's checkpoints to witnesses (c2sp.org/tlog-witness, the client's side).
//!
//! A checkpoint is shown to all witnesses at once, and waited for until their cosignatures meet the
//! quorum, or all have answered, or [`PATIENCE`] is over; what comes later is added to the published
//! checkpoint. Nothing here can stop anything but `release = "witnessed"`: a witness that is away is
//! asked again, less and less often. What a witness says that must not be is an alarm: in the log, in
//! the metrics and in the readiness page.
//!
//! | a witness that | costs |
//! |---|---|
//! | does not answer, or answers slowly | [`PATIENCE`] once; then it is asked without waiting for it, less and less often, one request at a time |
//! | answers at length | 128 KiB |
//! | answers with other people's signatures, wrong ones, or garbage | nothing: only verified lines by its configured keys count |
//! | says that it has another size, again and again | [`MAX_ATTEMPTS`] requests for each checkpoint |

mod alarm;
mod client;
mod metrics;
mod remote;
mod settings;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chancery_tlog::note::{Note, Signature};
use chancery_tlog::policy::Policy;
use chancery_tlog::witness::AddCheckpoint;
use chancery_tlog::{Checkpoint, Hash};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use alarm::Alarm;
pub use client::{Client, Reply};
pub use metrics::Counts;
pub use settings::{GroupDocument, WitnessDocument, WitnessSettings};

use remote::{Remote, Step};

/// How long a checkpoint waits for its cosignatures before it is published with those that are there.
/// Witnesses answer in a fraction of a second from anywhere on Earth.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Requests to one witness for one checkpoint: one to learn its size, one with the proof, and one more
/// for a witness whose size changed in between, because another service of ours asked it.
pub const MAX_ATTEMPTS: u32 = 3;

/// The consistency proofs of the log that is witnessed.
pub trait Proofs: Sync {
    /// The proof that the tree of `new` leaves extends that of `old`.
    fn consistency(
        &self,
        old: u64,
        new: u64,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<Hash>, String>> + Send + '_>>;
}

/// The configured witnesses, and what is known of each.
#[derive(Debug)]
pub struct Witnesses {
    remotes: Vec<Arc<Remote>>,
    policy: Policy,
    client: Client,
    counts: Counts,
    patience: Duration,
    late: Arc<Mutex<Vec<Late>>>,
}

/// Cosignatures that came after the checkpoint had been published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// Size of the checkpoint.
    pub size: u64,
    /// The lines, verified.
    pub signatures: Vec<Signature>,
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigned {
    /// The lines, verified.
    pub signatures: Vec<Signature>,
    /// Whether they meet the quorum; never so where there is none to be met.
    pub meets_quorum: bool,
}

/// What a task says about its request.
struct Outcome {
    remote: usize,
    attempt: u32,
    is_waited_for: bool,
    step: Step,
}

impl Witnesses {
    /// The witnesses of a configuration; `None` where there are none.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn new(settings: &WitnessSettings, counts: Counts) -> Result<Option<Arc<Self>>, String> {
        let remotes: Vec<_> = settings.remotes()?.into_iter().map(Arc::new).collect();
        if remotes.is_empty() {
            return Ok(None);
        }
        let policy = settings.policy(None)?;
        for remote in &remotes {
            counts.add(remote.name());
        }
        Ok(Some(Arc::new(Self {
            remotes,
            policy,
            client: Client::new(),
            counts,
            patience: PATIENCE,
            late: Arc::default(),
        })))
    }

    /// Shows the checkpoint that is signed in `note` to all witnesses that are due. Cosignatures that
    /// it carries already count for the quorum.
    pub async fn ask(&self, note: &str, proofs: &dyn Proofs) -> Cosigned {
        let nothing = Cosigned { signatures: Vec::new(), meets_quorum: false };
        let Ok(mut note) = Note::parse(note.as_bytes()) else { return nothing };
        let Ok(checkpoint) = Checkpoint::parse(&note.text) else { return nothing };
        let mut round = Round::new(self, &note, &checkpoint);
        for at in 0..self.remotes.len() {
            round.submit(at, 0, proofs).await;
        }
        let mut signatures = Vec::new();
        while round.waiting > 0 && !self.is_met(&note) {
            let heard = tokio::time::timeout_at(round.deadline, round.heard.recv()).await;
            let Ok(Some(outcome)) = heard else { break };
            round.waiting = round.waiting.saturating_sub(usize::from(outcome.is_waited_for));
            if outcome.step == Step::Again {
                let attempt = outcome.attempt.saturating_add(1);
                round.submit(outcome.remote, attempt, proofs).await;
            }
            collect(outcome.step, &mut note, &mut signatures);
        }
        // What is said from here on comes late; what was said already counts.
        round.heard.close();
        while let Ok(outcome) = round.heard.try_recv() {
            collect(outcome.step, &mut note, &mut signatures);
        }
        Cosigned { meets_quorum: self.is_met(&note), signatures }
    }

    /// Whether all witnesses have cosigned a tree of this size, or none of the others is due.
    #[must_use]
    pub fn is_settled(&self, size: u64) -> bool {
        self.remotes.iter().all(|remote| remote.is_settled(size))
    }

    /// Cosignatures that came late, since the last call.
    #[must_use]
    pub fn take_late(&self) -> Vec<Late> {
        std::mem::take(&mut self.late.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What witnesses say that must not be, each with the witness's name.
    #[must_use]
    pub fn alarms(&self) -> Vec<(String, Alarm)> {
        let alarms = self.remotes.iter().filter_map(|r| Some((r.name().to_owned(), r.alarm()?)));
        alarms.collect()
    }

    /// Whether the cosignatures of a published checkpoint meet the quorum.
    #[must_use]
    pub fn accept(&self, note: &str) -> bool {
        Note::parse(note.as_bytes()).is_ok_and(|note| self.is_met(&note))
    }

    /// Whether a quorum is configured and the note's cosignatures meet it.
    fn is_met(&self, note: &Note) -> bool {
        let evaluated = self.policy.evaluate(note, &[]);
        self.policy.quorum().is_some() && evaluated.is_ok_and(|e| e.quorum_met)
    }
}

/// One checkpoint on its way to the witnesses.
struct Round<'a> {
    witnesses: &'a Witnesses,
    /// The checkpoint with the log's own signatures.
    note: Note,
    size: u64,
    deadline: Instant,
    say: mpsc::Sender<Outcome>,
    heard: mpsc::Receiver<Outcome>,
    /// Outcomes that are worth waiting for: those of witnesses that answered last time.
    waiting: usize,
}

impl<'a> Round<'a> {
    fn new(witnesses: &'a Witnesses, note: &Note, checkpoint: &Checkpoint) -> Self {
        // Each witness has one request under way, and each request one outcome.
        let (say, heard) = mpsc::channel(witnesses.remotes.len().max(1));
        let mut note = note.clone();
        note.signatures.retain(|line| line.name == checkpoint.origin);
        let deadline = Instant::now() + witnesses.patience;
        Self { witnesses, note, size: checkpoint.size, deadline, say, heard, waiting: 0 }
    }

    /// Sends a request if the witness is due.
    async fn submit(&mut self, at: usize, attempt: u32, proofs: &dyn Proofs) {
        let Some(remote) = self.witnesses.remotes.get(at).cloned() else { return };
        let counts = &self.witnesses.counts;
        if attempt >= MAX_ATTEMPTS {
            return remote.give_up("its size changes faster than it can be asked", counts);
        }
        let Some((old, is_waited_for)) = remote.begin(self.size, attempt > 0) else { return };
        let proof = tokio::time::timeout_at(self.deadline, proofs.consistency(old, self.size));
        let proof = proof.await.unwrap_or_else(|_| Err("the store is too slow".to_owned()));
        let request = proof.and_then(|proof| {
            AddCheckpoint::new(old, proof, self.note.clone()).map_err(|e| e.to_string())
        });
        let request = match request {
            Ok(request) => request,
            Err(e) => return remote.give_up(&format!("no proof can be made for it: {e}"), counts),
        };
        self.waiting = self.waiting.saturating_add(usize::from(is_waited_for));
        let (client, counts) = (self.witnesses.client.clone(), counts.clone());
        let (say, late, size) = (self.say.clone(), self.witnesses.late.clone(), self.size);
        tokio::spawn(async move {
            let (url, body) = (remote.url().to_owned(), request.encode());
            let send = move || client.add_checkpoint(&url, &body);
            let reply = tokio::task::spawn_blocking(send).await;
            let reply = reply.unwrap_or_else(|_| Err("the request was cut off".to_owned()));
            let step = remote.settle(&request, reply, &counts);
            let outcome = Outcome { remote: at, attempt, is_waited_for, step };
            if let Err(unheard) = say.send(outcome).await
                && let Step::Cosigned(signatures) = unheard.0.step
            {
                keep(&late, Late { size, signatures });
            }
        });
    }
}

fn collect(step: Step, note: &mut Note, signatures: &mut Vec<Signature>) {
    let Step::Cosigned(lines) = step else { return };
    for line in lines {
        // A note that would become too long goes without.
        if note.insert(line.clone()).is_ok() {
            signatures.push(line);
        }
    }
}

/// Keeps what came late: of the largest checkpoint only, the others are history.
fn keep(late: &Mutex<Vec<Late>>, one: Late) {
    let mut late = late.lock().unwrap_or_else(PoisonError::into_inner);
    late.retain(|other| other.size >= one.size);
    if late.iter().all(|other| other.size == one.size) {
        late.push(one);
    }
}
