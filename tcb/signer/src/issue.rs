//! The life of a token inside the signer, in the order of the design's steps:
//!
//! 2. **decide**: authenticate the proof, refuse replays, apply the grants;
//! 3. **sequence**: reserve the index, which becomes part of `jti`;
//! 4. **append**: the leaf enters the tree before a signature exists;
//! 5. **sign**: with the realm's one active key, held back in the open batch
//!    ([`crate::signer::Signer::sign_open`]), until the commit releases it.
//!
//! Each step's value can be made only by its step: a [`Granted`] only by the policy's decision, an
//! `Appended` only by appending, a token only by releasing a committed batch.

use chancery_entry::{Entry, TokenEntry};
use chancery_policy::claims::{self, Stamp};
use chancery_policy::proof::{self, Moment, Proven};
use chancery_policy::replay::ProofId;
use chancery_policy::{
    Ask, Client, Granted, Policy, Realm, Refusal, RefusalCode, decide,
    kubernetes as service_accounts,
};
use chancery_signer_api::{
    Decision, GrantedToken, IssueRequest, MAX_CONTEXT_BYTES, MAX_FRAME_BYTES, MAX_TOKENS_PER_FRAME,
    Outcome, Proof,
};
use chancery_token::{Algorithm, jws};

use crate::clock::Now;
use crate::keys::Keys;
use crate::kubernetes;
use crate::log::{self, Log};
use crate::open::Appended;
use crate::signer::Memories;

/// Bytes of randomness in a `jti`: they keep leaves unguessable.
const JTI_RANDOM_BYTES: usize = 16;
/// Bytes drawn at once: for two batches of 32, or as many single requests.
const RANDOM_POOL_BYTES: usize = 64 * JTI_RANDOM_BYTES;
/// What the granted tokens of one `Prepare` may add to its answer, and to that of its `Commit`, in
/// bytes. Two open batches must fit into one frame at a hand-over, beside their entries and the
/// key set: a batch that cannot be answered could never be committed.
pub(crate) const MAX_ANSWER_BYTES: usize = MAX_FRAME_BYTES / 8 * 3;
/// Header, `iat`, `exp`, `jti`, member names and punctuation of a token, in bytes.
pub(crate) const FIXED_BYTES: usize = 512;
/// The longest explanation of a refusal, in bytes: it may quote what a client sent.
const MAX_DETAIL_BYTES: usize = 512;
/// Characters of the longest signature, ML-DSA-87's, and its dot.
pub(crate) const SIGNATURE_ROOM_BYTES: usize = 6_171;

/// What one `Prepare` works with.
pub(crate) struct Desk<'a> {
    pub policy: &'a Policy,
    pub memories: &'a mut Memories,
    pub keys: &'a mut Keys,
    pub log: &'a mut Log,
    /// Read once: every token of the batch has this `iat`.
    pub now: Now,
    pub started_at: u64,
    /// Tokens appended so far in this batch.
    pub appended: Vec<Appended>,
    /// Tokens decided on so far, granted or not.
    pub outcomes: usize,
    /// Bytes of answers that they may take.
    pub bytes: usize,
    /// A request was sent back for want of room: everything behind it is too.
    pub full: bool,
    /// For `jti`.
    pub random: Random,
}

/// Randomness for the `jti` of some tokens, drawn at once: one draw costs as much as the hashing of
/// a whole token. No byte is handed out twice.
#[derive(Debug)]
pub(crate) struct Random {
    bytes: [u8; RANDOM_POOL_BYTES],
    used: usize,
}

impl Random {
    /// Nothing is drawn before it is needed.
    pub(crate) fn new() -> Self {
        Self { bytes: [0; RANDOM_POOL_BYTES], used: RANDOM_POOL_BYTES }
    }

    fn draw(&mut self) -> Result<[u8; JTI_RANDOM_BYTES], log::Error> {
        if self.used >= RANDOM_POOL_BYTES {
            let filled = aws_lc_rs::rand::fill(&mut self.bytes);
            filled.map_err(|_| log::Error::Identity("the system has no randomness".into()))?;
            self.used = 0;
        }
        let rest = self.bytes.get(self.used..).unwrap_or_default();
        let drawn = rest.first_chunk().copied();
        self.used = self.used.saturating_add(JTI_RANDOM_BYTES);
        drawn.ok_or_else(|| log::Error::Identity("the randomness is used up".into()))
    }
}

