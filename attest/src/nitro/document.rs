//! The attestation document of AWS Nitro enclaves: a COSE_Sign1 (RFC 9052) over one CBOR map, read
//! strictly: no unknown key, no key twice, nothing after the end.

use std::collections::BTreeMap;

use minicbor::data::{Tag, Type};
use minicbor::{Decoder, Encoder};

use crate::error::Error;

const WHAT: &str = "Nitro document";
/// Documents have 4 to 6 kB; the NSM makes none above 16 kB.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 16 * 1024;
/// The protected header: algorithm (1) is ES384 (-35), and nothing else.
pub(crate) const PROTECTED_ES384: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];
/// AWS's bundle has four certificates; more than this is no bundle.
const MAX_BUNDLE: u64 = 8;
/// The payload has nine members.
const MAX_MEMBERS: u64 = 16;
/// An enclave has 32 PCRs.
const MAX_PCRS: u64 = 32;

/// The fields of a document, and what its signature is over.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub module_id: String,
    /// Milliseconds since 1970.
    pub timestamp_ms: u64,
    pub digest: String,
    pub pcrs: BTreeMap<u8, Vec<u8>>,
    pub certificate: Vec<u8>,
    /// Root first.
    pub cabundle: Vec<Vec<u8>>,
    pub public_key: Option<Vec<u8>>,
    pub user_data: Option<Vec<u8>>,
    pub nonce: Option<Vec<u8>>,
    /// The Sig_structure.
    pub signed: Vec<u8>,
    /// r and s.
    pub signature: Vec<u8>,
}

impl Document {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_DOCUMENT_BYTES {
            let (bytes, limit) = (bytes.len(), MAX_DOCUMENT_BYTES);
            return Err(Error::TooLarge { what: "the Nitro document", bytes, limit });
        }
        let mut d = Decoder::new(bytes);
        if d.datatype().map_err(malformed)? == Type::Tag
            && d.tag().map_err(malformed)? != Tag::new(18)
        {
            return Err(Error::malformed(WHAT, "its tag is not that of a COSE_Sign1"));
        }
        if d.array().map_err(malformed)? != Some(4) {
            return Err(Error::malformed(WHAT, "it is no array of four"));
        }
        let protected = d.bytes().map_err(malformed)?;
        if protected != PROTECTED_ES384 {
            return Err(Error::malformed(WHAT, "its protected header is not ES384 alone"));
        }
        if d.map().map_err(malformed)? != Some(0) {
            return Err(Error::malformed(WHAT, "it has unprotected headers"));
        }
        let payload = d.bytes().map_err(malformed)?;
        let signature = d.bytes().map_err(malformed)?.to_vec();
        if d.position() != bytes.len() {
            return Err(Error::malformed(WHAT, "bytes follow its end"));
        }
        parse_payload(payload, sig_structure(protected, payload)?, signature)
    }
}

fn malformed(error: minicbor::decode::Error) -> Error {
    Error::malformed(WHAT, error)
}

/// RFC 9052, section 4.4.
fn sig_structure(protected: &[u8], payload: &[u8]) -> Result<Vec<u8>, Error> {
    let mut e = Encoder::new(Vec::with_capacity(payload.len().saturating_add(32)));
    let written = e.array(4).and_then(|e| e.str("Signature1"));
    written
        .and_then(|e| e.bytes(protected))
        .and_then(|e| e.bytes(&[]))
        .and_then(|e| e.bytes(payload))
        .map_err(|error| Error::malformed(WHAT, error))?;
    Ok(e.into_writer())
}

