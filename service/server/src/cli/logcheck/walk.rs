//! The walk itself. Bundles and their level 0 tiles are read by several threads, and taken in order:
//! each must hold the leaves of the other, each tile above the roots of those below it, and all of them
//! together hash to the signed checkpoint. Every object is read once.
//!
//! Full bundles and tiles never change; those at the right edge go when the log grows. Where one of
//! them is gone, its full successor begins with it, or the checkpoint is read again: the walk goes on
//! to the newer one and compares the older one's root where it passes by.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chancery_tlog::note::VerifierKey;
use chancery_tlog::{
    Checkpoint, EntriesTileId, Frontier, Hash, ProofError, TILE_WIDTH, TileBuilder, TileId,
    consistency_proof, decode_entries, leaf_hash, tiles_for_size, verify_consistency,
};

use super::CheckError;
use super::progress::Progress;
use super::resume::{Resume, Resumed};
use super::source::{Reader, Tiles};
use super::story::{Kind, Said, Story};
use crate::logs::{MARKER, parse_marker};

/// Bundles that are in memory at a time: some 10 MB of token entries.
const CHUNK: u64 = 128;
/// What an accident may cost of a long check.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// How often the right edge may move away before it counts as missing. A log publishes about once a
/// second, and its edge is read within milliseconds.
const MAX_MOVES: u32 = 8;
/// The wait before the checkpoint is read again: caches may keep it for a few seconds.
const MOVE_WAIT: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 500 });

/// What was checked: whole bundles, from the first on.
pub(in crate::cli) struct Walk {
    /// The tree above level 0: its leaves are the roots of full level 0 tiles.
    pub upper: Frontier,
    /// The same tree's right-edge tiles: its level 0 is the log's level 1.
    pub tiles: TileBuilder,
    pub story: Story,
}

/// What one bundle and its level 0 tile say.
struct Piece {
    entries: Vec<Said>,
    leaves: Vec<Hash>,
}

/// A tree that somebody signed, and that the log's tree must extend.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Claim {
    pub size: u64,
    pub root: Hash,
    /// Where it was signed, for messages.
    pub by: &'static str,
}

/// How a check goes on and where it ended.
pub(in crate::cli) struct Check<'a> {
    pub reader: Reader<'a>,
    pub vkey: &'a VerifierKey,
    kind: Kind,
    pub resume: Option<Resume>,
    /// The log's minimum index, which it states itself, and whether it may have one.
    minimum: u64,
    may_be_pruned: bool,
    /// Set when the user wants it to end.
    pub interrupted: &'a AtomicBool,
    pub walk: Walk,
    /// The latest checkpoint, and the note that says it.
    checkpoint: Checkpoint,
    note: String,
    /// Earlier trees that lie ahead of the walk, the smallest first.
    claims: VecDeque<Claim>,
    progress: Progress,
    saved: Instant,
}

/// Everything agrees.
pub(in crate::cli) struct Agreement {
    pub checkpoint: Checkpoint,
    pub story: Story,
    /// Entries that an earlier run had checked.
    pub before: u64,
    /// Entries under the latest checkpoint that both keys signed; `None` where the log has one key, or
    /// that was not looked at.
    pub cosigned: Option<u64>,
}

impl Walk {
    pub fn new() -> Self {
        Self { upper: Frontier::new(), tiles: TileBuilder::new(), story: Story::default() }
    }

    /// Checked entries.
    pub fn position(&self) -> u64 {
        self.upper.size().saturating_mul(TILE_WIDTH)
    }

    /// The root of the tree of the checked entries and these leaves, fewer than 256 of them.
    fn root_with(&self, leaves: &[Hash]) -> Result<Hash, CheckError> {
        let mut edge = Frontier::new();
        leaves.iter().for_each(|leaf| edge.append(*leaf));
        let size = self.position().saturating_add(edge.size());
        let hashes = [self.upper.hashes(), edge.hashes()].concat();
        let whole = Frontier::from_hashes(size, hashes);
        whole.map(|w| w.root()).map_err(|e| CheckError::disagrees(e.to_string()))
    }

    /// Reads the story of a piece that begins at the position.
    fn read_story(&self, story: &mut Story, piece: &Piece) -> Result<(), CheckError> {
        for (index, entry) in (self.position()..).zip(&piece.entries) {
            story.read(index, entry).map_err(|e| CheckError::contradicts(index, e))?;
        }
        Ok(())
    }
}

