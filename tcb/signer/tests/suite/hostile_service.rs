//! A hostile service: it drops, reorders, replays, withholds and alters what it carries, and never
//! acknowledges. It gets no signature for an entry that it did not acknowledge. What every honest
//! step checks is in `support`: each token that comes out is verified against the committed log.

use crate::support::*;
use chancery_entry::{Entry, VoidReason};
use chancery_signer_api::*;
use chancery_tlog::{Checkpoint, empty_root};
use serde_json::json;

fn commit_of(batch: u64) -> Request {
    Request::Commit(Commit { batch })
}

#[test]
fn the_log_opens_with_genesis_policy_and_the_first_key() {
    let host = Host::started();
    let entries = host.entries();
    let Entry::Genesis(genesis) = &entries[0] else { panic!("{:?}", entries[0]) };
    let digest = chancery_entry::sha256(&host.policy.to_json().unwrap());
    assert_eq!(genesis.policy_digest, digest);
    assert_eq!(genesis.predecessor, None);
    assert_eq!(genesis.started_at, START_MS / 1_000);
    assert!(matches!(&entries[1], Entry::Policy(p) if p.version == 1 && p.digest == digest));
    let Entry::Announcement(first) = &entries[2] else { panic!("{:?}", entries[2]) };
    assert_eq!(first.start, chancery_entry::Start::First);
    assert_eq!(entries.len(), 3);
}

#[test]
fn tokens_come_out_of_a_committed_batch_only_and_once() {
    let mut host = Host::started();
    let first = host.assertion();
    let second = host.assertion();
    let one = host.prepare(vec![first]);
    let two = host.prepare(vec![second]);
    assert_eq!((one.batch, two.batch), (2, 3));
    for wrong in [0, 1, two.batch, two.batch + 1, u64::MAX] {
        assert_eq!(host.fault(commit_of(wrong)), FaultCode::NotOpen, "batch {wrong}");
    }
    assert!(host.commit().tokens[0].is_some());
    assert_eq!(host.fault(commit_of(one.batch)), FaultCode::NotOpen, "a second time");
    assert!(host.commit().tokens[0].is_some());
    assert_eq!(host.fault(commit_of(two.batch)), FaultCode::NotOpen);
}

#[test]
fn no_more_than_two_batches_are_open_and_a_refused_prepare_changes_nothing() {
    let mut host = Host::started();
    host.prepare(Vec::new());
    host.prepare(Vec::new());
    let request = host.assertion();
    let third = Request::Prepare(Prepare { requests: vec![request.clone()], audit: vec![] });
    for _ in 0..3 {
        assert_eq!(host.fault(third.clone()), FaultCode::TooManyOpen);
    }
    host.commit();
    // The proof was not used up.
    assert_eq!(code(&host.prepare(vec![request])), "granted");
    host.commit();
    assert!(host.commit().tokens[0].is_some());
}

#[test]
fn too_many_requests_in_a_frame_are_refused_whole() {
    let mut host = Host::started();
    let request = host.assertion();
    let requests = vec![request.clone(); MAX_TOKENS_PER_FRAME + 1];
    assert_eq!(
        host.fault(Request::Prepare(Prepare { requests, audit: vec![] })),
        FaultCode::Malformed
    );
    assert_eq!(code(&host.prepare(vec![request])), "granted");
}

