//! Every tile, bundle and proof, from memory, from the store, and from a log that was opened again.

use chancery_tlog::TlogProof;

use super::support::TestLog;
use super::*;
use crate::store::faulty::{FaultyStore, Objects};

/// Every tile and bundle of every width that the size has, and what lies beyond.
async fn read_everything(test: &TestLog, log: &Log, size: u64, what: &str) {
    for index in 0..=size / TILE_WIDTH + 1 {
        for width in 1..=256_u16 {
            let tile = TileId { level: 0, index, width };
            let bundle = EntriesTileId { index, width };
            if tile.is_within(size) {
                let got = log.tile(tile).await.unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(got, test.tile(tile), "{what}: {tile:?} at {size}");
                let got = log.entries(bundle).await.unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(got, test.bundle(bundle), "{what}: {bundle:?} at {size}");
            } else {
                assert!(matches!(log.tile(tile).await, Err(LogError::NotThere(_))), "{what}");
                assert!(matches!(log.entries(bundle).await, Err(LogError::NotThere(_))), "{what}");
            }
        }
    }
    for index in [0, size / 2, size.saturating_sub(1)] {
        prove(test, log, index, size).await;
    }
    assert!(matches!(log.proof(size).await, Err(LogError::NotThere(_))));
    assert!(matches!(log.proof(u64::MAX).await, Err(LogError::NotThere(_))));
}

async fn prove(test: &TestLog, log: &Log, index: u64, size: u64) {
    let proof = TlogProof::parse(log.proof(index).await.unwrap()).unwrap();
    let leaf = leaf_hash(&test.entry(index as usize));
    let checkpoint = proof.verify(&leaf, std::slice::from_ref(test.vkey())).unwrap();
    assert_eq!((proof.index, checkpoint.size), (index, size));
}

#[tokio::test]
async fn every_size_around_a_boundary_is_read_whole() {
    let test = TestLog::of(514);
    for size in [1, 2, 255, 256, 257, 258, 511, 512, 513] {
        let faulty = FaultyStore::with(&Objects::new()).await;
        let log = test.empty(faulty.store());
        log.apply(&test.batch(0, size)).unwrap();
        read_everything(&test, &log, size as u64, "from memory").await;
        log.publish().await.unwrap();
        assert!(read(&log.tail).staged.is_empty());
        read_everything(&test, &log, size as u64, "from the store").await;
        for with_ledger in [true, false] {
            let log = Log::open(faulty.store(), test.id(), with_ledger, None).await.unwrap();
            assert_eq!(&*log.checkpoint(), test.checkpoint(size));
            read_everything(&test, &log, size as u64, "opened again").await;
        }
        log.apply(&test.batch(size, size + 1)).unwrap();
        read_everything(&test, &log, size as u64 + 1, "grown since").await;
    }
}

#[tokio::test]
async fn every_entry_is_proved_at_every_size_around_a_boundary() {
    let test = TestLog::of(514);
    for size in [1, 2, 3, 255, 256, 257, 258, 511, 512, 513] {
        let faulty = FaultyStore::with(&test.objects(size)).await;
        let log = Log::open(faulty.store(), test.id(), false, None).await.unwrap();
        for index in 0..size as u64 {
            prove(&test, &log, index, size as u64).await;
        }
    }
}

#[tokio::test]
async fn three_levels_of_tiles_are_read_and_proved() {
    let size = 65_537_usize;
    let test = TestLog::of(size as u64);
    let faulty = FaultyStore::with(&Objects::new()).await;
    let log = test.empty(faulty.store());
    for from in (0..size).step_by(20_000) {
        log.apply(&test.batch(from, (from + 20_000).min(size))).unwrap();
    }
    log.publish().await.unwrap();
    let log = Log::open(faulty.store(), test.id(), true, None).await.unwrap();
    assert_eq!(log.size_and_root(), (size as u64, test.root(size)));
    for index in [0, 1, 255, 256, 32_768, 65_279, 65_280, 65_535, 65_536] {
        prove(&test, &log, index, size as u64).await;
    }
    let top = TileId { level: 2, index: 0, width: 1 };
    assert_eq!(log.tile(top).await.unwrap().len(), 32);
    let half = TileId { level: 1, index: 0, width: 128 };
    let full = log.tile(half.full()).await.unwrap();
    assert_eq!(log.tile(half).await.unwrap(), full.slice(..half.byte_len()));
    assert!(matches!(
        log.tile(TileId { level: 3, index: 0, width: 1 }).await,
        Err(LogError::NotThere(_))
    ));
}

#[tokio::test]
async fn readers_and_writers_never_wait_for_a_slow_store() {
    let test = TestLog::of(600);
    for nth in 0.. {
        let faulty = FaultyStore::with(&Objects::new()).await;
        let log = Arc::new(test.empty(faulty.store()));
        log.apply(&test.batch(0, 200)).unwrap();
        log.publish().await.unwrap();
        log.apply(&test.batch(200, 300)).unwrap();
        let before = faulty.calls();
        faulty.fail(before + nth, crate::store::faulty::Fault::Slow);
        let publishing = tokio::spawn({
            let log = log.clone();
            async move { log.publish().await }
        });
        while !publishing.is_finished() && faulty.calls() <= before + nth {
            tokio::task::yield_now().await;
        }
        if publishing.is_finished() && faulty.calls() <= before + nth {
            assert!(nth > 8, "the run has more writes than {nth}");
            break;
        }
        read_everything(&test, &log, 300, "while a write hangs").await;
        log.apply(&test.batch(300, 600)).unwrap();
        read_everything(&test, &log, 600, "grown while a write hangs").await;
        faulty.proceed();
        assert!(publishing.await.unwrap().unwrap());
        read_everything(&test, &log, 600, "after it").await;
        assert!(log.publish().await.unwrap());
        let mut expected = test.objects(600);
        expected.remove(&test.path("keys.jwt"));
        assert_eq!(faulty.visible(), expected);
    }
}
