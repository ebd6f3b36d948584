//! Rejections as Python exceptions.

use chancery_validate::{Rejection, RejectionCode};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

/// The exception for `rejection`: `chancery.Unavailable` if it is retryable, else
/// `chancery.Rejection`.
pub fn raised(py: Python<'_>, rejection: &Rejection) -> PyErr {
    static REJECTION: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static UNAVAILABLE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    const MODULE: &str = "chancery._rejection";
    let class = if rejection.retryable() {
        UNAVAILABLE.import(py, MODULE, "Unavailable")
    } else {
        REJECTION.import(py, MODULE, "Rejection")
    };
    match class {
        Ok(class) => PyErr::from_type(
            class.clone(),
            (rejection.code().as_str(), rejection.detail().to_owned()),
        ),
        Err(error) => error,
    }
}

/// The closed table: code to meaning, remedy, and whether it is retryable.
#[pyfunction]
pub fn rejection_codes(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let table = PyDict::new(py);
    for code in RejectionCode::ALL {
        table.set_item(code.as_str(), (code.meaning(), code.remedy(), code.retryable()))?;
    }
    Ok(table)
}
