//! A committed batch, and the payload of its write-ahead record.

use chancery_tlog::encode_entry;
use chancery_tlog::note::VerifierKey;

/// A committed batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Index of the first entry.
    pub first_index: u64,
    /// The entries.
    pub entries: Vec<Vec<u8>>,
    /// The signed note that covers them.
    pub checkpoint: String,
}

impl Batch {
    /// The payload of its write-ahead record: a 4-byte count, the verifier key's length and text
    /// (a log may not be in the store yet), the entries as a bundle, the checkpoint.
    ///
    /// # Errors
    /// When an entry is too large for a bundle.
    pub fn encode(&self, vkey: &VerifierKey) -> Result<Vec<u8>, chancery_tlog::Error> {
        let mut out = Vec::with_capacity(self.entries.len().saturating_mul(96).saturating_add(512));
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        encode_entry(&mut out, vkey.to_string().as_bytes())?;
        for entry in &self.entries {
            encode_entry(&mut out, entry)?;
        }
        out.extend_from_slice(self.checkpoint.as_bytes());
        Ok(out)
    }

    /// Reads a record's payload back.
    ///
    /// # Errors
    /// A sentence that says what is wrong; never panics.
    pub fn decode(first_index: u64, payload: &[u8]) -> Result<(Self, VerifierKey), String> {
        let (count, mut rest) = payload.split_first_chunk::<4>().ok_or("record has no count")?;
        let count = u32::from_be_bytes(*count);
        let vkey = take_prefixed(&mut rest)?;
        let vkey = std::str::from_utf8(vkey).map_err(|e| format!("vkey: {e}"))?;
        let vkey = VerifierKey::parse(vkey).map_err(|e| format!("vkey: {e}"))?;
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(take_prefixed(&mut rest)?.to_vec());
        }
        let checkpoint = String::from_utf8(rest.to_vec()).map_err(|e| e.to_string())?;
        Ok((Self { first_index, entries, checkpoint }, vkey))
    }
}

fn take_prefixed<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let (length, tail) = rest.split_first_chunk::<2>().ok_or("record ends within an entry")?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (entry, tail) = tail.split_at_checked(length).ok_or("record ends within an entry")?;
    *rest = tail;
    Ok(entry)
}
