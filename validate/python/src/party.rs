//! The relying party of one process: judging at once, and waiting with the interpreter released.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use chancery_relying_party::{Accepted, Explained, Judgement, LogPolicy, RelyingParty};
use chancery_validate::{Keys, Rejection};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use serde_json::Value;

use crate::findings;
use crate::rejection::raised;
use crate::runtime;
use crate::settings::{Settings, value_error};

/// How often a wait looks for signals, so that Ctrl-C ends it.
const SIGNALS_EVERY: Duration = Duration::from_millis(50);

/// A relying party, and whatever waits for it.
#[derive(Clone)]
pub struct Party(RelyingParty);

impl Party {
    /// Makes it, and begins to fetch what has to be fetched.
    ///
    /// # Errors
    /// `ValueError` for settings that cannot be met; `chancery.Rejection` for a key set that is
    /// refused; `RuntimeError` and `OSError` if there is no thread or descriptor left.
    pub fn new(py: Python<'_>, settings: &Settings, on_finding: &Py<PyAny>) -> PyResult<Self> {
        let config = settings.config()?;
        let mut builder = RelyingParty::builder(config.clone())
            .log(settings.log()?)
            .attestation(settings.attestation()?)
            .cache(settings.cache)
            .bounds(settings.bounds()?)
            .allow_plain_http(settings.allow_plain_http);
        for (issuer, jwks) in &settings.jwks {
            // The builder refuses it as well, but not with the code that the table has for it.
            Keys::parse(config.profile, jwks).map_err(|rejection| raised(py, &rejection))?;
            builder = builder.jwks(issuer, jwks);
        }
        for (issuer, url) in &settings.jwks_uri {
            builder = builder.jwks_uri(issuer, url);
        }
        for (issuer, url) in &settings.metadata_uri {
            builder = builder.metadata_uri(issuer, url);
        }
        if let Some(anchor) = settings.anchor()? {
            builder = builder.anchor(anchor);
        }
        if let Some(place) = &settings.log_at {
            builder = builder.log_at(place);
        }
        if let Some(pem) = &settings.root_certificates {
            builder = builder.root_certificates(pem);
        }
        if settings.fetches()? {
            builder = builder.runtime(runtime::handle(py)?);
        }
        let mut receiver = None;
        if settings.log()? != LogPolicy::Off {
            let (sender, receives) = findings::queue()?;
            builder = builder.on_finding(move |finding| sender.send(finding));
            receiver = Some(receives);
        }
        let party = builder.build().map_err(value_error)?;
        if let Some(receiver) = receiver {
            receiver.watch(py, on_finding)?;
        }
        Ok(Self(party))
    }

    /// The verdict, if nothing has to be fetched for it. Time is that of the clock without `now`.
    ///
    /// # Errors
    /// `RuntimeError` instead of a panic: PyO3's `PanicException` would pass every `except
    /// Exception` of a server and end its worker.
    pub fn judge(
        &self,
        token: &str,
        now: Option<u64>,
    ) -> PyResult<Option<Result<Accepted, Rejection>>> {
        // A judgement changes nothing that could be left half done.
        let judgement = catch_unwind(AssertUnwindSafe(|| match now {
            Some(now) => self.0.judge_at(token, now),
            None => self.0.judge(token),
        }));
        match judgement {
            Ok(Judgement::Decided(verdict)) => Ok(Some(verdict)),
            Ok(Judgement::NeedsIo) => Ok(None),
            Err(_) => Err(lost()),
        }
    }

    /// The verdict, waiting for whatever has to be fetched.
    ///
    /// # Errors
    /// Those of [`Party::wait`].
    pub fn validate(
        &self,
        py: Python<'_>,
        token: &str,
        now: Option<u64>,
    ) -> PyResult<Result<Accepted, Rejection>> {
        let (party, token) = (self.0.clone(), token.to_owned());
        wait(py, async move {
            match now {
                Some(now) => party.validate_at(&token, now).await,
                None => party.validate(&token).await,
            }
        })
    }

    /// The judgement step by step.
    ///
    /// # Errors
    /// Those of [`Party::wait`].
    pub fn explain(&self, py: Python<'_>, token: &str, now: Option<u64>) -> PyResult<Explained> {
        let (party, token) = (self.0.clone(), token.to_owned());
        wait(py, async move {
            match now {
                Some(now) => party.explain_at(&token, now).await,
                None => party.explain(&token).await,
            }
        })
    }

    /// Waits for the first key sets.
    ///
    /// # Errors
    /// Those of [`Party::wait`].
    pub fn ready(&self, py: Python<'_>) -> PyResult<Result<(), Rejection>> {
        let party = self.0.clone();
        wait(py, async move { party.ready().await })
    }

    /// The state of key sets and lookups as JSON.
    pub fn status(&self) -> Value {
        serde_json::to_value(self.0.status()).unwrap_or_default()
    }
}

/// Waits for `work` with the interpreter released. The work's own time limits bound it.
///
/// # Errors
/// What a signal's handler raised, `KeyboardInterrupt` for one; the work is given up then.
fn wait<T: Send + 'static>(
    py: Python<'_>,
    work: impl Future<Output = T> + Send + 'static,
) -> PyResult<T> {
    let (sender, mut receiver) = sync_channel(1);
    let task = runtime::handle(py)?.spawn(async move {
        // Nobody listens any more after a signal.
        let _ = sender.send(work.await);
    });
    loop {
        let waited = py.detach(move || (receiver.recv_timeout(SIGNALS_EVERY), receiver));
        receiver = waited.1;
        match waited.0 {
            Ok(done) => return Ok(done),
            Err(RecvTimeoutError::Timeout) => py.check_signals().inspect_err(|_| task.abort())?,
            Err(RecvTimeoutError::Disconnected) => return Err(lost()),
        }
    }
}

/// The error for a panic, whose text went to standard error.
fn lost() -> PyErr {
    PyRuntimeError::new_err("the judgement panicked; the token is not accepted; report the defect")
}
