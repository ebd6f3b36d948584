//! Threads that judge while key sets change and strangers invent keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chancery_relying_party::{Judgement, RejectionCode};

use crate::publisher::{Publisher, with_unknown_key};
use crate::{party, sleep_ms};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn good_tokens_are_never_rejected_in_a_storm_of_invented_keys_and_rotations() {
    let mut publisher = Publisher::start().await;
    publisher.say(Some("max-age=1"), None);
    let party = party(&publisher).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (judged, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let first = publisher.token();
    let mut threads = Vec::new();
    for thread in 0..2 {
        let (party, token, stop) = (party.clone(), first.clone(), Arc::clone(&stop));
        let (judged, refused) = (Arc::clone(&judged), Arc::clone(&refused));
        threads.push(std::thread::spawn(move || {
            let mut number = thread;
            while !stop.load(Ordering::Relaxed) {
                match party.judge(&token) {
                    Judgement::Decided(Ok(_)) => judged.fetch_add(1, Ordering::Relaxed),
                    other => panic!("{other:?}"),
                };
                number += 2;
                match party.judge(&with_unknown_key(&token, number)) {
                    Judgement::NeedsIo => {}
                    Judgement::Decided(Err(rejection)) => {
                        assert_eq!(rejection.code(), RejectionCode::UnknownKey);
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }));
    }
    for number in 0..8 {
        sleep_ms(350).await;
        publisher.add_key();
        party.validate(&publisher.token()).await.unwrap();
        let _ = party.validate(&with_unknown_key(&first, 1_000_000 + number)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    }
    assert!(judged.load(Ordering::Relaxed) > 100 && refused.load(Ordering::Relaxed) > 100);
    let fetches = publisher.count(Publisher::KEYS);
    assert!((8..=14).contains(&fetches), "{fetches} fetches in about 3 s");
    assert!(party.status().issuers[0].age_ms < Some(Duration::from_secs(2).as_millis() as u64));
}
