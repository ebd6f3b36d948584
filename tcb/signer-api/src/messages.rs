//! The messages, both ways.

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

/// What the service may say.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Request {
    /// Opens a connection.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// Gives a fresh signer its policy; answered by [`Response::Prepared`], batch 1.
    #[n(1)]
    Start(#[n(0)] Start),
    /// Says what the service holds of this signer's log; answered by [`Response::Resumed`].
    #[n(2)]
    Resume(#[n(0)] Resume),
    /// Steps 2 to 4 for a batch; answered by [`Response::Prepared`].
    #[n(3)]
    Prepare(#[n(0)] Prepare),
    /// The batch is durable; answered by [`Response::Committed`].
    #[n(4)]
    Commit(#[n(0)] Commit),
    /// A new policy version; answered by [`Response::PolicyLoaded`].
    #[n(5)]
    LoadPolicy(#[n(0)] LoadPolicy),
    /// Start a new key; answered by [`Response::Rotating`].
    #[n(6)]
    Rotate(#[n(0)] Rotate),
    /// Keys must no longer be believed; answered by [`Response::Compromised`].
    #[n(7)]
    Compromise(#[n(0)] Compromise),
    /// Report state; answered by [`Response::Status`].
    #[n(8)]
    Status,
    /// Destroy all keys and end; answered by [`Response::Ending`].
    #[n(9)]
    End,
    /// A directory root that witnesses cosigned; answered by [`Response::Covered`].
    #[n(10)]
    Witnessed(#[n(0)] Witnessed),
    /// The second signature of a checkpoint; answered by [`Response::Cosigned`].
    #[n(11)]
    Cosign(#[n(0)] Cosign),
    /// Evidence of this signer; answered by [`Response::Evidence`].
    #[n(12)]
    Evidence(#[n(0)] EvidenceRequest),
    /// How the service appraised it; answered by [`Response::Noted`].
    #[n(13)]
    Appraised(#[n(0)] Appraised),
}

/// What the signer may answer.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Response {
    /// To `Hello`.
    #[n(0)]
    Welcome(#[n(0)] Welcome),
    /// To `Start` and `Prepare`.
    #[n(1)]
    Prepared(#[n(0)] Prepared),
    /// To `Resume`: the batches that are open, oldest first, to be committed.
    #[n(2)]
    Resumed(#[n(0)] Resumed),
    /// To `Commit`.
    #[n(3)]
    Committed(#[n(0)] Committed),
    /// To `LoadPolicy`: accepted; in force when its entry is committed.
    #[n(4)]
    PolicyLoaded(#[n(0)] PolicyLoaded),
    /// To `Rotate`.
    #[n(5)]
    Rotating(#[n(0)] Rotating),
    /// To `Compromise`: noted; its entries are in the next batch.
    #[n(6)]
    Compromised(#[n(0)] Compromised),
    /// To `Status`.
    #[n(7)]
    Status(#[n(0)] Status),
    /// To `End`.
    #[n(8)]
    Ending,
    /// The request failed; nothing was changed by it.
    #[n(9)]
    Fault(#[n(0)] Fault),
    /// To `Witnessed`.
    #[n(10)]
    Covered(#[n(0)] Covered),
    /// To `Cosign`.
    #[n(11)]
    Cosigned(#[n(0)] Cosigned),
    /// To `Evidence`.
    #[n(12)]
    Evidence(#[n(0)] MadeEvidence),
    /// To `Appraised`: its entry is in the next batch, as the service's word.
    #[n(13)]
    Noted,
}

/// Opens a connection.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Hello {
    /// Protocol versions that the service speaks.
    #[n(0)]
    pub versions: Vec<u16>,
    /// Name and version of the service software, for the log.
    #[n(1)]
    pub software: String,
}

/// The signer introduces itself.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Welcome {
    /// The protocol version chosen: the highest that both speak.
    #[n(0)]
    pub version: u16,
    /// Name and version of the signer software.
    #[n(1)]
    pub software: String,
    /// The Ed25519 identity public key.
    #[n(2)]
    pub identity: ByteArray<32>,
    /// Whether it waits for `Start`; otherwise for `Resume`.
    #[n(3)]
    pub fresh: bool,
    /// Origin of its log; empty while fresh.
    #[n(4)]
    pub origin: String,
    /// Unix seconds of its start.
    #[n(5)]
    pub started_at: u64,
    /// The protections in force and those missing.
    #[n(6)]
    pub sandbox: Vec<Protection>,
}

/// One protection of the process.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Protection {
    /// For example `seccomp`.
    #[n(0)]
    pub name: String,
    /// Whether it is in force.
    #[n(1)]
    pub in_force: bool,
    /// What it covers, or why it is missing.
    #[n(2)]
    pub detail: String,
}

/// Gives a fresh signer its policy.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Start {
    /// The policy document, JSON.
    #[n(0)]
    pub policy: ByteVec,
    /// The log that this one continues; `None` says that there is none.
    #[n(1)]
    pub predecessor: Option<Predecessor>,
    /// Compromised keys, of dead signers too, that live logs do not hold yet.
    #[n(2)]
    pub compromised: Vec<CompromisedKey>,
}

/// A dead signer's log.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Predecessor {
    /// Its verifier key.
    #[n(0)]
    pub vkey: String,
    /// Its last checkpoint, a signed note; the signer verifies it.
    #[n(1)]
    pub checkpoint: String,
}

/// A key that must no longer be believed.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct CompromisedKey {
    /// RFC 7638 thumbprint.
    #[n(0)]
    pub kid: ByteArray<32>,
    /// The operator's words.
    #[n(1)]
    pub reason: String,
}

/// What the service holds of this signer's log.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Resume {
    /// Number of durable entries.
    #[n(0)]
    pub size: u64,
    /// Root over them.
    #[n(1)]
    pub root: ByteArray<32>,
}

/// The state of the log and what waits to be committed.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Resumed {
    /// Batches that are prepared and not committed, oldest first.
    #[n(0)]
    pub open: Vec<Prepared>,
    /// The latest signed part of the key set; empty before the first commit.
    #[n(1)]
    pub keys_jwt: String,
    /// Version of the policy in force.
    #[n(2)]
    pub policy_version: u64,
    /// Its digest.
    #[n(3)]
    pub policy_digest: ByteArray<32>,
    /// Entries of the directory at the last root that the signer accepted; 0 for none.
    #[n(4)]
    pub directory_size: u64,
}

/// A batch of requests.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Prepare {
    /// The requests; none is allowed, and collects the entries that the signer made itself.
    #[n(0)]
    pub requests: Vec<IssueRequest>,
    /// What the service did with its audit since: logged as the service's word, at most
    /// [`crate::MAX_AUDIT_STATEMENTS`].
    #[cbor(n(1), default)]
    pub audit: Vec<AuditStatement>,
}

/// The service's word about its audit.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AuditStatement {
    /// A segment is stored.
    #[n(0)]
    Stored(#[n(0)] AuditSegment),
    /// Segments are about to be deleted: the policy does not keep them any longer.
    #[n(1)]
    Removed(#[n(0)] AuditRemoval),
}

/// Segments of one log whose numbers follow each other; the signer adds its own time.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AuditRemoval {
    /// Id of the log that the records are about.
    #[n(0)]
    pub log: ByteArray<16>,
    /// Number of the first segment in that log.
    #[n(1)]
    pub first: u64,
    /// How many segments.
    #[n(2)]
    pub segments: u64,
    /// Their records were made before this hour since 1970.
    #[n(3)]
    pub before: u64,
}

/// The service's word about this signer's evidence; its fields are those of the log's entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Appraised {
    /// Unix seconds at which the evidence was judged.
    #[n(0)]
    pub at: u64,
    /// SHA-256 of the evidence.
    #[n(1)]
    pub evidence: ByteArray<32>,
    /// SHA-256 of the appraisal policy.
    #[n(2)]
    pub policy: ByteArray<32>,
    /// Whether it was accepted.
    #[n(3)]
    pub accepted: bool,
    /// SHA-256 of the published attestation result.
    #[n(4)]
    pub result: ByteArray<32>,
}

/// The service's word about one audit segment; its fields are those of the log's entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AuditSegment {
    /// Id of the log that the records are about.
    #[n(0)]
    pub log: ByteArray<16>,
    /// Number of the segment in that log.
    #[n(1)]
    pub number: u64,
    /// Number of its first record in that log.
    #[n(2)]
    pub first: u64,
    /// How many records.
    #[n(3)]
    pub records: u64,
    /// Hour since 1970 in which they were made.
    #[n(4)]
    pub hour: u64,
    /// SHA-256 of the segment as it is stored.
    #[n(5)]
    pub digest: ByteArray<32>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct IssueRequest {
    /// The realm's name.
    #[n(0)]
    pub realm: String,
    /// Opaque to the signer, at most [`crate::MAX_CONTEXT_BYTES`]; comes back in the decision.
    #[n(1)]
    pub context: ByteVec,
    /// The client's proof and what is asked for.
    #[n(2)]
    pub proof: Proof,
}

/// A client's proof.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Proof {
    /// `private_key_jwt` on the OAuth endpoint: the rest comes from the host.
    #[n(0)]
    Assertion {
        /// The JWS as it arrived.
        #[n(0)]
        jws: String,
        /// `audience` and `resource` parameters.
        #[n(1)]
        audiences: Vec<String>,
        /// `scope` parameter.
        #[n(2)]
        scope: Option<String>,
        /// Lifetime asked for, in seconds.
        #[n(3)]
        lifetime_s: Option<u64>,
        /// Subject asked for.
        #[n(4)]
        subject: Option<String>,
        /// Algorithm asked for.
        #[n(5)]
        algorithm: Option<String>,
        /// `client_id` parameter: must name the client of the assertion (RFC 7521 section 4.2).
        #[n(6)]
        client_id: Option<String>,
    },
    /// A signed issuance request: the JWS carries everything.
    #[n(1)]
    Signed {
        /// The JWS as it arrived.
        #[n(0)]
        jws: String,
    },
    /// Claims of a Kubernetes service account's token, in a realm of that kind: no proof, so the
    /// policy alone bounds what may be asked for. They are signed as they came.
    #[n(2)]
    Kubernetes {
        /// The token's second part as the API server encoded it.
        #[n(0)]
        claims: String,
    },
}

/// A batch that awaits its commit.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Prepared {
    /// Number of the batch, from 1, without gaps.
    #[n(0)]
    pub batch: u64,
    /// Index of the first entry.
    #[n(1)]
    pub first_index: u64,
    /// The entries, in order.
    #[n(2)]
    pub entries: Vec<ByteVec>,
    /// A signed note over exactly the tree that ends with these entries.
    #[n(3)]
    pub checkpoint: String,
    /// One decision for each request, in order.
    #[n(4)]
    pub decisions: Vec<Decision>,
    /// What the operator must hear, loudly.
    #[n(5)]
    pub notices: Vec<Notice>,
}

/// What became of one request.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Decision {
    /// As it came.
    #[n(0)]
    pub context: ByteVec,
    /// The client, once authenticated; empty before. `kube-apiserver` for Kubernetes claims.
    #[n(1)]
    pub client: String,
    /// One for each token asked for, or a single refusal of the whole request.
    #[n(2)]
    pub outcomes: Vec<Outcome>,
}

/// What became of one token.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Outcome {
    /// The policy allows it; its entry is at `index`.
    #[n(0)]
    Granted(#[n(0)] GrantedToken),
    /// The policy said no.
    #[n(1)]
    Refused {
        /// Stable reason code.
        #[n(0)]
        code: String,
        /// Explanation.
        #[n(1)]
        detail: String,
    },
}

/// A granted token, for the audit record.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct GrantedToken {
    /// Index of its entry.
    #[n(0)]
    pub index: u64,
    /// `sub`.
    #[n(1)]
    pub subject: String,
    /// `aud`.
    #[n(2)]
    pub audiences: Vec<String>,
    /// `scope`.
    #[n(3)]
    pub scope: String,
    /// Name of the grant.
    #[n(4)]
    pub grant: String,
    /// Version of the policy.
    #[n(5)]
    pub policy_version: u64,
    /// Thumbprint of the key.
    #[n(6)]
    pub kid: ByteArray<32>,
    /// `jti`; its address in the log but for Kubernetes claims.
    #[n(7)]
    pub jti: String,
    /// `iat`.
    #[n(8)]
    pub iat: u64,
    /// Lifetime in seconds.
    #[n(9)]
    pub lifetime_s: u64,
}

/// Something that the operator must hear.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Notice {
    /// Stable code, for metrics.
    #[n(0)]
    pub code: String,
    /// The sentence for the log.
    #[n(1)]
    pub text: String,
}

/// A batch is durable.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Commit {
    /// Number of the batch; commits come in order.
    #[n(0)]
    pub batch: u64,
}

/// A directory root that witnesses cosigned, and what it holds of this signer's log.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Witnessed {
    /// The directory's checkpoint: a signed note with the cosignatures.
    #[n(0)]
    pub checkpoint: String,
    /// The proof that it extends the last one that this signer accepted; empty for the first.
    #[n(1)]
    pub consistency: Vec<ByteArray<32>>,
    /// Index of the directory's entry with this signer's latest checkpoint.
    #[n(2)]
    pub index: u64,
    /// That entry.
    #[n(3)]
    pub entry: ByteVec,
    /// The proof that it is in the directory.
    #[n(4)]
    pub inclusion: Vec<ByteArray<32>>,
}

/// What is free by a witnessed root.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Covered {
    /// Entries of this signer's log that it covers.
    #[n(0)]
    pub size: u64,
    /// Entries of the directory: the next consistency proof starts there.
    #[n(1)]
    pub directory_size: u64,
}

/// Asks for the post-quantum signature of a checkpoint that this signer signed a moment ago.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Cosign {
    /// Entries of the tree.
    #[n(0)]
    pub size: u64,
    /// Its root.
    #[n(1)]
    pub root: ByteArray<32>,
}

/// A checkpoint's second signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Cosigned {
    /// As it stands in a signature line behind the key id: the time, which is 0, and the ML-DSA-44
    /// signature (c2sp.org/tlog-cosignature).
    #[n(0)]
    pub signature: ByteVec,
}

/// Asks for evidence.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EvidenceRequest {
    /// A verifier's nonce, for evidence that is made now; empty for that which genesis names.
    #[n(0)]
    pub nonce: ByteVec,
}

