//! Signed notes: a text and the signatures below it (c2sp.org/signed-note).

mod key;

use std::borrow::Borrow;

use crate::cosignature;
use crate::error::{Error, excerpt};
use crate::text::{from_base64, has_controls, to_base64};

pub use key::{KeyType, VerifierKey};

/// The longest note that is read or written. Sixteen signatures must be accepted, and post-quantum
/// ones have nearly 5 kB each (c2sp.org/signed-note, "Format"): some 107 kB in base64, and a text.
pub const MAX_NOTE_BYTES: usize = 128 * 1024;

/// The most signatures that a note may carry: four times what must be accepted. It bounds the
/// verifications that a stranger's note can cause.
pub const MAX_SIGNATURES: usize = 64;

/// How a signature line begins: an em dash and a space.
const LINE_START: &str = "\u{2014} ";

/// Bytes of a key id, the beginning of a decoded signature.
const KEY_ID_BYTES: usize = 4;

/// A note as it was parsed: well-formed, and nothing more. Its text means nothing before
/// [`verify`] has accepted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The text that is signed, with its final newline.
    pub text: String,
    /// The signatures, in the order of their lines; at least one.
    pub signatures: Vec<Signature>,
}

/// One signature line. The name and the key id together say which key made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Name of the key.
    pub name: String,
    /// Key id, the big-endian bytes that stand before the signature.
    pub key_id: [u8; 4],
    /// The signature itself, as its key type defines it; not empty.
    pub bytes: Vec<u8>,
}

impl Note {
    /// Reads a note. Only one spelling of each note is accepted, so that
    /// [`encode`](Self::encode) gives the same bytes back.
    ///
    /// Fails with [`Error::NoteLength`], [`Error::Note`] or [`Error::KeyName`].
    pub fn parse(bytes: &[u8]) -> Result<Note, Error> {
        if bytes.len() > MAX_NOTE_BYTES {
            return Err(Error::NoteLength(bytes.len()));
        }
        let whole = std::str::from_utf8(bytes).map_err(|_| Error::Note("it is not UTF-8"))?;
        if has_controls(whole) {
            return Err(Error::Note("it holds a control character"));
        }
        // The text may hold empty lines itself: the last one is the separator.
        let separator = whole
            .rfind("\n\n")
            .ok_or(Error::Note("no empty line separates text and signatures"))?;
        let (text, rest) = whole.split_at(separator + 1);
        let lines = rest
            .strip_prefix('\n')
            .and_then(|lines| lines.strip_suffix('\n'))
            .ok_or(Error::Note("it does not end in a signature line"))?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() == MAX_SIGNATURES {
                return Err(Error::Note("it has more than 64 signatures"));
            }
            signatures.push(Signature::parse(line)?);
        }
        Ok(Note { text: text.to_owned(), signatures })
    }

    /// The note as it is stored and sent: text, empty line, signature lines.
    pub fn encode(&self) -> String {
        let mut out = self.text.clone();
        out.push('\n');
        for signature in &self.signatures {
            signature.encode_line(&mut out);
        }
        out
    }

    /// Adds a signature by `key` below the others; one that the same key made before is replaced.
    /// `sign` gets the bytes of the text and returns the signature.
    ///
    /// Fails with [`Error::KeyType`] for cosigners' keys, with [`Error::SignatureBytes`], or as
    /// [`insert`](Self::insert) does; then the note is unchanged.
    pub fn add_signature(
        &mut self,
        key: &VerifierKey,
        sign: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<(), Error> {
        check_text(&self.text)?;
        if key.key_type().is_cosignature() {
            return Err(Error::KeyType(key.key_type().byte()));
        }
        let bytes = sign(self.text.as_bytes());
        let want = key.signature_bytes();
        if bytes.len() != want {
            let name = key.name().to_owned();
            return Err(Error::SignatureBytes { name, want, got: bytes.len() });
        }
        self.insert(Signature { name: key.name().to_owned(), key_id: key.key_id(), bytes })
    }

    /// Adds a cosignature by `key`, made at `timestamp` in seconds since 1970, as
    /// [`add_signature`](Self::add_signature) adds a signature. `sign` gets the exact message that
    /// [`cosignature::message`] describes and returns the signature without the time.
    ///
    /// Fails as [`cosignature::sign`] and [`insert`](Self::insert) do; then the note is unchanged.
    pub fn add_cosignature(
        &mut self,
        key: &VerifierKey,
        timestamp: u64,
        sign: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<(), Error> {
        let signature = cosignature::sign(key, timestamp, &self.text, sign)?;
        self.insert(signature)
    }

    /// Adds a signature line below the others, unverified; lines with its name and key id are
    /// replaced.
    ///
    /// Fails with [`Error::Note`], [`Error::KeyName`] or [`Error::NoteLength`] when the result would
    /// not be a note; then the note is unchanged.
    pub fn insert(&mut self, signature: Signature) -> Result<(), Error> {
        check_text(&self.text)?;
        signature.check()?;
        let same = |s: &&Signature| s.key_id == signature.key_id && s.name == signature.name;
        let mut signatures: Vec<Signature> =
            self.signatures.iter().filter(|s| !same(s)).cloned().collect();
        if signatures.len() >= MAX_SIGNATURES {
            return Err(Error::Note("it has more than 64 signatures"));
        }
        signatures.push(signature);
        let signed = Note { text: self.text.clone(), signatures };
        let length = signed.encode().len();
        if length > MAX_NOTE_BYTES {
            return Err(Error::NoteLength(length));
        }
        *self = signed;
        Ok(())
    }
}

impl Signature {
    /// Reads a signature line without its newline.
    pub(crate) fn parse(line: &str) -> Result<Signature, Error> {
        let (name, base64) = line
            .strip_prefix(LINE_START)
            .and_then(|rest| rest.split_once(' '))
            .ok_or(Error::Note("a signature line is not an em dash, a name and base64"))?;
        if !is_key_name(name) {
            return Err(Error::KeyName(excerpt(name)));
        }
        let decoded =
            from_base64(base64).ok_or(Error::Note("a signature is not canonical base64"))?;
        match decoded.split_first_chunk::<KEY_ID_BYTES>() {
            Some((key_id, bytes)) if !bytes.is_empty() => {
                Ok(Signature { name: name.to_owned(), key_id: *key_id, bytes: bytes.to_vec() })
            }
            _ => Err(Error::Note("a signature is shorter than a key id and one byte")),
        }
    }

    /// What [`parse`](Self::parse) would refuse.
    fn check(&self) -> Result<(), Error> {
        if !is_key_name(&self.name) {
            return Err(Error::KeyName(excerpt(&self.name)));
        }
        if self.bytes.is_empty() {
            return Err(Error::Note("a signature is shorter than a key id and one byte"));
        }
        Ok(())
    }

    /// Appends the signature line with its newline.
    pub(crate) fn encode_line(&self, out: &mut String) {
        out.push_str(LINE_START);
        out.push_str(&self.name);
        out.push(' ');
        out.push_str(&to_base64(&[&self.key_id, self.bytes.as_slice()].concat()));
        out.push('\n');
    }
}

/// A known key that signed a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its index among the known keys.
    pub key: usize,
    /// When it signed, in seconds since 1970, as a cosigner says (at most 2^63 - 1); the latest time
    /// if it signed more than once, 0 if it makes no statement about the time. `None` for signatures
    /// without a time.
    pub timestamp: Option<u64>,
}

