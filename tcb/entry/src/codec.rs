//! The CBOR of every entry kind, both ways.

use minicbor::encode::write::Write;
use minicbor::{Decoder, Encoder};

use crate::{
    Announcement, Appraised, AuditRemoval, AuditSegment, COSIGNING_KEY_BYTES, Compromise, Entry,
    Error, FORMAT_VERSION, Genesis, Imported, MAX_ENTRY_BYTES, Narrowing, PolicyVersion,
    Predecessor, Start, TokenEntry, Void, VoidReason,
};

const GENESIS: u64 = 0;
const POLICY: u64 = 1;
const ANNOUNCEMENT: u64 = 2;
const TOKEN: u64 = 3;
const VOID: u64 = 4;
const COMPROMISE: u64 = 5;
const NARROWING: u64 = 6;
const IMPORTED: u64 = 7;
const AUDIT_SEGMENT: u64 = 9;
const AUDIT_REMOVAL: u64 = 10;
const APPRAISED: u64 = 11;

pub(crate) type EncodeResult = Result<(), minicbor::encode::Error<std::convert::Infallible>>;
pub(crate) type Decoded<T> = Result<T, minicbor::decode::Error>;

impl Entry {
    /// The entry's one encoding.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when it exceeds [`MAX_ENTRY_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        encoded(|e| self.write(e))
    }

    /// Reads an entry, refusing every encoding but the one that [`Entry::encode`] makes.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::UnknownKind`], [`Error::NotDeterministic`] or
    /// [`Error::TooLarge`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        decoded(bytes, Self::read, Self::encode)
    }

    fn write<W: Write<Error = std::convert::Infallible>>(
        &self,
        e: &mut Encoder<W>,
    ) -> EncodeResult {
        match self {
            Entry::Genesis(g) => write_genesis(e, g)?,
            Entry::Policy(p) => {
                e.array(3)?.u64(POLICY)?.u64(p.version)?.bytes(&p.digest)?;
            }
            Entry::Announcement(a) => write_announcement(e, a)?,
            Entry::Token(t) => {
                e.array(5)?.u64(TOKEN)?.bytes(&t.kid)?.u64(t.iat)?.u64(t.exp)?.bytes(&t.digest)?;
            }
            Entry::Void(v) => {
                e.array(3)?.u64(VOID)?.u64(v.index)?.u64(v.reason.code())?;
            }
            Entry::Compromise(c) => {
                e.array(4)?.u64(COMPROMISE)?.bytes(&c.kid)?.u64(c.at)?.str(&c.reason)?;
            }
            Entry::Narrowing(n) => {
                e.array(3)?.u64(NARROWING)?.bytes(&n.kid)?.u64(n.signs_until)?;
            }
            Entry::Imported(i) => {
                e.array(8)?.u64(IMPORTED)?.str(&i.realm)?.str(&i.issuer)?.str(&i.kid)?;
                e.str(&i.jwk)?.u64(i.at)?.u64(i.until)?.bool(i.in_discovery)?;
            }
            Entry::AuditSegment(a) => {
                e.array(7)?.u64(AUDIT_SEGMENT)?.bytes(&a.log)?.u64(a.number)?.u64(a.first)?;
                e.u64(a.records)?.u64(a.hour)?.bytes(&a.digest)?;
            }
            Entry::AuditRemoval(r) => {
                e.array(6)?.u64(AUDIT_REMOVAL)?.bytes(&r.log)?.u64(r.first)?.u64(r.segments)?;
                e.u64(r.before)?.u64(r.at)?;
            }
            Entry::Appraised(a) => {
                e.array(6)?.u64(APPRAISED)?.u64(a.at)?.bytes(&a.evidence)?.bytes(&a.policy)?;
                e.bool(a.accepted)?.bytes(&a.result)?;
            }
        }
        Ok(())
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, Error> {
        let length = d.array().map_err(shape)?.unwrap_or(0);
        let kind = d.u64().map_err(shape)?;
        let (expected, entry) = match kind {
            // A signer's second identity key stands there or does not.
            GENESIS => (length.clamp(7, 8), read_genesis(d, length).map(Entry::Genesis)),
            POLICY => (3, read_policy(d).map(Entry::Policy)),
            ANNOUNCEMENT => (10, read_announcement(d).map(Entry::Announcement)),
            TOKEN => (5, read_token(d).map(Entry::Token)),
            VOID => (3, read_void(d).map(Entry::Void)),
            COMPROMISE => (4, read_compromise(d).map(Entry::Compromise)),
            NARROWING => (3, read_narrowing(d).map(Entry::Narrowing)),
            IMPORTED => (8, read_imported(d).map(Entry::Imported)),
            AUDIT_SEGMENT => (7, read_audit_segment(d).map(Entry::AuditSegment)),
            AUDIT_REMOVAL => (6, read_audit_removal(d).map(Entry::AuditRemoval)),
            APPRAISED => (6, read_appraised(d).map(Entry::Appraised)),
            other => return Err(Error::UnknownKind(other)),
        };
        if length != expected {
            return Err(Error::Shape(format!(
                "kind `{kind}` has {expected} elements, found {length}"
            )));
        }
        entry.map_err(shape)
    }
}

