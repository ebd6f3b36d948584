//! A token that passed every check, as Python sees it.

use chancery_validate::Validated;
use chancery_validate::log::Verdict;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use crate::claims;

/// A token that passed every check: its claims, and by which key it did.
#[pyclass(frozen, module = "chancery")]
pub struct Accepted {
    token: Validated,
    log: Option<Verdict>,
    claims: PyOnceLock<Py<PyDict>>,
}

impl From<chancery_relying_party::Accepted> for Accepted {
    fn from(accepted: chancery_relying_party::Accepted) -> Self {
        Self { token: accepted.token, log: accepted.log, claims: PyOnceLock::new() }
    }
}

#[pymethods]
impl Accepted {
    /// All claims, as they were signed: the same `dict` each time.
    #[getter]
    fn claims(&self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        let made = self
            .claims
            .get_or_try_init(py, || claims::to_dict(py, self.token.payload()).map(Bound::unbind))?;
        Ok(made.clone_ref(py))
    }

    /// The name of the key that signed it.
    #[getter]
    fn kid(&self) -> &str {
        self.token.kid()
    }

    /// The algorithm, which is the key's.
    #[getter]
    fn algorithm(&self) -> &'static str {
        self.token.algorithm().as_str()
    }

    /// The media type of the header, `typ`.
    #[getter]
    fn typ(&self) -> Option<&str> {
        self.token.typ()
    }

    /// The key's RFC 7638 thumbprint, by which logs name it.
    #[getter]
    fn key_thumbprint(&self) -> String {
        self.token.key_thumbprint().to_string()
    }

    /// What the log said: `in_log`, `pending`, `missing`, `forged`, `unknown`; None if it was not
    /// asked.
    #[getter]
    fn log(&self) -> Option<&'static str> {
        self.log.as_ref().map(word)
    }

    fn __repr__(&self) -> String {
        let claims = self.token.claims();
        format!(
            "Accepted(sub={:?}, iss={:?}, kid={:?}, algorithm={:?})",
            claims.sub,
            claims.iss,
            self.token.kid(),
            self.algorithm()
        )
    }
}

/// A log's verdict in one word.
pub fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::InLog { .. } => "in_log",
        Verdict::Pending => "pending",
        Verdict::Missing => "missing",
        Verdict::Forged { .. } => "forged",
        Verdict::Unknown { .. } => "unknown",
    }
}
