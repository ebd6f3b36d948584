//! The logs over HTTP: checkpoints, tiles of every width, bundles, proofs.

use chancery_testkit::{Answer, Lab, WebLog, wait_until};
use chancery_tlog::{
    Checkpoint, EntriesTileId, Hash, TILE_WIDTH, TileId, TlogProof, consistency_proof,
    decode_entries, leaf_hash, root_from_tiles, tiles_for_size, verify_consistency,
};
use chancery_validate::log::{LogReader, Search};
use serde_json::json;
use std::time::Duration;

use super::{AUDIENCE, assert_problem, lab, living_log};

struct Served<'a>(&'a Lab, String);

impl Served<'_> {
    fn get(&self, path: &str) -> Answer {
        self.0.web.get(&format!("{}/{path}", self.1))
    }
}

impl chancery_tlog::TileSource for Served<'_> {
    type Error = String;

    fn tile(&self, id: TileId) -> Result<Vec<u8>, String> {
        let answer = self.get(&id.path());
        assert_eq!(answer.status, 200, "{}: {}", id.path(), answer.text());
        assert!(answer.header("cache-control").contains("immutable"));
        assert_eq!(answer.body.len(), id.byte_len(), "{}", id.path());
        Ok(answer.body)
    }
}

/// Checkpoints of many sizes, some of them past the first full tile.
fn grow(lab: &Lab, log: &WebLog) -> Vec<Checkpoint> {
    let client = lab.demo();
    let mut checkpoints = vec![log.latest()];
    for number in [1, 1, 2, 3, 7, 40, 90, 1, 120, 5, 256, 1] {
        let answer = lab.issue(&client, "consumers", vec![json!({"aud": AUDIENCE}); number]);
        assert_eq!(answer.status, 200, "{}", answer.text());
        checkpoints.push(log.latest());
    }
    checkpoints
}

fn check_every_size(lab: &Lab, checkpoints: &[Checkpoint]) {
    let served = Served(lab, format!("{}/log/{}", lab.url(), lab.log_id()));
    for checkpoint in checkpoints {
        // Of every level the tiles that this size had, partial ones too, and nothing wider.
        let root = root_from_tiles(&served, checkpoint.size).unwrap();
        assert_eq!(root, checkpoint.root, "size {}", checkpoint.size);
        for tile in tiles_for_size(checkpoint.size) {
            chancery_tlog::TileSource::tile(&served, tile).unwrap();
        }
        for index in 0..checkpoint.size.div_ceil(TILE_WIDTH) {
            let id = EntriesTileId::at(index, checkpoint.size).unwrap();
            let answer = served.get(&id.path());
            assert_eq!(answer.status, 200, "{}: {}", id.path(), answer.text());
            let entries = decode_entries(&answer.body, usize::from(id.width)).unwrap();
            let hashes = chancery_tlog::TileSource::tile(&served, id.hashes()).unwrap();
            for (entry, hash) in entries.iter().zip(hashes.chunks(32)) {
                assert_eq!(leaf_hash(entry).0, hash);
            }
        }
    }
    for pair in checkpoints.windows(2) {
        let (old, new) = (&pair[0], &pair[1]);
        let proof = consistency_proof(&served, old.size, new.size).unwrap();
        verify_consistency(old.size, &old.root, new.size, &new.root, &proof).unwrap();
    }
}

#[test]
fn tiles_of_every_checkpoint_are_served_for_good() {
    let mut lab = lab();
    let log = living_log(&lab);
    let checkpoints = grow(&lab, &log);
    assert!(checkpoints.last().unwrap().size > 2 * TILE_WIDTH);
    check_every_size(&lab, &checkpoints);
    // The same from the store, after the memory of the process is gone.
    lab.kill_service();
    lab.start();
    check_every_size(&lab, &checkpoints);
    wait_until("everything in the store", Duration::from_secs(20), || {
        let text = lab.web.get(&format!("{}/metrics", lab.admin_url())).text();
        let of = |name: &str| {
            text.lines().find_map(|l| l.strip_prefix(name)).map(str::trim).map(str::to_owned)
        };
        of("chancery_published_entries ") == of("chancery_log_entries ")
    });
    check_every_size(&lab, &checkpoints);
}

