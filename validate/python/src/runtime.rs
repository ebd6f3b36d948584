//! The threads that fetch: one runtime for each process, made when something has to be fetched.
//!
//! A fork copies no threads. So the child makes a runtime of its own, and whatever was made with the
//! parent's is left as it is: to end it would wait for threads that are not there, and its locks may
//! be held by them for ever.

use std::mem;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle};

/// Fetching waits nearly all the time, and judging happens in the callers' threads.
const WORKERS: usize = 2;

/// A process in which things were made; its id changes with a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(u32);

/// The id of this process as far as it is known, 0 before the first question. To ask the system each
/// time would cost as much as a tenth of a judgement from the cache.
static KNOWN: AtomicU32 = AtomicU32::new(0);

impl Process {
    /// This one, if every fork was told by [`forked`].
    pub fn known() -> Self {
        match KNOWN.load(Ordering::Relaxed) {
            0 => Self::asked(),
            id => Self(id),
        }
    }

    /// This one, as the system says.
    pub fn asked() -> Self {
        let id = process::id();
        KNOWN.store(id, Ordering::Relaxed);
        Self(id)
    }
}

/// To be called in a child after a fork; Python does so (`os.register_at_fork`).
#[pyfunction]
pub fn forked() {
    Process::asked();
}

/// The runtime of this process.
///
/// # Errors
/// `RuntimeError` if its threads cannot be started.
pub fn handle(_py: Python<'_>) -> PyResult<Handle> {
    // Held by threads of Python only, which do not fork while they hold it: `_py` shows that this
    // thread is inside the interpreter, and a fork happens there.
    static RUNTIME: Mutex<Option<(Process, Handle)>> = Mutex::new(None);
    let mut known = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    match &*known {
        Some((process, handle)) if *process == Process::asked() => Ok(handle.clone()),
        _ => {
            let runtime = Builder::new_multi_thread()
                .worker_threads(WORKERS)
                .thread_name("chancery-fetch")
                .enable_all()
                .build()
                .map_err(|error| {
                    PyRuntimeError::new_err(format!("cannot start threads: {error}"))
                })?;
            let handle = runtime.handle().clone();
            // It lives as long as the process.
            mem::forget(runtime);
            mem::forget(known.replace((Process::asked(), handle.clone())));
            Ok(handle)
        }
    }
}