fn read_appraised(d: &mut Decoder<'_>) -> Decoded<Appraised> {
    Ok(Appraised {
        at: d.u64()?,
        evidence: digest(d)?,
        policy: digest(d)?,
        accepted: d.bool()?,
        result: digest(d)?,
    })
}

fn write_genesis<W: Write<Error = std::convert::Infallible>>(
    e: &mut Encoder<W>,
    g: &Genesis,
) -> EncodeResult {
    let length = if g.cosigning_key.is_some() { 8 } else { 7 };
    e.array(length)?.u64(GENESIS)?.u64(FORMAT_VERSION)?.str(&g.software)?.u64(g.started_at)?;
    e.bytes(&g.policy_digest)?;
    match &g.evidence_digest {
        Some(digest) => e.bytes(digest)?,
        None => e.null()?,
    };
    match &g.predecessor {
        Some(p) => e.array(2)?.str(&p.vkey)?.str(&p.checkpoint)?,
        None => e.null()?,
    };
    if let Some(key) = &g.cosigning_key {
        e.bytes(key)?;
    }
    Ok(())
}

fn read_genesis(d: &mut Decoder<'_>, length: u64) -> Decoded<Genesis> {
    let version = d.u64()?;
    if version != FORMAT_VERSION {
        return Err(minicbor::decode::Error::message("genesis states another format version"));
    }
    Ok(Genesis {
        software: d.str()?.to_owned(),
        started_at: d.u64()?,
        policy_digest: digest(d)?,
        evidence_digest: optional(d, digest)?,
        predecessor: optional(d, |d| {
            if d.array()? != Some(2) {
                return Err(minicbor::decode::Error::message("predecessor has two elements"));
            }
            Ok(Predecessor { vkey: d.str()?.to_owned(), checkpoint: d.str()?.to_owned() })
        })?,
        cosigning_key: if length == 8 {
            Some(fixed::<COSIGNING_KEY_BYTES>(d)?.to_vec())
        } else {
            None
        },
    })
}

fn read_policy(d: &mut Decoder<'_>) -> Decoded<PolicyVersion> {
    Ok(PolicyVersion { version: d.u64()?, digest: digest(d)? })
}

fn write_announcement<W: Write<Error = std::convert::Infallible>>(
    e: &mut Encoder<W>,
    a: &Announcement,
) -> EncodeResult {
    e.array(10)?.u64(ANNOUNCEMENT)?.str(&a.realm)?.str(&a.issuer)?.str(&a.jwk)?.bytes(&a.kid)?;
    e.str(&a.algorithm)?.u64(a.nbf)?.u64(a.signs_until)?.u64(a.max_lifetime_s)?;
    e.u64(a.start.code())?;
    Ok(())
}

fn read_announcement(d: &mut Decoder<'_>) -> Decoded<Announcement> {
    Ok(Announcement {
        realm: d.str()?.to_owned(),
        issuer: d.str()?.to_owned(),
        jwk: d.str()?.to_owned(),
        kid: digest(d)?,
        algorithm: d.str()?.to_owned(),
        nbf: d.u64()?,
        signs_until: d.u64()?,
        max_lifetime_s: d.u64()?,
        start: Start::from_code(d.u64()?)
            .ok_or_else(|| minicbor::decode::Error::message("unknown announcement start"))?,
    })
}

fn read_token(d: &mut Decoder<'_>) -> Decoded<TokenEntry> {
    Ok(TokenEntry { kid: digest(d)?, iat: d.u64()?, exp: d.u64()?, digest: digest(d)? })
}

fn read_void(d: &mut Decoder<'_>) -> Decoded<Void> {
    Ok(Void {
        index: d.u64()?,
        reason: VoidReason::from_code(d.u64()?)
            .ok_or_else(|| minicbor::decode::Error::message("unknown void reason"))?,
    })
}

