//! The index of one log: sorted files, and the last leaves in memory.
//!
//! Leaves come in the order of the log. Each [`FLUSH_LEAVES`] of them become a file; of four files of
//! one width beside each other one is made, so that a log of 2^30 leaves has at most 24 files. An
//! index covers its log from the first leaf on, without gaps.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};

use chancery_tlog::{Hash, LogId, TileBuilder};

use super::run::{Key, MAX_CANDIDATES, MAX_WIDTH, Record, Run, RunError, Stretch};

/// Leaves that are kept in memory before they become a file: some 700 kB.
pub const FLUSH_LEAVES: u64 = 16_384;
/// Files of one width that become one: each token is written once more for every factor of four.
const FAN_OUT: u64 = 4;

/// The index of one log.
#[derive(Debug)]
pub struct Index {
    folder: PathBuf,
    log: LogId,
    flush_leaves: u64,
    state: RwLock<State>,
    merging: Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// Files, in the order of the log.
    runs: Vec<Arc<Run>>,
    /// Leaves behind the last file: key and index.
    recent: BTreeSet<(Key, u64)>,
    /// The tree of all leaves so far: by its root a file is tied to the log.
    tree: TileBuilder,
}

/// Where a leaf may stand.
#[derive(Debug)]
pub struct Candidates {
    /// Of the leaves in memory, the first [`MAX_CANDIDATES`].
    pub recent: Vec<u64>,
    /// Files that hold the others.
    pub runs: Vec<Arc<Run>>,
    /// Leaves from the first on that these cover.
    pub searched: u64,
}