/// Steps 2 to 4 for one request.
///
/// # Errors
/// Only fatal errors of the log; every fault of the request is a refusal in the decision.
pub(crate) fn prepare(desk: &mut Desk<'_>, request: IssueRequest) -> Result<Decision, log::Error> {
    let mut decision =
        Decision { context: request.context, client: String::new(), outcomes: Vec::new() };
    if let Proof::Kubernetes { claims } = &request.proof {
        kubernetes::CLIENT.clone_into(&mut decision.client);
        let outcome = match kubernetes::decide(desk, &request.realm, claims, &decision.context) {
            Ok((realm, approved)) => kubernetes::append(desk, &realm, claims, &approved)?,
            Err(refusal) => refused(refusal),
        };
        decision.outcomes.push(outcome);
        return Ok(decision);
    }
    let decided = authenticate_and_decide(desk, &request.realm, request.proof, &decision.context);
    let (realm, proven, verdicts) = match decided {
        Ok(decided) => decided,
        Err(refusal) => {
            decision.outcomes.push(refused(refusal));
            return Ok(decision);
        }
    };
    decision.client.clone_from(&proven.client().id);
    for verdict in verdicts {
        let outcome = match verdict {
            Ok(granted) => append(desk, &realm, &proven, granted)?,
            Err(refusal) => refused(refusal),
        };
        decision.outcomes.push(outcome);
    }
    Ok(decision)
}

impl Desk<'_> {
    /// How many more tokens fit into the frame; nothing is decided while the clock is not trusted.
    pub(crate) fn room(&self, context: &[u8]) -> Result<usize, Refusal> {
        if context.len() > MAX_CONTEXT_BYTES {
            return Err(Refusal::new(RefusalCode::MalformedRequest, "the context is too long"));
        }
        if let Some(off) = self.now.untrusted_by_ms {
            return Err(Refusal::new(
                RefusalCode::ClockUntrusted,
                format!(
                    "the host's clock is off by `{off}` ms; nothing is signed until it is right"
                ),
            ));
        }
        let room = MAX_TOKENS_PER_FRAME.saturating_sub(self.outcomes);
        if room == 0 || self.bytes >= MAX_ANSWER_BYTES || self.full {
            return Err(Refusal::new(RefusalCode::Deferred, "the frame is full"));
        }
        Ok(room)
    }
}

type Decided = (std::sync::Arc<Realm>, Proven, Vec<Result<Granted, Refusal>>);

/// Step 2: who asks, whether the proof is new, and what the policy says to each request in it.
fn authenticate_and_decide(
    desk: &mut Desk<'_>,
    realm: &str,
    proof: Proof,
    context: &[u8],
) -> Result<Decided, Refusal> {
    let room = desk.room(context)?;
    let realm = desk.policy.realm(realm)?.clone();
    if realm.kubernetes.is_some() {
        return Err(service_accounts::wrong_kind(&realm));
    }
    let log = desk.log.id_text().to_owned();
    let at = Moment { now: desk.now.seconds(), started_at: desk.started_at, log: &log };
    let memories = &*desk.memories;
    let was_used = |client: &Client, id: &ProofId| memories.was_used(&realm.issuer, &client.id, id);
    let (proven, asks) = match proof {
        Proof::Assertion { jws, audiences, scope, lifetime_s, subject, algorithm, client_id } => {
            let proven = proof::assertion(&realm, &jws, at, was_used)?;
            if client_id.is_some_and(|id| id != proven.client().id) {
                return Err(Refusal::new(
                    RefusalCode::MalformedRequest,
                    "`client_id` names another client than the assertion (RFC 7521 section 4.2)",
                ));
            }
            let ask = Ask {
                subject,
                audiences,
                scopes: scope.map_or(Ok(Vec::new()), |s| decide::split_scope(&s))?,
                lifetime_s,
                algorithm: algorithm.map(|a| decide::parse_algorithm(&a)).transpose()?,
                ..Ask::default()
            };
            (proven, vec![ask])
        }
        Proof::Signed { jws } => proof::signed_request(&realm, &jws, at, was_used)?,
        Proof::Kubernetes { .. } => return Err(service_accounts::wrong_kind(&realm)),
    };
    let tokens = u64::try_from(asks.len()).unwrap_or(u64::MAX);
    let verdicts: Vec<_> =
        asks.into_iter().map(|ask| decide(&realm, proven.client(), ask)).collect();
    let bytes = answer_bound(&realm, proven.client(), &verdicts);
    if bytes > MAX_ANSWER_BYTES {
        return Err(Refusal::new(
            RefusalCode::TooManyRequests,
            format!("tokens of up to `{bytes}` bytes in one request; ask for fewer at a time"),
        ));
    }
    if verdicts.len() > room || bytes > MAX_ANSWER_BYTES.saturating_sub(desk.bytes) {
        // Nothing was remembered of the proof, so the same request may come in the next frame; what
        // follows it in this one waits unseen, so that nothing is verified twice but this.
        desk.full = true;
        return Err(Refusal::new(RefusalCode::Deferred, "the frame is full"));
    }
    let memory = desk.memories.of(&realm.issuer, &proven.client().id);
    memory.admit(proven.client(), proven.id(), proven.forget_at(), tokens, desk.now.ms)?;
    desk.outcomes = desk.outcomes.saturating_add(verdicts.len());
    desk.bytes = desk.bytes.saturating_add(bytes);
    Ok((realm, proven, verdicts))
}

