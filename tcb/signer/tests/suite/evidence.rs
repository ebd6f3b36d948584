//! Evidence is bound to the signer's identity and policy, and stands in its genesis.

use chancery_entry::evidence::Statement;
use chancery_entry::{Entry, sha256};
use chancery_signer_api::{Appraised, EvidenceRequest, FaultCode, MadeEvidence, Request, Response};
use serde_json::Value;

use crate::support::Host;

fn evidence(host: &mut Host, nonce: &[u8]) -> MadeEvidence {
    let request = EvidenceRequest { nonce: nonce.to_vec().into() };
    match host.signer.handle(Request::Evidence(request)) {
        Response::Evidence(made) => made,
        other => panic!("no evidence: {other:?}"),
    }
}

fn statement(made: &MadeEvidence) -> Statement {
    Statement {
        identity_keys: made.identity_keys.iter().map(|key| key.to_vec()).collect(),
        policy_digest: *made.policy_digest,
        nonce: made.nonce.to_vec(),
    }
}

fn report_data(made: &MadeEvidence) -> String {
    let document: Value = serde_json::from_str(&made.evidence).unwrap();
    assert_eq!(document["kind"], "software");
    document["report_data"].as_str().unwrap().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn genesis_names_evidence_that_is_bound_to_identity_and_policy() {
    let mut host = Host::started();
    let made = evidence(&mut host, &[]);
    let Some(Entry::Genesis(genesis)) = host.entries().into_iter().next() else { panic!() };
    assert_eq!(genesis.evidence_digest, Some(sha256(made.evidence.as_bytes())));
    assert_eq!(*made.policy_digest, genesis.policy_digest);
    assert_eq!(made.identity_keys[0][0], 1);
    assert_eq!(made.identity_keys[0][1..], host.identity);
    let cosigning = genesis.cosigning_key.unwrap();
    assert_eq!((made.identity_keys[1][0], &made.identity_keys[1][1..]), (6, &*cosigning));
    assert_eq!(made.identity_keys.len(), 2);
    assert_eq!(report_data(&made), hex(&statement(&made).report_data().unwrap()));
    assert_eq!(evidence(&mut host, &[]), made);
}

#[test]
fn a_nonce_makes_evidence_anew() {
    let mut host = Host::started();
    let first = evidence(&mut host, &[]);
    let fresh = evidence(&mut host, &[7; 16]);
    assert_eq!(fresh.nonce.to_vec(), [7; 16]);
    assert_eq!(fresh.identity_keys, first.identity_keys);
    assert_ne!(report_data(&fresh), report_data(&first));
    assert_eq!(report_data(&fresh), hex(&statement(&fresh).report_data().unwrap()));
    for length in [1, 7, 65, 4_096] {
        let request = EvidenceRequest { nonce: vec![0; length].into() };
        assert_eq!(host.fault(Request::Evidence(request)), FaultCode::Evidence, "{length}");
    }
}

#[test]
fn how_the_service_appraised_it_is_logged_as_its_word() {
    let mut host = Host::started();
    let appraised = Appraised {
        at: 5,
        evidence: [1; 32].into(),
        policy: [2; 32].into(),
        accepted: false,
        result: [3; 32].into(),
    };
    assert_eq!(host.signer.handle(Request::Appraised(appraised)), Response::Noted);
    host.prepare(vec![]);
    host.commit();
    let logged = chancery_entry::Appraised {
        at: 5,
        evidence: [1; 32],
        policy: [2; 32],
        accepted: false,
        result: [3; 32],
    };
    assert!(host.entries().contains(&Entry::Appraised(logged)));
}
