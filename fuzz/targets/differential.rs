//! Two validators judge the same signed token: whatever Chancery's accepts, the crate `jsonwebtoken`
//! must accept as well and read alike. What it accepts and Chancery's does not is strictness.
//!
//! The input is a header, a zero octet and a payload; they are signed here, so that the judgement of
//! what stands in them is reached.

#![no_main]

use chancery_token::jwks::{KeySet, Member, Window};
use chancery_token::{Algorithm, RsaBits, SigningKey, b64, jws};
use chancery_validate::{Validator, ValidatorConfig};
use jsonwebtoken::{DecodingKey, Validation, decode};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

const ISSUER: &str = "https://issuer.example/main";
const AUDIENCE: &str = "https://api.example";
const LOG: &str = "AAAAAAAAAAAAAAAAAAAAAA";
/// The seeds' `kid`; the key is made anew for each run, so it is not the thumbprint.
const KID: &str = "k";

struct Judges {
    key: SigningKey,
    ours: Validator,
    peers_key: DecodingKey,
    peer: Validation,
}

static JUDGES: LazyLock<Judges> = LazyLock::new(|| {
    let key = SigningKey::generate(Algorithm::Es256, RsaBits::B2048).expect("a key");
    let member = Member {
        kid: KID.to_owned(),
        issuer: Some(ISSUER.to_owned()),
        window: Some(Window { nbf: 0, signs_until: u64::MAX }),
        log: Some(format!("{LOG}.1")),
        ..Member::new(key.public().clone())
    };
    let jwk = serde_json::from_value(Value::Object(member.jwk())).expect("a JWK");
    let mut config = ValidatorConfig::new(ISSUER, AUDIENCE);
    config.max_lifetime_s = None;
    config.accepted_typ.push("JWT".to_owned());
    let keys = KeySet::from_members(vec![member]).expect("a set of one key");
    let mut peer = Validation::new(jsonwebtoken::Algorithm::ES256);
    peer.set_issuer(&[ISSUER]);
    peer.set_audience(&[AUDIENCE]);
    peer.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    peer.validate_nbf = true;
    peer.leeway = config.leeway_s;
    let peers_key = DecodingKey::from_jwk(&jwk).expect("the peer reads the JWK");
    Judges { key, ours: Validator::new(config, keys), peers_key, peer }
});

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|octet| *octet == 0) else { return };
    let (header, payload) = (&data[..end], &data[end + 1..]);
    let input = format!("{}.{}", b64::encode(header), b64::encode(payload));
    let Ok(signature) = JUDGES.key.sign(input.as_bytes()) else { return };
    let token = jws::assemble(input, &signature);
    // Both read the same clock; a token that changes its verdict in between is not compared.
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let before = now();
    let ours = JUDGES.ours.validate(&token, before);
    let peer = decode::<Map<String, Value>>(&token, &JUDGES.peers_key, &JUDGES.peer);
    if now() != before {
        return;
    }
    if let Ok(ours) = ours {
        let shown = || format!("{}\n{}", header.escape_ascii(), payload.escape_ascii());
        let peer = peer.unwrap_or_else(|why| panic!("the peer refuses: {why}\n{}", shown()));
        assert_eq!(ours.to_map(), peer.claims, "the peer reads other claims\n{}", shown());
    }
});
