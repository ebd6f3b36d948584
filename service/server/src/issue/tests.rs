//! The main job against signers that behave, and against those that do not: every request gets an
//! answer in bounded time, and nothing is acknowledged before it is durable.

mod rig;

use chancery_signer_api::LoadPolicy;

use super::*;
use rig::{Act, FakeSigner, Rig, asked, request};

fn unavailable(result: Result<Vec<Verdict>, Unavailable>) -> &'static str {
    result.expect_err("no signer answered").why
}

#[test]
fn every_request_gets_its_token_after_its_batch_is_durable() {
    let rig = Rig::new("tokens");
    let answers = rig.ask(100);
    let mut signer = FakeSigner::new();
    let log = rig.log.clone();
    let ended = rig.run(
        move |request| {
            if let Request::Commit(_) = &request {
                // INVARIANT I2: the acknowledgement comes after the write-ahead log and the log.
                assert_eq!(log.size_and_root().0, signer.prepared as u64);
            }
            Act::Say(signer.answer(request))
        },
        |rig| {
            for (nth, answer) in answers.into_iter().enumerate() {
                let verdicts = rig.block_on(answer).unwrap().unwrap();
                let [Verdict::Issued(issued)] = verdicts.as_slice() else { panic!("{verdicts:?}") };
                assert_eq!(issued.token, format!("token of request {nth}"));
                assert_eq!((issued.lifetime_s, issued.scope.as_str()), (60, "read"));
            }
            rig.issuer.stop();
        },
    );
    ended.unwrap();
    let size = rig.log.size_and_root().0;
    assert_eq!(size, 100);
    let (_, records) = rig.reopen_wal();
    let entries: usize = records
        .iter()
        .filter_map(|r| Some((r.first_index, crate::audit::split_payload(r).unwrap().1?)))
        .map(|(at, batch)| crate::logs::Batch::decode(at, batch).unwrap().0.entries.len())
        .sum();
    assert_eq!(entries as u64, size, "the write-ahead log holds what was released");
}