impl Index {
    /// The index that goes on behind these files. `tree` is the log's at their end.
    #[must_use]
    pub fn new(folder: &Path, log: LogId, runs: Vec<Arc<Run>>, tree: TileBuilder) -> Self {
        let state = State { runs, recent: BTreeSet::new(), tree };
        let folder = folder.to_owned();
        Self {
            folder,
            log,
            flush_leaves: FLUSH_LEAVES,
            state: RwLock::new(state),
            merging: Mutex::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn flushing_every(self, flush_leaves: u64) -> Self {
        Self { flush_leaves, ..self }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves from the first on that it covers.
    #[must_use]
    pub fn covered(&self) -> u64 {
        self.read().tree.size()
    }

    /// How many more leaves it takes before they must become a file.
    #[must_use]
    pub fn room(&self) -> u64 {
        let held = u64::try_from(self.read().recent.len()).unwrap_or(u64::MAX);
        self.flush_leaves.saturating_sub(held)
    }

    /// The root of the leaves that it covers.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.read().tree.root()
    }

    /// Bytes of all files, and how many there are.
    #[must_use]
    pub fn files(&self) -> (u64, usize) {
        let state = self.read();
        (state.runs.iter().map(|run| run.bytes()).sum(), state.runs.len())
    }

    /// The files, in the order of the log.
    #[must_use]
    pub fn runs(&self) -> Vec<Arc<Run>> {
        self.read().runs.clone()
    }

    /// Takes the next leaves of the log.
    pub fn extend(&self, leaves: impl Iterator<Item = Hash>) {
        let mut state = self.write();
        for leaf in leaves {
            let index = state.tree.size();
            state.recent.insert((Key::of(&leaf), index));
            state.tree.append(leaf);
        }
    }

    /// Makes the leaves in memory a file. Only one caller at a time may extend and flush.
    ///
    /// # Errors
    /// [`RunError`]; the leaves stay in memory then.
    pub fn flush(&self) -> Result<(), RunError> {
        let (stretch, recent) = {
            let state = self.read();
            let from = state.runs.last().map_or(0, |run| run.stretch().to);
            let (to, root) = (state.tree.size(), state.tree.root());
            (Stretch { log: self.log, from, to, root }, state.recent.clone())
        };
        if recent.is_empty() {
            return Ok(());
        }
        let place = |index: u64| u32::try_from(index.saturating_sub(stretch.from)).unwrap_or(0);
        let records = recent.iter().map(|(key, index)| Ok((*key, place(*index))));
        let run = Run::write(&self.folder, stretch, records)?;
        let mut state = self.write();
        state.runs.push(Arc::new(run));
        state.recent.clear();
        Ok(())
    }

    /// Makes larger files of smaller ones, as long as there is something to do; one caller does it,
    /// others return at once. Lookups go on meanwhile.
    ///
    /// # Errors
    /// [`RunError`]; the smaller files stay then.
    pub fn merge(&self) -> Result<(), RunError> {
        let _merging = match self.merging.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        while let Some(small) = self.mergeable() {
            let Some(stretch) = joined(&small) else { break };
            let records = Merge::of(&small);
            let large = Arc::new(Run::write(&self.folder, stretch, records)?);
            let mut state = self.write();
            state.runs.retain(|run| !small.iter().any(|other| Arc::ptr_eq(run, other)));
            state.runs.push(large);
            state.runs.sort_by_key(|run| run.stretch().from);
            drop(state);
            for run in small {
                // What cannot be removed is removed when the index is opened next.
                let _ = std::fs::remove_file(run.path());
            }
        }
        Ok(())
    }

    /// Four files of one width beside each other, the narrowest first.
    fn mergeable(&self) -> Option<Vec<Arc<Run>>> {
        let state = self.read();
        let fan_out = usize::try_from(FAN_OUT).ok()?;
        let groups = state.runs.windows(fan_out).filter(|group| {
            let width = group.first().map_or(0, |run| run.stretch().width());
            let joint = width.saturating_mul(FAN_OUT);
            joint <= MAX_WIDTH && group.iter().all(|run| run.stretch().width() == width)
        });
        let narrowest = groups.min_by_key(|group| group.first().map(|run| run.stretch().width()));
        narrowest.map(<[_]>::to_vec)
    }

    /// Where a leaf may stand, as of now.
    #[must_use]
    pub fn candidates(&self, key: Key) -> Candidates {
        let state = self.read();
        let recent = state.recent.range((key, 0)..=(key, u64::MAX)).map(|(_, index)| *index);
        Candidates {
            recent: recent.take(MAX_CANDIDATES).collect(),
            runs: state.runs.clone(),
            searched: state.tree.size(),
        }
    }
}

fn joined(runs: &[Arc<Run>]) -> Option<Stretch> {
    let (first, last) = (runs.first()?.stretch(), runs.last()?.stretch());
    Some(Stretch { from: first.from, ..*last })
}

/// The records of several files that follow each other, in order.
struct Merge {
    sources: Vec<Source>,
}

struct Source {
    /// What its places begin with in the joint file.
    offset: u32,
    next: Option<Result<Record, RunError>>,
    rest: Box<dyn Iterator<Item = Result<Record, RunError>> + Send>,
}

impl Merge {
    fn of(runs: &[Arc<Run>]) -> Self {
        let from = runs.first().map_or(0, |run| run.stretch().from);
        let source = |run: &Arc<Run>| {
            let offset = run.stretch().from.saturating_sub(from);
            let mut rest = Box::new(run.records());
            let next = rest.next();
            Source { offset: u32::try_from(offset).unwrap_or(u32::MAX), next, rest }
        };
        Self { sources: runs.iter().map(source).collect() }
    }
}

impl Iterator for Merge {
    type Item = Result<Record, RunError>;

    fn next(&mut self) -> Option<Self::Item> {
        // A failure comes before everything else, and ends the writing.
        let first = self.sources.iter_mut().filter(|source| source.next.is_some()).min_by_key(
            |source| match &source.next {
                Some(Ok((key, place))) => Some((*key, place.saturating_add(source.offset))),
                _ => None,
            },
        )?;
        let taken = std::mem::replace(&mut first.next, first.rest.next());
        let offset = first.offset;
        taken.map(|record| record.map(|(key, place)| (key, place.saturating_add(offset))))
    }
}

/// The files in a folder that cover a log from its first leaf on without gaps; the others, and what
/// a crash left, are removed.
///
/// # Errors
/// [`RunError::Io`].
pub fn open_files(folder: &Path, log: LogId) -> Result<Vec<Arc<Run>>, RunError> {
    let failed = |e: std::io::Error| RunError::Io { path: folder.to_owned(), why: e.to_string() };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder).map_err(failed)? {
        let path = file.map_err(failed)?.path();
        match Run::open(&path, log) {
            Ok(run) if path.extension().is_some_and(|kind| kind == "run") => found.push(run),
            Err(e @ RunError::Damaged { .. }) if path.extension().is_some_and(|k| k == "run") => {
                tracing::warn!("{e}");
                remove(&path);
            }
            Err(e @ RunError::Io { .. }) => return Err(e),
            _ => remove(&path),
        }
    }
    // Of files that begin alike the longest: the others were joined into it.
    found.sort_by_key(|run| (run.stretch().from, std::cmp::Reverse(run.stretch().to)));
    let mut chain: Vec<Arc<Run>> = Vec::new();
    for run in found {
        let end = chain.last().map_or(0, |last| last.stretch().to);
        if run.stretch().from == end {
            chain.push(Arc::new(run));
        } else {
            remove(run.path());
        }
    }
    Ok(chain)
}

/// Removes a file that is of no use; it is in nobody's way if that fails.
pub fn remove(path: &Path) {
    if let Err(e) = std::fs::remove_file(path) {
        tracing::warn!("`{}` cannot be removed: {e}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use chancery_tlog::leaf_hash;
    use proptest::prelude::*;

    use super::*;
    use crate::digests::tests::Folder;

    const LOG: [u8; 16] = [9; 16];

    fn leaf(index: u64) -> Hash {
        leaf_hash(&index.to_be_bytes())
    }

    fn tree(size: u64) -> TileBuilder {
        let mut tree = TileBuilder::new();
        (0..size).for_each(|index| drop(tree.append(leaf(index))));
        tree
    }

    fn opened(folder: &Folder, flush_leaves: u64) -> Index {
        let log = LogId::from_bytes(LOG);
        let runs = open_files(folder.path(), log).unwrap();
        let end = runs.last().map_or(0, |run| run.stretch().to);
        assert!(runs.iter().all(|run| run.stretch().root == tree(run.stretch().to).root()));
        Index::new(folder.path(), log, runs, tree(end)).flushing_every(flush_leaves)
    }

    fn grow(index: &Index, to: u64) {
        while index.covered() < to {
            if index.room() == 0 {
                index.flush().unwrap();
                index.merge().unwrap();
            }
            let from = index.covered();
            index.extend((from..to.min(from + index.room())).map(leaf));
        }
    }

    fn found(index: &Index, leaf: &Hash) -> Vec<u64> {
        let key = Key::of(leaf);
        let candidates = index.candidates(key);
        let runs = candidates.runs.iter().flat_map(|run| run.find(key).unwrap());
        runs.chain(candidates.recent).collect()
    }

    fn must_hold(index: &Index, size: u64) {
        assert_eq!((index.covered(), index.root()), (size, tree(size).root()));
        for number in 0..size {
            assert_eq!(found(index, &leaf(number)), [number], "of {size}");
        }
        for number in size..size + 50 {
            assert!(found(index, &leaf(number)).is_empty());
        }
    }

    #[test]
    fn files_stay_few_while_the_log_grows() {
        let folder = Folder::new();
        let index = opened(&folder, 8);
        for size in [0, 1, 7, 8, 9, 31, 32, 33, 128, 700] {
            grow(&index, size);
            must_hold(&index, size);
            let (bytes, files) = index.files();
            // At most three of each width: 8, 32, 128, 512.
            assert!(files <= 12, "{files} files");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), files);
            assert!(bytes <= size * 10 + files as u64 * 200, "{bytes} bytes for {size}");
        }
    }

    #[test]
    fn files_of_one_repeated_leaf_are_joined_and_answer() {
        let folder = Folder::new();
        let index = opened(&folder, FLUSH_LEAVES);
        for _ in 0..4 {
            index.extend((0..FLUSH_LEAVES).map(|_| leaf(7)));
            index.flush().unwrap();
        }
        index.extend([leaf(7), leaf(8)].into_iter());
        index.merge().unwrap();
        assert_eq!(index.files().1, 1);
        assert_eq!(found(&index, &leaf(7))[0], 0, "the lowest place");
        assert_eq!(found(&index, &leaf(8)), [4 * FLUSH_LEAVES + 1]);
        assert!(found(&index, &leaf(9)).is_empty());
    }

    #[test]
    fn what_a_crash_leaves_is_gone_on_with() {
        let folder = Folder::new();
        grow(&opened(&folder, 8), 100);
        // A file that was not finished, one that was joined and not removed, one behind a gap.
        std::fs::write(folder.path().join("00.new"), b"half").unwrap();
        let log = LogId::from_bytes(LOG);
        let write = |from: u64, to: u64| {
            let mut records: Vec<_> =
                (from..to).map(|i| (Key::of(&leaf(i)), u32::try_from(i - from).unwrap())).collect();
            records.sort_unstable();
            let stretch = Stretch { log, from, to, root: tree(to).root() };
            Run::write(folder.path(), stretch, records.into_iter().map(Ok)).unwrap();
        };
        write(8, 16);
        write(400, 408);
        let index = opened(&folder, 8);
        assert_eq!(index.covered(), 96);
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, index.files().1, "what is of no use is removed");
        grow(&index, 1_000);
        must_hold(&index, 1_000);
    }

