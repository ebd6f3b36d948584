//! What stands in a deployment's directory log: which signers' logs there are, how far each got, and
//! how it ended.
//!
//! The same form as the entries of signer logs (one CBOR array, one encoding for each fact); the kinds
//! begin at 32, so that no entry of one log can pass for one of the other. What entries may follow
//! which, a reader checks (`chancery_validate::directory`).
//!
//! | kind | array |
//! |---|---|
//! | 32 | `[32, log, [verifier key, ...], leaf of the log's genesis, log that it continues or null]` |
//! | 33 | `[33, log, size, root, Ed25519 signature]` |
//! | 34 | `[34, log, final size, final root, log that continues it or null]` |

use minicbor::encode::write::Write;
use minicbor::{Decoder, Encoder};

use crate::Error;
use crate::codec::{Decoded, EncodeResult, decoded, encoded, fixed, optional, shape};

const LOG_GENESIS: u64 = 32;
const LOG_CHECKPOINT: u64 = 33;
const LOG_CLOSING: u64 = 34;

/// The most verifier keys of one log: one for each kind of signature, and room for another two.
pub const MAX_LOG_KEYS: usize = 4;

/// Bytes of a log id.
pub const LOG_ID_BYTES: usize = 16;

/// One entry of the directory log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryEntry {
    /// A signer's log exists from here on.
    Genesis(LogGenesis),
    /// How far a log got.
    Checkpoint(LogCheckpoint),
    /// A log that will never grow again.
    Closing(LogClosing),
}

/// A signer's log enters the directory. A log that has no such entry does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogGenesis {
    /// The log id.
    pub log: [u8; LOG_ID_BYTES],
    /// The log's verifier keys (C2SP signed-note), each named by the log's origin: the Ed25519
    /// identity key first, which the log id is made of.
    pub vkeys: Vec<String>,
    /// The Merkle leaf hash of the log's first entry, its genesis.
    pub genesis_leaf: [u8; 32],
    /// The log that its genesis continues. No two logs continue the same one.
    pub predecessor: Option<[u8; LOG_ID_BYTES]>,
}

/// A log's signed checkpoint, about once a second while it grows. With the log's key from its
/// [`LogGenesis`] this is the whole signed note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogCheckpoint {
    /// The log id.
    pub log: [u8; LOG_ID_BYTES],
    /// Entries of the log; more than in the checkpoint before.
    pub size: u64,
    /// Root over them.
    pub root: [u8; 32],
    /// The note signature of the log's Ed25519 key over the checkpoint (C2SP tlog-checkpoint).
    pub signature: [u8; 64],
}

/// The end of a log whose signer is dead: it restates the last checkpoint, and nothing of the log
/// follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogClosing {
    /// The log id.
    pub log: [u8; LOG_ID_BYTES],
    /// Its final size.
    pub size: u64,
    /// Its final root.
    pub root: [u8; 32],
    /// The log that continues it, if one does.
    pub successor: Option<[u8; LOG_ID_BYTES]>,
}

impl DirectoryEntry {
    /// The entry's one encoding.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when it exceeds [`MAX_ENTRY_BYTES`](crate::MAX_ENTRY_BYTES).
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        encoded(|e| self.write(e))
    }

    /// Reads an entry, refusing every encoding but the one that [`DirectoryEntry::encode`] makes.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::UnknownKind`], [`Error::NotDeterministic`] or
    /// [`Error::TooLarge`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        decoded(bytes, Self::read, Self::encode)
    }

    /// The id of the log that it is about.
    #[must_use]
    pub fn log(&self) -> [u8; LOG_ID_BYTES] {
        match self {
            DirectoryEntry::Genesis(genesis) => genesis.log,
            DirectoryEntry::Checkpoint(checkpoint) => checkpoint.log,
            DirectoryEntry::Closing(closing) => closing.log,
        }
    }

    fn write<W: Write<Error = std::convert::Infallible>>(
        &self,
        e: &mut Encoder<W>,
    ) -> EncodeResult {
        match self {
            DirectoryEntry::Genesis(genesis) => {
                e.array(5)?.u64(LOG_GENESIS)?.bytes(&genesis.log)?;
                e.array(u64::try_from(genesis.vkeys.len()).unwrap_or(u64::MAX))?;
                for vkey in &genesis.vkeys {
                    e.str(vkey)?;
                }
                e.bytes(&genesis.genesis_leaf)?;
                write_optional(e, genesis.predecessor.as_ref())
            }
            DirectoryEntry::Checkpoint(checkpoint) => {
                e.array(5)?.u64(LOG_CHECKPOINT)?.bytes(&checkpoint.log)?.u64(checkpoint.size)?;
                e.bytes(&checkpoint.root)?.bytes(&checkpoint.signature)?;
                Ok(())
            }
            DirectoryEntry::Closing(closing) => {
                e.array(5)?.u64(LOG_CLOSING)?.bytes(&closing.log)?.u64(closing.size)?;
                e.bytes(&closing.root)?;
                write_optional(e, closing.successor.as_ref())
            }
        }
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, Error> {
        let length = d.array().map_err(shape)?.unwrap_or(0);
        let kind = d.u64().map_err(shape)?;
        let entry = match kind {
            LOG_GENESIS => read_genesis(d).map(DirectoryEntry::Genesis),
            LOG_CHECKPOINT => read_checkpoint(d).map(DirectoryEntry::Checkpoint),
            LOG_CLOSING => read_closing(d).map(DirectoryEntry::Closing),
            other => return Err(Error::UnknownKind(other)),
        };
        if length != 5 {
            return Err(Error::Shape(format!("kind `{kind}` has 5 elements, found {length}")));
        }
        entry.map_err(shape)
    }
}