impl<'a> Check<'a> {
    /// Reads the checkpoint and, where there is one, the resume file.
    pub fn begin(
        reader: Reader<'a>,
        vkey: &'a VerifierKey,
        kind: Kind,
        resume: Option<Resume>,
        interrupted: &'a AtomicBool,
    ) -> Result<Self, CheckError> {
        let resumed = match &resume {
            Some(file) => file.load(vkey).map_err(CheckError::Unknown)?,
            None => None,
        };
        let (checkpoint, note) = open(&reader.first("checkpoint")?, vkey)?;
        let minimum = match reader.find(MARKER)? {
            Some(marker) => parse_marker(&marker).ok_or_else(|| {
                CheckError::disagrees(format!("`{MARKER}` is not a minimum index"))
            })?,
            None => 0,
        };
        let mut check = Self {
            minimum,
            may_be_pruned: false,
            reader,
            vkey,
            kind,
            resume,
            interrupted,
            walk: Walk::new(),
            checkpoint,
            note,
            claims: VecDeque::new(),
            progress: Progress::new(0),
            saved: Instant::now(),
        };
        if let Some(resumed) = resumed {
            check.go_on_from(resumed)?;
        }
        // Before hours of work: a file that cannot be written says so now.
        check.save()?;
        Ok(check)
    }

    /// Has the walk compare trees that others know of this log, the smallest first.
    pub fn expect(&mut self, claims: Vec<Claim>) -> Result<(), CheckError> {
        let size = self.checkpoint.size;
        if let Some(beyond) = claims.last().filter(|claim| claim.size > size) {
            return Err(CheckError::rewritten(format!(
                "{} has a checkpoint of {} entries, and the log here only {size}: it lost entries, or \
                 this is an older copy",
                beyond.by, beyond.size
            )));
        }
        self.claims = claims.into();
        Ok(())
    }

    /// Proves that a tree that somebody signed, here or in the directory, is a beginning of the log's.
    pub fn extends(&mut self, claim: &Claim) -> Result<(), CheckError> {
        let mut moves = 0;
        while let Err(e) = self.prove(&[(claim.size, claim.root, claim.by)]) {
            let path = match e {
                CheckError::Moved(path) => path,
                // An older checkpoint may come from a cache that lags behind.
                _ if self.checkpoint.size < claim.size && moves < MAX_MOVES => {
                    "checkpoint".to_owned()
                }
                other => return Err(other),
            };
            self.move_on(&path, moves)?;
            moves = moves.saturating_add(1);
        }
        Ok(())
    }

    /// The log is known to have ended: of entries that were pruned, only the hashes are read.
    pub fn allow_pruned(&mut self) {
        self.may_be_pruned = self.kind == Kind::Signer;
    }

    /// The latest checkpoint, a note that the log's key signed.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// Has the walk collect the checkpoints that a directory holds.
    pub fn collect(&mut self) {
        self.walk.story.heads = Some(BTreeMap::new());
    }

    /// Takes up what was checked earlier, if it is a prefix of the log.
    fn go_on_from(&mut self, Resumed { walk, seen }: Resumed) -> Result<(), CheckError> {
        let checked = (walk.position(), walk.upper.root(), "checked before");
        let signed = (seen.size, seen.root, "seen before");
        let mut moves = 0;
        while let Err(e) = self.prove(&[checked, signed]) {
            let path = match e {
                CheckError::Moved(path) => path,
                // An older checkpoint may come from a cache that lags behind.
                _ if self.checkpoint.size < seen.size && moves < MAX_MOVES => {
                    "checkpoint".to_owned()
                }
                other => return Err(other),
            };
            self.move_on(&path, moves)?;
            moves = moves.saturating_add(1);
        }
        self.progress = Progress::new(walk.position());
        self.walk = walk;
        Ok(())
    }

