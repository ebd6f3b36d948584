use chancery_token::Algorithm;
use chancery_token::client::ClientKey;
use serde_json::json;

use super::*;
use crate::Policy;
use crate::document::tests::sample_with;

const NOW: u64 = 1_800_000_000;
const LOG: &str = "AAAAAAAAAAAAAAAAAAAAAA";
const ISSUER: &str = "https://issuer.example/consumers";

fn unused(_: &Client, _: &ProofId) -> bool {
    false
}

struct Bench {
    key: ClientKey,
    realm: Arc<Realm>,
    at: Moment<'static>,
}

impl Bench {
    fn new(algorithm: Algorithm) -> Self {
        let key = ClientKey::generate(algorithm).unwrap();
        let document = sample_with(key.signing_key().public().jwk());
        let policy = Policy::parse(&document.to_json().unwrap()).unwrap();
        let realm = policy.realm("consumers").unwrap().clone();
        Self { key, realm, at: Moment { now: NOW, started_at: NOW - 100, log: LOG } }
    }

    fn sign(&self, typ: &str, payload: &Value) -> String {
        let key = self.key.signing_key();
        let input = jws::signing_input(
            key.public().algorithm(),
            typ,
            &key.public().kid(),
            payload.to_string().as_bytes(),
        );
        let signature = key.sign(input.as_bytes()).unwrap();
        jws::assemble(input, &signature)
    }

    fn assertion(&self, change: impl FnOnce(&mut Value)) -> Result<Proven, RefusalCode> {
        let mut payload = json!({
            "iss": "shop", "sub": "shop", "aud": ISSUER,
            "iat": NOW, "exp": NOW + 60, "jti": "one",
        });
        change(&mut payload);
        assertion(&self.realm, &self.sign("JWT", &payload), self.at, unused).map_err(|r| r.code)
    }

    fn request(&self, requests: Value) -> Result<(Proven, Vec<Ask>), RefusalCode> {
        let payload = json!({
            "iss": "shop", "aud": ISSUER, "iat": NOW, "exp": NOW + 60, "jti": "one",
            "requests": requests,
        });
        let token = self.sign(SIGNED_REQUEST_TYP, &payload);
        signed_request(&self.realm, &token, self.at, unused).map_err(|r| r.code)
    }
}

#[test]
fn every_algorithm_authenticates() {
    for algorithm in Algorithm::ALL {
        let bench = Bench::new(algorithm);
        let proven = bench.assertion(|_| {}).unwrap();
        assert_eq!(proven.client().id, "shop");
        assert_eq!(proven.forget_at(), NOW + 60);
    }
}

#[test]
fn wrong_proofs_are_refused_with_their_reason() {
    use RefusalCode as Code;
    let bench = Bench::new(Algorithm::Es256);
    let code = |change: fn(&mut Value)| bench.assertion(change).unwrap_err();
    assert_eq!(code(|p| p["iss"] = json!("nobody")), Code::UnknownClient);
    assert_eq!(code(|p| p["sub"] = json!("other")), Code::MalformedProof);
    assert_eq!(
        code(|p| p["aud"] = json!("https://issuer.example/consumers/token")),
        Code::WrongAudience
    );
    assert_eq!(code(|p| p["aud"] = json!([ISSUER, "https://x"])), Code::WrongAudience);
    assert_eq!(code(|p| p["exp"] = json!(NOW)), Code::ProofExpired);
    assert_eq!(code(|p| p["exp"] = json!(NOW + 121)), Code::ProofTooLong);
    assert_eq!(code(|p| p["iat"] = json!(NOW + 3)), Code::ProofNotYetValid);
    assert_eq!(code(|p| p["nbf"] = json!(NOW + 3)), Code::ProofNotYetValid);
    assert_eq!(code(|p| p["iat"] = json!(1.5)), Code::MalformedProof);
    assert_eq!(code(|p| p["jti"] = json!("")), Code::MalformedProof);
    assert_eq!(code(|p| p["jti"] = json!("x".repeat(257))), Code::MalformedProof);
    assert_eq!(code(|p| drop(p.as_object_mut().unwrap().remove("exp"))), Code::MalformedProof);
    assert_eq!(code(|p| p["log"] = json!("BBBBBBBBBBBBBBBBBBBBBB")), Code::WrongLog);
}

#[test]
fn a_single_audience_in_an_array_is_the_same() {
    let bench = Bench::new(Algorithm::Ed25519);
    assert!(bench.assertion(|p| p["aud"] = json!([ISSUER])).is_ok());
}

