//! Public keys: checked once, parsed once, then used for many signatures.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ML_DSA_44, ML_DSA_65, ML_DSA_87,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters,
    RsaPublicKeyComponents, VerificationAlgorithm,
};
use serde_json::{Map, Value};

use crate::jwk::{self, EDDSA};
use crate::{Algorithm, Error, KeyId, b64, ed25519};

/// Bits of an RSA modulus that are accepted. 2048 is the least that RFC 7518, section 3.3 allows;
/// beyond 4096 a stranger's key makes every verification slow.
const RSA_MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// The least RSA exponent: smaller ones are where padding mistakes have been exploited, and FIPS
/// 186-5, section 5.1 forbids them for new keys.
const MIN_RSA_EXPONENT: u64 = 65_537;

/// Octets of an RSA exponent. Nobody uses more, and the cost of a verification grows with it.
const MAX_RSA_EXPONENT_OCTETS: usize = 4;

/// First octet of an uncompressed point (SEC 1, section 2.3.3).
const UNCOMPRESSED: u8 = 4;

/// The octets of a public key, not yet checked.
pub(crate) enum Material {
    Ec { x: Vec<u8>, y: Vec<u8> },
    Ed25519 { x: Vec<u8> },
    Rsa { n: Vec<u8>, e: Vec<u8> },
    MlDsa { public: Vec<u8> },
}

/// A public key that was checked and is bound to one algorithm.
///
/// Making one is the expensive part; clones share it, so keep and clone it. What is accepted is the
/// same whether the key comes from a JWK, from raw octets or from a key pair of this process:
///
/// - EC: coordinates of full length, the point on the curve.
/// - Ed25519: a reduced y-coordinate, not of small order.
/// - RSA: an odd modulus of 2048 to 4096 bits in whole octets; an odd exponent of at least 65537
///   and at most 32 bits.
/// - ML-DSA: the exact length of the parameter set.
#[derive(Clone)]
pub struct PublicKey(Arc<Inner>);

struct Inner {
    algorithm: Algorithm,
    kid: KeyId,
    parsed: ParsedPublicKey,
    raw: Vec<u8>,
    /// The members that RFC 7638 and RFC 9964 require, in lexicographic order. All values are plain
    /// ASCII without anything that JSON would escape.
    members: Vec<(&'static str, String)>,
    signature_len: usize,
    eddsa_alias: bool,
}

impl PublicKey {
    /// Reads a public JWK that says its algorithm, by `alg` or, for `EC` and `OKP`, by `crv`.
    ///
    /// `alg` `EdDSA` on an Ed25519 key is read as [`Algorithm::Ed25519`] and remembered, see
    /// [`PublicKey::eddsa_alias`]. Members that this crate does not know are ignored (RFC 7517,
    /// section 4); certificates and URLs in them are never followed.
    ///
    /// # Errors
    /// What is wrong with the JWK: [`Error::PrivateMember`] and [`Error::SymmetricKey`] before all
    /// else, then purpose, key type, algorithm, encoding and the key itself.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, Error> {
        Self::from_jwk_as(jwk, None)
    }

    /// Reads a public JWK whose algorithm the caller fixes, as for RSA keys without `alg`.
    ///
    /// # Errors
    /// Those of [`PublicKey::from_jwk`]; [`Error::AlgorithmMismatch`] or
    /// [`Error::AlgorithmKeyType`] if the JWK is for another algorithm.
    pub fn from_jwk_as(
        jwk: &Map<String, Value>,
        algorithm: Option<Algorithm>,
    ) -> Result<Self, Error> {
        let declared = jwk::read(jwk, algorithm)?;
        Self::new(declared.algorithm, declared.material, declared.eddsa_alias)
    }

    /// Reads the raw octets that [`PublicKey::raw`] gives; not for RSA.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] for RSA, a wrong length or a compressed point; otherwise the faults of
    /// the key itself.
    pub fn from_raw(algorithm: Algorithm, raw: &[u8]) -> Result<Self, Error> {
        Self::new(algorithm, Material::from_raw(algorithm, raw)?, false)
    }

    pub(crate) fn new(
        algorithm: Algorithm,
        material: Material,
        eddsa_alias: bool,
    ) -> Result<Self, Error> {
        let checked = check(algorithm, material)?;
        let kid = KeyId::of_canonical_jwk(&canonical(&checked.members));
        Ok(Self(Arc::new(Inner {
            algorithm,
            kid,
            parsed: checked.parsed,
            raw: checked.raw,
            members: checked.members,
            signature_len: checked.signature_len,
            eddsa_alias,
        })))
    }

    /// The one algorithm that this key is for.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// The RFC 7638 thumbprint. A published key may go by another `kid`, see
    /// [`crate::jwks::Member`].
    #[must_use]
    pub fn kid(&self) -> KeyId {
        self.0.kid
    }

