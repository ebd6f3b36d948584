//! Every refusal of kube-apiserver, and what it lets pass although it should not.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use chancery_token::client::ClientKey;
use chancery_token::{Algorithm, b64};
use serde_json::Value;

use crate::player::{ApiServer, Exit, Flags, Status};
use crate::stub::{SigningKey, Stub, keys, stamp};
use crate::wire::{FETCH_KEYS, Failed, Key, Keys, METADATA, SIGN, SignResponse};
use crate::{ISSUER, of_a_pod, request};

/// A second of these tests: 60 of them are three real ones.
const SECOND: Duration = Duration::from_millis(50);

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kube-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn flags() -> Flags {
    Flags { second: SECOND, ..Flags::new(ISSUER) }
}

/// A good signer with a P-256 key.
fn good() -> (Folder, Arc<SigningKey>, Stub) {
    let (folder, key) = (Folder::new(), SigningKey::new(Algorithm::Es256));
    let stub = Stub::start(&folder.0, &key);
    (folder, key, stub)
}

async fn started(stub: &Stub) -> ApiServer {
    ApiServer::start(&stub.socket, flags()).await.unwrap()
}

async fn exit(stub: &Stub) -> Exit {
    match ApiServer::start(&stub.socket, flags()).await {
        Ok(_) => panic!("it started"),
        Err(exit) => exit,
    }
}

fn key_fault(exit: Exit) -> String {
    match exit {
        Exit::Keys(why) => why,
        other => panic!("{other:?}"),
    }
}

/// Asks for a token of an hour.
async fn mint(server: &ApiServer) -> Result<String, Status> {
    server.mint(&request(ISSUER, 3_600)).await.map(|minted| minted.token)
}

// Transport and start.

#[tokio::test]
async fn the_authority_is_localhost_and_nothing_says_who_calls() {
    let (_folder, _, stub) = good();
    started(&stub).await;
    let script = stub.script();
    assert_eq!(script.authority, "localhost");
    let names: Vec<_> = script.headers.keys().map(|name| name.as_str()).collect();
    let plain = ["content-type", "te", "user-agent", "content-length"];
    assert!(names.iter().all(|name| plain.contains(name)), "{names:?}");
}

#[tokio::test]
async fn keys_come_first_and_metadata_once() {
    let (_folder, _, stub) = good();
    let server = started(&stub).await;
    for _ in 0..3 {
        mint(&server).await.unwrap();
    }
    assert_eq!(stub.script().asked, [FETCH_KEYS, METADATA, SIGN, SIGN, SIGN]);
}

#[tokio::test]
async fn the_flags_of_key_files_are_excluded() {
    let (_folder, _, stub) = good();
    let with = |change: fn(&mut Flags)| {
        let mut flags = flags();
        change(&mut flags);
        flags
    };
    for (flags, named) in [
        (with(|f| f.key_file = true), "--service-account-key-file"),
        (with(|f| f.signing_key_file = true), "--service-account-signing-key-file"),
    ] {
        let exit = ApiServer::start(&stub.socket, flags).await.err();
        assert_eq!(exit, Some(Exit::Flags(named)));
    }
}

#[tokio::test]
async fn without_a_signer_it_exits_after_a_minute() {
    let folder = Folder::new();
    let stub = Stub::quiet(&folder.0, &SigningKey::new(Algorithm::Es256));
    let begun = Instant::now();
    assert!(key_fault(exit(&stub).await).contains("deadline exceeded"));
    assert!(begun.elapsed() >= SECOND * 60);
}