    /// That earlier trees are prefixes of the log's.
    fn prove(&self, earlier: &[(u64, Hash, &str)]) -> Result<(), CheckError> {
        let size = self.checkpoint.size;
        for &(known, root, what) in earlier {
            let no_prefix = |why: String| {
                CheckError::rewritten(format!(
                    "the tree of {known} entries ({what}) is not a prefix of this \
                     log's tree of {size}: {why}; either this is an older copy, or the log was \
                     rewritten, or a tile is damaged"
                ))
            };
            if known > size {
                return Err(no_prefix(format!("the log has only {size} entries")));
            }
            let proof = match consistency_proof(&Tiles(&self.reader), known, size) {
                Ok(proof) => proof,
                Err(ProofError::Source(e)) => return Err(e),
                Err(ProofError::Log(e)) => return Err(CheckError::disagrees(e.to_string())),
            };
            verify_consistency(known, &root, size, &self.checkpoint.root, &proof)
                .map_err(|e| no_prefix(e.to_string()))?;
        }
        Ok(())
    }

    /// To the end of the log. What was checked is saved whatever happens, but for a disagreement.
    pub fn run(&mut self) -> Result<Agreement, CheckError> {
        let before = self.walk.position();
        let result = self.walk_on();
        self.progress.end();
        match result {
            Ok(story) => {
                self.save()?;
                Ok(Agreement { checkpoint: self.checkpoint.clone(), story, before, cosigned: None })
            }
            Err(no @ CheckError::Disagrees { .. }) => Err(no),
            Err(other) => {
                self.save()?;
                Err(other)
            }
        }
    }

    fn walk_on(&mut self) -> Result<Story, CheckError> {
        let mut moves = 0;
        loop {
            while let full = self.full_bundles_left()
                && full > 0
            {
                self.take_chunk(full.min(CHUNK))?;
                moves = 0;
            }
            match self.check_edge() {
                Err(CheckError::Moved(path)) => self.move_on(&path, moves)?,
                other => return other,
            }
            moves = moves.saturating_add(1);
        }
    }

    fn full_bundles_left(&self) -> u64 {
        (self.checkpoint.size / TILE_WIDTH).saturating_sub(self.walk.upper.size())
    }