/// A way to misbehave: its name, and what the peer does with the requests of each kind.
type Misbehaviour = (&'static str, fn(&Request, &mut FakeSigner) -> Option<Act>);

const MISBEHAVIOURS: &[Misbehaviour] = &[
    ("Fault", |r, _| asked(r).then(|| Act::Say(rig::fault()))),
    ("OutOfStep", |r, _| asked(r).then_some(Act::Say(Response::Ending))),
    ("OutOfStep", |r, _| {
        let early = Committed { batch: 1, tokens: vec![Some("early".into())], keys_jwt: None };
        asked(r).then_some(Act::Say(Response::Committed(early)))
    }),
    ("OutOfStep", |r, s| match r {
        Request::Commit(_) => {
            Some(Act::Say(s.answer(Request::Prepare(Prepare { requests: vec![], audit: vec![] }))))
        }
        _ => None,
    }),
    ("Fault", |r, _| matches!(r, Request::Commit(_)).then(|| Act::Say(rig::fault()))),
    // One answer too many.
    ("OutOfStep", |r, s| {
        asked(r).then(|| {
            Act::Raw([rig::frame(&s.answer(r.clone())), rig::frame(&Response::Ending)].concat())
        })
    }),
    ("Frame", |r, _| asked(r).then(|| Act::Raw(vec![0, 0, 0, 3, 0xff, 0xff, 0xff]))),
    ("Frame", |r, _| asked(r).then(|| Act::Raw(vec![0xff; 64]))),
    ("Frame", |r, s| {
        let mut frame = rig::frame(&s.answer(r.clone()));
        frame.push(0);
        frame[3] += 1;
        asked(r).then_some(Act::Raw(frame))
    }),
    // An end in the middle of a frame, at once, or with the batch open.
    ("", |r, _| asked(r).then(|| Act::RawAndClose(vec![0, 0, 1, 0, 9]))),
    ("", |r, _| asked(r).then(|| Act::RawAndClose(vec![]))),
    ("", |r, _| matches!(r, Request::Commit(_)).then(|| Act::RawAndClose(vec![]))),
    // Nothing at all, with and without reading on.
    ("Silent", |r, _| asked(r).then_some(Act::Nothing)),
    ("Silent", |r, _| matches!(r, Request::Commit(_)).then_some(Act::Nothing)),
    ("Silent", |r, _| asked(r).then_some(Act::Deaf)),
    // Batches that the log refuses.
    ("Log", |r, s| {
        let Response::Prepared(mut p) = s.answer(r.clone()) else { return None };
        p.first_index += 1;
        asked(r).then_some(Act::Say(Response::Prepared(p)))
    }),
    ("Log", |r, s| {
        let Response::Prepared(mut p) = s.answer(r.clone()) else { return None };
        p.checkpoint.clear();
        asked(r).then_some(Act::Say(Response::Prepared(p)))
    }),
];

#[test]
fn whatever_the_signer_does_every_waiting_request_is_answered() {
    for (nth, (expected, misbehave)) in MISBEHAVIOURS.iter().enumerate() {
        let what = format!("misbehaviour {nth}, {expected}");
        let rig = Rig::new(&format!("misbehaviour-{nth}"));
        // More bytes than a socket holds, so that a deaf signer blocks the writer.
        let answers = rig.ask_with(40, 30_000);
        let mut signer = FakeSigner::new();
        let started = Instant::now();
        let ended = rig.run(
            move |request| match misbehave(&request, &mut signer) {
                Some(act) => act,
                None => Act::Say(signer.answer(request)),
            },
            |rig| {
                for answer in answers {
                    // A sender that is gone says the same as an answer.
                    let answer = rig.block_on_within(answer, Duration::from_secs(9));
                    match answer.unwrap_or_else(|| panic!("{what}: no answer")) {
                        Ok(result) => assert_eq!(unavailable(result), "the signer ended", "{what}"),
                        Err(_gone) => {}
                    }
                }
            },
        );
        let kind = match &ended {
            Ok(()) => String::new(),
            Err(e) => format!("{e:?}").split(['(', ' ']).next().unwrap().to_owned(),
        };
        assert_eq!(kind, *expected, "{what}: {ended:?}");
        assert!(started.elapsed() < Duration::from_secs(30), "{what}");
        assert!(!rig.issuer.is_ready());
        let refused = rig.block_on(rig.issuer.call(Request::Status)).unwrap_err();
        assert_eq!(refused.why, "no signer is connected");
        // Nothing that the log refused is in the write-ahead log: recovery would stumble over it.
        let (_, records) = rig.reopen_wal();
        if *expected == "Log" {
            assert!(records.is_empty(), "{what}");
        }
    }
}

#[test]
fn a_signer_that_no_longer_reads_blocks_nobody() {
    let rig = Rig::new("deaf");
    let answers = rig.ask(1);
    let ended = rig.run(
        |_| Act::Deaf,
        |rig| {
            rig.wait_until(|issuer| lock(&issuer.queue).in_flight == 1);
            // More than the socket holds: the writer cannot get rid of it.
            let policy = vec![0; 4 << 20].into();
            let call = rig.issuer.call(Request::LoadPolicy(LoadPolicy { policy }));
            assert_eq!(rig.block_on(call).unwrap_err().why, "the signer did not answer");
            for answer in answers {
                assert_eq!(unavailable(rig.block_on(answer).unwrap()), "the signer ended");
            }
        },
    );
    assert!(matches!(ended, Err(LinkError::Silent)), "{ended:?}");
}

#[test]
fn calls_in_flight_are_answered_when_the_signer_ends() {
    let rig = Rig::new("calls");
    let ended = rig.run(
        |request| match request {
            Request::Status => Act::RawAndClose(vec![]),
            other => Act::Say(FakeSigner::new().answer(other)),
        },
        |rig| {
            rig.wait_until(Issuer::is_ready);
            let answer = rig.block_on(rig.issuer.call(Request::Status));
            assert_eq!(answer.unwrap_err().why, "the signer did not answer");
        },
    );
    ended.unwrap();
}

#[test]
fn a_call_gets_its_own_answer_between_frames() {
    let rig = Rig::new("call");
    let answers = rig.ask(5);
    let mut signer = FakeSigner::new();
    let ended = rig.run(
        move |request| {
            Act::Say(match request {
                Request::End => Response::Ending,
                other => signer.answer(other),
            })
        },
        |rig| {
            rig.wait_until(Issuer::is_ready);
            assert_eq!(rig.block_on(rig.issuer.call(Request::End)), Ok(Response::Ending));
            answers.into_iter().for_each(|a| drop(rig.block_on(a).unwrap().unwrap()));
            rig.issuer.stop();
        },
    );
    ended.unwrap();
}

#[test]
fn a_missing_token_is_void_and_a_missing_decision_is_no_answer() {
    let rig = Rig::new("missing");
    let mut answers = rig.ask(3);
    let mut signer = FakeSigner::new();
    let ended = rig.run(
        move |request| {
            let mut answer = signer.answer(request);
            match &mut answer {
                Response::Prepared(p) => drop(p.decisions.pop().filter(|_| p.decisions.len() > 1)),
                Response::Committed(c) => c.tokens = vec![None],
                _ => {}
            }
            Act::Say(answer)
        },
        |rig| {
            let last = answers.pop().unwrap();
            for answer in answers {
                let verdicts = rig.block_on(answer).unwrap().unwrap();
                let [Verdict::Refused { code, .. }] = verdicts.as_slice() else { panic!() };
                assert_eq!(code, "voided");
            }
            // The sender is gone: `issue` answers that the signer ended.
            rig.block_on(last).unwrap_err();
            rig.issuer.stop();
        },
    );
    ended.unwrap();
}

#[test]
fn a_deferred_request_goes_into_the_next_frame() {
    let rig = Rig::new("deferred");
    let answers = rig.ask(4);
    let mut signer = FakeSigner::new();
    let mut deferred = false;
    let ended = rig.run(
        move |request| {
            let mut answer = signer.answer(request);
            if let Response::Prepared(p) = &mut answer
                && p.decisions.len() > 2
                && !deferred
            {
                deferred = true;
                let code = "deferred".to_owned();
                p.decisions[1].outcomes = vec![Outcome::Refused { code, detail: String::new() }];
                signer.tokens.back_mut().unwrap().remove(1);
            }
            Act::Say(answer)
        },
        |rig| {
            for (nth, answer) in answers.into_iter().enumerate() {
                let verdicts = rig.block_on(answer).unwrap().unwrap();
                let [Verdict::Issued(issued)] = verdicts.as_slice() else { panic!("{verdicts:?}") };
                assert_eq!(issued.token, format!("token of request {nth}"));
            }
            rig.issuer.stop();
        },
    );
    ended.unwrap();
    assert_eq!(lock(&rig.issuer.queue).job_bytes, 0);
}

#[test]
fn the_queue_is_bounded_by_number_and_by_bytes() {
    let rig = Rig::new("bounds");
    let waiting = rig.ask(MAX_QUEUED);
    let full = rig.block_on(rig.issuer.issue(request(0, 0))).unwrap_err();
    assert_eq!((full.why, full.retry_after_s), ("too many requests are waiting", 1));
    assert_eq!(rig.issuer.queued(), MAX_QUEUED);
    drop(waiting);
    // Clients that gave up are not carried to the signer.
    assert!(lock(&rig.issuer.queue).take_frame().is_empty());
    assert_eq!((rig.issuer.queued(), lock(&rig.issuer.queue).job_bytes), (0, 0));

    let mut large = Vec::new();
    while let Ok(answer) = rig.issuer.enqueue(request(0, 1_000_000)) {
        large.push(answer);
    }
    assert_eq!(large.len(), MAX_QUEUED_BYTES / 1_000_300);
    // A frame takes what fits, and a request larger than that alone.
    assert_eq!(lock(&rig.issuer.queue).take_frame().len(), 4);
    let huge = Rig::new("huge");
    let _answer = huge.issuer.enqueue(request(0, 5_000_000)).unwrap();
    assert_eq!(lock(&huge.issuer.queue).take_frame().len(), 1);
}

#[test]
fn a_stopping_service_finishes_what_it_took_and_takes_nothing_new() {
    let rig = Rig::new("stopping");
    let answers = rig.ask(50);
    rig.issuer.stop();
    let refused = rig.block_on(rig.issuer.issue(request(0, 0))).unwrap_err();
    assert_eq!(refused.why, "the service is stopping");
    let mut signer = FakeSigner::new();
    let ended = rig.run(
        move |request| Act::Say(signer.answer(request)),
        |rig| {
            for answer in answers {
                assert_eq!(rig.block_on(answer).unwrap().unwrap().len(), 1);
            }
        },
    );
    ended.unwrap();
}

#[test]
fn a_full_write_ahead_log_says_so_and_releases_nothing_until_it_can_be_written() {
    let rig = Rig::new("full");
    let full_through = rig.fill_wal();
    let answers = rig.ask(3);
    let committed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut signer = FakeSigner::new();
    let seen = committed.clone();
    let ended = rig.run(
        move |request| {
            if let Request::Commit(_) = &request {
                seen.store(true, std::sync::atomic::Ordering::SeqCst);
            }
            Act::Say(signer.answer(request))
        },
        |rig| {
            rig.wait_until(|issuer| lock(&issuer.queue).trouble.is_some());
            assert!(!rig.issuer.is_ready());
            let refused = rig.block_on(rig.issuer.issue(request(0, 0))).unwrap_err();
            assert_eq!(refused.why, "the write-ahead log cannot be written");
            std::thread::sleep(Duration::from_millis(150));
            assert!(!committed.load(std::sync::atomic::Ordering::SeqCst));
            assert_eq!(rig.log.size_and_root().0, 0, "nothing is visible before it is durable");
            // The publisher catches up.
            rig.progress.published.store(full_through, std::sync::atomic::Ordering::Release);
            for answer in answers {
                assert_eq!(rig.block_on(answer).unwrap().unwrap().len(), 1);
            }
            assert!(rig.issuer.is_ready());
            rig.issuer.stop();
        },
    );
    ended.unwrap();
}

#[test]
fn a_service_that_stops_while_the_disk_fails_leaves_the_batch_to_the_next_one() {
    let rig = Rig::new("stop-full");
    rig.fill_wal();
    let answers = rig.ask(1);
    let mut signer = FakeSigner::new();
    let ended = rig.run(
        move |request| Act::Say(signer.answer(request)),
        |rig| {
            rig.wait_until(|issuer| lock(&issuer.queue).trouble.is_some());
            rig.issuer.stop();
            for answer in answers {
                rig.block_on(answer).unwrap_err();
            }
        },
    );
    assert!(matches!(ended, Err(LinkError::Wal(_))), "{ended:?}");
    assert_eq!(rig.log.size_and_root().0, 0);
}
