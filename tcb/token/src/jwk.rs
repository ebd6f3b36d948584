//! Reading a public JWK (RFC 7517; members of RFC 7518, section 6; RFC 8037; RFC 9964).
//!
//! A JWK says more than a key: what it is for and which algorithm it is bound to. Everything here
//! is about that and about spelling; whether the key itself is sound is checked where it is built,
//! in `public`, which keys made by this process pass through too.

use serde_json::{Map, Value};

use crate::error::shown;
use crate::json::{optional_str, required_str};
use crate::public::Material;
use crate::{Algorithm, Error, b64};

/// Members that only a private key has (RFC 7518, sections 6.2.2 and 6.3.2; RFC 8037, section 2;
/// RFC 9964, section 3). `k`, the symmetric one, is reported on its own.
/// What makes a public key, and what names its algorithm.
pub(crate) const PUBLIC_MEMBERS: [&str; 8] = ["kty", "alg", "crv", "x", "y", "n", "e", "pub"];
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "priv"];

/// The name that RFC 9864 replaced by `Ed25519`, still the usual one in published key sets.
pub(crate) const EDDSA: &str = "EdDSA";

/// What a JWK says, before the key itself is checked.
pub(crate) struct Declared {
    pub(crate) algorithm: Algorithm,
    pub(crate) material: Material,
    /// The JWK said `EdDSA` where it meant Ed25519.
    pub(crate) eddsa_alias: bool,
}

/// Reads a public JWK. `fixed` is the algorithm that the caller demands, if any.
pub(crate) fn read(jwk: &Map<String, Value>, fixed: Option<Algorithm>) -> Result<Declared, Error> {
    refuse_secrets(jwk)?;
    let kty = required_str(jwk, "kty")?;
    check_purpose(jwk)?;
    // Its value is the publisher's choice; its type is not (RFC 7517, section 4.5).
    optional_str(jwk, "kid")?;
    let named = optional_str(jwk, "alg")?;
    let (kty, eddsa_alias, named, inferred) = match kty {
        "EC" => ("EC", false, named, Some(ec_algorithm(jwk)?)),
        "RSA" => ("RSA", false, named, None),
        // RFC 9964, section 3: the member is required, because nothing else tells the sets apart.
        "AKP" => ("AKP", false, Some(named.ok_or(Error::MissingMember("alg"))?), None),
        "OKP" => {
            let inferred = okp_algorithm(jwk)?;
            let alias = named == Some(EDDSA);
            ("OKP", alias, named.filter(|_| !alias), Some(inferred))
        }
        other => return Err(Error::UnknownKeyType(shown(other))),
    };
    let named = named.map(str::parse).transpose()?;
    let algorithm = agree(kty, [inferred, named, fixed])?;
    Ok(Declared { algorithm, material: read_material(jwk, algorithm)?, eddsa_alias })
}

/// Refuses private and symmetric keys, whatever their type. A secret that was published is a fault
/// to shout about, not a member to overlook.
pub(crate) fn refuse_secrets(jwk: &Map<String, Value>) -> Result<(), Error> {
    if jwk.contains_key("k") || jwk.get("kty").is_some_and(|kty| kty == "oct") {
        return Err(Error::SymmetricKey);
    }
    match PRIVATE_MEMBERS.into_iter().find(|member| jwk.contains_key(*member)) {
        Some(member) => Err(Error::PrivateMember(member)),
        None => Ok(()),
    }
}

/// RFC 7517, sections 4.2 and 4.3: a key for something else than verifying is not used for it.
fn check_purpose(jwk: &Map<String, Value>) -> Result<(), Error> {
    if let Some(purpose) = optional_str(jwk, "use")?
        && purpose != "sig"
    {
        return Err(Error::KeyUse(shown(purpose)));
    }
    let Some(operations) = jwk.get("key_ops") else { return Ok(()) };
    let operations = operations.as_array().ok_or(Error::MemberType("key_ops"))?;
    let mut seen = Vec::new();
    for operation in operations {
        let operation = operation.as_str().ok_or(Error::MemberType("key_ops"))?;
        // No registered list of operations is longer than eight; the search stays short because a
        // repeated value ends it, and the size of the JSON text bounds it.
        if seen.len() >= MAX_OPERATIONS || seen.contains(&operation) {
            return Err(Error::KeyOperations);
        }
        seen.push(operation);
    }
    if seen.contains(&"verify") { Ok(()) } else { Err(Error::KeyOperations) }
}

/// Values in `key_ops`: RFC 7517, section 4.3 registers eight; twice that leaves room for others.
const MAX_OPERATIONS: usize = 16;

/// The one algorithm that everybody who named one agrees on.
fn agree(kty: &'static str, named: [Option<Algorithm>; 3]) -> Result<Algorithm, Error> {
    let mut named = named.into_iter().flatten();
    let expected = named.next().ok_or(Error::AlgorithmMissing)?;
    if let Some(found) = named.find(|found| *found != expected) {
        return Err(Error::AlgorithmMismatch { expected, found: found.to_string() });
    }
    if expected.kty() != kty {
        return Err(Error::AlgorithmKeyType { algorithm: expected, kty });
    }
    Ok(expected)
}

fn ec_algorithm(jwk: &Map<String, Value>) -> Result<Algorithm, Error> {
    match required_str(jwk, "crv")? {
        "P-256" => Ok(Algorithm::Es256),
        "P-384" => Ok(Algorithm::Es384),
        other => Err(Error::UnknownCurve(shown(other))),
    }
}

fn okp_algorithm(jwk: &Map<String, Value>) -> Result<Algorithm, Error> {
    match required_str(jwk, "crv")? {
        "Ed25519" => Ok(Algorithm::Ed25519),
        other => Err(Error::UnknownCurve(shown(other))),
    }
}

fn read_material(jwk: &Map<String, Value>, algorithm: Algorithm) -> Result<Material, Error> {
    let octets = |member: &'static str| {
        b64::decode(required_str(jwk, member)?).map_err(|_| Error::MemberEncoding(member))
    };
    Ok(match algorithm {
        Algorithm::Es256 | Algorithm::Es384 => Material::Ec { x: octets("x")?, y: octets("y")? },
        Algorithm::Rs256 | Algorithm::Ps256 => Material::Rsa { n: octets("n")?, e: octets("e")? },
        Algorithm::Ed25519 => Material::Ed25519 { x: octets("x")? },
        Algorithm::MlDsa44 | Algorithm::MlDsa65 | Algorithm::MlDsa87 => {
            Material::MlDsa { public: octets("pub")? }
        }
    })
}
