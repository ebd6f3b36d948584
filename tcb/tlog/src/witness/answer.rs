//! What a witness answers, and what a client thinks of it.

use super::{AddCheckpoint, SIZE_CONTENT_TYPE};
use crate::cosignature;
use crate::error::Error;
use crate::hash::MAX_TREE_SIZE;
use crate::note::{self, MAX_NOTE_BYTES, MAX_SIGNATURES, Note, Signature, VerifierKey};
use crate::text::{decimal, has_controls};

/// The body of an answer with status 200: signature lines, at least one.
///
/// Fails with [`Error::WitnessAnswer`] when there are none or more than 64, or when they are too
/// long.
pub fn encode_signatures(signatures: &[Signature]) -> Result<String, Error> {
    let mut out = String::new();
    for signature in signatures {
        signature.encode_line(&mut out);
    }
    parse_signatures(out.as_bytes())?;
    Ok(out)
}

/// Reads the body of an answer with status 200; [`encode_signatures`] gives the same bytes back.
///
/// Fails with [`Error::WitnessAnswer`], [`Error::Note`] or [`Error::KeyName`].
pub fn parse_signatures(bytes: &[u8]) -> Result<Vec<Signature>, Error> {
    if bytes.len() > MAX_NOTE_BYTES {
        return Err(Error::WitnessAnswer("it is longer than 128 KiB"));
    }
    let text = str::from_utf8(bytes).map_err(|_| Error::WitnessAnswer("it is not UTF-8"))?;
    if has_controls(text) {
        return Err(Error::WitnessAnswer("it holds a control character"));
    }
    let lines = text
        .strip_suffix('\n')
        .ok_or(Error::WitnessAnswer("it does not end in a signature line"))?;
    let mut signatures = Vec::new();
    for line in lines.split('\n') {
        if signatures.len() == MAX_SIGNATURES {
            return Err(Error::WitnessAnswer("it has more than 64 signatures"));
        }
        signatures.push(Signature::parse(line)?);
    }
    Ok(signatures)
}

/// The body of an answer with status 409: the size of the witness's latest checkpoint.
pub fn encode_size(size: u64) -> String {
    format!("{size}\n")
}

/// Reads the body of an answer with status 409. Fails with [`Error::WitnessAnswer`].
pub fn parse_size(bytes: &[u8]) -> Result<u64, Error> {
    str::from_utf8(bytes)
        .ok()
        .and_then(|text| decimal(text.strip_suffix('\n')?))
        .filter(|size| *size <= MAX_TREE_SIZE)
        .ok_or(Error::WitnessAnswer("its body is not a tree size and a newline"))
}

/// What a client makes of a witness's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200: cosignatures by known keys of the witness, all of them verified; at least one.
    /// [`Note::insert`] adds them to the checkpoint.
    Cosigned(Vec<Cosigned>),
    /// 409: the witness's latest checkpoint has this size. The client sends the proof from there. A
    /// size above all that the log has published is an alarm: someone else signs for the log, or the
    /// log has been rolled back.
    Conflict {
        /// Size of the witness's latest checkpoint.
        latest: u64,
    },
    /// 422, or 409 although the old size was right: the witness holds a tree that this one does not
    /// extend. An alarm: the proof is wrong, or there are two histories.
    Inconsistent,
    /// 404: the witness does not know the log. Its operator has to add it.
    UnknownOrigin,
    /// 403: the witness trusts none of the checkpoint's signatures. Its operator has another key.
    Untrusted,
    /// Any other status, with 400 among them: it asks for nothing that this text describes.
    Other {
        /// The HTTP status.
        status: u16,
    },
}

/// A cosignature by a known key of a witness, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigned {
    /// Index of the key among the known ones.
    pub key: usize,
    /// When it was made, in seconds since 1970; not 0.
    pub timestamp: u64,
    /// The signature line.
    pub signature: Signature,
}

/// Judges the answer to `request` by the witness whose keys are `keys`; `content_type` is the
/// header's value, if there is one.
///
/// Signatures by unknown keys are ignored. All those by known keys must be cosignatures of the
/// request's checkpoint, at a time other than 0, and at least one there must be; when a key signed
/// more than once, the latest is answered.
///
/// Fails with [`Error::WitnessAnswer`], [`Error::Note`] or [`Error::KeyName`] for malformed answers,
/// with [`Error::BadSignature`], [`Error::NoTimestamp`], [`Error::NoKnownSignature`],
/// [`Error::KeyType`] when `keys` holds one that makes no cosignatures, or
/// [`Error::AmbiguousKey`].
pub fn judge_answer(
    request: &AddCheckpoint,
    keys: &[VerifierKey],
    status: u16,
    content_type: Option<&str>,
    body: &[u8],
) -> Result<Answer, Error> {
    match status {
        200 => cosigned(request, keys, body).map(Answer::Cosigned),
        409 if is_size(content_type) => {
            let latest = parse_size(body)?;
            // Had the witness this size, it would not disagree about it.
            let is_old = latest == request.old_size();
            Ok(if is_old { Answer::Inconsistent } else { Answer::Conflict { latest } })
        }
        409 if request.old_size() == request.checkpoint().size => Ok(Answer::Inconsistent),
        409 => Err(Error::WitnessAnswer("status 409 without a body of type `text/x.tlog.size`")),
        422 => Ok(Answer::Inconsistent),
        404 => Ok(Answer::UnknownOrigin),
        403 => Ok(Answer::Untrusted),
        status => Ok(Answer::Other { status }),
    }
}

fn cosigned(
    request: &AddCheckpoint,
    keys: &[VerifierKey],
    body: &[u8],
) -> Result<Vec<Cosigned>, Error> {
    if let Some(key) = keys.iter().find(|key| !key.key_type().is_cosignature()) {
        return Err(Error::KeyType(key.key_type().byte()));
    }
    let text = &request.note().text;
    let answer = Note { text: text.clone(), signatures: parse_signatures(body)? };
    let mut cosigned = Vec::new();
    for signer in note::verify(&answer, keys)? {
        let Some(key) = keys.get(signer) else { continue };
        let mut latest: Option<Cosigned> = None;
        for signature in answer.signatures.iter().filter(|s| key.made(s)) {
            let timestamp = cosignature::timestamp(signature);
            if timestamp == 0 {
                return Err(Error::NoTimestamp { name: key.name().to_owned() });
            }
            if latest.as_ref().is_none_or(|latest| latest.timestamp < timestamp) {
                let signature = signature.clone();
                latest = Some(Cosigned { key: signer, timestamp, signature });
            }
        }
        cosigned.extend(latest);
    }
    Ok(cosigned)
}

/// Whether a content type is that of a size, whatever its parameters.
fn is_size(content_type: Option<&str>) -> bool {
    let media_type = content_type.and_then(|value| value.split(';').next()).map(str::trim);
    media_type.is_some_and(|media_type| media_type.eq_ignore_ascii_case(SIZE_CONTENT_TYPE))
}
