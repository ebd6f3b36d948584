//! What a witness may say that must not be.

use std::fmt;

/// An alarm: two histories, or a memory that was lost. It never stops the service, which cannot tell
/// who is wrong; people must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The witness cosigned a larger tree than this service ever made.
    Ahead {
        /// The size that it cosigned.
        witness: u64,
        /// The size of the tree here.
        ours: u64,
    },
    /// The witness holds a tree that this one does not extend.
    Inconsistent {
        /// The size of the tree here.
        ours: u64,
    },
    /// The witness holds less than it cosigned for this service.
    Forgot {
        /// The size that it says it has.
        witness: u64,
        /// The size that it cosigned.
        cosigned: u64,
    },
}

impl Alarm {
    /// Its stable name, for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Alarm::Ahead { .. } => "ahead",
            Alarm::Inconsistent { .. } => "inconsistent",
            Alarm::Forgot { .. } => "forgot",
        }
    }

    /// All names.
    pub const KINDS: [&'static str; 3] = ["ahead", "inconsistent", "forgot"];
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Alarm::Ahead { witness, ours } => write!(
                f,
                "it cosigned a directory of {witness} entries, and here are only {ours}: this \
                 directory was rolled back, or its key signs somewhere else"
            ),
            Alarm::Inconsistent { ours } => write!(
                f,
                "it holds a directory that the one here, of {ours} entries, does not extend: there \
                 are two histories, or the tiles here are damaged (`chancery log check`)"
            ),
            Alarm::Forgot { witness, cosigned } => write!(
                f,
                "it cosigned {cosigned} entries and now holds {witness}: the witness lost its \
                 memory; its operator must know"
            ),
        }
    }
}