    /// Whether the JWK named this Ed25519 key's algorithm `EdDSA`; then tokens may, too.
    #[must_use]
    pub fn eddsa_alias(&self) -> bool {
        self.0.eddsa_alias
    }

    /// The key's octets: `04 || x || y` for ECDSA, the 32 of Ed25519, the encoding of FIPS 204 for
    /// ML-DSA, and the DER `SubjectPublicKeyInfo` for RSA.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.0.raw
    }

    /// The public JWK with `alg`, `use` `sig` and the thumbprint as `kid`. `alg` is `EdDSA` if the
    /// key was read so, because tokens under it will say so.
    #[must_use]
    pub fn jwk(&self) -> Map<String, Value> {
        let mut jwk = Map::new();
        for (name, value) in &self.0.members {
            jwk.insert((*name).to_owned(), value.as_str().into());
        }
        let alg = if self.0.eddsa_alias { EDDSA } else { self.0.algorithm.as_str() };
        jwk.insert("alg".to_owned(), alg.into());
        jwk.insert("use".to_owned(), "sig".into());
        jwk.insert("kid".to_owned(), self.0.kid.to_string().into());
        jwk
    }

    /// The JWK of the required members only, in lexicographic order and without whitespace: the
    /// text whose SHA-256 is the thumbprint (RFC 7638, section 3; RFC 9964, section 6).
    #[must_use]
    pub fn canonical_jwk(&self) -> String {
        canonical(&self.0.members)
    }

    /// Verifies a JWS signature (`r || s` for ECDSA) over `message`.
    ///
    /// # Errors
    /// [`Error::SignatureLength`] before any arithmetic, otherwise [`Error::SignatureInvalid`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        let expected = self.0.signature_len;
        if signature.len() != expected {
            return Err(Error::SignatureLength { expected, found: signature.len() });
        }
        self.0.parsed.verify_sig(message, signature).map_err(|_| Error::SignatureInvalid)
    }
}

/// Two keys are equal when they are the same key for the same algorithm.
impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.algorithm == other.0.algorithm && self.0.kid == other.0.kid
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({}, {})", self.0.algorithm, self.0.kid)
    }
}