fn parse_payload(payload: &[u8], signed: Vec<u8>, signature: Vec<u8>) -> Result<Document, Error> {
    let mut d = Decoder::new(payload);
    let mut seen = Vec::new();
    let (mut module_id, mut digest, mut timestamp_ms) = (None, None, None);
    let (mut pcrs, mut certificate, mut cabundle) = (None, None, None);
    let (mut public_key, mut user_data, mut nonce) = (None, None, None);
    let entries = d.map();
    members(&mut d, entries, MAX_MEMBERS, |d| {
        let key = d.str().map_err(malformed)?;
        if seen.contains(&key) {
            return Err(Error::malformed(WHAT, format!("it has `{key}` twice")));
        }
        seen.push(key);
        match key {
            "module_id" => module_id = Some(d.str().map_err(malformed)?.to_owned()),
            "digest" => digest = Some(d.str().map_err(malformed)?.to_owned()),
            "timestamp" => timestamp_ms = Some(d.u64().map_err(malformed)?),
            "pcrs" => pcrs = Some(parse_pcrs(d)?),
            "certificate" => certificate = Some(d.bytes().map_err(malformed)?.to_vec()),
            "cabundle" => cabundle = Some(parse_bundle(d)?),
            "public_key" => public_key = optional(d)?,
            "user_data" => user_data = optional(d)?,
            "nonce" => nonce = optional(d)?,
            _ => return Err(Error::malformed(WHAT, format!("it has the unknown `{key}`"))),
        }
        Ok(())
    })?;
    if d.position() != payload.len() {
        return Err(Error::malformed(WHAT, "bytes follow the end of its payload"));
    }
    Ok(Document {
        module_id: required("module_id", module_id)?,
        timestamp_ms: required("timestamp", timestamp_ms)?,
        digest: required("digest", digest)?,
        pcrs: required("pcrs", pcrs)?,
        certificate: required("certificate", certificate)?,
        cabundle: required("cabundle", cabundle)?,
        public_key,
        user_data,
        nonce,
        signed,
        signature,
    })
}

fn required<T>(name: &str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| Error::malformed(WHAT, format!("`{name}` is missing")))
}

/// Reads the members of a list or map one by one, of a definite length or up to the break: the NSM
/// writes its outer map so.
fn members<'b>(
    d: &mut Decoder<'b>,
    length: Result<Option<u64>, minicbor::decode::Error>,
    most: u64,
    mut member: impl FnMut(&mut Decoder<'b>) -> Result<(), Error>,
) -> Result<(), Error> {
    let length = length.map_err(malformed)?;
    for read in 0..=most {
        let ended = match length {
            Some(length) => read == length,
            None if d.datatype().map_err(malformed)? == Type::Break => {
                d.skip().map_err(malformed)?;
                true
            }
            None => false,
        };
        if ended {
            return Ok(());
        }
        member(d)?;
    }
    Err(Error::malformed(WHAT, format!("a list has more than {most} members")))
}

fn optional(d: &mut Decoder<'_>) -> Result<Option<Vec<u8>>, Error> {
    if d.datatype().map_err(malformed)? == Type::Null {
        d.null().map_err(malformed)?;
        return Ok(None);
    }
    Ok(Some(d.bytes().map_err(malformed)?.to_vec()))
}

fn parse_pcrs(d: &mut Decoder<'_>) -> Result<BTreeMap<u8, Vec<u8>>, Error> {
    let mut pcrs = BTreeMap::new();
    let length = d.map();
    members(d, length, MAX_PCRS, |d| {
        let (number, value) = (d.u8().map_err(malformed)?, d.bytes().map_err(malformed)?);
        if pcrs.insert(number, value.to_vec()).is_some() {
            return Err(Error::malformed(WHAT, format!("it has PCR {number} twice")));
        }
        Ok(())
    })?;
    Ok(pcrs)
}

fn parse_bundle(d: &mut Decoder<'_>) -> Result<Vec<Vec<u8>>, Error> {
    let mut bundle = Vec::new();
    let length = d.array();
    members(d, length, MAX_BUNDLE, |d| {
        bundle.push(d.bytes().map_err(malformed)?.to_vec());
        Ok(())
    })?;
    Ok(bundle)
}
