//! Looking tokens and announcements up in logs, over the network, with few requests.
//!
//! The core's lookups are pure: they ask a reader. Here the reader is a memory. A lookup runs over
//! it, says what it missed, that is fetched, and it runs again. Each object is fetched by one task,
//! however many calls wait for it, and tiles never change, so one fetch of a tile serves the 256
//! tokens whose leaves it holds, and all later ones.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chancery_tlog::note::{Note, VerifierKey};
use chancery_tlog::{Checkpoint, EntriesTileId, Hash, LogId, TILE_WIDTH, TileId};
use chancery_token::json;
use chancery_token::jwks::KeySet;
use chancery_validate::anchor::{Anchor, AnchorReader, DirectoryObject, NotHeld, Recollection};
use chancery_validate::log::{LogReader, Search, Verdict, look_up};
use chancery_validate::{Keys, Validated};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::Bounds;
use crate::clock::Clock;
use crate::error::FetchError;
use crate::fetch::Web;
use crate::place::{Object, Place, Site};
use crate::shelf::Shelf;

/// Requests to logs that run at one time.
const REQUESTS_AT_ONCE: usize = 64;
/// Runs of one lookup. The first tells what the log's size demands, and a proof needs at most two
/// tiles of each of eight levels.
const MAX_RUNS: usize = 24;
/// Times that an anchor's lookup may wait in vain, for one object or for many at once: for checkpoints
/// and for signers' key sets, with as much left for what it still has to read.
const ANCHOR_ROUNDS: u32 = 5;
/// What a kept object costs beside its bytes: name, hash table, reference counts.
const OVERHEAD_BYTES: usize = 256;
/// Levels of tiles in the largest tree.
const LEVELS: u8 = 8;
/// Leaves of one tile, as a power of two.
const TILE_BITS: u32 = TILE_WIDTH.ilog2();

/// An object's bytes, or why there are none.
type Outcome = Result<Arc<[u8]>, Arc<str>>;

/// One object, by where it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name {
    place: Arc<Place>,
    site: Site,
    object: Object,
    /// The last one that could be read, whatever came after it.
    last_good: bool,
}

#[derive(Clone, Debug)]
struct Kept {
    outcome: Outcome,
    /// Until when it is used without asking again.
    until: u64,
}

#[derive(Debug)]
struct State {
    kept: Shelf<Name, Kept>,
    /// What is being fetched now.
    running: HashMap<Name, watch::Receiver<Option<Outcome>>>,
}

/// All logs.
#[derive(Debug)]
pub struct Logs {
    web: Web,
    handle: Handle,
    clock: Arc<Clock>,
    state: Mutex<State>,
    requests: Arc<Semaphore>,
    timeout: Duration,
    checkpoint_age_ms: u64,
    publish_within_s: u64,
    /// Which keys must have signed the checkpoints of a log beside its own.
    anchor: Option<Anchor>,
    /// The directories that lookups saw last.
    recollection: Mutex<Recollection>,
    fetches: AtomicU64,
    failures: AtomicU64,
}