#[test]
fn a_foreign_signature_is_refused() {
    let bench = Bench::new(Algorithm::Es256);
    let other = Bench::new(Algorithm::Es256);
    let payload = json!({"iss": "shop", "aud": ISSUER, "iat": NOW, "exp": NOW + 9, "jti": "1"});
    let token = other.sign("JWT", &payload);
    // The other key's `kid` is unknown here, and without `kid` its signature does not verify.
    let refusal = assertion(&bench.realm, &token, bench.at, unused).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::UnknownClientKey);
    let header = chancery_token::b64::encode(br#"{"alg":"ES256"}"#);
    let body = chancery_token::b64::encode(payload.to_string().as_bytes());
    let input = format!("{header}.{body}");
    let signature = other.key.signing_key().sign(input.as_bytes()).unwrap();
    let token = jws::assemble(input, &signature);
    let refusal = assertion(&bench.realm, &token, bench.at, unused).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::BadSignature);
}

#[test]
fn a_proof_from_before_the_start_is_refused_unless_it_names_this_log() {
    let mut bench = Bench::new(Algorithm::Es256);
    bench.at.started_at = NOW - 1;
    // Until the leeway has passed, not even a fresh proof is certainly new.
    assert_eq!(bench.assertion(|_| {}).unwrap_err(), RefusalCode::ProofBeforeStart);
    assert!(bench.assertion(|p| p["log"] = json!(LOG)).is_ok());
    bench.at.started_at = NOW - 10;
    assert!(bench.assertion(|_| {}).is_ok());
    let early = bench.assertion(|p| p["iat"] = json!(NOW - 8));
    assert_eq!(early.unwrap_err(), RefusalCode::ProofBeforeStart);
}

#[test]
fn kinds_of_proof_are_not_interchangeable() {
    let bench = Bench::new(Algorithm::Es256);
    let payload = json!({"iss": "shop", "aud": ISSUER, "iat": NOW, "exp": NOW + 9, "jti": "1",
        "requests": [{}]});
    let as_assertion =
        assertion(&bench.realm, &bench.sign(SIGNED_REQUEST_TYP, &payload), bench.at, unused);
    assert_eq!(as_assertion.unwrap_err().code, RefusalCode::MalformedProof);
    let as_request = signed_request(&bench.realm, &bench.sign("JWT", &payload), bench.at, unused);
    assert_eq!(as_request.unwrap_err().code, RefusalCode::MalformedProof);
}

#[test]
fn signed_requests_carry_what_is_asked_for() {
    let bench = Bench::new(Algorithm::MlDsa44);
    let (_, asks) =
        bench.request(json!([{"sub": "user:1"}, {"aud": "https://b.example"}])).unwrap();
    assert_eq!(asks.len(), 2);
    assert_eq!(asks[0].subject.as_deref(), Some("user:1"));
    assert_eq!(bench.request(json!([])).unwrap_err(), RefusalCode::TooManyRequests);
    let many = Value::Array(vec![json!({}); MAX_BATCH + 1]);
    assert_eq!(bench.request(many).unwrap_err(), RefusalCode::TooManyRequests);
    assert_eq!(bench.request(json!({})).unwrap_err(), RefusalCode::MalformedRequest);
    assert_eq!(
        bench.request(json!([{"subject": "x"}])).unwrap_err(),
        RefusalCode::MalformedRequest
    );
}

#[test]
fn unknown_members_of_a_signed_request_are_refused() {
    let bench = Bench::new(Algorithm::Es256);
    let payload = json!({"iss": "shop", "aud": ISSUER, "iat": NOW, "exp": NOW + 9, "jti": "1",
        "requests": [{}], "delegate": "all"});
    let token = bench.sign(SIGNED_REQUEST_TYP, &payload);
    let refusal = signed_request(&bench.realm, &token, bench.at, unused).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::MalformedRequest);
}

#[test]
fn what_needs_no_signature_is_refused_without_one() {
    let bench = Bench::new(Algorithm::Es256);
    let broken = |change: fn(&mut Value)| {
        let mut payload =
            json!({"iss": "shop", "aud": ISSUER, "iat": NOW, "exp": NOW + 9, "jti": "1"});
        change(&mut payload);
        let token = bench.sign("JWT", &payload);
        // The signature is another one: only what is checked before it can be the reason.
        let cut = token.rfind('.').unwrap() + 1;
        format!("{}{}", &token[..cut], chancery_token::b64::encode(&[7; 64]))
    };
    let code = |token: &str| assertion(&bench.realm, token, bench.at, unused).unwrap_err().code;
    assert_eq!(code(&broken(|_| {})), RefusalCode::BadSignature);
    assert_eq!(code(&broken(|p| p["exp"] = json!(NOW))), RefusalCode::ProofExpired);
    assert_eq!(code(&broken(|p| p["aud"] = json!("x"))), RefusalCode::WrongAudience);
    let used = assertion(&bench.realm, &broken(|_| {}), bench.at, |client, _| client.id == "shop");
    assert_eq!(used.unwrap_err().code, RefusalCode::ProofReplayed);
}