fn read_compromise(d: &mut Decoder<'_>) -> Decoded<Compromise> {
    Ok(Compromise { kid: digest(d)?, at: d.u64()?, reason: d.str()?.to_owned() })
}

fn read_narrowing(d: &mut Decoder<'_>) -> Decoded<Narrowing> {
    Ok(Narrowing { kid: digest(d)?, signs_until: d.u64()? })
}

fn read_imported(d: &mut Decoder<'_>) -> Decoded<Imported> {
    Ok(Imported {
        realm: d.str()?.to_owned(),
        issuer: d.str()?.to_owned(),
        kid: d.str()?.to_owned(),
        jwk: d.str()?.to_owned(),
        at: d.u64()?,
        until: d.u64()?,
        in_discovery: d.bool()?,
    })
}

fn read_audit_segment(d: &mut Decoder<'_>) -> Decoded<AuditSegment> {
    Ok(AuditSegment {
        log: log_id(d)?,
        number: d.u64()?,
        first: d.u64()?,
        records: d.u64()?,
        hour: d.u64()?,
        digest: digest(d)?,
    })
}

fn read_audit_removal(d: &mut Decoder<'_>) -> Decoded<AuditRemoval> {
    Ok(AuditRemoval {
        log: log_id(d)?,
        first: d.u64()?,
        segments: d.u64()?,
        before: d.u64()?,
        at: d.u64()?,
    })
}

fn log_id(d: &mut Decoder<'_>) -> Decoded<[u8; 16]> {
    d.bytes()?.try_into().map_err(|_| minicbor::decode::Error::message("log id is not 16 bytes"))
}

fn digest(d: &mut Decoder<'_>) -> Decoded<[u8; 32]> {
    d.bytes()?.try_into().map_err(|_| minicbor::decode::Error::message("digest is not 32 bytes"))
}

/// The bytes of an entry of either kind of log.
pub(crate) fn encoded(
    write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> EncodeResult,
) -> Result<Vec<u8>, Error> {
    // Most entries are smaller.
    let mut out = Vec::with_capacity(160);
    write(&mut Encoder::new(&mut out)).map_err(|e| Error::Shape(e.to_string()))?;
    if out.len() > MAX_ENTRY_BYTES {
        return Err(Error::TooLarge(out.len()));
    }
    Ok(out)
}

/// The entry that these bytes are the one encoding of.
pub(crate) fn decoded<T>(
    bytes: &[u8],
    read: impl FnOnce(&mut Decoder<'_>) -> Result<T, Error>,
    encode: impl FnOnce(&T) -> Result<Vec<u8>, Error>,
) -> Result<T, Error> {
    if bytes.len() > MAX_ENTRY_BYTES {
        return Err(Error::TooLarge(bytes.len()));
    }
    let entry = read(&mut Decoder::new(bytes))?;
    if encode(&entry)? != bytes {
        return Err(Error::NotDeterministic);
    }
    Ok(entry)
}

/// Bytes of which there are exactly so many.
pub(crate) fn fixed<const N: usize>(d: &mut Decoder<'_>) -> Decoded<[u8; N]> {
    let wrong = |_| minicbor::decode::Error::message("a byte string of another length");
    d.bytes()?.try_into().map_err(wrong)
}

pub(crate) fn optional<'b, T>(
    d: &mut Decoder<'b>,
    read: impl FnOnce(&mut Decoder<'b>) -> Decoded<T>,
) -> Decoded<Option<T>> {
    if d.datatype()? == minicbor::data::Type::Null {
        d.null()?;
        return Ok(None);
    }
    read(d).map(Some)
}

pub(crate) fn shape(e: minicbor::decode::Error) -> Error {
    Error::Shape(e.to_string())
}

impl Start {
    fn code(self) -> u64 {
        match self {
            Start::Led => 0,
            Start::First => 1,
            Start::Replacement => 2,
        }
    }

    fn from_code(code: u64) -> Option<Self> {
        [Start::Led, Start::First, Start::Replacement].into_iter().find(|s| s.code() == code)
    }
}

impl VoidReason {
    fn code(self) -> u64 {
        match self {
            VoidReason::NotCommitted => 0,
            VoidReason::TooLate => 1,
            VoidReason::KeyCompromised => 2,
            VoidReason::SigningFailed => 3,
        }
    }

    fn from_code(code: u64) -> Option<Self> {
        [
            VoidReason::NotCommitted,
            VoidReason::TooLate,
            VoidReason::KeyCompromised,
            VoidReason::SigningFailed,
        ]
        .into_iter()
        .find(|r| r.code() == code)
    }
}
