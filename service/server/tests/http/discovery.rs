//! Metadata, key sets, signers.

use chancery_entry::Entry;
use chancery_tlog::LogId;
use chancery_token::{Algorithm, PublicKey, jws};
use serde_json::{Value, json};

use super::{AUDIENCE, assert_problem, lab, living_log};

/// The development schedule's `publish_lead_s`.
const PUBLISH_LEAD_S: u64 = 300;

#[test]
fn metadata_comes_from_the_configuration_alone() {
    let lab = lab();
    for realm in ["consumers", "organizations"] {
        let base = lab.url();
        let plain = lab.web.get(&format!("{base}/{realm}/.well-known/openid-configuration"));
        let metadata = plain.json();
        assert_eq!(metadata["issuer"], lab.issuer(realm));
        assert_eq!(metadata["jwks_uri"], format!("{base}/{realm}/jwks.json"));
        assert_eq!(metadata["token_endpoint"], format!("{base}/{realm}/token"));
        assert_eq!(metadata["grant_types_supported"], json!(["client_credentials"]));
        assert_eq!(metadata["token_endpoint_auth_methods_supported"], json!(["private_key_jwt"]));
        assert!(plain.max_age().unwrap() > 0);
        assert_eq!(plain.header("access-control-allow-origin"), "*");
        let paths = [
            format!("{base}/{realm}/.well-known/openid-configuration"),
            format!("{base}/.well-known/oauth-authorization-server/{realm}"),
            format!("{base}/.well-known/openid-configuration/{realm}"),
        ];
        let headers = [
            ("host", "evil.example"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "host=evil.example;proto=https"),
        ];
        for path in &paths {
            for header in headers {
                let answer = lab.web.send("GET", path, &[header], b"");
                assert_eq!(answer.status, 200, "{path}");
                assert_eq!(answer.json(), metadata, "{path} {header:?}");
            }
        }
    }
    for path in [
        "/nowhere/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/nowhere",
        "/nowhere/jwks.json",
    ] {
        assert_problem(&lab.web.get(&format!("{}{path}", lab.url())), 404, "unknown_realm");
    }
    for path in ["/", "/nothing", "/consumers", "/consumers/", "/log", "/consumers/jwks"] {
        assert_problem(&lab.web.get(&format!("{}{path}", lab.url())), 404, "not_found");
    }
}

#[test]
fn key_sets_are_cached_by_tag_and_for_less_than_the_lead() {
    let lab = lab();
    let url = format!("{}/consumers/jwks.json", lab.url());
    let full = lab.web.get(&url);
    assert_eq!(full.status, 200);
    assert_eq!(full.header("content-type"), "application/jwk-set+json");
    assert_eq!(full.header("access-control-allow-origin"), "*");
    assert!(full.max_age().unwrap() > 0 && full.max_age().unwrap() < PUBLISH_LEAD_S);
    let etag = full.header("etag").to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 10, "{etag}");

    for known in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".into()] {
        let answer = lab.web.send("GET", &url, &[("if-none-match", &known)], b"");
        assert_eq!(answer.status, 304, "{known}");
        assert!(answer.body.is_empty());
        assert_eq!(answer.header("etag"), etag);
        assert_eq!(answer.max_age(), full.max_age());
    }
    let other = lab.web.send("GET", &url, &[("if-none-match", "\"other\"")], b"");
    assert_eq!((other.status, other.body), (200, full.body.clone()));

    let head = lab.web.send("HEAD", &url, &[], b"");
    assert_eq!(head.status, 200);
    assert!(head.body.is_empty());
    for name in ["etag", "content-type", "cache-control"] {
        assert_eq!(head.header(name), full.header(name), "{name}");
    }
    assert_eq!(head.header("content-length"), full.body.len().to_string());

    let asked = [("origin", "https://app.example"), ("access-control-request-method", "GET")];
    let preflight = lab.web.send("OPTIONS", &url, &asked, b"");
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), "*");
    assert!(preflight.header("access-control-allow-methods").contains("GET"));

    let posted = lab.web.send("POST", &url, &[], b"x");
    assert_problem(&posted, 405, "method_not_allowed");
    assert!(posted.header("allow").contains("GET"), "{:?}", posted.headers);
}