fn canonical(members: &[(&'static str, String)]) -> String {
    let body: Vec<_> =
        members.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
    format!("{{{}}}", body.join(","))
}

struct Checked {
    parsed: ParsedPublicKey,
    raw: Vec<u8>,
    members: Vec<(&'static str, String)>,
    signature_len: usize,
}

/// The one gate that every public key passes.
fn check(algorithm: Algorithm, material: Material) -> Result<Checked, Error> {
    match (algorithm, material) {
        (Algorithm::Es256, Material::Ec { x, y }) => {
            check_ec(algorithm, &ECDSA_P256_SHA256_FIXED, "P-256", 32, &x, &y)
        }
        (Algorithm::Es384, Material::Ec { x, y }) => {
            check_ec(algorithm, &ECDSA_P384_SHA384_FIXED, "P-384", 48, &x, &y)
        }
        (Algorithm::Ed25519, Material::Ed25519 { x }) => check_ed25519(&x),
        (Algorithm::Rs256, Material::Rsa { n, e }) => {
            check_rsa(algorithm, &RSA_PKCS1_2048_8192_SHA256, &n, &e)
        }
        (Algorithm::Ps256, Material::Rsa { n, e }) => {
            check_rsa(algorithm, &RSA_PSS_2048_8192_SHA256, &n, &e)
        }
        (Algorithm::MlDsa44, Material::MlDsa { public }) => {
            check_ml_dsa(algorithm, &ML_DSA_44, 1312, public)
        }
        (Algorithm::MlDsa65, Material::MlDsa { public }) => {
            check_ml_dsa(algorithm, &ML_DSA_65, 1952, public)
        }
        (Algorithm::MlDsa87, Material::MlDsa { public }) => {
            check_ml_dsa(algorithm, &ML_DSA_87, 2592, public)
        }
        (algorithm, _) => Err(Error::InvalidKey(algorithm)),
    }
}

fn check_ec(
    algorithm: Algorithm,
    verification: &'static dyn VerificationAlgorithm,
    curve: &'static str,
    coordinate_len: usize,
    x: &[u8],
    y: &[u8],
) -> Result<Checked, Error> {
    // RFC 7518, section 6.2.1.2: full length, leading zeros included.
    check_len("x", coordinate_len, x)?;
    check_len("y", coordinate_len, y)?;
    let raw = [&[UNCOMPRESSED], x, y].concat();
    Ok(Checked {
        // Fails unless the point is on the curve.
        parsed: ParsedPublicKey::new(verification, &raw)
            .map_err(|_| Error::InvalidKey(algorithm))?,
        raw,
        members: vec![
            ("crv", curve.into()),
            ("kty", "EC".into()),
            ("x", b64::encode(x)),
            ("y", b64::encode(y)),
        ],
        signature_len: coordinate_len.saturating_mul(2),
    })
}

fn check_ed25519(x: &[u8]) -> Result<Checked, Error> {
    let octets = <&[u8; 32]>::try_from(x).map_err(|_| wrong_len("x", 32, x))?;
    ed25519::check(octets)?;
    Ok(Checked {
        parsed: ParsedPublicKey::new(&ED25519, x)
            .map_err(|_| Error::InvalidKey(Algorithm::Ed25519))?,
        raw: x.to_vec(),
        members: vec![("crv", "Ed25519".into()), ("kty", "OKP".into()), ("x", b64::encode(x))],
        signature_len: 64,
    })
}

fn check_rsa(
    algorithm: Algorithm,
    verification: &'static RsaParameters,
    n: &[u8],
    e: &[u8],
) -> Result<Checked, Error> {
    let bits = check_uint("n", n)?;
    // Whole octets: with any other length the encodings of PSS are an octet shorter than the
    // modulus (RFC 8017, section 8.1.1), and no generator in use makes such keys.
    if !RSA_MODULUS_BITS.contains(&bits) || !bits.is_multiple_of(8) || !is_odd(n) {
        return Err(Error::RsaModulus(bits));
    }
    check_uint("e", e)?;
    let exponent = e
        .iter()
        .take(MAX_RSA_EXPONENT_OCTETS)
        .fold(0_u64, |sum, octet| (sum << 8) | u64::from(*octet));
    if e.len() > MAX_RSA_EXPONENT_OCTETS || exponent < MIN_RSA_EXPONENT || !is_odd(e) {
        return Err(Error::RsaExponent);
    }
    let invalid = |_| Error::InvalidKey(algorithm);
    let parsed =
        RsaPublicKeyComponents { n, e }.to_parsed_public_key(verification).map_err(invalid)?;
    Ok(Checked {
        raw: parsed.as_ref().to_vec(),
        parsed,
        members: vec![("e", b64::encode(e)), ("kty", "RSA".into()), ("n", b64::encode(n))],
        signature_len: n.len(),
    })
}

fn check_ml_dsa(
    algorithm: Algorithm,
    verification: &'static dyn VerificationAlgorithm,
    len: usize,
    public: Vec<u8>,
) -> Result<Checked, Error> {
    check_len("pub", len, &public)?;
    Ok(Checked {
        parsed: ParsedPublicKey::new(verification, &public)
            .map_err(|_| Error::InvalidKey(algorithm))?,
        members: vec![
            ("alg", algorithm.to_string()),
            ("kty", "AKP".into()),
            ("pub", b64::encode(&public)),
        ],
        raw: public,
        signature_len: algorithm.signature_len().ok_or(Error::InvalidKey(algorithm))?,
    })
}

fn check_len(member: &'static str, expected: usize, octets: &[u8]) -> Result<(), Error> {
    if octets.len() == expected { Ok(()) } else { Err(wrong_len(member, expected, octets)) }
}

fn wrong_len(member: &'static str, expected: usize, octets: &[u8]) -> Error {
    Error::MemberLength { member, expected, found: octets.len() }
}

/// The bit length of a `Base64urlUInt`, which has no leading zero octet (RFC 7518, section 2).
fn check_uint(member: &'static str, octets: &[u8]) -> Result<usize, Error> {
    match octets.first() {
        None | Some(0) => Err(Error::MemberEncoding(member)),
        Some(first) => {
            Ok(octets.len().saturating_mul(8).saturating_sub(first.leading_zeros() as usize))
        }
    }
}

fn is_odd(octets: &[u8]) -> bool {
    octets.last().is_some_and(|last| last & 1 == 1)
}

impl Material {
    /// The members of a key from the octets that [`PublicKey::raw`] documents.
    pub(crate) fn from_raw(algorithm: Algorithm, raw: &[u8]) -> Result<Self, Error> {
        match algorithm {
            Algorithm::Es256 | Algorithm::Es384 => match raw.split_first() {
                Some((&UNCOMPRESSED, point)) if point.len().is_multiple_of(2) => {
                    let (x, y) = point.split_at(point.len() / 2);
                    Ok(Self::Ec { x: x.to_vec(), y: y.to_vec() })
                }
                _ => Err(Error::InvalidKey(algorithm)),
            },
            Algorithm::Ed25519 => Ok(Self::Ed25519 { x: raw.to_vec() }),
            Algorithm::MlDsa44 | Algorithm::MlDsa65 | Algorithm::MlDsa87 => {
                Ok(Self::MlDsa { public: raw.to_vec() })
            }
            Algorithm::Rs256 | Algorithm::Ps256 => Err(Error::InvalidKey(algorithm)),
        }
    }
}

#[cfg(test)]
mod tests;
