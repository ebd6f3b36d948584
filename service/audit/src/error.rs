//! What can be wrong with audit data.

/// Why audit data cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not what this version writes.
    #[error("audit {what}: {why}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// None of the recipients' keys is at hand.
    #[error(
        "audit data is sealed for the recipients `{0}`, and none of their keys is at hand; name the \
         key file with --key"
    )]
    NoKey(String),
    /// A key was at hand and the data does not open with it: it was altered.
    #[error("audit {0} does not open with its key: it was altered")]
    Altered(&'static str),
    /// A key file or a recipient is not one.
    #[error("audit key: {0}")]
    Key(String),
    /// Cryptography failed, which it does for want of randomness only.
    #[error("audit encryption failed: the system has no randomness")]
    Random,
    /// A segment cannot be written or read.
    #[error("audit segment: {0}")]
    Parquet(String),
    /// A file cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl Error {
    pub(crate) fn malformed(what: &'static str, why: impl ToString) -> Self {
        Error::Malformed { what, why: why.to_string() }
    }
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(e: parquet::errors::ParquetError) -> Self {
        Error::Parquet(e.to_string())
    }
}

impl From<arrow_schema::ArrowError> for Error {
    fn from(e: arrow_schema::ArrowError) -> Self {
        Error::Parquet(e.to_string())
    }
}