/// Evidence, and what it is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MadeEvidence {
    /// The evidence: a JSON document without endorsements.
    #[n(0)]
    pub evidence: String,
    /// Every identity key: the byte of its signature type, and the public key.
    #[n(1)]
    pub identity_keys: Vec<ByteVec>,
    /// SHA-256 of the policy in force when it was made.
    #[n(2)]
    pub policy_digest: ByteArray<32>,
    /// As it came.
    #[n(3)]
    pub nonce: ByteVec,
}

/// The batch's tokens: the only message that carries token bytes.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Committed {
    /// Number of the batch.
    #[n(0)]
    pub batch: u64,
    /// For each granted outcome of the batch, in order, the token, or `None` when it was voided.
    #[n(1)]
    pub tokens: Vec<Option<String>>,
    /// The signer's part of the key set when it changed with this commit: to be published before
    /// any of the tokens is released.
    #[n(2)]
    pub keys_jwt: Option<String>,
}

/// A new policy version.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct LoadPolicy {
    /// The policy document, JSON.
    #[n(0)]
    pub policy: ByteVec,
}

/// The policy was accepted.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct PolicyLoaded {
    /// Its version.
    #[n(0)]
    pub version: u64,
    /// Its digest.
    #[n(1)]
    pub digest: ByteArray<32>,
}