impl Logs {
    /// Logs that are read with this client, on this runtime.
    pub fn new(web: Web, handle: Handle, clock: Arc<Clock>, bounds: &Bounds) -> Self {
        let kept = Shelf::new(bounds.log_bytes);
        Self {
            web,
            handle,
            clock,
            state: Mutex::new(State { kept, running: HashMap::new() }),
            requests: Arc::new(Semaphore::new(REQUESTS_AT_ONCE)),
            timeout: bounds.fetch_timeout,
            checkpoint_age_ms: u64::try_from(bounds.checkpoint_age.as_millis()).unwrap_or(u64::MAX),
            publish_within_s: bounds.publish_within_s,
            anchor: None,
            recollection: Mutex::default(),
            fetches: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Believes of the logs that an anchor names only what all keys signed that it has of them.
    pub fn with_anchor(self, anchor: Option<Anchor>) -> Self {
        Self { anchor, ..self }
    }

    /// Requests made, and how many of them failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.fetches.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.state().kept.cost()
    }

    /// What the token's log says, at the time `unix_s`.
    pub async fn look_up(
        self: &Arc<Self>,
        token: &Validated,
        place: Option<&Arc<Place>>,
        unix_s: u64,
    ) -> Verdict {
        let unknown = |why: &str| Verdict::Unknown { why: why.to_owned() };
        let address = token.log_address();
        let Some(log) = address.or(token.key_log()).map(|place| place.log()) else {
            return unknown("the token's key was announced in no log");
        };
        let Some(place) = place else { return unknown(NO_PLACE) };
        if self.anchor.as_ref().is_some_and(|a| a.asks_directory(log)) {
            // Index and checkpoint are two objects: one may be of a later directory than the other.
            if let Some(verdict) = self.look_up_once(token, log, place, unix_s).await {
                return verdict;
            }
            self.forget(place, Site::Directory, Object::Checkpoint);
        }
        let verdict = self.look_up_once(token, log, place, unix_s).await;
        verdict.unwrap_or_else(|| unknown(&NotHeld::IndexAhead.to_string()))
    }

    /// What the token's log says; `None` if the directory's checkpoint at hand is too old to tell.
    async fn look_up_once(
        self: &Arc<Self>,
        token: &Validated,
        log: LogId,
        place: &Arc<Place>,
        unix_s: u64,
    ) -> Option<Verdict> {
        let mut memory = Memory::new(place);
        let site = Site::Log(log);
        let second = self.anchor.as_ref().and_then(|anchor| anchor.cosigning_key(log)).cloned();
        let directory = self.anchor.as_ref().filter(|anchor| anchor.asks_directory(log));
        let checkpoint = if second.is_some() { Object::Cosigned } else { Object::Checkpoint };
        let first = match directory {
            Some(_) => [Object::Index, Object::Checkpoint].map(|object| (Site::Directory, object)),
            None => [Object::Vkey, checkpoint].map(|object| (site, object)),
        };
        self.gather(&mut memory, first.to_vec()).await;
        let mut expected = false;
        for _ in 0..MAX_RUNS {
            let missing = memory.missing.take();
            self.gather(&mut memory, missing).await;
            if let Some(anchor) = directory {
                let held = anchor.held(log, &memory, &mut self.recollection());
                match held {
                    _ if !memory.missing.borrow().is_empty() => continue,
                    Err(NotHeld::IndexAhead) => return None,
                    Err(NotHeld::Because(why)) => {
                        self.distrust(&memory, &why);
                        return Some(Verdict::Unknown { why });
                    }
                    // Of the log itself only entries and tiles are read.
                    Ok(held) => memory.has.extend([
                        ((site, Object::Vkey), Ok(held.vkey.into_bytes().into())),
                        ((site, Object::Checkpoint), Ok(held.note.into_bytes().into())),
                    ]),
                }
            }
            if let (Some(address), false) = (token.log_address(), expected) {
                memory.expect_path(site, address.index());
                expected = true;
                let missing = memory.missing.take();
                self.gather(&mut memory, missing).await;
            }
            let reader = OneLog { memory: &memory, log, second: second.clone() };
            let verdict = look_up(token, &reader, unix_s, self.publish_within_s);
            if memory.missing.borrow().is_empty() {
                if let Verdict::Unknown { why } = &verdict {
                    self.distrust(&memory, why);
                }
                return Some(verdict);
            }
        }
        Some(Verdict::Unknown { why: TOO_MANY_RUNS.to_owned() })
    }

    /// The keys of a set that an anchor believes, at the time `unix_s`.
    pub async fn announced(
        self: &Arc<Self>,
        anchor: &Anchor,
        set: &KeySet,
        place: Option<&Arc<Place>>,
        unix_s: u64,
        recollection: &mut Recollection,
    ) -> Keys {
        let nowhere = Arc::new(Place::Folder(String::new()));
        let mut memory = Memory::new(place.unwrap_or(&nowhere));
        memory.is_nowhere = place.is_none();
        // Verified announcements stay verified while a log cannot be reached, and a log that does
        // not answer must not use up the time of the whole refresh.
        memory.takes_last_good = true;
        memory.patience = Some(self.timeout / ANCHOR_ROUNDS);
        for _ in 0..MAX_RUNS {
            let keys = anchor.announced(set, unix_s, &memory, recollection);
            let missing = memory.missing.take();
            if missing.is_empty() {
                return keys;
            }
            self.gather(&mut memory, missing).await;
        }
        anchor.announced(set, unix_s, &memory, recollection)
    }

    /// Puts objects into a memory: from what is kept, or by fetching them all at once.
    async fn gather(self: &Arc<Self>, memory: &mut Memory, wanted: Vec<(Site, Object)>) {
        let mut coming = Vec::new();
        for (site, object) in wanted {
            if memory.has.contains_key(&(site, object)) {
                continue;
            }
            let place = Arc::clone(&memory.place);
            coming.push(self.start(Name { place, site, object, last_good: false }));
        }
        // All of them come at once, so that many silent logs cost no more time than one.
        let patience = memory.patience;
        let deadline = patience.and_then(|patience| Instant::now().checked_add(patience));
        for (name, coming) in coming {
            let outcome = match (coming, deadline.zip(patience)) {
                (Coming::Here(outcome), _) => outcome,
                (Coming::Later(receiver), Some((deadline, patience))) => {
                    tokio::time::timeout_at(deadline, landed(receiver))
                        .await
                        .unwrap_or_else(|_| Err(FetchError::TimedOut(patience).to_string().into()))
                }
                (Coming::Later(receiver), None) => landed(receiver).await,
            };
            let outcome = match outcome {
                Err(why) if memory.takes_last_good => self.last_good(&name).ok_or(why),
                outcome => outcome,
            };
            memory.has.insert((name.site, name.object), outcome);
        }
    }

    /// What is kept of an object, or the fetch that brings it.
    fn start(self: &Arc<Self>, name: Name) -> (Name, Coming) {
        let now = self.clock.now().ms;
        let mut state = self.state();
        if let Some(outcome) = state.at_hand(&name, now) {
            return (name, Coming::Here(outcome));
        }
        if let Some(receiver) = state.running.get(&name) {
            return (name, Coming::Later(receiver.clone()));
        }
        let (sender, receiver) = watch::channel(None);
        state.running.insert(name.clone(), receiver.clone());
        drop(state);
        let logs = Arc::clone(self);
        let wanted = name.clone();
        self.handle.spawn(async move {
            let outcome = logs.fetch(&wanted).await;
            logs.keep(&wanted, &outcome);
            // Nobody may be waiting any more.
            let _ = sender.send(Some(outcome));
        });
        (name, Coming::Later(receiver))
    }

    async fn fetch(&self, name: &Name) -> Outcome {
        let _request = self.requests.acquire().await;
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let read = name.place.read(&self.web, name.site, name.object);
        let read = tokio::time::timeout(self.timeout, read).await;
        let why = match read {
            // A page that says "maintenance" with status 200 is an outage, and no news of the log.
            Ok(Ok(bytes))
                if matches!(name.object, Object::Checkpoint | Object::Cosigned)
                    && !is_checkpoint(&bytes) =>
            {
                "it is no checkpoint".to_owned()
            }
            Ok(Ok(bytes)) if name.object == Object::Index && !is_index(&bytes) => {
                "it is no index".to_owned()
            }
            Ok(Ok(bytes)) => return Ok(bytes.into()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => FetchError::TimedOut(self.timeout).to_string(),
        };
        self.failures.fetch_add(1, Ordering::Relaxed);
        Err(why.into())
    }

    /// Keeps what was fetched: for good what cannot change, briefly what does, failures too.
    fn keep(&self, name: &Name, outcome: &Outcome) {
        let briefly = self.clock.now().ms.saturating_add(self.checkpoint_age_ms);
        let until = if outcome.is_ok() && !name.object.changes() { u64::MAX } else { briefly };
        let mut state = self.state();
        state.running.remove(name);
        state.put(name.clone(), outcome.clone(), until);
        let Ok(bytes) = outcome else { return };
        if matches!(name.object, Object::Checkpoint | Object::Cosigned | Object::Index) {
            state.put(name.last_good(), outcome.clone(), u64::MAX);
        }
        // A full tile that came in place of a partial one is kept under its own name too.
        if let (Some(Object::Tile(full)), Object::Tile(_)) = (name.object.full(), name.object)
            && bytes.len() == full.byte_len()
        {
            state.put(Name { object: Object::Tile(full), ..name.clone() }, outcome.clone(), until);
        }
    }

    /// Has an object fetched anew when it is wanted next.
    fn forget(&self, place: &Arc<Place>, site: Site, object: Object) {
        let name = Name { place: Arc::clone(place), site, object, last_good: false };
        self.state().kept.remove(&name);
    }

    fn last_good(&self, name: &Name) -> Option<Arc<[u8]>> {
        self.state().kept.get(&name.last_good())?.outcome.ok()
    }

    /// What a lookup read does not hold together: it is fetched again, but not at once.
    fn distrust(&self, memory: &Memory, why: &str) {
        let until = self.clock.now().ms.saturating_add(self.checkpoint_age_ms);
        let why: Arc<str> = why.into();
        let mut state = self.state();
        for ((site, object), outcome) in &memory.has {
            if outcome.is_err() {
                continue;
            }
            let place = Arc::clone(&memory.place);
            let name = Name { place, site: *site, object: *object, last_good: false };
            if let Some(full) = object.full() {
                state.kept.remove(&Name { object: full, ..name.clone() });
            }
            state.put(name, Err(Arc::clone(&why)), until);
        }
    }

    fn recollection(&self) -> MutexGuard<'_, Recollection> {
        self.recollection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NO_PLACE: &str = "no log is known: the issuer's metadata names none, and none is configured";
const TOO_MANY_RUNS: &str = "the log asks for more and more tiles";
const GIVEN_UP: &str = "the runtime has ended";

enum Coming {
    Here(Outcome),
    Later(watch::Receiver<Option<Outcome>>),
}

async fn landed(mut receiver: watch::Receiver<Option<Outcome>>) -> Outcome {
    match receiver.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(GIVEN_UP.into())),
        Err(_) => Err(GIVEN_UP.into()),
    }
}

impl Name {
    fn last_good(&self) -> Self {
        Self { last_good: true, ..self.clone() }
    }
}

impl State {
    fn at_hand(&mut self, name: &Name, now: u64) -> Option<Outcome> {
        let kept = self.kept.get(name).filter(|kept| now < kept.until);
        // The full tile begins with what the partial one holds.
        let full = || {
            let object = name.object.full()?;
            self.kept.get(&Name { object, ..name.clone() }).filter(|kept| kept.outcome.is_ok())
        };
        kept.or_else(full).map(|kept| kept.outcome)
    }