#[test]
fn key_set_members_say_for_whom_when_and_where() {
    let lab = lab();
    let entries = living_log(&lab).entries();
    let algorithms = [
        ("consumers", vec!["ES256", "RS256", "PS256", "Ed25519"]),
        ("organizations", vec!["Ed25519", "ES384", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87"]),
    ];
    for (realm, wanted) in algorithms {
        let set = lab.web.get(&format!("{}/{realm}/jwks.json", lab.url())).json();
        let keys = set["keys"].as_array().unwrap();
        let mut found: Vec<&str> = keys.iter().flat_map(|k| k["alg"].as_str()).collect();
        found.sort_unstable();
        found.dedup();
        let mut wanted = wanted.clone();
        wanted.sort_unstable();
        // The RSA keys of a first start are made beside the thread that answers.
        assert!(found.iter().all(|alg| wanted.contains(alg)), "{found:?}");
        assert!(found.len() >= wanted.len() - 2, "{found:?}");
        for key in keys {
            assert_eq!(key["issuer"], lab.issuer(realm));
            let second = |name: &str| key[name].as_u64().unwrap_or_else(|| panic!("{name}: {key}"));
            assert!(second("nbf") < second("signs_until"));
            assert!(second("signs_until") < second("exp"));
            for secret in ["d", "p", "q", "dp", "dq", "qi", "k", "priv"] {
                assert!(key.get(secret).is_none(), "{secret}");
            }
            let public = PublicKey::from_jwk(key.as_object().unwrap()).unwrap();
            assert_eq!(key["kid"], public.kid().to_string());
            // `log` is where the key was announced, with the same window.
            let (log, index) = key["log"].as_str().unwrap().split_once('.').unwrap();
            assert_eq!(log, lab.log_id());
            let index: usize = index.parse().unwrap();
            // The set may be younger than the entries at hand.
            let Some(entry) = entries.get(index) else { continue };
            let Entry::Announcement(announced) = Entry::decode(entry).unwrap() else {
                panic!("entry {index} is no announcement");
            };
            assert_eq!(&announced.kid, public.kid().as_bytes());
            assert_eq!((announced.realm.as_str(), announced.nbf), (realm, second("nbf")));
            assert_eq!(announced.signs_until, second("signs_until"));
        }
    }
}

#[test]
fn signers_and_their_own_key_sets_bind_together() {
    let lab = lab();
    let signers = lab.signers();
    let [signer] = signers.as_slice() else { panic!("{signers:?}") };
    let id = signer["log_id"].as_str().unwrap();
    assert_eq!(signer["attached"], true);
    assert_eq!(signer["evidence"], "software");
    assert!(signer["sandbox"].as_array().is_some_and(|s| s.len() >= 5), "{signer}");
    let log = living_log(&lab);
    let key = log.key();
    assert_eq!(signer["vkey"], key.to_string());
    assert_eq!(signer["origin"], key.name());
    let identity: [u8; 32] = key.public_key().try_into().unwrap();
    assert_eq!(LogId::of(&identity).to_string(), id);

    let entries = log.entries();
    let Entry::Genesis(genesis) = Entry::decode(&entries[0]).unwrap() else {
        panic!("no genesis");
    };
    let digest: String = genesis.policy_digest.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(signer["policy_digest"], digest);
    assert_eq!(signer["started_at"], genesis.started_at);
    assert_eq!(genesis.predecessor, None);

    let answer = lab.web.get(&format!("{}/log/{id}/keys.jwt", lab.url()));
    assert_eq!(answer.header("content-type"), "application/jwk-set+jwt");
    let text = answer.text();
    let compact = jws::parse(&text, 1 << 20).unwrap();
    assert_eq!(compact.header.typ.as_deref(), Some("jwk-set+jwt"));
    let public = PublicKey::from_raw(Algorithm::Ed25519, &identity).unwrap();
    jws::verify(&compact, &public, false).unwrap();
    let set: Value = serde_json::from_slice(&compact.payload).unwrap();
    assert_eq!(set["log"], id);
    assert!(set["seq"].as_u64().is_some() && set["exp"].as_u64() > set["iat"].as_u64());
    let token = lab.token(&lab.demo(), "consumers", AUDIENCE);
    let kid = &super::part(&token, 0)["kid"];
    let signed = set["keys"].as_array().unwrap();
    assert!(signed.iter().any(|k| k["kid"] == *kid), "{kid} in {set}");
}
