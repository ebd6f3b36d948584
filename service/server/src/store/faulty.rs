//! A store for tests that fails at a chosen write, and remembers after each write what could be
//! read then and what a loss of power could have left.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Semaphore;

use super::{Flush, Kind, Store};

/// The objects of a store by name.
pub(crate) type Objects = BTreeMap<String, Bytes>;

/// How a write goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not carried out. A flush loses what was waiting for it.
    Failed,
    /// It is carried out, and an error is returned all the same.
    Persisted,
    /// It is refused for now, as a bucket does under too much load. Not carried out.
    Throttled,
    /// An error is returned, and it is carried out at [`FaultyStore::arrive`].
    Late,
    /// It waits until [`FaultyStore::proceed`].
    Slow,
}

/// A write that is still under way after its writer gave it up.
type Given = (Write, PutOptions);

/// One write: the object, and its bytes unless it was deleted.
pub(crate) type Write = (String, Option<Bytes>);

/// The store after one write.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    /// What was written, for messages.
    pub what: String,
    /// What the test noted last.
    pub note: [usize; 2],
    /// What can be read.
    pub visible: Objects,
    /// What survives a loss of power for sure.
    pub durable: Objects,
    /// Writes that survive it perhaps, in any selection.
    pub waiting: Vec<Write>,
}

impl Moment {
    /// The objects after a loss of power that kept some of the waiting writes.
    pub fn after_power_loss(&self, kept: impl Fn(usize) -> bool) -> Objects {
        let mut objects = self.durable.clone();
        let kept = self.waiting.iter().enumerate().filter(|(i, _)| kept(*i));
        kept.for_each(|(_, write)| carry_out(&mut objects, write));
        objects
    }
}

/// The store; clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct FaultyStore {
    objects: Arc<InMemory>,
    state: Arc<Mutex<State>>,
    gate: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    calls: usize,
    fault: Option<(usize, Fault)>,
    failing_reads: bool,
    /// Reads and lists so far, and which of them fails.
    reads: usize,
    failing_read: Option<usize>,
    /// What lists show, where that is not what is there.
    listed: Option<Arc<InMemory>>,
    no_conditions: bool,
    late: Vec<Given>,
    note: [usize; 2],
    visible: Objects,
    durable: Objects,
    waiting: Vec<Write>,
    moments: Vec<Moment>,
}

fn carry_out(objects: &mut Objects, (name, bytes): &Write) {
    match bytes {
        Some(bytes) => drop(objects.insert(name.clone(), bytes.clone())),
        None => drop(objects.remove(name)),
    }
}

fn failure() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "the test says so".into() }
}

fn throttled() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "503 SlowDown".into() }
}

impl FaultyStore {
    /// A store that holds these objects, durably.
    pub async fn with(objects: &Objects) -> Self {
        let store = Self {
            objects: Arc::default(),
            state: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        };
        for (name, bytes) in objects {
            let payload = PutPayload::from(bytes.clone());
            store.objects.put(&Path::from(name.as_str()), payload).await.unwrap();
        }
        let mut state = store.state();
        state.visible.clone_from(objects);
        state.durable.clone_from(objects);
        drop(state);
        store
    }

    /// The write number `nth`, from 0, goes wrong.
    pub fn fail(&self, nth: usize, fault: Fault) {
        self.state().fault = Some((nth, fault));
    }

    /// Whether reads fail from now on.
    pub fn fail_reads(&self, failing: bool) {
        self.state().failing_reads = failing;
    }

    /// The read or list number `nth`, from 0, fails.
    pub fn fail_read(&self, nth: usize) {
        self.state().failing_read = Some(nth);
    }

    /// Number of reads and lists so far.
    pub fn reads(&self) -> usize {
        self.state().reads
    }

    /// From now on lists show what is there now.
    pub fn freeze_lists(&self) {
        let copy = self.objects.fork();
        self.state().listed = Some(Arc::new(copy));
    }

    /// From now on every write is carried out, whatever its condition.
    pub fn ignore_conditions(&self) {
        self.state().no_conditions = true;
    }

    /// Late writes arrive, in order; those whose condition no longer holds change nothing.
    pub async fn arrive(&self) {
        let late = std::mem::take(&mut self.state().late);
        for (write, options) in late {
            let path = Path::from(write.0.as_str());
            let arrived = match &write.1 {
                Some(bytes) => {
                    let payload = PutPayload::from(bytes.clone());
                    self.objects.put_opts(&path, payload, options).await.is_ok()
                }
                None => self.objects.delete(&path).await.is_ok(),
            };
            if arrived {
                self.is_carried_out(&write, true);
            }
        }
    }

    fn next_read(&self) -> Result<()> {
        let mut state = self.state();
        let nth = state.reads;
        state.reads += 1;
        match state.failing_reads || state.failing_read == Some(nth) {
            true => Err(failure()),
            false => Ok(()),
        }
    }

    fn lists(&self) -> Arc<InMemory> {
        self.state().listed.clone().unwrap_or_else(|| self.objects.clone())
    }