#[test]
fn every_message_out_of_its_phase_is_refused() {
    let everything = |host: &Host| {
        vec![
            Request::Hello(Hello { versions: vec![PROTOCOL_VERSION], software: "x".into() }),
            host.start_request(),
            Request::Resume(Resume { size: 0, root: empty_root().0.into() }),
            Request::Prepare(Prepare { requests: Vec::new(), audit: vec![] }),
            commit_of(1),
            Request::LoadPolicy(LoadPolicy { policy: b"{}".to_vec().into() }),
            Request::Rotate(Rotate { realm: "consumers".into() }),
            Request::Compromise(Compromise { keys: Vec::new(), include_retired: false }),
            Request::Status,
            Request::End,
        ]
    };
    let refused = |host: &mut Host, accepted: &[usize]| {
        for (at, request) in everything(host).into_iter().enumerate() {
            if !accepted.contains(&at) {
                assert_eq!(host.fault(request), FaultCode::Phase, "message {at}");
            } else if at == 9 {
                assert_eq!(host.signer.handle(request), Response::Ending);
            }
        }
    };
    let mut host = Host::fresh(|_| {});
    refused(&mut host, &[0]);
    assert!(host.hello().fresh);
    refused(&mut host, &[1, 9]);
    let start = host.start_request();
    let prepared = host.prepared(start.clone());
    assert_eq!(host.fault(start), FaultCode::Phase, "there is one start");
    refused(&mut host, &[3, 4, 5, 6, 7, 8, 9]);
    host.open.push(prepared);
    host.commit();
    host.signer.connected();
    refused(&mut host, &[0]);
    assert!(!host.hello().fresh);
    refused(&mut host, &[2, 9]);
    assert!(host.reconnect().open.is_empty());
    refused(&mut host, &[3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn versions_that_the_signer_does_not_speak_are_refused() {
    let mut host = Host::fresh(|_| {});
    for versions in [vec![], vec![0], vec![PROTOCOL_VERSION + 1, 900]] {
        let hello = Request::Hello(Hello { versions, software: "x".into() });
        assert_eq!(host.fault(hello), FaultCode::Version);
    }
    let welcome = host.hello();
    assert_eq!((welcome.version, welcome.fresh), (PROTOCOL_VERSION, true));
}

#[test]
fn a_start_that_is_refused_leaves_the_signer_fresh() {
    let mut host = Host::fresh(|_| {});
    host.hello();
    for policy in [b"".to_vec(), b"{}".to_vec(), vec![b'['; 10_000], b"{\"version\":1}".to_vec()] {
        let start = Start { policy: policy.into(), predecessor: None, compromised: Vec::new() };
        assert_eq!(host.fault(Request::Start(start)), FaultCode::Policy);
    }
    let start = host.start_request();
    let prepared = host.prepared(start);
    assert_eq!((prepared.batch, prepared.first_index, prepared.entries.len()), (1, 0, 3));
}

#[test]
fn a_batch_that_is_not_committed_in_time_never_comes_out() {
    let mut host = Host::started();
    let request = host.assertion();
    let prepared = host.prepare(vec![request.clone()]);
    let index = granted(&prepared)[0].index;
    host.pass_ms(29_000);
    host.signer.tick().unwrap();
    host.pass_ms(1_000);
    host.signer.tick().unwrap();
    assert_eq!(host.commit().tokens, [None]);
    let after = host.prepare(vec![request]);
    assert_eq!(code(&after), "proof_replayed", "the proof is used up");
    assert!(after.notices.iter().any(|n| n.code == "voided"));
    host.commit();
    assert_eq!(host.voids(), [(index, VoidReason::NotCommitted)]);
}

#[test]
fn the_bound_holds_between_two_sweeps_too() {
    let mut host = Host::started();
    let request = host.assertion();
    host.prepare(vec![request]);
    host.pass_ms(30_000);
    assert_eq!(
        host.commit().tokens,
        [None],
        "no sweep has come, the commit is too late all the same"
    );
    host.prepare(Vec::new());
    host.commit();
    assert_eq!(host.voids().len(), 1);
}

#[test]
fn a_batch_committed_just_in_time_comes_out() {
    let mut host = Host::started();
    let request = host.assertion();
    host.prepare(vec![request]);
    host.pass_ms(29_999);
    host.signer.tick().unwrap();
    assert!(host.commit().tokens[0].is_some());
}

#[test]
fn a_new_service_gets_open_batches_again_byte_for_byte() {
    let mut host = Host::started();
    let (a, b) = (host.assertion(), host.assertion());
    let one = host.prepare(vec![a]);
    let two = host.prepare(vec![b]);
    for _ in 0..3 {
        let resumed = host.reconnect();
        assert_eq!(resumed.open, [one.clone(), two.clone()]);
        assert_eq!(Some(&resumed.keys_jwt), host.keys_jwt.as_ref());
        assert_eq!(resumed.policy_version, 1);
    }
    assert!(host.commit().tokens[0].is_some());
    let resumed = host.reconnect();
    assert_eq!(resumed.open, [two]);
    assert!(host.commit().tokens[0].is_some());
    assert!(host.reconnect().open.is_empty());
}

#[test]
fn a_service_that_stored_a_batch_without_its_commit_goes_on_from_there() {
    let mut host = Host::started();
    let request = host.assertion();
    let prepared = host.prepare(vec![request]);
    let before = host.log.clone();
    host.log.extend(prepared.entries.iter().map(|e| e.to_vec()));
    let resumed = host.reconnect();
    assert_eq!(resumed.open, [prepared]);
    host.log = before;
    assert!(host.commit().tokens[0].is_some());
}

#[test]
fn a_service_that_died_before_its_first_commit_holds_nothing_and_goes_on() {
    let mut host = Host::fresh(|_| {});
    host.hello();
    let start = host.start_request();
    let prepared = host.prepared(start);
    let resumed = host.reconnect();
    assert_eq!(resumed.open, std::slice::from_ref(&prepared));
    assert_eq!(resumed.keys_jwt, "");
    host.open.push(prepared);
    host.commit();
    assert!(!host.published().is_empty());
}

#[test]
fn storage_that_was_rolled_back_or_rewritten_is_found_out() {
    let mut host = Host::started();
    host.token();
    host.token();
    let whole = host.log.clone();
    let mut rewritten = whole.clone();
    rewritten[3][40] ^= 1;
    let mut swapped = whole.clone();
    let last = swapped.len() - 1;
    swapped.swap(last, last - 1);
    let mut longer = whole.clone();
    longer.push(vec![0]);
    let short = whole[..last].to_vec();
    for wrong in [Vec::new(), short, rewritten, swapped, longer] {
        host.log = wrong;
        host.signer.connected();
        host.hello();
        let resume = host.resume_request();
        assert_eq!(host.fault(resume), FaultCode::StorageLost);
        let prepare = Request::Prepare(Prepare { requests: Vec::new(), audit: vec![] });
        assert_eq!(host.fault(prepare), FaultCode::Phase, "nothing is signed on top of it");
    }
    host.log = whole;
    let resume = host.resume_request();
    assert!(matches!(host.signer.handle(resume), Response::Resumed(_)), "the right data heal it");
    host.token();
}

#[test]
fn a_size_with_the_wrong_root_is_not_believed() {
    let mut host = Host::started();
    let root = host.root().0;
    host.signer.connected();
    host.hello();
    let size = host.log.len() as u64;
    for (size, root) in [(size, [0; 32]), (size - 1, root), (size + 1, root), (0, root)] {
        let resume = Request::Resume(Resume { size, root: root.into() });
        assert_eq!(host.fault(resume), FaultCode::StorageLost);
    }
}

#[test]
fn genesis_names_the_predecessor_that_the_signer_verified() {
    let mut dead = Host::started();
    dead.token();
    let prepared = dead.prepare(Vec::new());
    let vkey = dead.vkey().to_string();
    let named = Predecessor { vkey: vkey.clone(), checkpoint: prepared.checkpoint.clone() };
    let start = |host: &Host, predecessor: &Predecessor| {
        Request::Start(Start {
            policy: host.policy.to_json().unwrap().into(),
            predecessor: Some(predecessor.clone()),
            compromised: Vec::new(),
        })
    };
    let mut host = Host::fresh(|_| {});
    host.hello();
    let mut stranger = Host::fresh(|_| {});
    stranger.hello();
    let size = format!("\n{}\n", dead.log.len());
    assert!(prepared.checkpoint.contains(&size));
    let forged = [
        // A size that was never signed.
        Predecessor {
            checkpoint: prepared.checkpoint.replacen(&size, "\n9\n", 1),
            ..named.clone()
        },
        Predecessor { checkpoint: String::new(), ..named.clone() },
        Predecessor { vkey: String::new(), ..named.clone() },
        // Somebody else's key, and the right key under another name.
        Predecessor { vkey: stranger.vkey().to_string(), ..named.clone() },
        Predecessor { vkey: vkey.replacen("issuer", "issuet", 1), ..named.clone() },
    ];
    for forged in forged {
        assert_eq!(host.fault(start(&host, &forged)), FaultCode::Predecessor, "{forged:?}");
    }
    let own = start(&host, &named);
    let prepared = host.prepared(own);
    let Entry::Genesis(genesis) = Entry::decode(&prepared.entries[0]).unwrap() else { panic!() };
    let predecessor = genesis.predecessor.unwrap();
    assert_eq!((predecessor.vkey, predecessor.checkpoint), (named.vkey, named.checkpoint));
}

#[test]
fn a_key_that_does_not_own_its_log_id_is_no_predecessor() {
    let key = chancery_token::SigningKey::generate(
        chancery_token::Algorithm::Ed25519,
        chancery_token::RsaBits::B2048,
    )
    .unwrap();
    let public: [u8; 32] = key.public().raw().try_into().unwrap();
    let vkey = chancery_tlog::note::VerifierKey::new_ed25519(
        "issuer.example/log/AAAAAAAAAAAAAAAAAAAAAA",
        &public,
    )
    .unwrap();
    let checkpoint = Checkpoint::new(vkey.name(), 1, chancery_tlog::leaf_hash(b"x"))
        .unwrap()
        .sign(&vkey, |body| key.sign(body).unwrap())
        .unwrap();
    let mut host = Host::fresh(|_| {});
    host.hello();
    let start = Start {
        policy: host.policy.to_json().unwrap().into(),
        predecessor: Some(Predecessor { vkey: vkey.to_string(), checkpoint }),
        compromised: Vec::new(),
    };
    assert_eq!(host.fault(Request::Start(start)), FaultCode::Predecessor);
}

#[test]
fn a_signature_comes_at_most_two_seconds_after_its_window() {
    for (late_ms, comes) in [(2_900, true), (3_100, false)] {
        // Held by the host between `Prepare` and the signature: the batch was never signed.
        let mut host = Host::started();
        let first_end = host.announced().values().next().unwrap().2;
        let wait = first_end - 1 - host.now_s();
        host.pass_ms(wait * 1_000);
        let request = host.assertion();
        let answer = host
            .signer
            .handle(Request::Prepare(Prepare { requests: vec![request], audit: vec![] }));
        let Response::Prepared(prepared) = answer else { panic!() };
        let index = granted(&prepared)[0].index;
        host.open.push(prepared);
        host.pass_ms(late_ms);
        assert_eq!(host.commit().tokens[0].is_some(), comes, "{late_ms} ms");
        host.prepare(Vec::new());
        host.commit();
        let voids = if comes { vec![] } else { vec![(index, VoidReason::TooLate)] };
        assert_eq!(host.voids(), voids);
    }
}

#[test]
fn contexts_come_back_with_their_decisions_in_order() {
    let mut host = Host::started();
    let mut requests: Vec<_> = (0..5).map(|_| host.assertion()).collect();
    for (at, request) in requests.iter_mut().enumerate() {
        request.context = vec![at as u8; at].into();
    }
    requests[3].context = vec![0; MAX_CONTEXT_BYTES + 1].into();
    requests[4].realm = "nobody".into();
    let sent: Vec<_> = requests.iter().map(|r| r.context.clone()).collect();
    let prepared = host.prepare(requests);
    let back: Vec<_> = prepared.decisions.iter().map(|d| d.context.clone()).collect();
    assert_eq!(back, sent);
    let expected = ["granted", "granted", "granted", "malformed_request", "unknown_realm"];
    assert_eq!(codes(&prepared), expected);
    assert_eq!(prepared.decisions[0].client, "shop");
    assert_eq!(prepared.decisions[4].client, "", "nobody was authenticated");
    assert_eq!(host.commit().tokens.len(), 3);
}

#[test]
fn an_answer_never_outgrows_its_frame() {
    let mut host = Host::started();
    // Long refusals: audiences that are quoted back, in as many requests as a frame takes.
    let long = "\u{e000}".repeat(1_000);
    let requests: Vec<_> =
        (0..20).map(|_| host.signed(json!(vec![json!({"aud": long}); 100]))).collect();
    let prepared = host.prepare(requests);
    let mut frame = Vec::new();
    encode(&Response::Prepared(prepared.clone()), &mut frame).unwrap();
    assert!(codes(&prepared).contains(&"deferred".to_owned()));
    host.commit();
    // Long tokens.
    let claim = "x".repeat(4_000);
    let ask = json!({"claims": {"tier": claim}, "sub": format!("user:{}", "y".repeat(900))});
    let requests: Vec<_> = (0..14).map(|_| host.signed(json!(vec![ask.clone(); 70]))).collect();
    let prepared = host.prepare(requests.clone());
    assert!(codes(&prepared).contains(&"granted".to_owned()));
    assert!(codes(&prepared).contains(&"deferred".to_owned()));
    let committed = host.commit();
    for response in [Response::Prepared(prepared.clone()), Response::Committed(committed)] {
        frame.clear();
        encode(&response, &mut frame).unwrap();
        assert!(frame.len() < MAX_FRAME_BYTES / 2, "{} bytes", frame.len());
    }
    // What was deferred comes later with the same proof.
    let mut left: Vec<_> = requests
        .into_iter()
        .zip(&prepared.decisions)
        .filter(
            |(_, d)| matches!(&d.outcomes[0], Outcome::Refused { code, .. } if code == "deferred"),
        )
        .map(|(r, _)| r)
        .collect();
    for _ in 0..10 {
        let prepared = host.prepare(left.clone());
        host.commit();
        left = left
            .into_iter()
            .zip(&prepared.decisions)
            .filter(|(_, d)| !matches!(d.outcomes[0], Outcome::Granted(_)))
            .map(|(r, _)| r)
            .collect();
    }
    assert!(left.is_empty(), "everything was granted in the end");
}