    #[test]
    fn a_damaged_file_ends_what_is_covered() {
        let folder = Folder::new();
        let index = opened(&folder, 8);
        grow(&index, 200);
        let middle = index.candidates(Key::of(&leaf(0))).runs[1].path().to_owned();
        let bytes = std::fs::read(&middle).unwrap();
        std::fs::write(&middle, &bytes[1..]).unwrap();
        let index = opened(&folder, 8);
        assert_eq!(index.covered(), 128, "files behind a gap are of no use");
        grow(&index, 200);
        must_hold(&index, 200);
    }

    #[test]
    fn damage_stops_a_merge_and_leaves_the_files() {
        let folder = Folder::new();
        let index = opened(&folder, 8);
        for _ in 0..4 {
            let from = index.covered();
            index.extend((from..from + 8).map(leaf));
            index.flush().unwrap();
        }
        let path = index.candidates(Key::of(&leaf(0))).runs[2].path().to_owned();
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(index.merge(), Err(RunError::Damaged { .. })));
        assert_eq!(index.files().1, 4);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4);
    }

    proptest! {
        // Each makes some dozens of files durable.
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn any_growth_with_any_restarts_finds_every_leaf(
            steps in proptest::collection::vec((1_u64..120, any::<bool>()), 1..8),
        ) {
            let folder = Folder::new();
            let mut index = opened(&folder, 8);
            let mut size = 0;
            for (more, restart) in steps {
                size += more;
                if restart {
                    index = opened(&folder, 8);
                }
                grow(&index, size);
            }
            must_hold(&index, size);
        }
    }
}
