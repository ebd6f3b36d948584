//! The crate's one error type.

use crate::Algorithm;

/// How much of an offending input an error repeats. Inputs come from strangers: an error must
/// neither flood a log line nor smuggle control characters into it.
const MAX_SHOWN_CHARS: usize = 64;

/// Why bytes were not accepted, or why a key could not do its work.
///
/// Texts repeat at most 64 characters of the input, escaped. No variant carries key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input is longer than its named limit, which is in bytes.
    #[error("the {what} is longer than {limit} bytes; send a shorter one")]
    TooLarge {
        /// What was too long.
        what: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// Not canonical base64url (RFC 4648, section 5, without padding).
    #[error(
        "not canonical base64url: use the URL alphabet, no padding, no whitespace, zero trailing bits"
    )]
    Base64,
    /// JSON text that is not UTF-8 (RFC 8259, section 8.1).
    #[error("json text is not valid UTF-8")]
    NotUtf8,
    /// JSON text that starts with a byte order mark (RFC 8259, section 8.1).
    #[error("json text starts with a byte order mark; remove it")]
    ByteOrderMark,
    /// Not JSON; holds the parser's words and position.
    #[error("not json: {0}")]
    Json(String),
    /// Containers are nested deeper than [`crate::json::MAX_DEPTH`].
    #[error("json is nested deeper than {} levels", crate::json::MAX_DEPTH)]
    TooDeep,
    /// A member name occurs twice in one object (RFC 7515, section 4; RFC 7519, section 4).
    #[error("json member `{0}` occurs more than once in one object")]
    DuplicateMember(String),
    /// JSON, but not an object.
    #[error("json text is not an object")]
    NotAnObject,
    /// A member that must be there is not.
    #[error("member `{0}` is missing")]
    MissingMember(&'static str),
    /// A member has the wrong JSON type.
    #[error("member `{0}` has the wrong json type")]
    MemberType(&'static str),
    /// A time that is not a whole, non-negative number of seconds before the year 10000.
    #[error("member `{0}` is not a whole number of seconds between 0 and 253402300799")]
    Seconds(&'static str),
    /// Not a compact JWS: it does not have exactly three parts.
    #[error("not a compact jws: it must have three parts separated by dots")]
    Parts,
    /// A part of a compact JWS is empty.
    #[error("the {0} part of the jws is empty")]
    EmptyPart(&'static str),
    /// A part of a compact JWS is not canonical base64url.
    #[error("the {0} part of the jws is not canonical base64url")]
    PartEncoding(&'static str),
    /// A header member that is never accepted: `crit`, `b64`, `zip`, or one that brings a key along.
    #[error("header member `{0}` is not accepted; sign without it")]
    RefusedHeader(&'static str),
    /// `alg` is `none` in some spelling (RFC 8725, section 3.2).
    #[error("algorithm `none` is not accepted")]
    AlgorithmNone,
    /// Not one of the names in [`Algorithm::ALL`].
    #[error("algorithm `{0}` is not supported")]
    UnknownAlgorithm(String),
    /// An RSA key without `alg`: RS256 or PS256 cannot be told apart.
    #[error("the key does not say its algorithm; add member `alg`")]
    AlgorithmMissing,
    /// Two places name different algorithms.
    #[error("algorithm `{found}` where `{expected}` is required")]
    AlgorithmMismatch {
        /// What the key, or the caller, requires.
        expected: Algorithm,
        /// What was named instead.
        found: String,
    },
    /// The algorithm does not belong to this key type.
    #[error("algorithm `{algorithm}` does not belong to key type `{kty}`")]
    AlgorithmKeyType {
        /// The algorithm that was named.
        algorithm: Algorithm,
        /// The key type that was named.
        kty: &'static str,
    },
    /// `kty` is none of `EC`, `OKP`, `RSA`, `AKP`.
    #[error("key type `{0}` is not supported")]
    UnknownKeyType(String),
    /// `crv` is none of `P-256`, `P-384`, `Ed25519`.
    #[error("curve `{0}` is not supported")]
    UnknownCurve(String),
    /// A key member is not canonical base64url, or not the shortest form of its number.
    #[error("key member `{0}` is not canonical base64url of the right form")]
    MemberEncoding(&'static str),
    /// A key member has the wrong number of octets.
    #[error("key member `{member}` has {found} octets where {expected} are required")]
    MemberLength {
        /// The member's name.
        member: &'static str,
        /// Octets that the algorithm demands.
        expected: usize,
        /// Octets that were there.
        found: usize,
    },
    /// The cryptographic library refused the key, for example a point that is not on the curve.
    #[error("not a valid public key for `{0}`")]
    InvalidKey(Algorithm),
    /// An RSA modulus outside 2048..=4096 bits, not of whole octets, or even.
    #[error("rsa modulus of {0} bits: it must be odd and have 2048 to 4096 bits in whole octets")]
    RsaModulus(usize),
    /// An RSA exponent that is even, below 65537 or of more than 32 bits.
    #[error("rsa exponent must be odd, at least 65537 and at most 32 bits long")]
    RsaExponent,
    /// An Ed25519 key whose point has small order: signatures under it prove nothing.
    #[error("ed25519 key is a point of small order")]
    SmallOrder,
    /// `use` is not `sig`.
    #[error("key is not for signatures: `use` is `{0}`")]
    KeyUse(String),
    /// `key_ops` repeats a value or lacks `verify` (RFC 7517, section 4.3).
    #[error("key is not for verifying: `key_ops` must contain `verify` and no value twice")]
    KeyOperations,
    /// A member of a private key where only public keys belong.
    #[error(
        "member `{0}` belongs to a private key; publish the public key only, and replace this one"
    )]
    PrivateMember(&'static str),
    /// A symmetric key where only public keys belong.
    #[error("symmetric keys are not accepted")]
    SymmetricKey,
    /// Not a thumbprint: 43 characters of canonical base64url.
    #[error("not a key id: `{0}` is not 43 characters of canonical base64url")]
    KeyId(String),
    /// Two members of a key set share a `kid`.
    #[error("key set has more than one key with kid `{0}`")]
    DuplicateKid(String),
    /// A key set with more members than [`crate::jwks::MAX_KEYS`].
    #[error("key set has more than {} keys", crate::jwks::MAX_KEYS)]
    TooManyKeys,
    /// `nbf` and `signs_until` are not both there, or not in order.
    #[error("window needs both `nbf` and `signs_until`, the first before the second")]
    Window,
    /// The signature has the wrong length for the key.
    #[error("signature has {found} octets where {expected} are required")]
    SignatureLength {
        /// Octets that the key demands.
        expected: usize,
        /// Octets that were there.
        found: usize,
    },
    /// The signature is not this key's over this message.
    #[error("signature does not verify")]
    SignatureInvalid,
    /// Not one PEM block with label `PRIVATE KEY` (RFC 7468, section 10).
    #[error(
        "not a pem file with one `PRIVATE KEY` block; convert the key with `openssl pkcs8 -topk8 -nocrypt`"
    )]
    Pem,
    /// PKCS#8, but no private key of a supported algorithm.
    #[error("not an unencrypted pkcs#8 private key of a supported algorithm")]
    Pkcs8,
    /// The cryptographic library could not generate or export a key.
    #[error("cannot generate a key for `{0}`")]
    Generate(Algorithm),
    /// The cryptographic library could not sign.
    #[error("cannot sign with `{0}`")]
    Sign(Algorithm),
}

/// `input` as an error may repeat it: escaped, and cut at [`MAX_SHOWN_CHARS`].
pub(crate) fn shown(input: &str) -> String {
    let mut text: String =
        input.chars().take(MAX_SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if input.chars().nth(MAX_SHOWN_CHARS).is_some() {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests;
