//! From a token to its signer's evidence: what a service publishes, a bundle of it, and the walk along
//! it when the service is gone (INVARIANT I8).

#![expect(clippy::unwrap_used, reason = "tests fail where they are wrong")]

use std::fs;
use std::path::PathBuf;

use chancery_testkit::{ClientText, Lab, RealmText, TestClient, grant};
use chancery_token::Algorithm;
use serde_json::Value;

const AUDIENCE: &str = "https://api.example";
const SOFTWARE: &str = "version = 1\nkinds = [\"software\"]\n";
const NITRO: &str = "version = 1\nkinds = [\"nitro\"]\n[[reference]]\nrelease = \"r\"\n\
    kind = \"nitro\"\nregisters = { pcr0 = \"00112233445566778899aabbccddeeff00112233445566778899\
    aabbccddeeff00112233445566778899aabbccddeeff\" }\n";

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

fn file(lab: &Lab, name: &str, text: &str) -> String {
    let path: PathBuf = lab.folder().join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_token_leads_to_evidence_when_the_service_is_gone() {
    let mut lab = Lab::new(env!("CARGO_BIN_EXE_chancery"));
    lab.start();
    let token = lab.token(&lab.demo(), "consumers", AUDIENCE);
    let made = lab.run(&["bundle", &token]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let second = lab.token(&lab.demo(), "consumers", AUDIENCE);
    let end = lab.stop();
    assert_eq!(end.code, Some(0));
    lab.kill_signer();

    let text = String::from_utf8(made.stdout).unwrap();
    let bundle = file(&lab, "bundle.json", &text);
    let policy = file(&lab, "policy.toml", SOFTWARE);
    let verify = |bundle: &str, policy: &str, token: &str| {
        lab.run_plain(&["attest", "verify", "--bundle", bundle, "--policy", policy, token])
    };
    let walked = verify(&bundle, &policy, &token);
    let told = String::from_utf8_lossy(&walked.stdout).into_owned();
    assert_eq!(walked.status.code(), Some(0), "{told}");
    for step in ["token", "key_signed_token", "announcement_in_log", "token_in_log"] {
        assert!(told.contains(&format!("passed {step} ")), "{step}: {told}");
    }
    assert!(told.contains("accepted: the token's key leads to software evidence"), "{told}");

    // Another token of the same key is not the one that the bundle proves.
    assert_eq!(verify(&bundle, &policy, &second).status.code(), Some(1));
    // No policy for hardware takes software.
    let nitro = file(&lab, "nitro.toml", NITRO);
    assert_eq!(verify(&bundle, &nitro, &token).status.code(), Some(1));
    // A file that is none cannot be judged.
    let broken = file(&lab, "broken.json", &text[..text.len() / 2]);
    assert_eq!(verify(&broken, &policy, &token).status.code(), Some(2));
}

#[test]
fn evidence_is_published_appraised_and_made_anew_for_a_nonce() {
    let mut lab = Lab::new(env!("CARGO_BIN_EXE_chancery"));
    lab.start();
    let log = lab.log_id();
    let url = |path: &str| format!("{}/log/{log}/{path}", lab.url());
    let get = |path: &str| lab.web.try_send("GET", &url(path), &[], b"").unwrap();
    let first = get("evidence");
    assert_eq!(first.status, 200);
    let first = json(&first.body);
    assert_eq!((first["version"].as_u64(), first["nonce"].as_str()), (Some(1), Some("")));
    let result = json(&get("attestation-result").body);
    assert_eq!(result["result"]["accepted"], true);
    assert_eq!(result["result"]["backing"], "none");
    assert_eq!(result["log"], log.as_str());

    let fresh = json(&get("evidence?nonce=00112233445566778899aabbccddeeff").body);
    assert_eq!(fresh["nonce"], "00112233445566778899aabbccddeeff");
    assert_eq!(fresh["identity_keys"], first["identity_keys"]);
    assert_ne!(fresh["evidence"], first["evidence"]);
    // One address may ask about once a second: of many at once most are sent away.
    let answers: Vec<u16> =
        (0..20).map(|_| get("evidence?nonce=0011223344556677").status).collect();
    assert!(answers.contains(&429), "{answers:?}");
    for wrong in ["", "00", "zz", "001122334455667", &"00".repeat(65)] {
        assert_eq!(get(&format!("evidence?nonce={wrong}")).status, 400, "{wrong}");
    }
    let nobody = "A".repeat(22);
    let other = format!("{}/log/{nobody}/evidence", lab.url());
    assert_eq!(lab.web.try_send("GET", &other, &[], b"").unwrap().status, 404);

    // The log says how it was judged, and agrees with itself as a whole.
    let checked = lab.run_plain(&["log", "check", &format!("{}/log/{log}", lab.url())]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn a_service_publishes_no_keys_of_a_signer_whose_evidence_is_refused() {
    let mut lab = Lab::new(env!("CARGO_BIN_EXE_chancery"));
    let policy = file(&lab, "nitro.toml", NITRO);
    let client = TestClient::new("client", Algorithm::Es256);
    let grants = [grant("all", &[AUDIENCE], "")];
    let clients = vec![ClientText::new(&client, "", &grants)];
    let realm = RealmText { name: "consumers", algorithms: &["ES256"], schedule: "", clients };
    lab.configure(&format!("[attestation]\npolicy = \"{policy}\"\n"), &[realm]);
    lab.spawn();
    let exit = lab.wait_exit();
    assert_eq!(exit.code, Some(2), "{}", lab.log());
    assert!(lab.log().contains("evidence is not accepted"), "{}", lab.log());
}
