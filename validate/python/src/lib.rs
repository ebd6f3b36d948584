//! The native half of the Python package `chancery`.
//!
//! Python's half (`python/chancery/`) has the names, the defaults, asyncio and ASGI. This half
//! judges: `validator.rs` is the page to open first. A call judges at once, inside the interpreter;
//! only what needs a key set or a log that is not at hand goes to the threads of `runtime.rs`, with
//! the interpreter released. Those threads never enter the interpreter.
//!
//! It is built for the stable ABI of CPython 3.10 and later, with its GIL and in the main
//! interpreter; subinterpreters and free-threaded builds cannot load it.

#![forbid(unsafe_code)]

mod accepted;
mod claims;
mod findings;
mod party;
mod rejection;
mod runtime;
mod settings;
mod text;
mod validator;

use pyo3::prelude::*;

/// The native half of `chancery`.
#[pymodule(name = "_native")]
mod native {
    #[pymodule_export]
    use super::version;
    #[pymodule_export]
    use crate::accepted::Accepted;
    #[pymodule_export]
    use crate::findings::Findings;
    #[pymodule_export]
    use crate::rejection::rejection_codes;
    #[pymodule_export]
    use crate::runtime::forked;
    #[pymodule_export]
    use crate::validator::NativeValidator;
}

/// The version of the package.
#[pyfunction]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