fn write_optional<W: Write<Error = std::convert::Infallible>>(
    e: &mut Encoder<W>,
    log: Option<&[u8; LOG_ID_BYTES]>,
) -> EncodeResult {
    match log {
        Some(log) => e.bytes(log)?,
        None => e.null()?,
    };
    Ok(())
}

fn read_genesis(d: &mut Decoder<'_>) -> Decoded<LogGenesis> {
    let log = fixed(d)?;
    let keys = d.array()?.unwrap_or(0);
    let mut vkeys = Vec::new();
    for _ in 0..keys {
        if vkeys.len() == MAX_LOG_KEYS {
            return Err(minicbor::decode::Error::message("a log with too many keys"));
        }
        vkeys.push(d.str()?.to_owned());
    }
    Ok(LogGenesis { log, vkeys, genesis_leaf: fixed(d)?, predecessor: optional(d, fixed)? })
}

fn read_checkpoint(d: &mut Decoder<'_>) -> Decoded<LogCheckpoint> {
    Ok(LogCheckpoint { log: fixed(d)?, size: d.u64()?, root: fixed(d)?, signature: fixed(d)? })
}

fn read_closing(d: &mut Decoder<'_>) -> Decoded<LogClosing> {
    let (log, size, root) = (fixed(d)?, d.u64()?, fixed(d)?);
    Ok(LogClosing { log, size, root, successor: optional(d, fixed)? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Entry;
    use crate::tests::{accepted_is_the_one_encoding, flipped};

    fn any_entry() -> impl Strategy<Value = DirectoryEntry> {
        let id = any::<[u8; 16]>;
        let hash = any::<[u8; 32]>;
        prop_oneof![
            (
                id(),
                proptest::collection::vec(".{0,80}", 0..=MAX_LOG_KEYS),
                hash(),
                proptest::option::of(id())
            )
                .prop_map(|(log, vkeys, genesis_leaf, predecessor)| {
                    let genesis = LogGenesis { log, vkeys, genesis_leaf, predecessor };
                    DirectoryEntry::Genesis(genesis)
                }),
            (id(), any::<u64>(), hash(), hash(), hash()).prop_map(|(log, size, root, r, s)| {
                let mut signature = [0; 64];
                signature[..32].copy_from_slice(&r);
                signature[32..].copy_from_slice(&s);
                DirectoryEntry::Checkpoint(LogCheckpoint { log, size, root, signature })
            }),
            (id(), any::<u64>(), hash(), proptest::option::of(id())).prop_map(
                |(log, size, root, successor)| {
                    DirectoryEntry::Closing(LogClosing { log, size, root, successor })
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn every_entry_survives_its_encoding(entry in any_entry()) {
            let bytes = entry.encode().unwrap();
            prop_assert_eq!(Entry::decode(&bytes).is_err(), true, "an entry of a signer log");
            prop_assert_eq!(DirectoryEntry::decode(&bytes).unwrap(), entry);
        }

        #[test]
        fn accepted_bytes_are_the_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            accepted_is_the_one_encoding(&bytes, DirectoryEntry::decode, DirectoryEntry::encode)?;
        }

        #[test]
        fn a_changed_byte_never_decodes_to_the_same_entry(entry in any_entry(), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let bytes = flipped(&entry.encode().unwrap(), at, flip);
            prop_assert_ne!(DirectoryEntry::decode(&bytes).ok(), Some(entry));
        }
    }

    #[test]
    fn a_checkpoint_entry_is_these_bytes() {
        // The published format: a change here breaks every relying party and witness.
        let checkpoint =
            LogCheckpoint { log: [1; 16], size: 300, root: [2; 32], signature: [3; 64] };
        let bytes = DirectoryEntry::Checkpoint(checkpoint).encode().unwrap();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let (log, root, signature) = ("01".repeat(16), "02".repeat(32), "03".repeat(64));
        assert_eq!(hex, format!("85182150{log}19012c5820{root}5840{signature}"));
    }

    #[test]
    fn other_entries_are_refused() {
        let closing = LogClosing { log: [1; 16], size: 3, root: [2; 32], successor: None };
        let good = DirectoryEntry::Closing(closing).encode().unwrap();
        let mut longer = good.clone();
        longer.push(0);
        assert_eq!(DirectoryEntry::decode(&longer), Err(Error::NotDeterministic));
        let mut kind = good.clone();
        kind[2] = 31;
        assert_eq!(DirectoryEntry::decode(&kind), Err(Error::UnknownKind(31)));
        let mut short = good.clone();
        short[0] = 0x84;
        assert!(matches!(DirectoryEntry::decode(&short), Err(Error::Shape(_))));
        assert!(matches!(DirectoryEntry::decode(&good[..9]), Err(Error::Shape(_))));
        assert!(matches!(DirectoryEntry::decode(&vec![0; 70_000]), Err(Error::TooLarge(70_000))));
        let keys = vec![String::new(); MAX_LOG_KEYS + 1];
        let genesis =
            LogGenesis { log: [1; 16], vkeys: keys, genesis_leaf: [0; 32], predecessor: None };
        let many = DirectoryEntry::Genesis(genesis).encode().unwrap();
        assert!(matches!(DirectoryEntry::decode(&many), Err(Error::Shape(_))));
    }

    #[test]
    fn an_entry_says_whose_it_is() {
        let closing = LogClosing { log: [9; 16], size: 3, root: [2; 32], successor: None };
        assert_eq!(DirectoryEntry::Closing(closing).log(), [9; 16]);
    }
}