/// A bound on what a request's outcomes add to each of the two answers, `Prepared` and `Committed`.
fn answer_bound(realm: &Realm, client: &Client, verdicts: &[Result<Granted, Refusal>]) -> usize {
    let fixed = realm.issuer.len().saturating_add(client.id.len()).saturating_add(FIXED_BYTES);
    let bound = |verdict: &Result<Granted, Refusal>| match verdict {
        Err(_) => MAX_DETAIL_BYTES,
        Ok(granted) => {
            let signature = signature_bytes(realm, granted.algorithm);
            let raw = fixed.saturating_add(granted.payload_bound()).saturating_add(signature);
            // base64url makes four characters of three bytes.
            raw.saturating_add(raw / 3).min(jws::MAX_TOKEN_BYTES)
        }
    };
    verdicts.iter().map(bound).fold(0, usize::saturating_add)
}

/// Bytes of a signature by a key of the realm.
pub(crate) fn signature_bytes(realm: &Realm, algorithm: Algorithm) -> usize {
    match algorithm.signature_len() {
        Some(bytes) => bytes,
        None => usize::from(realm.rsa_bits) / 8,
    }
}

/// Steps 3 and 4: the token gets its address and its leaf.
fn append(
    desk: &mut Desk<'_>,
    realm: &Realm,
    proven: &Proven,
    granted: Granted,
) -> Result<Outcome, log::Error> {
    let lane = (realm.name.clone(), granted.algorithm);
    let now = desk.now;
    let Some(key) = desk
        .keys
        .lane_mut(&realm.name, granted.algorithm)
        .and_then(|lane| lane.active(now).and_then(|at| lane.keys.get_mut(at)))
    else {
        return Ok(no_active_key(desk, realm, granted.algorithm));
    };
    let iat = now.seconds();
    let lifetime_s = granted.lifetime_s.min(key.facts.max_lifetime_s);
    let exp = iat.saturating_add(lifetime_s);
    let index = desk.log.next_index();
    let random = desk.random.draw()?;
    let jti = format!("{}.{index}.{}", desk.log.id_text(), chancery_token::b64::encode(&random));
    let stamp = Stamp { issuer: &realm.issuer, client: &proven.client().id, iat, exp, jti: &jti };
    let Ok(payload) = claims::payload(&granted, stamp) else {
        return Ok(refused(Refusal::new(RefusalCode::MalformedRequest, "claims are not JSON")));
    };
    let signing_input = jws::signing_input_with(&key.header, &payload);
    if signing_input.len().saturating_add(SIGNATURE_ROOM_BYTES) > jws::MAX_TOKEN_BYTES {
        let detail = "the token would be longer than 16 KiB; ask for fewer claims or audiences";
        return Ok(refused(Refusal::new(RefusalCode::MalformedRequest, detail)));
    }
    let kid = key.public.kid();
    let entry = TokenEntry::of(*kid.as_bytes(), iat, exp, signing_input.as_bytes());
    desk.log.append(&Entry::Token(entry))?;
    key.note_expiry(exp);
    let signs_until = key.facts.signs_until;
    desk.appended.push(Appended { index, signing_input, lane, kid, signs_until, verify: false });
    Ok(Outcome::Granted(GrantedToken {
        index,
        subject: granted.subject,
        audiences: granted.audiences,
        scope: granted.scopes.join(" "),
        grant: granted.grant,
        policy_version: realm.policy_version,
        kid: (*kid.as_bytes()).into(),
        jti,
        iat,
        lifetime_s,
    }))
}

pub(crate) fn no_active_key(desk: &mut Desk<'_>, realm: &Realm, algorithm: Algorithm) -> Outcome {
    let next = desk.keys.lane_mut(&realm.name, algorithm).and_then(|l| l.next_start());
    let when = match next {
        Some(at) => format!("the next one starts at `{at}`"),
        None => "one is being made".to_owned(),
    };
    refused(Refusal::new(
        RefusalCode::NoActiveKey,
        format!("realm `{}` has no active {algorithm} key; {when}", realm.name),
    ))
}

pub(crate) fn refused(refusal: Refusal) -> Outcome {
    let mut detail = refusal.detail;
    if detail.len() > MAX_DETAIL_BYTES {
        detail.truncate(detail.floor_char_boundary(MAX_DETAIL_BYTES));
    }
    Outcome::Refused { code: refusal.code.as_str().to_owned(), detail }
}
