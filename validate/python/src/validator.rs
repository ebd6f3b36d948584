//! The validator: open this page first.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict as _, PyDict};
use serde_json::json;

use crate::accepted::Accepted;
use crate::party::Party;
use crate::rejection::raised;
use crate::runtime::Process;
use crate::settings::{Settings, default_bounds};
use crate::{claims, text};

/// The native half of `chancery.Validator`.
#[pyclass(frozen, subclass, module = "chancery._native")]
pub struct NativeValidator {
    settings: Settings,
    on_finding: Py<PyAny>,
    /// Locked by threads of Python only, briefly, and never while something of Python runs: so no
    /// fork finds it locked.
    live: Mutex<Option<(Process, Party)>>,
}

#[pymethods]
impl NativeValidator {
    #[new]
    fn new(py: Python<'_>, settings: Settings, on_finding: Py<PyAny>) -> PyResult<Self> {
        let validator = Self { settings, on_finding, live: Mutex::default() };
        validator.party(py)?;
        Ok(validator)
    }

    /// The claims of a token that passes every check.
    #[pyo3(signature = (token, *, now = None))]
    fn validate<'py>(
        &self,
        py: Python<'py>,
        token: &Bound<'py, PyAny>,
        now: Option<u64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let accepted = self.waiting(py, token, now)?;
        claims::to_dict(py, accepted.token.payload())
    }

    /// As `validate`, but None where that would wait.
    #[pyo3(signature = (token, *, now = None))]
    fn validate_at_once<'py>(
        &self,
        py: Python<'py>,
        token: &Bound<'py, PyAny>,
        now: Option<u64>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let accepted = self.at_once(py, token, now)?;
        accepted.map(|accepted| claims::to_dict(py, accepted.token.payload())).transpose()
    }

    /// As `validate`, with the key, the algorithm and what the log said beside the claims.
    #[pyo3(signature = (token, *, now = None))]
    fn judge(
        &self,
        py: Python<'_>,
        token: &Bound<'_, PyAny>,
        now: Option<u64>,
    ) -> PyResult<Accepted> {
        self.waiting(py, token, now).map(Accepted::from)
    }

    /// As `judge`, but None where that would wait.
    #[pyo3(signature = (token, *, now = None))]
    fn judge_at_once(
        &self,
        py: Python<'_>,
        token: &Bound<'_, PyAny>,
        now: Option<u64>,
    ) -> PyResult<Option<Accepted>> {
        Ok(self.at_once(py, token, now)?.map(Accepted::from))
    }

    /// The judgement step by step.
    #[pyo3(signature = (token, *, now = None))]
    fn explain<'py>(
        &self,
        py: Python<'py>,
        token: &Bound<'py, PyAny>,
        now: Option<u64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let text = text::of(token)?;
        let told = self.party_of(py, Process::asked())?.explain(py, &text, now)?;
        let (accepted, rejection) = match told.verdict {
            Ok(accepted) => (Some(Accepted::from(accepted)), None),
            Err(rejection) => (None, Some(rejection)),
        };
        let dict = claims::to_python(
            py,
            &json!({"steps": told.steps, "rejection": rejection}).to_string(),
        )?;
        dict.set_item("accepted", accepted)?;
        Ok(dict)
    }

    /// Waits until the first key sets are there.
    fn ready(&self, py: Python<'_>) -> PyResult<()> {
        self.party_of(py, Process::asked())?.ready(py)?.map_err(|rejection| raised(py, &rejection))
    }

    /// The state of key sets and lookups.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        claims::to_python(py, &self.party(py)?.status().to_string())
    }

    fn __repr__(&self) -> String {
        self.settings.to_string()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.on_finding)
    }

    /// Every bound with its default.
    #[staticmethod]
    #[pyo3(name = "default_bounds")]
    fn bounds(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        default_bounds().into_py_dict(py)
    }
}

impl NativeValidator {
    /// Judges at once, or waits.
    ///
    /// The interpreter is not released while a signature is verified: that takes some 10 to 40 us,
    /// and a thread that lets the interpreter go gets it back from one that computes only after
    /// Python's switch interval, 5 ms.
    fn waiting(
        &self,
        py: Python<'_>,
        token: &Bound<'_, PyAny>,
        now: Option<u64>,
    ) -> PyResult<chancery_relying_party::Accepted> {
        let text = text::of(token)?;
        let party = self.party(py)?;
        let verdict = match party.judge(&text, now)? {
            Some(verdict) => verdict,
            // Waiting needs the threads of this very process.
            None => self.party_of(py, Process::asked())?.validate(py, &text, now)?,
        };
        verdict.map_err(|rejection| raised(py, &rejection))
    }

    /// Judges at once, or not at all.
    fn at_once(
        &self,
        py: Python<'_>,
        token: &Bound<'_, PyAny>,
        now: Option<u64>,
    ) -> PyResult<Option<chancery_relying_party::Accepted>> {
        let text = text::of(token)?;
        let verdict = self.party(py)?.judge(&text, now)?.transpose();
        verdict.map_err(|rejection| raised(py, &rejection))
    }

    /// What judges in this process: a fork leaves the parent's behind and makes its own.
    fn party(&self, py: Python<'_>) -> PyResult<Party> {
        self.party_of(py, Process::known())
    }

    fn party_of(&self, py: Python<'_>, process: Process) -> PyResult<Party> {
        if let Some(party) = of_process(&self.live(), process) {
            return Ok(party);
        }
        let made = Party::new(py, &self.settings, &self.on_finding)?;
        let mut live = self.live();
        // Another thread may have been faster.
        if let Some(party) = of_process(&live, process) {
            return Ok(party);
        }
        mem::forget(live.replace((process, made.clone())));
        Ok(made)
    }

    fn live(&self) -> MutexGuard<'_, Option<(Process, Party)>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of_process(live: &Option<(Process, Party)>, process: Process) -> Option<Party> {
    live.as_ref().filter(|(made_in, _)| *made_in == process).map(|(_, party)| party.clone())
}
