//! Checkpoints: a log's statement of its size and root (c2sp.org/tlog-checkpoint).

use crate::error::{Error, excerpt};
use crate::hash::{Hash, MAX_TREE_SIZE, empty_root};
use crate::note::{self, Note, VerifierKey};
use crate::text::{decimal, has_controls, hash_from_base64};

/// What a log signs: that its tree of `size` leaves has this root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Identity of the log: the first line, not empty, without control characters. It is the name of
    /// the log's key too.
    pub origin: String,
    /// Leaves in the tree.
    pub size: u64,
    /// Root of the tree.
    pub root: Hash,
    /// Further lines, opaque, none of them empty. They are read because the specification allows them,
    /// and never written here: monitors cannot audit them. Note signatures and Ed25519 cosignatures
    /// cover them, ML-DSA-44 cosignatures do not: whoever relies on the latter must not use them.
    pub extensions: Vec<String>,
}

impl Checkpoint {
    /// A checkpoint without extension lines. Fails with [`Error::Checkpoint`] or [`Error::TreeSize`]
    /// when [`parse`](Self::parse) would refuse its text.
    pub fn new(origin: impl Into<String>, size: u64, root: Hash) -> Result<Checkpoint, Error> {
        let checkpoint = Checkpoint { origin: origin.into(), size, root, extensions: Vec::new() };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// The note text: origin, size and root, each on a line of its own, then the extension lines.
    pub fn body(&self) -> String {
        let mut body = format!("{}\n{}\n{}\n", self.origin, self.size, self.root);
        for line in &self.extensions {
            body.push_str(line);
            body.push('\n');
        }
        body
    }

    /// Reads a note text; [`body`](Self::body) gives the same text back.
    ///
    /// Fails with [`Error::Checkpoint`] or [`Error::TreeSize`].
    pub fn parse(text: &str) -> Result<Checkpoint, Error> {
        let checkpoint = Checkpoint::parse_claim(text)?;
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// Reads a note text that has the form of a checkpoint, whatever root it claims for an empty tree:
    /// a witness must tell a wrong root from a malformed checkpoint.
    pub(crate) fn parse_claim(text: &str) -> Result<Checkpoint, Error> {
        let mut lines = text
            .strip_suffix('\n')
            .ok_or(Error::Checkpoint("its text does not end in a newline"))?
            .split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next())
        else {
            return Err(Error::Checkpoint("it has fewer than three lines"));
        };
        let checkpoint = Checkpoint {
            origin: origin.to_owned(),
            size: decimal(size).ok_or(Error::Checkpoint("its size is not a plain decimal"))?,
            root: hash_from_base64(root)
                .ok_or(Error::Checkpoint("its root is not 32 bytes of canonical base64"))?,
            extensions: lines.map(str::to_owned).collect(),
        };
        checkpoint.check_form()?;
        Ok(checkpoint)
    }

    /// Reads a signed checkpoint and accepts it when a key among `keys` that has the origin as its
    /// name signed it, by a note signature or by a cosignature. Signatures by other keys do not make
    /// up for that, but one by any key among `keys` that does not verify refuses the checkpoint, as
    /// [`note::verify`] says.
    ///
    /// Fails as [`Note::parse`], [`note::verify`] and [`parse`](Self::parse) do, and with
    /// [`Error::Origin`].
    pub fn open(note_bytes: &[u8], keys: &[VerifierKey]) -> Result<(Checkpoint, Note), Error> {
        let note = Note::parse(note_bytes)?;
        let signers = note::verify(&note, keys)?;
        let checkpoint = Checkpoint::parse(&note.text)?;
        let is_origin = |key: &VerifierKey| key.name() == checkpoint.origin;
        if !signers.iter().any(|at| keys.get(*at).is_some_and(is_origin)) {
            return Err(Error::Origin(excerpt(&checkpoint.origin)));
        }
        Ok((checkpoint, note))
    }

    /// Reads a signed checkpoint as [`open`](Self::open) does, and accepts it only if every one of `keys`
    /// signed it: who believes a log by its Ed25519 and its ML-DSA-44 key refuses what only one signed,
    /// which whoever broke the other one could have made.
    ///
    /// Fails as [`open`](Self::open) does, and with [`Error::NotSignedBy`].
    pub fn open_by_all(
        note_bytes: &[u8],
        keys: &[VerifierKey],
    ) -> Result<(Checkpoint, Note), Error> {
        let (checkpoint, note) = Checkpoint::open(note_bytes, keys)?;
        let signers = note::verify(&note, keys)?;
        let missing = keys.iter().enumerate().find(|(at, _)| !signers.contains(at));
        match missing {
            None => Ok((checkpoint, note)),
            Some((_, key)) => {
                let name = excerpt(key.name());
                Err(Error::NotSignedBy { name, key_type: key.key_type().byte() })
            }
        }
    }

    /// The signed checkpoint, a note. `key` is the log's: its name is the origin. `sign` gets the
    /// bytes of [`body`](Self::body) and returns the signature.
    ///
    /// Fails as [`note::sign`] does, and with [`Error::Origin`], [`Error::Checkpoint`] or
    /// [`Error::TreeSize`].
    pub fn sign(
        &self,
        key: &VerifierKey,
        sign: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<String, Error> {
        self.check()?;
        if key.name() != self.origin {
            return Err(Error::Origin(excerpt(&self.origin)));
        }
        note::sign(&self.body(), key, sign)
    }

    /// Adds the log's own cosignature to `signed`, the note that [`sign`](Self::sign) made of this
    /// checkpoint, and answers the new note; a cosignature by the same key is replaced. Log and
    /// cosigner share one name: the origin. With an ML-DSA-44 key the log's statement outlives quantum
    /// attacks, while every client can check its Ed25519 signature. `sign` gets the message that
    /// [`cosignature::message`](crate::cosignature::message) describes and returns the signature
    /// without the time; `timestamp` is in seconds since 1970.
    ///
    /// Fails as [`Note::parse`] and [`Note::add_cosignature`] do, with [`Error::Origin`], or with
    /// [`Error::Checkpoint`] when `signed` is another checkpoint's note.
    pub fn cosign(
        &self,
        signed: &str,
        key: &VerifierKey,
        timestamp: u64,
        sign: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<String, Error> {
        self.check()?;
        if key.name() != self.origin {
            return Err(Error::Origin(excerpt(&self.origin)));
        }
        let mut note = Note::parse(signed.as_bytes())?;
        if note.text != self.body() {
            return Err(Error::Checkpoint("the signed note is that of another checkpoint"));
        }
        note.add_cosignature(key, timestamp, sign)?;
        Ok(note.encode())
    }

    /// What the types leave open: the fields are public, and lines must stay lines.
    fn check(&self) -> Result<(), Error> {
        self.check_form()?;
        if self.size == 0 && self.root != empty_root() {
            return Err(Error::Checkpoint("its root is not that of an empty tree"));
        }
        Ok(())
    }

    fn check_form(&self) -> Result<(), Error> {
        if self.size > MAX_TREE_SIZE {
            return Err(Error::TreeSize(self.size));
        }
        for line in std::iter::once(&self.origin).chain(&self.extensions) {
            if line.is_empty() {
                return Err(Error::Checkpoint("one of its lines is empty"));
            }
            if line.contains('\n') || has_controls(line) {
                return Err(Error::Checkpoint("it holds a control character"));
            }
        }
        Ok(())
    }
}