    fn put(&mut self, name: Name, outcome: Outcome, until: u64) {
        let bytes = outcome.as_ref().map_or(0, |bytes| bytes.len());
        self.kept.put(name, Kept { outcome, until }, bytes.saturating_add(OVERHEAD_BYTES));
    }
}

/// What one lookup has read. It does not change under the lookup, whatever the log does meanwhile.
#[derive(Debug)]
struct Memory {
    place: Arc<Place>,
    is_nowhere: bool,
    takes_last_good: bool,
    /// How long objects are waited for that are fetched at once, if not as long as it takes.
    patience: Option<Duration>,
    has: HashMap<(Site, Object), Outcome>,
    missing: RefCell<Vec<(Site, Object)>>,
}

impl Memory {
    fn new(place: &Arc<Place>) -> Self {
        Self {
            place: Arc::clone(place),
            is_nowhere: false,
            takes_last_good: false,
            patience: None,
            has: HashMap::new(),
            missing: RefCell::default(),
        }
    }

    fn read(&self, site: Site, object: Object) -> Result<Vec<u8>, String> {
        if self.is_nowhere {
            return Err(NO_PLACE.to_owned());
        }
        match self.has.get(&(site, object)) {
            Some(Ok(bytes)) => Ok(bytes.to_vec()),
            Some(Err(why)) => Err(why.to_string()),
            None => {
                let mut missing = self.missing.borrow_mut();
                if !missing.contains(&(site, object)) {
                    missing.push((site, object));
                }
                if let Object::Tile(id) = object
                    && id.level == 0
                {
                    drop(missing);
                    self.expect_path(site, id.index.saturating_mul(TILE_WIDTH));
                }
                Err("not read yet".to_owned())
            }
        }
    }