/// Start a new key in a realm.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Rotate {
    /// The realm's name.
    #[n(0)]
    pub realm: String,
}

/// When an explicit rotation takes effect.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Rotating {
    /// For each algorithm of the realm, the Unix second from which the new key signs.
    #[n(0)]
    pub active_from: Vec<(String, u64)>,
}

/// Keys must no longer be believed.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Compromise {
    /// The keys, each with the reason.
    #[n(0)]
    pub keys: Vec<CompromisedKey>,
    /// Whether retired keys of the same realm fall with them.
    #[n(1)]
    pub include_retired: bool,
}

/// What fell.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Compromised {
    /// Every key of this signer that is Gone now; keys of dead signers are logged too.
    #[n(0)]
    pub gone: Vec<ByteArray<32>>,
}

/// A report for `/signers`, `keys list` and metrics.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Status {
    /// Version of the policy in force.
    #[n(0)]
    pub policy_version: u64,
    /// Its digest.
    #[n(1)]
    pub policy_digest: ByteArray<32>,
    /// Number of acknowledged entries.
    #[n(2)]
    pub committed_size: u64,
    /// Whether the clock is trusted.
    #[n(3)]
    pub clock_trusted: bool,
    /// All keys but those that are Gone.
    #[n(4)]
    pub keys: Vec<KeyStatus>,
    /// What the private keys take where no process reads them; all zero without it.
    #[cbor(n(5), default)]
    pub secret_memory: SecretMemory,
}