    /// Reads some full bundles at a time and takes them in order.
    fn take_chunk(&mut self, bundles: u64) -> Result<(), CheckError> {
        let (pieces, failure) = self.read_pieces(bundles);
        for piece in pieces {
            self.take(&piece)?;
        }
        self.progress.at(self.walk.position(), self.checkpoint.size);
        if let Some(failure) = failure {
            return Err(failure);
        }
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(CheckError::Interrupted {
                at: self.walk.position(),
                of: self.checkpoint.size,
            });
        }
        if self.saved.elapsed() >= SAVE_EVERY {
            self.save()?;
        }
        Ok(())
    }

    /// The next pieces, in order, up to the first that failed.
    fn read_pieces(&self, bundles: u64) -> (VecDeque<Piece>, Option<CheckError>) {
        let first = self.walk.upper.size();
        let end = first.saturating_add(bundles);
        let next = AtomicU64::new(first);
        let stop = AtomicBool::new(false);
        let results = Mutex::new(Vec::new());
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let ended =
                    self.interrupted.load(Ordering::Relaxed) || stop.load(Ordering::Relaxed);
                if index >= end || ended {
                    return;
                }
                let piece = self.read_piece(index);
                stop.fetch_or(piece.is_err(), Ordering::Relaxed);
                results.lock().unwrap_or_else(PoisonError::into_inner).push((index, piece));
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.reader.readers() {
                scope.spawn(work);
            }
            work();
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(index, _)| *index);
        let mut pieces = VecDeque::new();
        for (expected, (index, piece)) in (first..).zip(results) {
            match piece {
                Ok(piece) if index == expected => pieces.push_back(piece),
                // Another thread was told to stop before it read what comes before this one.
                Ok(_) => break,
                Err(e) => return (pieces, Some(e)),
            }
        }
        (pieces, None)
    }

    /// A full bundle and the tile of its leaves.
    fn read_piece(&self, index: u64) -> Result<Piece, CheckError> {
        let bundle = EntriesTileId { index, width: 256 };
        let tile = bundle.hashes().path();
        let path = bundle.path();
        let is_pruned = index < self.minimum / TILE_WIDTH;
        if is_pruned && self.may_be_pruned {
            return Piece::of_leaves(&tile, &self.reader.read(&tile)?);
        }
        let entries = match self.reader.find(&path)? {
            None if is_pruned => return Err(CheckError::pruned(self.minimum)),
            found => found.ok_or_else(|| CheckError::disagrees(format!("{path} is not there")))?,
        };
        let piece = Piece::decode(self.kind, bundle, 256, &entries)?;
        compare(&tile, &self.reader.read(&tile)?, &piece.leaf_bytes())?;
        Ok(piece)
    }

    /// A full piece joins what was checked.
    fn take(&mut self, piece: &Piece) -> Result<(), CheckError> {
        let (from, to) = (self.walk.position(), self.walk.position().saturating_add(TILE_WIDTH));
        // Sizes within the piece; one at its end is compared as the beginning of the next.
        for claim in self.claims.iter().take_while(|c| c.size < to) {
            let known = usize::try_from(claim.size.saturating_sub(from)).unwrap_or(usize::MAX);
            self.compare_claim(claim, piece.leaves.get(..known).unwrap_or_default())?;
        }
        self.claims.drain(..self.claims.partition_point(|c| c.size < to));
        let mut root = Frontier::new();
        piece.leaves.iter().for_each(|leaf| root.append(*leaf));
        let root = root.root();
        let mut tiles = self.walk.tiles.clone();
        for (tile, expected) in tiles.append(root) {
            let path = TileId { level: tile.level.saturating_add(1), ..tile }.path();
            compare(&path, &self.reader.read(&path)?, &expected)?;
        }
        // From here on nothing can fail but for a disagreement: the walk is saved with all of the
        // piece or with nothing of it.
        let mut story = std::mem::take(&mut self.walk.story);
        if piece.entries.is_empty() {
            story.pruned = to;
        }
        self.walk.read_story(&mut story, piece)?;
        self.walk.story = story;
        self.walk.upper.append(root);
        self.walk.tiles = tiles;
        Ok(())
    }

    fn compare_claim(&self, claim: &Claim, leaves: &[Hash]) -> Result<(), CheckError> {
        if self.walk.root_with(leaves)? != claim.root {
            return Err(CheckError::rewritten(format!(
                "the log was rewritten: {} its checkpoint of size {} says `{}`",
                claim.by, claim.size, claim.root
            )));
        }
        Ok(())
    }

    /// What lies right of the last full bundle, and the checkpoint itself. The walk stays where it is:
    /// the next run may find another edge.
    fn check_edge(&mut self) -> Result<Story, CheckError> {
        let size = self.checkpoint.size;
        // All of it is read first: it belongs to one checkpoint or is gone.
        let bundle = EntriesTileId::at(size / TILE_WIDTH, size);
        let bundle = match bundle {
            Some(id) => Some((id, self.read_edge(&id.path(), &full_bundle(id))?)),
            None => None,
        };
        let mut tiles = Vec::new();
        for id in tiles_for_size(size) {
            tiles.push((id, self.read_edge(&id.path(), &id.full().path())?));
        }
        let mut piece = Piece { entries: Vec::new(), leaves: Vec::new() };
        if let Some((id, (bytes, is_full))) = bundle {
            let held = if is_full { 256 } else { usize::from(id.width) };
            piece = Piece::decode(self.kind, id, held, &bytes)?;
        }
        for (id, (bytes, is_full)) in &tiles {
            let expected = match id.level.checked_sub(1) {
                None => piece.leaf_bytes(),
                Some(level) => self.walk.tiles.partial(level).unwrap_or_default().to_vec(),
            };
            let whole = !is_full || bytes.len() == chancery_tlog::FULL_TILE_BYTES;
            let held = if *is_full { bytes.get(..id.byte_len()) } else { Some(bytes.as_slice()) };
            compare(&id.path(), held.filter(|_| whole).unwrap_or_default(), &expected)?;
        }
        for claim in &self.claims {
            let known = claim.size.saturating_sub(self.walk.position());
            let known = usize::try_from(known).unwrap_or(usize::MAX);
            self.compare_claim(claim, piece.leaves.get(..known).unwrap_or_default())?;
        }
        let mut story = self.walk.story.clone();
        self.walk.read_story(&mut story, &piece)?;
        let root = self.walk.root_with(&piece.leaves)?;
        if root != self.checkpoint.root {
            return Err(CheckError::disagrees(format!(
                "the entries hash to `{root}`, the checkpoint says `{}`",
                self.checkpoint.root
            )));
        }
        Ok(story)
    }

    /// An object at the right edge, or the full one that took its place; and whether it is that.
    fn read_edge(&self, path: &str, full: &str) -> Result<(Vec<u8>, bool), CheckError> {
        if let Some(bytes) = self.reader.find(path)? {
            return Ok((bytes, false));
        }
        match self.reader.find(full)? {
            Some(bytes) => Ok((bytes, true)),
            None => Err(CheckError::Moved(path.to_owned())),
        }
    }

    /// Something at the right edge is gone: the log has grown, or is not whole.
    fn move_on(&mut self, gone: &str, moves: u32) -> Result<(), CheckError> {
        if moves >= MAX_MOVES {
            return Err(CheckError::disagrees(format!(
                "{gone} is not there, nor is a checkpoint that does without it"
            )));
        }
        if self.interrupted.load(Ordering::Relaxed) {
            let (at, of) = (self.walk.position(), self.checkpoint.size);
            return Err(CheckError::Interrupted { at, of });
        }
        if moves > 0 {
            std::thread::sleep(MOVE_WAIT);
        }
        let (checkpoint, note) = open(&self.reader.read("checkpoint")?, self.vkey)?;
        if checkpoint.size == self.checkpoint.size && checkpoint.root != self.checkpoint.root {
            return Err(CheckError::rewritten(format!(
                "the log signed two checkpoints of size {}: `{}` and `{}`",
                checkpoint.size, self.checkpoint.root, checkpoint.root
            )));
        }
        // An older one comes from a cache that lags behind.
        if checkpoint.size > self.checkpoint.size {
            let earlier = std::mem::replace(&mut self.checkpoint, checkpoint);
            let at = self.claims.partition_point(|c| c.size <= earlier.size);
            let Checkpoint { size, root, .. } = earlier;
            self.claims.insert(at, Claim { size, root, by: "while it was read," });
            self.note = note;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), CheckError> {
        self.saved = Instant::now();
        let Some(file) = &self.resume else { return Ok(()) };
        file.save(&self.walk, &self.note, self.vkey.name()).map_err(CheckError::Unknown)
    }
}

