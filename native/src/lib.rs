//! TLS for lading: rustls speaks it, in calls that do not hold Python's interpreter lock.
//!
//! Whom to trust is not decided here: the caller names the certificates that OpenSSL has believed.

mod borrowed;
mod connection;
mod socket;
mod trust;

use pyo3::prelude::*;

#[pymodule]
fn lading_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<trust::Config>()?;
    module.add_class::<socket::TlsSocket>()
}