#[tokio::test]
async fn a_signer_that_comes_within_a_minute_is_waited_for() {
    let folder = Folder::new();
    let mut stub = Stub::quiet(&folder.0, &SigningKey::new(Algorithm::Es256));
    let socket = stub.socket.clone();
    let starting = tokio::spawn(async move { ApiServer::start(&socket, flags()).await });
    tokio::time::sleep(SECOND * 10).await;
    stub.listen();
    assert!(starting.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_maximum_below_ten_minutes_ends_it() {
    let (_folder, _, stub) = good();
    for (max_s, ends) in [(599, true), (0, true), (-1, true), (600, false)] {
        stub.script().max_s = max_s;
        let exit = ApiServer::start(&stub.socket, flags()).await.err();
        assert_eq!(exit, ends.then_some(Exit::MaxTooShort(max_s)));
    }
}

#[tokio::test]
async fn a_flag_above_the_maximum_ends_it_and_one_below_counts() {
    let (_folder, _, stub) = good();
    let with = |max| Flags { max_expiration_s: Some(max), ..flags() };
    let exit = ApiServer::start(&stub.socket, with(3_601)).await.err();
    assert_eq!(exit, Some(Exit::FlagAboveMax { flag: 3_601, signer: 3_600 }));
    let server = ApiServer::start(&stub.socket, with(900)).await.unwrap();
    let minted = server.mint(&request(ISSUER, 1_800)).await.unwrap();
    assert_eq!((minted.expiration_s, minted.warning), (900, true));
}

#[tokio::test]
async fn longer_requests_are_shortened_with_a_warning() {
    let (_folder, _, stub) = good();
    let server = started(&stub).await;
    for (asked, got, warning) in [(600, 600, false), (3_600, 3_600, false), (86_400, 3_600, true)] {
        let minted = server.mint(&request(ISSUER, asked)).await.unwrap();
        assert_eq!((minted.expiration_s, minted.warning), (got, warning));
        let claims = server.authenticate(&minted.token).await.unwrap();
        let lifetime = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        assert_eq!(lifetime, got);
    }
    let status = server.mint(&request(ISSUER, 599)).await.unwrap_err();
    assert_eq!(status.0, 422);
}

#[tokio::test]
async fn the_extension_of_pods_tokens_needs_more_than_3607_seconds() {
    let (_folder, _, stub) = good();
    for (max_s, got, warns) in [
        (3_600, 3_600, false),
        (3_607, 3_607, false),
        (7_200, 7_200, true),
        (99_999_999, 31_536_000, true),
    ] {
        stub.script().max_s = max_s;
        let server = started(&stub).await;
        let minted = server.mint(&of_a_pod(ISSUER, 3_607)).await.unwrap();
        assert_eq!(minted.expiration_s, got);
        let claims = server.authenticate(&minted.token).await.unwrap();
        assert_eq!(claims["kubernetes.io"].get("warnafter").is_some(), warns);
        // Other audiences, other lifetimes and tokens without a pod are not extended.
        for other in [of_a_pod("vault", 3_607), of_a_pod(ISSUER, 3_000), request(ISSUER, 3_607)] {
            let minted = server.mint(&other).await.unwrap();
            assert_eq!(minted.expiration_s, other.expiration_s.min(max_s));
        }
    }
}

// Keys.

#[tokio::test]
async fn rsa_and_the_three_curves_are_taken() {
    let (_folder, key, stub) = good();
    let p521 = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
    let der = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(p521.public_key());
    let p521 = Key { id: "p521".into(), der: der.unwrap().as_ref().to_vec(), excluded: false };
    let others = [SigningKey::new(Algorithm::Rs256), SigningKey::new(Algorithm::Es384)];
    {
        let mut script = stub.script();
        script.keys.keys.extend(others.iter().map(|key| key.listed()));
        script.keys.keys.push(p521);
    }
    let server = started(&stub).await;
    let jwks = server.jwks().unwrap();
    let algorithms: Vec<_> =
        jwks["keys"].as_array().unwrap().iter().map(|k| k["alg"].clone()).collect();
    assert_eq!(algorithms, ["ES256", "RS256", "ES384", "ES512"]);
    for signer in [&key, &others[0], &others[1]] {
        stub.script().signs = signer.signs();
        let token = mint(&server).await.unwrap();
        server.authenticate(&token).await.unwrap();
    }
}

/// What makes an answer one that is refused as a whole.
type Spoils = fn(&mut Keys);

fn spoilt() -> Vec<(&'static str, Spoils)> {
    vec![
        ("invalid refresh hint (0s)", |k| k.refresh_hint_seconds = 0),
        ("invalid refresh hint (-5s)", |k| k.refresh_hint_seconds = -5),
        ("found no keys", |k| k.keys.clear()),
        ("invalid data timestamp", |k| k.data_timestamp = None),
        ("invalid public key id", |k| k.keys[0].id.clear()),
        ("invalid public key id", |k| k.keys[0].id = "k".repeat(1_025)),
        ("empty public key", |k| k.keys[0].der.clear()),
        ("parsing external public keys", |k| k.keys[0].der.truncate(40)),
        ("parsing external public keys", |k| k.keys[0].der = pem()),
        // One among good ones.
        ("parsing external public keys", |k| {
            let broken = Key { id: "broken".into(), der: vec![1, 2, 3], excluded: true };
            k.keys.push(broken);
        }),
    ]
}

fn pem() -> Vec<u8> {
    let der = SigningKey::new(Algorithm::Es256).listed().der;
    let text = b64::encode(&der).replace('-', "+").replace('_', "/");
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n").into_bytes()
}

#[tokio::test]
async fn one_wrong_thing_refuses_all_keys_which_is_fatal_at_the_start() {
    for (why, spoil) in spoilt() {
        let (_folder, _, stub) = good();
        spoil(&mut stub.script().keys);
        let told = key_fault(exit(&stub).await);
        assert!(told.contains(why), "{why}: {told}");
    }
    // At the bounds it is good.
    let (_folder, key, stub) = good();
    stub.script().keys.keys[0].id = "k".repeat(1_024);
    stub.script().keys.refresh_hint_seconds = 1;
    started(&stub).await;
    drop(key);
}

#[tokio::test]
async fn afterwards_the_old_keys_stay_and_it_asks_again_every_ten_seconds() {
    for (why, spoil) in spoilt() {
        let (_folder, _, stub) = good();
        stub.script().keys.refresh_hint_seconds = 1;
        let server = started(&stub).await;
        let token = mint(&server).await.unwrap();
        let good = stub.script().keys.clone();
        spoil(&mut stub.script().keys);
        server.until("a failed refresh", |server| server.syncs().1 >= 1).await;
        assert!(server.last_failure().contains(why), "{why}: {}", server.last_failure());
        let failed = Instant::now();
        server.authenticate(&token).await.unwrap();
        stub.script().keys = Keys { data_timestamp: stamp(2), ..good };
        let (taken, _) = server.syncs();
        server.until("a good refresh", |server| server.syncs().0 > taken).await;
        // Seen a moment late on a busy machine; the hint alone would be a tenth of it.
        assert!(failed.elapsed() >= SECOND * 5, "{why}: after {:?}", failed.elapsed());
        server.end();
    }
}

fn ed25519() -> Key {
    let key = ClientKey::generate(Algorithm::Ed25519).unwrap();
    let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    der.extend_from_slice(key.signing_key().public().raw());
    Key { id: "ed25519".into(), der, excluded: false }
}

#[tokio::test]
async fn an_ed25519_key_parses_and_kills_discovery() {
    // At the start: there is no document at all.
    let (_folder, _, stub) = good();
    stub.script().keys.keys.push(ed25519());
    let server = started(&stub).await;
    assert_eq!(server.jwks(), None);
    server.authenticate(&mint(&server).await.unwrap()).await.unwrap();
    // Excluded from discovery it does no harm.
    stub.script().keys.keys.last_mut().unwrap().excluded = true;
    assert_eq!(started(&stub).await.discovered().len(), 1);

    // Later: it silently freezes.
    let (_folder, key, stub) = good();
    stub.script().keys.refresh_hint_seconds = 1;
    let server = started(&stub).await;
    let (frozen, next) = (server.jwks(), SigningKey::new(Algorithm::Es256));
    let mut spoilt = keys(&[&key, &next], 2, 1);
    spoilt.keys.push(ed25519());
    stub.script().keys = spoilt;
    server.until("a refresh", |server| server.syncs().0 >= 3).await;
    assert_eq!((server.jwks(), server.syncs().1), (frozen, 0));
    // The API server itself accepts what nobody else can verify.
    stub.script().signs = next.signs();
    server.authenticate(&mint(&server).await.unwrap()).await.unwrap();
    server.end();
}

#[tokio::test]
async fn rsa_keys_are_rs256_whatever_the_signer_means() {
    let (_folder, _, stub) = good();
    let key = SigningKey::new(Algorithm::Rs256);
    stub.script().keys = keys(&[&key], 1, 60);
    let server = started(&stub).await;
    assert_eq!(server.jwks().unwrap()["keys"][0]["alg"], "RS256");
    let pss = key.header().replace("RS256", "PS256");
    stub.script().signs = Arc::new(move |claims| Ok(key.sign_under(&pss, claims)));
    let status = mint(&server).await.unwrap_err();
    assert_eq!((status.0, status.1.contains("bad signing algorithm")), (500, true), "{status:?}");
}

#[tokio::test]
async fn a_repeated_kid_is_taken_and_both_keys_are_published() {
    let (_folder, key, stub) = good();
    let other = SigningKey::new(Algorithm::Es256);
    stub.script().keys.keys.push(Key { id: key.1.clone(), ..other.listed() });
    let server = started(&stub).await;
    let published = server.jwks().unwrap()["keys"].as_array().unwrap().clone();
    assert_eq!(published.len(), 2);
    assert_eq!(published[0]["kid"], published[1]["kid"]);
    for signer in [&key, &other] {
        let (signer, header) = (Arc::clone(signer), key.header());
        stub.script().signs = Arc::new(move |claims| Ok(signer.sign_under(&header, claims)));
        server.authenticate(&mint(&server).await.unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn refreshes_follow_the_hint() {
    let (_folder, _, stub) = good();
    stub.script().keys.refresh_hint_seconds = 4;
    let server = started(&stub).await;
    let begun = Instant::now();
    server.until("three refreshes", |server| server.syncs().0 >= 4).await;
    assert!(begun.elapsed() >= SECOND * 10, "{:?}", begun.elapsed());
    server.end();
}

#[tokio::test]
async fn an_unknown_kid_is_asked_for_at_once() {
    let (_folder, key, stub) = good();
    let server = started(&stub).await;
    let next = SigningKey::new(Algorithm::Es256);
    {
        let mut script = stub.script();
        script.keys = keys(&[&key, &next], 2, 3_600);
        script.signs = next.signs();
    }
    let token = mint(&server).await.unwrap();
    server.authenticate(&token).await.unwrap();
    assert_eq!(server.syncs(), (2, 0), "once, long before the hint was over");
    assert_eq!(server.discovered().len(), 2);
}

#[tokio::test]
async fn a_key_that_is_swapped_under_its_kid_breaks_tokens() {
    let (_folder, key, stub) = good();
    // Long enough for a busy machine to come first.
    stub.script().keys.refresh_hint_seconds = 60;
    let server = started(&stub).await;
    let (old, published) = (mint(&server).await.unwrap(), server.jwks());
    let swapped = SigningKey::new(Algorithm::Es256);
    {
        let (signer, header) = (Arc::clone(&swapped), key.header());
        let mut script = stub.script();
        // Neither time nor name changes: nobody notices.
        script.keys.keys[0].der = swapped.listed().der;
        script.signs = Arc::new(move |claims| Ok(signer.sign_under(&header, claims)));
    }
    let new = mint(&server).await.unwrap();
    assert_eq!(server.authenticate(&new).await.unwrap_err().0, 401, "for a refresh interval");
    let (taken, _) = server.syncs();
    server.until("a refresh", |server| server.syncs().0 > taken).await;
    server.authenticate(&new).await.unwrap();
    assert_eq!(server.authenticate(&old).await.unwrap_err().0, 401, "for good");
    assert_eq!(server.jwks(), published, "relying parties never learn of it");
    server.end();
}

#[tokio::test]
async fn a_change_is_a_new_time_count_order_name_or_flag() {
    type Changes = fn(&mut Keys);
    let swaps: Changes = |k| k.keys[1].der = SigningKey::new(Algorithm::Es256).listed().der;
    let cases: [(Changes, bool); 6] = [
        (|k| k.data_timestamp = stamp(2), true),
        (|k| drop(k.keys.pop()), true),
        (|k| k.keys.reverse(), true),
        (|k| k.keys[1].excluded = true, true),
        (|k| k.keys[1].id = "renamed".into(), true),
        (swaps, false),
    ];
    for (number, (change, seen)) in cases.into_iter().enumerate() {
        let (_folder, key, stub) = good();
        let other = SigningKey::new(Algorithm::Es256);
        stub.script().keys = keys(&[&key, &other], 1, 1);
        let server = started(&stub).await;
        let before = server.jwks();
        {
            let mut script = stub.script();
            change(&mut script.keys);
            // Whether the document is made anew shows in what it says of a swapped key.
            if seen && number == 0 {
                script.keys.keys[0].der = SigningKey::new(Algorithm::Es256).listed().der;
            }
        }
        server.until("a refresh", |server| server.syncs().0 >= 3).await;
        assert_eq!(server.jwks() != before, seen, "case {number}");
        server.end();
    }
}

#[tokio::test]
async fn an_excluded_key_verifies_but_is_not_published_and_signs_nothing() {
    let (_folder, key, stub) = good();
    let old = SigningKey::new(Algorithm::Es256);
    stub.script().signs = old.signs();
    let server = started(&stub).await;
    let token = mint(&server).await.unwrap();
    stub.script().keys.keys.push(Key { excluded: true, ..old.listed() });
    server.authenticate(&token).await.unwrap();
    assert_eq!(server.discovered(), [key.1.clone()].into());
    let status = mint(&server).await.unwrap_err();
    assert!(status.0 == 500 && status.1.contains("excluded"), "{status:?}");
    stub.script().signs = key.signs();
    mint(&server).await.unwrap();
}

// Sign.

#[tokio::test]
async fn sign_gets_the_claims_alone_and_the_token_holds_its_own_bytes() {
    let (_folder, _, stub) = good();
    let server = started(&stub).await;
    let minted = server.mint(&of_a_pod(ISSUER, 600)).await.unwrap();
    let sent = stub.script().claims[0].clone();
    assert_eq!(minted.token.split('.').nth(1), Some(sent.as_str()));
    let claims: Value = serde_json::from_slice(&b64::decode(&sent).unwrap()).unwrap();
    let names: Vec<_> = claims.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["aud", "exp", "iat", "iss", "jti", "kubernetes.io", "nbf", "sub"]);
    // A signer that writes the claims anew makes signatures over something else.
    let key = SigningKey::new(Algorithm::Es256);
    stub.script().keys = keys(&[&key], 2, 60);
    stub.script().signs = Arc::new(move |claims| {
        let value: Value = serde_json::from_slice(&b64::decode(claims).unwrap()).unwrap();
        let anew = b64::encode(serde_json::to_string_pretty(&value).unwrap().as_bytes());
        Ok(key.sign_under(&key.header(), &anew))
    });
    let token = mint(&server).await.unwrap();
    assert_eq!(server.authenticate(&token).await.unwrap_err().0, 401);
}

#[tokio::test]
async fn headers_are_refused_that_are_not_exactly_alg_kid_and_typ() {
    let (_folder, key, stub) = good();
    let server = started(&stub).await;
    let kid = key.1.clone();
    let long = "k".repeat(1_025);
    for (header, why) in [
        (format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"at+jwt"}}"#), "bad type"),
        (format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#), "bad type"),
        (format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"jwt"}}"#), "bad type"),
        (format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"JWT","jku":"x"}}"#), "unknown field"),
        (format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"JWT","crit":[]}}"#), "unknown field"),
        (format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"JWT","b64":true}}"#), "unknown field"),
        (format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"JWT"}}"#), "bad signing algorithm"),
        (format!(r#"{{"alg":"PS256","kid":"{kid}","typ":"JWT"}}"#), "bad signing algorithm"),
        (format!(r#"{{"alg":"none","kid":"{kid}","typ":"JWT"}}"#), "bad signing algorithm"),
        (format!(r#"{{"kid":"{kid}","typ":"JWT"}}"#), "bad signing algorithm"),
        (r#"{"alg":"ES256","typ":"JWT"}"#.to_owned(), "key id missing"),
        (r#"{"alg":"ES256","kid":"","typ":"JWT"}"#.to_owned(), "key id missing"),
        (format!(r#"{{"alg":"ES256","kid":"{long}","typ":"JWT"}}"#), "longer than 1 kb"),
        (r#"{"alg":"ES256","kid":7,"typ":"JWT"}"#.to_owned(), "cannot unmarshal"),
        ("[]".to_owned(), "parsing header JSON"),
        ("{".to_owned(), "parsing header JSON"),
    ] {
        let (signer, under) = (Arc::clone(&key), header.clone());
        stub.script().signs = Arc::new(move |claims| Ok(signer.sign_under(&under, claims)));
        let status = mint(&server).await.unwrap_err();
        assert!(status.0 == 500 && status.1.contains(why), "{header}: {status:?}");
    }
    // Base64url with padding, and the alphabet of RFC 4648 section 4.
    let padded = Arc::clone(&key);
    stub.script().signs = Arc::new(move |claims| {
        let good = padded.sign_under(&padded.header(), claims);
        Ok(SignResponse { header: format!("{}==", good.header), ..good })
    });
    assert!(mint(&server).await.unwrap_err().1.contains("unwrapping header"));
    let unsigned = Arc::clone(&key);
    stub.script().signs = Arc::new(move |claims| {
        let good = unsigned.sign_under(&unsigned.header(), claims);
        Ok(SignResponse { signature: String::new(), ..good })
    });
    assert_eq!(mint(&server).await.unwrap_err(), Status(500, "empty signature returned".into()));
}

#[tokio::test]
async fn the_signers_errors_are_shown_to_whoever_asks() {
    let (_folder, _, stub) = good();
    let server = started(&stub).await;
    stub.script().signs = Arc::new(|_| Err(Failed { code: 7, text: "wrong_issuer: x%20y".into() }));
    let status = mint(&server).await.unwrap_err();
    assert_eq!(status, Status(500, "while signing jwt: wrong_issuer: x y".into()));
}

#[tokio::test]
async fn a_hung_signer_costs_the_caller_34_seconds() {
    let (_folder, _, stub) = good();
    let server = started(&stub).await;
    stub.script().hangs = Duration::from_secs(60);
    let begun = Instant::now();
    let status = mint(&server).await.unwrap_err();
    assert!(status.1.contains("deadline exceeded"), "{status:?}");
    assert!(begun.elapsed() >= SECOND * 34 && begun.elapsed() < SECOND * 60);
}

#[tokio::test]
async fn what_is_not_checked_when_minting_fails_in_use() {
    let (_folder, key, stub) = good();
    let server = started(&stub).await;
    let unpublished = SigningKey::new(Algorithm::Es256);
    let rsa = SigningKey::new(Algorithm::Rs256);
    let (kid, header) = (key.1.clone(), key.header());
    type Signs = Box<dyn Fn(&SigningKey, &str) -> SignResponse + Send + Sync>;
    let under =
        |header: String| -> Signs { Box::new(move |key, claims| key.sign_under(&header, claims)) };
    let cases: Vec<(&str, Signs)> = vec![
        (
            "a wrong signature",
            Box::new(|key, claims| {
                let good = key.sign_under(&key.header(), claims);
                SignResponse { signature: b64::encode(&[7; 64]), ..good }
            }),
        ),
        (
            "DER instead of r||s",
            Box::new(|key, claims| {
                let good = key.sign_under(&key.header(), claims);
                let raw = b64::decode(&good.signature).unwrap();
                SignResponse { signature: b64::encode(&der_of(&raw)), ..good }
            }),
        ),
        (
            "an unpublished kid",
            Box::new(move |_, claims| unpublished.sign_under(&unpublished.header(), claims)),
        ),
        ("an algorithm that is not the key's", under(header.replace("ES256", "ES384"))),
        (
            "RSA under an EC key's name",
            Box::new(move |key, claims| {
                rsa.sign_under(&key.header().replace("ES256", "RS256"), claims)
            }),
        ),
        (
            "a repeated member",
            under(format!(r#"{{"alg":"ES384","alg":"ES256","kid":"{kid}","typ":"JWT"}}"#)),
        ),
        ("trailing JSON", under(format!("{header}{{}}"))),
    ];
    for (what, signs) in cases {
        let key = Arc::clone(&key);
        stub.script().signs = Arc::new(move |claims| Ok(signs(&key, claims)));
        let token = mint(&server).await.unwrap_or_else(|e| panic!("{what} is minted: {e:?}"));
        let status = server.authenticate(&token).await.unwrap_err();
        assert_eq!(status.0, 401, "{what}");
    }
}

/// An ECDSA signature as ASN.1 has it.
fn der_of(raw: &[u8]) -> Vec<u8> {
    let integer = |half: &[u8]| {
        let start = half.iter().position(|byte| *byte != 0).unwrap_or(half.len() - 1);
        let mut digits = half[start..].to_vec();
        if digits[0] & 0x80 != 0 {
            digits.insert(0, 0);
        }
        [&[2, u8::try_from(digits.len()).unwrap()], digits.as_slice()].concat()
    };
    let (r, s) = raw.split_at(raw.len() / 2);
    let body = [integer(r), integer(s)].concat();
    [&[0x30, u8::try_from(body.len()).unwrap()], body.as_slice()].concat()
}

// Outage.

#[tokio::test]
async fn tokens_outlive_the_signer_and_minting_waits_for_the_callers_own_limit() {
    let (_folder, _, mut stub) = good();
    stub.script().keys.refresh_hint_seconds = 1;
    let server = started(&stub).await;
    let token = mint(&server).await.unwrap();
    stub.vanish();
    // A call over the connection that is just breaking fails with it; the next one waits.
    let mut waited = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        server.mint_within(&request(ISSUER, 600), SECOND * 8).await.unwrap_err();
        waited.push(begun.elapsed());
    }
    assert!(waited.iter().filter(|waited| **waited >= SECOND * 8).count() >= 3, "{waited:?}");
    server.authenticate(&token).await.unwrap();
    // A caller that waits longer gets its token when the signer is back.
    let waiting = tokio::spawn({
        let server = server.clone();
        async move { mint(&server).await }
    });
    tokio::time::sleep(SECOND * 4).await;
    stub.listen();
    server.authenticate(&waiting.await.unwrap().unwrap()).await.unwrap();
    server.end();
}