impl Piece {
    /// A bundle that holds `held` entries, the first of which are the log's.
    fn decode(
        kind: Kind,
        id: EntriesTileId,
        held: usize,
        bytes: &[u8],
    ) -> Result<Self, CheckError> {
        let path = id.path();
        let wrong = |why: String| CheckError::disagrees(format!("{path}: {why}"));
        let entries = decode_entries(bytes, held).map_err(|e| wrong(e.to_string()))?;
        let mut piece = Self { entries: Vec::new(), leaves: Vec::new() };
        for (at, entry) in (0..id.width).zip(&entries) {
            let index = id.index.saturating_mul(TILE_WIDTH).saturating_add(at.into());
            piece.leaves.push(leaf_hash(entry));
            let entry = kind.decode(entry).map_err(|e| wrong(format!("entry {index}: {e}")))?;
            piece.entries.push(entry);
        }
        Ok(piece)
    }

    /// The leaves of entries that were pruned, which the tree above them vouches for.
    fn of_leaves(path: &str, tile: &[u8]) -> Result<Self, CheckError> {
        let (hashes, rest) = tile.as_chunks();
        if hashes.len() != 256 || !rest.is_empty() {
            return Err(CheckError::disagrees(format!("{path} is not a full tile")));
        }
        let leaves = hashes.iter().map(|hash| Hash(*hash)).collect();
        Ok(Self { entries: Vec::new(), leaves })
    }

    fn leaf_bytes(&self) -> Vec<u8> {
        self.leaves.iter().flat_map(|leaf| leaf.0).collect()
    }
}

fn full_bundle(id: EntriesTileId) -> String {
    EntriesTileId { width: 256, ..id }.path()
}

fn compare(path: &str, bytes: &[u8], expected: &[u8]) -> Result<(), CheckError> {
    if bytes != expected {
        return Err(CheckError::disagrees(format!("{path} does not hash what is below it")));
    }
    Ok(())
}

pub(in crate::cli) fn open(
    note: &[u8],
    vkey: &VerifierKey,
) -> Result<(Checkpoint, String), CheckError> {
    let wrong = |why: String| CheckError::disagrees(format!("checkpoint: {why}"));
    let (checkpoint, note) =
        Checkpoint::open(note, std::slice::from_ref(vkey)).map_err(|e| wrong(e.to_string()))?;
    Ok((checkpoint, note.encode()))
}
