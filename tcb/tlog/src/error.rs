//! What can be wrong with a tree, a tile, a note or a proof.

use crate::hash::MAX_TREE_SIZE;
use crate::note::MAX_NOTE_BYTES;
use crate::policy::MAX_POLICY_BYTES;

/// Every reason for which this crate refuses its input. Nothing is changed by a refused input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A tree size above [`MAX_TREE_SIZE`].
    #[error("tree size `{0}` is above the supported maximum `{MAX_TREE_SIZE}`")]
    TreeSize(u64),
    /// A frontier needs one hash for every one-bit of its size.
    #[error("a frontier of size `{size}` has `{want}` hashes, not `{got}`")]
    FrontierHashes {
        /// Leaves in the tree.
        size: u64,
        /// Hashes that a frontier of this size has.
        want: usize,
        /// Hashes that were given.
        got: usize,
    },
    /// A leaf index that is not in the tree.
    #[error("index `{index}` is not in a tree of size `{size}`")]
    IndexBeyondSize {
        /// The zero-based leaf index that was asked for.
        index: u64,
        /// Leaves in the tree.
        size: u64,
    },
    /// A consistency proof goes from a smaller tree to a larger one.
    #[error("the old size `{old}` is larger than the new size `{new}`")]
    SizesReversed {
        /// Size of the tree that was called old.
        old: u64,
        /// Size of the tree that was called new.
        new: u64,
    },
    /// A proof with more or fewer hashes than its place in the tree calls for.
    #[error("`{got}` proof hashes do not fit a tree of size `{size}`")]
    ProofLength {
        /// Hashes that were given.
        got: usize,
        /// Leaves in the (new) tree.
        size: u64,
    },
    /// A proof, or a tree of size 0, that does not lead to the stated root.
    #[error("the proof does not lead to the stated root of the tree of size `{size}`")]
    RootMismatch {
        /// Size of the tree whose root differs.
        size: u64,
    },
    /// A path that names no tile.
    #[error(
        "`{0}` is not a tile path: expected `tile/<level>/<index>` or `tile/entries/<index>`, with `.p/<width>` for partial tiles"
    )]
    TilePath(String),
    /// A tile whose length is not that of its width.
    #[error("tile `{tile}` has `{got}` bytes, expected `{want}`")]
    TileBytes {
        /// Path of the tile.
        tile: String,
        /// Bytes that the tile's width calls for.
        want: usize,
        /// Bytes that were given.
        got: usize,
    },
    /// The right edge of a tree has one, possibly empty, partial tile for each level.
    #[error("the edge of a tree of size `{size}` has `{want}` levels, not `{got}`")]
    EdgeLevels {
        /// Leaves in the tree.
        size: u64,
        /// Levels of a tree of this size.
        want: usize,
        /// Levels that were given.
        got: usize,
    },
    /// An entry above [`MAX_ENTRY_BYTES`](crate::MAX_ENTRY_BYTES).
    #[error("an entry of `{0}` bytes is too long: a log entry has at most 65535")]
    EntryLength(usize),
    /// An entry bundle that does not hold exactly the stated number of entries.
    #[error("not a bundle of `{width}` entries: {reason}")]
    Bundle {
        /// Entries that the bundle should hold.
        width: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A note above [`MAX_NOTE_BYTES`].
    #[error("a note of `{0}` bytes is too long: the limit is `{MAX_NOTE_BYTES}`")]
    NoteLength(usize),
    /// Bytes that are not a signed note.
    #[error("not a signed note: {0}")]
    Note(&'static str),
    /// A key name that signed-note does not allow.
    #[error("`{0}` is not a key name: it must be non-empty, without spaces, controls or `+`")]
    KeyName(String),
    /// A string that is not a verifier key.
    #[error("not a verifier key `name+hex+base64`: {0}")]
    VerifierKey(&'static str),
    /// A key of a type that this crate does not know, or that does not make this kind of signature.
    #[error("note key type `0x{0:02x}` is not supported here")]
    KeyType(u8),
    /// A signing closure returned something that cannot be a signature by its key.
    #[error("the signer of `{name}` returned `{got}` bytes, expected `{want}`")]
    SignatureBytes {
        /// Name of the key.
        name: String,
        /// Bytes of a signature by this type of key.
        want: usize,
        /// Bytes that the closure returned; 0 says that it failed.
        got: usize,
    },
    /// Two different known keys have the same name and key id.
    #[error("two known keys share the name `{name}` and one key id: remove one of them")]
    AmbiguousKey {
        /// The name that they share.
        name: String,
    },
    /// A signature by a known key that is wrong; the whole note is refused.
    #[error("the signature by `{name}` does not verify")]
    BadSignature {
        /// Name of the known key.
        name: String,
    },
    /// No signature on the note is by a known key.
    #[error("the note carries no signature by a known key")]
    NoKnownSignature,
    /// A note text that is not a checkpoint.
    #[error("not a checkpoint: {0}")]
    Checkpoint(&'static str),
    /// A checkpoint that no key of its own origin has signed.
    #[error("the checkpoint of `{0}` is not signed by a known key of that name")]
    Origin(String),
    /// A checkpoint that one of the keys which all have to sign it did not sign.
    #[error(
        "the key of type `0x{key_type:02x}` named `{name}` did not sign the checkpoint, and every key at \
         hand must have"
    )]
    NotSignedBy {
        /// Name of the key.
        name: String,
        /// Its signature type (c2sp.org/signed-note).
        key_type: u8,
    },
    /// A cosignature's timestamp above 2^63 - 1 seconds.
    #[error("timestamp `{0}` is too large: that of a cosignature is at most 2^63 - 1")]
    Timestamp(u64),
    /// A cosignature at time 0, where it has to say when it was made.
    #[error("the cosignature by `{name}` needs a time: its timestamp is 0")]
    NoTimestamp {
        /// Name of the cosigner.
        name: String,
    },
    /// A name that the message of an ML-DSA-44 cosignature has no room for.
    #[error("{what} has `{bytes}` bytes: an ML-DSA-44 cosignature covers at most 255")]
    CosignedLength {
        /// Which name it is.
        what: &'static str,
        /// Its bytes.
        bytes: usize,
    },
    /// A policy above [`MAX_POLICY_BYTES`](crate::policy::MAX_POLICY_BYTES).
    #[error("a policy of `{0}` bytes is too long: the limit is `{MAX_POLICY_BYTES}`")]
    PolicyLength(usize),
    /// A line that no policy has.
    #[error("line {line} of the policy: {reason}")]
    Policy {
        /// One-based.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A policy that does not say which witnesses it asks for.
    #[error("the policy has no quorum: add a line `quorum <name>` or `quorum none`")]
    PolicyQuorum,
    /// A checkpoint with fewer cosignatures than a policy asks for.
    #[error("the checkpoint's cosignatures do not meet the quorum `{0}` of the policy")]
    Quorum(String),
    /// Bytes that do not ask a witness for a cosignature.
    #[error("not an add-checkpoint request: {0}")]
    WitnessRequest(&'static str),
    /// Bytes that are not what a witness answers.
    #[error("not the answer of a witness: {0}")]
    WitnessAnswer(&'static str),
    /// Text that is not a tlog-proof.
    #[error("not a tlog-proof: {0}")]
    Proof(&'static str),
    /// Text that is not a log id.
    #[error("`{0}` is not a log id: expected 22 characters of base64url")]
    LogId(String),
}

/// The start of a stranger's text, so that an error message stays short and on one line.
pub(crate) fn excerpt(text: &str) -> String {
    const EXCERPT_CHARS: usize = 80;
    let mut out: String = text.chars().take(EXCERPT_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(EXCERPT_CHARS).is_some() {
        out.push_str("...");
    }
    out
}
