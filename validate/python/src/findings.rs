//! What an operator should know, on its way from the fetching threads to Python.
//!
//! They queue a finding and write one byte to a pipe; `chancery/_findings.py` waits at the other end.

use std::collections::VecDeque;
use std::io::{PipeReader, PipeWriter, Write as _, pipe};
use std::os::fd::IntoRawFd as _;
use std::sync::{Arc, Mutex, PoisonError};

use chancery_relying_party::{Finding, Verdict};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;
use serde_json::json;

use crate::accepted::word;
use crate::claims;

/// Findings that wait: more than one for each second of a minute's stall of the thread that takes
/// them. The oldest give way.
const MOST_WAITING: usize = 100;

/// Findings that wait to be taken, each as JSON text.
#[pyclass(frozen, module = "chancery._native")]
pub struct Findings(Arc<Mutex<VecDeque<String>>>);

#[pymethods]
impl Findings {
    /// Takes those that wait, the oldest first, each as a `dict`.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        // The lock is let go before anything of Python runs.
        let taken = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let list = PyList::empty(py);
        for json in &taken {
            list.append(claims::to_python(py, json)?)?;
        }
        Ok(list)
    }
}

/// The fetching threads' end.
pub struct Sender {
    waiting: Arc<Mutex<VecDeque<String>>>,
    pipe: Mutex<PipeWriter>,
}

impl Sender {
    /// Queues a finding and wakes whoever takes it. Never waits for Python.
    pub fn send(&self, finding: &Finding) {
        let json = json_of(finding);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let wake = waiting.is_empty();
        if waiting.len() >= MOST_WAITING {
            waiting.pop_front();
        }
        waiting.push_back(json);
        drop(waiting);
        if wake {
            // One byte for each time that the queue was empty: the pipe never fills. It fails only
            // when nobody takes findings any more.
            let _ = self.pipe.lock().unwrap_or_else(PoisonError::into_inner).write_all(&[0]);
        }
    }
}

/// A finding as JSON text: `verdict`, `kid`, `claims`, and what the verdict comes with.
fn json_of(finding: &Finding) -> String {
    let token = &finding.token;
    let told = match &finding.verdict {
        Verdict::Forged { index, expected, found, vkey, proof } => json!({
            "index": index,
            "expected": expected.to_string(),
            "found": found.to_string(),
            "vkey": vkey,
            "proof": proof.encode(),
        }),
        Verdict::Unknown { why } => json!({"why": why}),
        Verdict::InLog { .. } | Verdict::Pending | Verdict::Missing => json!({}),
    };
    let (verdict, kid) = (json!(word(&finding.verdict)), json!(token.kid()));
    // The claims are the signed text itself, not a reading of it.
    format!(r#"{{"verdict":{verdict},"kid":{kid},"told":{told},"claims":{}}}"#, token.payload())
}

/// Both ends of a queue.
///
/// # Errors
/// `OSError` if there is no descriptor left.
pub fn queue() -> PyResult<(Sender, Receiver)> {
    let (reader, writer) = pipe()?;
    let waiting = Arc::new(Mutex::default());
    let findings = Findings(Arc::clone(&waiting));
    Ok((Sender { waiting, pipe: Mutex::new(writer) }, Receiver { findings, pipe: reader }))
}

/// Python's end.
pub struct Receiver {
    findings: Findings,
    pipe: PipeReader,
}

impl Receiver {
    /// Starts the thread that calls `on_finding`. It ends when the sender is gone.
    ///
    /// # Errors
    /// `RuntimeError` if no thread can be started.
    pub fn watch(self, py: Python<'_>, on_finding: &Py<PyAny>) -> PyResult<()> {
        static WATCH: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let watch = WATCH.import(py, "chancery._findings", "watch")?;
        watch.call1((self.findings, self.pipe.into_raw_fd(), on_finding.bind(py)))?;
        Ok(())
    }
}