    /// Wants the tiles that a proof for this leaf needs, all at once: those above the leaf, and the
    /// right edge of the tree. How large that is, the checkpoint says; it is not believed for more.
    fn expect_path(&self, site: Site, index: u64) {
        let both = self.has.get(&(site, Object::Cosigned));
        let note = both.or_else(|| self.has.get(&(site, Object::Checkpoint)));
        let Some(Ok(note)) = note else { return };
        let Some(size) = checkpoint_size(note).filter(|size| index < *size) else { return };
        let mut missing = self.missing.borrow_mut();
        for level in 0..LEVELS {
            let bits = TILE_BITS.saturating_mul(u32::from(level).saturating_add(1));
            let last = size.saturating_sub(1);
            for leaf in [index, last] {
                let tile = leaf.checked_shr(bits).unwrap_or(0);
                // The edge of a level may be within the last full tile of the one below.
                for tile in [tile, tile.saturating_sub(1)] {
                    let Some(id) = TileId::at(level, tile, size) else { continue };
                    let wanted = (site, Object::Tile(id));
                    if !self.has.contains_key(&wanted) && !missing.contains(&wanted) {
                        missing.push(wanted);
                    }
                    break;
                }
            }
        }
    }
}

/// The size that a checkpoint states, whoever signed it.
fn checkpoint_size(note: &[u8]) -> Option<u64> {
    Checkpoint::parse(&Note::parse(note).ok()?.text).ok().map(|checkpoint| checkpoint.size)
}

fn is_index(bytes: &[u8]) -> bool {
    json::parse_object(bytes).is_ok_and(|index| index.contains_key("logs"))
}

fn is_checkpoint(note: &[u8]) -> bool {
    checkpoint_size(note).is_some()
}

/// A memory as the lookup of a token reads it.
struct OneLog<'m> {
    memory: &'m Memory,
    log: LogId,
    /// The key that must have signed its checkpoints too.
    second: Option<VerifierKey>,
}