#[test]
fn what_is_not_in_the_log_is_not_served() {
    let lab = lab();
    let size = living_log(&lab).latest().size;
    assert!(size < 200);
    let url = format!("{}/log/{}", lab.url(), lab.log_id());
    let get = |path: &str| lab.web.get(&format!("{url}/{path}"));
    for path in [
        "tile/0/000",
        "tile/0/001",
        "tile/0/000.p/250",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/000.p/250",
        "tile/entries/x001/000",
        "tile/63/x999/x999/999",
    ] {
        assert_problem(&get(path), 404, "not_in_log");
    }
    for path in [
        "tile/0/0",
        "tile/0/0000",
        "tile/00/000",
        "tile/64/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p",
        "tile/data/000",
        "tile/0/x000/000",
        "tile/0/%2e%2e/000",
        "tile/x",
        "tile/0/000/",
    ] {
        assert_problem(&get(path), 404, "not_a_tile");
    }
    assert_problem(&get(&format!("proof/{}", size + 1_000)), 404, "not_in_log");
    for index in ["x", "-1", "1.0", "18446744073709551616"] {
        assert_problem(&get(&format!("proof/{index}")), 400, "not_an_index");
    }
    let stranger = format!("{}/log/AAAAAAAAAAAAAAAAAAAAAA", lab.url());
    for path in ["checkpoint", "tile/0/000", "proof/0", "keys.jwt", "vkey"] {
        assert_problem(&lab.web.get(&format!("{stranger}/{path}")), 404, "unknown_log");
        for id in ["short", "AAAAAAAAAAAAAAAAAAAAAB", "%2e%2e", "..%2f..%2fetc"] {
            let answer = lab.web.get(&format!("{}/log/{id}/{path}", lab.url()));
            assert_problem(&answer, 404, "not_a_log_id");
        }
    }
    for path in ["closing.json", "nothing", ""] {
        assert_problem(&get(path), 404, "not_found");
    }
}

#[test]
fn every_entry_can_be_proved() {
    let lab = lab();
    let log = living_log(&lab);
    let _ = grow(&lab, &log);
    let (entries, key) = (log.entries(), log.key());
    for (index, entry) in entries.iter().enumerate().step_by(17) {
        let url = format!("{}/log/{}/proof/{index}", lab.url(), lab.log_id());
        let answer = lab.web.get(&url);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let proof = TlogProof::parse(&answer.body).unwrap();
        assert_eq!(proof.index, index as u64);
        proof.verify(&leaf_hash(entry), std::slice::from_ref(&key)).unwrap();
    }
}

#[test]
fn every_entry_is_found_by_its_digest() {
    let mut lab = lab();
    let log = living_log(&lab);
    let _ = grow(&lab, &log);
    let base = format!("{}/log/{}", lab.url(), lab.log_id());
    let url = |leaf: &Hash| format!("{base}/{}", Search::path(leaf));
    let check = |lab: &Lab| {
        let entries = log.entries();
        for (index, entry) in entries.iter().enumerate().step_by(13) {
            let answer = lab.web.get(&url(&leaf_hash(entry)));
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.json()["index"], index, "{}", answer.text());
            assert!(answer.json()["searched"].as_u64() >= Some(entries.len() as u64));
            assert_eq!(answer.header("cache-control"), "no-store");
        }
        let answer = lab.web.get(&url(&leaf_hash(b"nobody's")));
        assert_problem(&answer, 404, "not_in_log");
        assert!(answer.json()["searched"].as_u64() >= Some(entries.len() as u64));
        assert_eq!(answer.json().get("index"), None);
    };
    check(&lab);
    // An index can be deleted at any time.
    lab.kill_service();
    std::fs::remove_dir_all(lab.data().join("digests")).unwrap();
    lab.start();
    check(&lab);

    let of = |digest: &str| lab.web.get(&format!("{base}/by-digest/{digest}"));
    let good = "ab".repeat(32);
    for bad in ["x", "", "ab", &good.to_uppercase(), &format!("{good}00"), &good.replace('a', "g")]
    {
        let answer = of(bad);
        if bad.is_empty() {
            assert_problem(&answer, 404, "not_found");
        } else {
            assert_problem(&answer, 400, "not_a_digest");
        }
    }
    let stranger = format!("{}/log/AAAAAAAAAAAAAAAAAAAAAA/by-digest/{good}", lab.url());
    assert_problem(&lab.web.get(&stranger), 404, "unknown_log");
}

#[test]
fn a_dead_signers_log_is_served_on() {
    let lab = lab();
    let log = living_log(&lab);
    let id = lab.log_id();
    let _ = lab.token(&lab.demo(), "consumers", AUDIENCE);
    lab.kill_signer();
    wait_until("a successor", Duration::from_secs(30), || {
        lab.is_ready() && lab.signers().iter().any(|s| s["attached"] == true && s["log_id"] != id)
    });
    let last = log.latest();
    assert_eq!(log.entries().len() as u64, last.size);
    assert!(log.vkey().unwrap().contains(&id));
    let keys = lab.web.get(&format!("{}/log/{id}/keys.jwt", lab.url()));
    assert_eq!(keys.status, 200);
    assert_ne!(lab.log_id(), id);
}