    /// Lets a slow write go on.
    pub fn proceed(&self) {
        self.gate.add_permits(1);
    }

    /// Stands in every moment from now on.
    pub fn note(&self, note: [usize; 2]) {
        self.state().note = note;
    }

    /// Number of writes so far.
    pub fn calls(&self) -> usize {
        self.state().calls
    }

    /// What can be read now.
    pub fn visible(&self) -> Objects {
        self.state().visible.clone()
    }

    /// The moments after each write.
    pub fn moments(&self) -> Vec<Moment> {
        self.state().moments.clone()
    }

    /// The service's view of it as a folder.
    pub fn store(&self) -> Store {
        let handle = |durable| Arc::new(Handle { store: self.clone(), durable });
        let kind = Kind::Folder(Arc::new(self.clone()));
        Store { objects: handle(false), durable: handle(true), kind }
    }

    /// The service's view of it as a bucket.
    pub fn bucket(&self) -> Store {
        Store::new(Arc::new(Handle { store: self.clone(), durable: true }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Counts a write and says how it goes wrong.
    fn next_fault(&self) -> Option<Fault> {
        let mut state = self.state();
        let nth = state.calls;
        state.calls += 1;
        state.fault.filter(|(at, _)| *at == nth).map(|(_, fault)| fault)
    }

    fn remember(&self, what: String) {
        let mut state = self.state();
        let moment = Moment {
            what,
            note: state.note,
            visible: state.visible.clone(),
            durable: state.durable.clone(),
            waiting: state.waiting.clone(),
        };
        state.moments.push(moment);
    }

    async fn write(&self, write: Write, durable: bool, options: PutOptions) -> Result<PutResult> {
        let fault = self.next_fault();
        if fault == Some(Fault::Slow) {
            self.gate.acquire().await.unwrap().forget();
        }
        let path = Path::from(write.0.as_str());
        let mut put = PutResult { e_tag: None, version: None, extensions: Default::default() };
        let refused = match fault {
            Some(Fault::Failed | Fault::Throttled) => None,
            Some(Fault::Late) => {
                self.state().late.push((write.clone(), options));
                None
            }
            None | Some(Fault::Persisted | Fault::Slow) => match &write.1 {
                Some(bytes) => {
                    let payload = PutPayload::from(bytes.clone());
                    match self.objects.put_opts(&path, payload, options).await {
                        Ok(done) => {
                            put = done;
                            self.is_carried_out(&write, durable);
                            None
                        }
                        Err(e) => Some(e),
                    }
                }
                None => {
                    self.objects.delete(&path).await?;
                    self.is_carried_out(&write, durable);
                    None
                }
            },
        };
        let deleted = if write.1.is_none() { " deleted" } else { "" };
        let conflict = if refused.is_some() { " refused" } else { "" };
        self.remember(format!("{}{deleted}{conflict} {fault:?}", write.0));
        match (fault, refused) {
            (Some(Fault::Failed | Fault::Persisted | Fault::Late), _) => Err(failure()),
            (Some(Fault::Throttled), _) => Err(throttled()),
            (Some(Fault::Slow) | None, Some(e)) => Err(e),
            (Some(Fault::Slow) | None, None) => Ok(put),
        }
    }

    fn is_carried_out(&self, write: &Write, durable: bool) {
        let mut state = self.state();
        carry_out(&mut state.visible, write);
        if durable {
            carry_out(&mut state.durable, write);
        } else {
            state.waiting.push(write.clone());
        }
    }
}

impl Flush for FaultyStore {
    fn flush(&self) -> std::io::Result<()> {
        let fault = self.next_fault();
        {
            let mut state = self.state();
            let waiting = std::mem::take(&mut state.waiting);
            if !matches!(fault, Some(Fault::Failed | Fault::Throttled | Fault::Late)) {
                waiting.iter().for_each(|write| carry_out(&mut state.durable, write));
            }
        }
        self.remember(format!("flush {fault:?}"));
        match fault {
            Some(Fault::Slow) | None => Ok(()),
            Some(_) => Err(std::io::Error::other("test")),
        }
    }
}

/// The store as `object_store` sees it, with or without writing through.
#[derive(Debug)]
struct Handle {
    store: FaultyStore,
    durable: bool,
}

impl std::fmt::Display for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Handle {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        if self.store.state().no_conditions {
            options.mode = PutMode::Overwrite;
        }
        let write = (location.to_string(), Some(Bytes::from(payload)));
        self.store.write(write, self.durable, options).await
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(failure())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.store.next_read()?;
        self.store.objects.get_opts(location, options).await
    }

    async fn get_ranges(&self, _: &Path, _: &[Range<u64>]) -> Result<Vec<Bytes>> {
        Err(failure())
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (store, durable) = (self.store.clone(), self.durable);
        let delete = move |location: Result<Path>| {
            let store = store.clone();
            async move {
                let location = location?;
                store.write((location.to_string(), None), durable, PutOptions::default()).await?;
                Ok(location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.lists().list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.next_read()?;
        self.store.lists().list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(failure())
    }
}