impl LogReader for OneLog<'_> {
    type Error = String;

    fn checkpoint(&self) -> Result<Vec<u8>, String> {
        let object = if self.second.is_some() { Object::Cosigned } else { Object::Checkpoint };
        self.memory.read(Site::Log(self.log), object)
    }

    fn tile(&self, id: TileId) -> Result<Vec<u8>, String> {
        self.memory.read(Site::Log(self.log), Object::Tile(id))
    }

    fn vkey(&self) -> Result<String, String> {
        let bytes = self.memory.read(Site::Log(self.log), Object::Vkey)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    fn cosigning_key(&self) -> Option<VerifierKey> {
        self.second.clone()
    }

    fn search(&self, leaf: &Hash) -> Result<Search, String> {
        let bytes = self.memory.read(Site::Log(self.log), Object::Search(*leaf))?;
        let search = Search::parse(&bytes).ok_or_else(|| "it says nothing".to_owned())?;
        if let Search::At(index) = search {
            self.memory.expect_path(Site::Log(self.log), index);
        }
        Ok(search)
    }
}

impl AnchorReader for Memory {
    type Error = String;

    fn checkpoint(&self, log: LogId) -> Result<Vec<u8>, String> {
        self.read(Site::Log(log), Object::Checkpoint)
    }

    fn cosigned(&self, log: LogId) -> Result<Vec<u8>, String> {
        self.read(Site::Log(log), Object::Cosigned)
    }

    fn tile(&self, log: LogId, id: TileId) -> Result<Vec<u8>, String> {
        self.read(Site::Log(log), Object::Tile(id))
    }

    fn entries(&self, log: LogId, id: EntriesTileId) -> Result<Vec<u8>, String> {
        self.read(Site::Log(log), Object::Entries(id))
    }

    fn key_set(&self, log: LogId) -> Result<Vec<u8>, String> {
        self.read(Site::Log(log), Object::KeySet)
    }

    fn directory(&self, object: DirectoryObject) -> Result<Vec<u8>, String> {
        let object = match object {
            DirectoryObject::Index => Object::Index,
            DirectoryObject::Checkpoint => Object::Checkpoint,
            DirectoryObject::Tile(id) => Object::Tile(id),
            DirectoryObject::Entries(id) => Object::Entries(id),
        };
        self.read(Site::Directory, object)
    }
}
