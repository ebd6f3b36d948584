//! What needs I/O: on a runtime of its own, answered by a callback.
//!
//! A callback waiting for its answer keeps the process alive, as a promise's work should; findings do
//! not, nor does the runtime. When an environment ends (a worker thread may at any time), its
//! callbacks are closed first, and answers to them are dropped.

use std::future::Future;
use std::sync::LazyLock;

use chancery_relying_party::{Finding, RelyingParty};
use napi::bindgen_prelude::Function;
use napi::threadsafe_function::ThreadsafeFunctionCallMode::NonBlocking;
use napi::{Error, Result};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::answer;

/// Fetches of all relying parties of the process: they wait, they do not compute. Looking up names
/// has threads of its own.
const THREADS: usize = 1;

/// One for the process, until it ends.
static RUNTIME: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(THREADS).thread_name("chancery").enable_all().build()
});

type Callback<'env> = Function<'env, String, ()>;
type AnswerLater = fn(&RelyingParty, String, &Callback<'_>) -> Result<()>;

/// Functions of a token and a callback.
pub const FUNCTIONS: [(&str, AnswerLater); 3] = [
    ("validate", |party, token, callback| {
        let party = party.clone();
        run(callback, async move { answer::verdict(party.validate(&token).await) })
    }),
    ("explain", |party, token, callback| {
        let party = party.clone();
        run(callback, async move { answer::explained(&party.explain(&token).await) })
    }),
    ("ready", |party, _, callback| {
        let party = party.clone();
        run(callback, async move {
            party
                .ready()
                .await
                .map_or_else(|rejection| answer::rejected(&rejection), |()| String::new())
        })
    }),
];

/// The runtime on which relying parties keep their key sets.
///
/// # Errors
/// If the process may have no more threads.
pub fn handle() -> Result<&'static Handle> {
    let runtime = RUNTIME.as_ref().map_err(|error| Error::from_reason(error.to_string()))?;
    Ok(runtime.handle())
}

/// Calls `callback` with what `work` comes to.
fn run(callback: &Callback<'_>, work: impl Future<Output = String> + Send + 'static) -> Result<()> {
    let callback = callback.build_threadsafe_function::<String>().build()?;
    let handle = handle()?;
    handle.spawn(async move {
        let answer = handle.spawn(work).await;
        callback.call(answer.unwrap_or_else(|_| answer::PANICKED.to_owned()), NonBlocking);
    });
    Ok(())
}

/// Hands findings to `callback`, as JSON, without keeping the process alive.
///
/// # Errors
/// Only when Node refuses it.
pub fn findings(callback: &Callback<'_>) -> Result<impl Fn(&Finding) + Send + Sync + 'static> {
    let callback = callback.build_threadsafe_function::<String>().weak::<true>().build()?;
    Ok(move |finding: &Finding| {
        callback.call(answer::finding(finding), NonBlocking);
    })
}