/// Checks a note against the keys that one trusts and answers the indexes in `known` of those that
/// signed it, each once, in ascending order; at least one.
///
/// A signature by an unknown key is ignored, as is one that has a known key's name with another id.
/// A signature by a known key that does not verify refuses the note, and so does a note without any
/// that verifies. When a key signed more than once, all of its signatures must verify. A cosigner's
/// signature verifies only if the text is a checkpoint.
///
/// Fails with [`Error::AmbiguousKey`], [`Error::BadSignature`] or [`Error::NoKnownSignature`].
pub fn verify(note: &Note, known: &[VerifierKey]) -> Result<Vec<usize>, Error> {
    let signers = signers(note, known)?;
    if signers.is_empty() {
        return Err(Error::NoKnownSignature);
    }
    Ok(signers.into_iter().map(|signer| signer.key).collect())
}

/// Checks a note as [`verify`] does and answers who signed it and when; nobody, if no key is known.
///
/// Fails with [`Error::AmbiguousKey`] or [`Error::BadSignature`].
pub fn signers<K: Borrow<VerifierKey>>(note: &Note, known: &[K]) -> Result<Vec<Verified>, Error> {
    let mut verified = Vec::new();
    for (at, key) in known.iter().map(Borrow::borrow).enumerate() {
        let mut made = note.signatures.iter().filter(|s| key.made(s)).peekable();
        if made.peek().is_none() {
            continue;
        }
        // Two keys with one id: which of them a signature claims to be by cannot be told.
        if known.iter().any(|other| other.borrow().is_confusable_with(key)) {
            return Err(Error::AmbiguousKey { name: key.name().to_owned() });
        }
        let mut timestamp = None;
        for signature in made {
            let time = key
                .check(&note.text, &signature.bytes)
                .map_err(|_| Error::BadSignature { name: key.name().to_owned() })?;
            timestamp = timestamp.max(time);
        }
        verified.push(Verified { key: at, timestamp });
    }
    Ok(verified)
}

/// Makes a note: the text, an empty line and one signature by `key`. `text` ends in a newline, and
/// `sign` gets its bytes and returns the signature (64 bytes for Ed25519).
///
/// Fails with [`Error::Note`], [`Error::KeyType`], [`Error::SignatureBytes`] or
/// [`Error::NoteLength`].
pub fn sign(
    text: &str,
    key: &VerifierKey,
    sign: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Result<String, Error> {
    let mut note = Note { text: text.to_owned(), signatures: Vec::new() };
    note.add_signature(key, sign)?;
    Ok(note.encode())
}

fn check_text(text: &str) -> Result<(), Error> {
    if !text.ends_with('\n') {
        return Err(Error::Note("its text does not end in a newline"));
    }
    if has_controls(text) {
        return Err(Error::Note("it holds a control character"));
    }
    Ok(())
}

/// Key names are non-empty, without Unicode spaces and `+` (c2sp.org/signed-note, "Format"), and
/// without the control characters that no note may hold.
fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c == '+' || c < ' ')
}
