//! What may be pruned, and what a check says of it.

use super::directory::{Deployment, STEPS, check_folder, deployment};
use super::*;
use crate::cli::logcheck::prune::{Fate, Pruner};
use crate::logs::MARKER;
use crate::store::faulty::{FaultyStore, Objects as Stored};

const KEEP_S: u64 = 30 * 86_400;
/// When the last token of the only key of these logs may expire: see `entries`.
const LAST: u64 = (1 << 40) + 600;

/// Prunes a store at a time, and says what it holds then.
fn prune(objects: &Stored, now: u64, dry_run: bool) -> anyhow::Result<(Vec<Fate>, Stored)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let faulty = runtime.block_on(FaultyStore::with(objects));
    let pruner = Pruner { store: faulty.bucket(), runtime, keep_s: KEEP_S, now, dry_run };
    let fates = pruner.prune()?.into_iter().map(|(_, fate)| fate).collect();
    Ok((fates, faulty.visible()))
}

fn kept(fates: &[Fate]) -> Vec<&str> {
    let why = |fate: &Fate| matches!(fate, Fate::Kept(_));
    assert!(fates.iter().all(why), "{fates:?}");
    fates.iter().map(|f| if let Fate::Kept(why) = f { why.as_str() } else { "" }).collect()
}

fn built() -> Deployment {
    tokio::runtime::Runtime::new().unwrap().block_on(deployment())
}

#[test]
fn a_log_that_ended_long_ago_loses_its_entries_and_nothing_else() {
    let Deployment { first, objects, .. } = built();
    let (fates, unchanged) = prune(&objects, LAST + KEEP_S, true).unwrap();
    assert!(fates.contains(&Fate::Pruned(256)), "{fates:?}");
    assert_eq!(unchanged, objects);
    let (fates, pruned) = prune(&objects, LAST + KEEP_S, false).unwrap();
    assert!(fates.contains(&Fate::Pruned(256)), "{fates:?}");
    assert!(fates.iter().any(|f| matches!(f, Fate::Kept(why) if why.contains("signer may live"))));
    let mut expected = objects;
    expected.remove(&first.path("tile/entries/000")).unwrap();
    expected.insert(first.path(MARKER), bytes::Bytes::from_static(b"256\n"));
    assert_eq!(pruned, expected);
    // Again: nothing is left to do.
    let (fates, again) = prune(&pruned, LAST + KEEP_S, false).unwrap();
    assert!(fates.contains(&Fate::Before(256)), "{fates:?}");
    assert_eq!(again, pruned);
}

#[test]
fn what_may_be_needed_is_kept() {
    let Deployment { first, objects, .. } = built();
    // A second too early.
    let (fates, left) = prune(&objects, LAST + KEEP_S - 1, false).unwrap();
    assert!(kept(&fates).iter().any(|why| why.contains("entries are kept until")), "{fates:?}");
    assert_eq!(left, objects);
    // A log that is damaged is evidence.
    let mut damaged = objects.clone();
    damaged.insert(first.path("tile/entries/000"), bytes::Bytes::from_static(b"x"));
    let (fates, left) = prune(&damaged, LAST + KEEP_S, false).unwrap();
    assert!(kept(&fates).iter().any(|why| why.contains("may be evidence")), "{fates:?}");
    assert_eq!(left, damaged);
    // As is one that went on, or ended sooner, than the directory says.
    let mut other = objects.clone();
    other.retain(|path, _| !path.starts_with(&first.path("")));
    other.extend(first.objects(STEPS + 1));
    let (fates, left) = prune(&other, LAST + KEEP_S, false).unwrap();
    assert!(kept(&fates).iter().any(|why| why.contains("did not end where")), "{fates:?}");
    assert_eq!(left, other);
    // Without a directory that is whole nothing is known.
    let mut blind = objects;
    blind.remove("directory/tile/entries/000");
    assert!(prune(&blind, LAST + KEEP_S, false).is_err());
}

#[test]
fn a_check_tells_pruned_from_missing() {
    let Deployment { first, objects, .. } = built();
    let (_, pruned) = prune(&objects, LAST + KEEP_S, false).unwrap();
    // From the directory, which closed the log, all is well.
    assert_eq!(check_folder(&pruned, true).unwrap(), ExitCode::SUCCESS);
    let own = |objects: &Stored| {
        let prefix = first.path("");
        let own = objects.iter().filter_map(|(path, bytes)| {
            Some((path.strip_prefix(&prefix)?.to_owned(), bytes.to_vec()))
        });
        Memory::of(own.collect())
    };
    let found = walk(
        &own(&pruned),
        Begin { may_be_pruned: true, ..Begin::default() },
        &AtomicBool::new(false),
    );
    let found = found.unwrap();
    assert_eq!((found.story.pruned, found.checkpoint.size), (256, STEPS as u64));
    // By itself a log can say anything.
    let why = disagreement(check_files(&own(&pruned)));
    assert!(why.contains("were pruned, which only a log may be"), "{why}");
    // A bundle that no marker names is missing, whoever asks; a flipped hash is found.
    let mut missing = pruned.clone();
    missing.remove(&first.path(MARKER));
    assert_eq!(check_folder(&missing, true).unwrap(), ExitCode::from(1));
    let mut flipped = pruned;
    let tile = flipped.get_mut(&first.path("tile/0/000")).unwrap();
    let mut bytes = tile.to_vec();
    bytes[700] ^= 1;
    *tile = bytes.into();
    assert_eq!(check_folder(&flipped, true).unwrap(), ExitCode::from(1));
}