/// Bytes of secret memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SecretMemory {
    /// Room.
    #[n(0)]
    pub capacity: u64,
    /// Ever handed out: what it costs.
    #[n(1)]
    pub touched: u64,
    /// In use.
    #[n(2)]
    pub in_use: u64,
    /// In use outside of it, because it is full.
    #[n(3)]
    pub overflow: u64,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct KeyStatus {
    /// Its realm.
    #[n(0)]
    pub realm: String,
    /// JOSE algorithm name.
    #[n(1)]
    pub algorithm: String,
    /// Thumbprint.
    #[n(2)]
    pub kid: ByteArray<32>,
    /// `pending`, `active` or `retired`.
    #[n(3)]
    pub state: String,
    /// First second of its window.
    #[n(4)]
    pub nbf: u64,
    /// End of its window.
    #[n(5)]
    pub signs_until: u64,
    /// When it leaves the key set, as known now.
    #[n(6)]
    pub exp: u64,
    /// Index of its announcement.
    #[n(7)]
    pub announced_at: u64,
    /// Seconds for which the schedule wanted it to sign: an older active key is an alarm.
    #[n(8)]
    pub scheduled_s: u64,
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fault {
    /// Stable code.
    #[n(0)]
    pub code: FaultCode,
    /// What was wrong and what to do.
    #[n(1)]
    pub detail: String,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum FaultCode {
    /// No common protocol version.
    #[n(0)]
    Version,
    /// The phase does not accept the message; the connection ends.
    #[n(1)]
    Phase,
    /// The frame does not parse; the connection ends.
    #[n(2)]
    Malformed,
    /// The policy document is refused.
    #[n(3)]
    Policy,
    /// The predecessor's checkpoint does not verify.
    #[n(4)]
    Predecessor,
    /// The service holds less of the log than it acknowledged, or something else: it lost or
    /// rewrote storage (INVARIANT I9).
    #[n(5)]
    StorageLost,
    /// Two batches are open already.
    #[n(6)]
    TooManyOpen,
    /// Not the oldest open batch.
    #[n(7)]
    NotOpen,
    /// No such realm.
    #[n(8)]
    UnknownRealm,
    /// The signer itself failed; see the text.
    #[n(9)]
    Internal,
    /// No witnessed root covers the batch, or what was shown is none.
    #[n(10)]
    NotWitnessed,
    /// Not a tree that this signer signed lately.
    #[n(11)]
    UnknownTree,
    /// No evidence can be made: see the text.
    #[n(12)]
    Evidence,
}
