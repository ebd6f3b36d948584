//! A bucket that is slow, or away, while tokens are asked for; and one that somebody else changed.

use super::gate::Gate;
use super::*;

/// A lab on S3 behind a gate.
fn lab_behind(gate: &Gate, durability: &str, client: &TestClient) -> Lab {
    let mut lab = Lab::new(CHANCERY);
    let place = Place { scheme: "s3", endpoint: Some(gate.url()) };
    let storage = place.table(&lab, durability);
    configure(&mut lab, &storage, client);
    lab.start();
    lab
}

fn gate() -> Option<Gate> {
    Some(Gate::to(&Place::s3()?.endpoint?))
}

#[test]
fn under_local_a_bucket_that_is_away_holds_up_publishing_and_nothing_else() {
    let Some(gate) = gate() else { return };
    let client = client();
    let mut lab = lab_behind(&gate, "local", &client);
    let mut received = tokens_in(&batch(&lab, &client, 256));
    gate.close();
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    while started.elapsed() < Duration::from_secs(6) {
        let asked = Instant::now();
        received.extend(tokens_in(&batch(&lab, &client, 10)));
        slowest = slowest.max(asked.elapsed());
        // As many as this small write-ahead log holds: a quick machine would fill it.
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("away for 6 s: {} tokens, the slowest answer {slowest:?}", received.len());
    assert!(slowest < Duration::from_secs(3), "nobody waits for the bucket: {slowest:?}");
    wait_until("a failure to publish", PATIENCE, || {
        metric(&lab, "chancery_publish_failures_total") > 0.0
    });
    assert!(lab.is_ready());
    // Killed meanwhile: the write-ahead log has what the bucket lacks.
    lab.kill_service();
    gate.open();
    lab.start();
    check(&lab, &received, &[lab.log_id()]);
    wait_until("publishing", PATIENCE, || {
        metric(&lab, "chancery_published_entries") > received.len() as f64
    });
}

#[test]
fn under_store_nothing_is_released_while_the_bucket_is_away() {
    let Some(gate) = gate() else { return };
    let client = client();
    let mut lab = lab_behind(&gate, "store", &client);
    let mut received = tokens_in(&batch(&lab, &client, 256));
    gate.close();
    let log = lab.log_id();
    let size = || {
        let note = lab.web.get(&format!("{}/log/{log}/checkpoint", lab.url())).text();
        note.lines().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = size();
    for _ in 0..2 {
        let answer = batch(&lab, &client, 10);
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
    }
    wait_until("not ready", PATIENCE, || !lab.is_ready());
    // An empty batch may have been on its way when the gate closed.
    assert!(size() <= before + 1, "nothing is visible before the bucket has it");
    gate.open();
    lab.wait_ready();
    wait_until("issuing again", PATIENCE, || {
        let answer = batch(&lab, &client, 10);
        if answer.status == 200 {
            received.extend(tokens_in(&answer));
        }
        answer.status == 200
    });
    check(&lab, &received, std::slice::from_ref(&log));
    lab.kill_service();
    std::fs::remove_dir_all(lab.data().join("wal")).unwrap();
    lab.start();
    assert_eq!(lab.log_id(), log);
    check(&lab, &received, &[log]);
}

#[test]
fn a_slow_bucket_delays_only_those_who_asked_it_to() {
    let Some(gate) = gate() else { return };
    let client = client();
    for durability in ["local", "store"] {
        let lab = lab_behind(&gate, durability, &client);
        gate.slow_down(Duration::from_millis(100));
        let mut received = Vec::new();
        let mut times = Vec::new();
        for _ in 0..10 {
            let asked = Instant::now();
            received.extend(tokens_in(&batch(&lab, &client, 10)));
            times.push(asked.elapsed());
        }
        times.sort();
        println!("answers 100 ms slower, durability={durability}: median {:?}", times[5]);
        // Tiles at the same time, then the checkpoint: two answers of the bucket.
        let waits = times[0] >= Duration::from_millis(200);
        assert_eq!(waits, durability == "store", "{times:?}");
        check(&lab, &received, &[lab.log_id()]);
        gate.slow_down(Duration::ZERO);
    }
}

#[test]
fn a_second_writer_in_a_bucket_is_found_and_stops_the_service() {
    let Some(place) = Place::s3() else { return };
    let (runtime, bucket) = (runtime(), place.bucket().unwrap());
    let client = client();
    for durability in ["local", "store"] {
        let mut lab = Lab::new(CHANCERY);
        let storage = place.table(&lab, durability);
        configure(&mut lab, &storage, &client);
        lab.start();
        let _ = lab.token(&client, "r", AUDIENCE);
        let log = lab.log_id();
        let path = Path::from(format!("{}/log/{log}/checkpoint", prefix_in(&storage)));
        let is_there = || runtime.block_on(bucket.get(&path)).is_ok();
        wait_until("a checkpoint in the bucket", PATIENCE, is_there);
        runtime.block_on(bucket.put(&path, "theirs\n".into())).unwrap();
        let _ = batch(&lab, &client, 1);
        assert_eq!(lab.wait_exit().code, Some(2), "{}", lab.log());
        assert!(lab.log().contains("STORE CONFLICT"), "{}", lab.log());
        assert!(lab.log().contains(&format!("log/{log}/checkpoint")), "{}", lab.log());
        let bytes = async { bucket.get(&path).await.unwrap().bytes().await.unwrap() };
        assert_eq!(runtime.block_on(bytes), "theirs\n", "nothing was overwritten");
    }
}
