//! The connection as Python has it: a socket's methods, none of which holds the interpreter lock while it waits or works.

use crate::borrowed::{duplicate, memory};
use crate::connection::{Connection, Failure};
use crate::trust::Config;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyConnectionResetError, PyOSError, PyValueError};
use pyo3::prelude::*;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustls::pki_types::ServerName;
use std::os::fd::{OwnedFd, RawFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};

/// A TLS client on a connected, blocking socket.  Every failure is an `OSError`.
#[pyclass(frozen, module = "lading_native")]
pub struct TlsSocket {
    /// Held by whoever uses it, so that a close from another thread does not end it under a system call.
    socket: Mutex<Option<Arc<OwnedFd>>>,
    connection: Mutex<Connection>,
}

#[pymethods]
impl TlsSocket {
    /// `believed` are the certificates, in DER, of which the other side must show one; None for any.
    #[new]
    #[pyo3(signature = (descriptor, config, server_name, believed, wire_bytes))]
    fn new(
        descriptor: RawFd,
        config: &Config,
        server_name: String,
        believed: Option<Vec<Vec<u8>>>,
        wire_bytes: usize,
    ) -> PyResult<Self> {
        let name = ServerName::try_from(server_name).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let connection = Connection::new(config.believing(believed), name, wire_bytes);
        let connection = connection.map_err(|error| PyValueError::new_err(error.to_string()))?;
        let socket = Mutex::new(Some(Arc::new(duplicate(descriptor)?)));
        Ok(Self { socket, connection: Mutex::new(connection) })
    }

    fn handshake(&self, py: Python<'_>) -> PyResult<()> {
        self.work(py, Connection::handshake)
    }

    fn sendall(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        let mut left = data;
        self.work(py, |connection, socket| connection.send(socket, &mut left))
    }

    /// Returns how many bytes came; less than `wanted` with `MSG_WAITALL` when the rest fails or never comes.
    #[pyo3(signature = (buffer, wanted=0, flags=0))]
    fn recv_into(&self, py: Python<'_>, mut buffer: PyBuffer<u8>, wanted: usize, flags: u32) -> PyResult<usize> {
        let into = memory(&mut buffer)?;
        let wanted = if wanted == 0 { into.len() } else { wanted.min(into.len()) };
        let into = &mut into[..wanted];
        let all = flags & RecvFlags::WAITALL.bits() != 0;
        let mut count = 0;
        let result = self.work(py, |connection, socket| connection.receive(socket, into, &mut count, all));
        match result {
            // What came before a failure is told first; the failure comes again.
            Err(error) if count == 0 || !error.is_instance_of::<PyOSError>(py) => Err(error),
            _ => Ok(count),
        }
    }

    /// End this side's use of the socket, as soon as no other thread is in it.
    fn close(&self) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl TlsSocket {
    /// Do `step` without the interpreter lock, and again if a signal came: Python's handlers run in between.
    fn work(
        &self,
        py: Python<'_>,
        mut step: impl FnMut(&mut Connection, &OwnedFd) -> Result<(), Failure> + Send,
    ) -> PyResult<()> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let socket = socket.ok_or_else(|| system(py, Errno::BADF))?;
        loop {
            let result = py.detach(|| {
                guarded(|| {
                    let mut connection = self.connection.lock().map_err(|_| "a failure inside TLS".to_string())?;
                    Ok(step(&mut connection, &socket))
                })
            });
            match result {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(Failure::System(Errno::INTR))) => py.check_signals()?,
                Ok(Err(failure)) => return Err(raised(py, failure)),
                Err(words) => return Err(protocol(words)),
            }
        }
    }
}

/// A defect of this code or of rustls ends one connection (its lock is poisoned), not the process.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("a failure inside TLS".into()))
}

fn raised(py: Python<'_>, failure: Failure) -> PyErr {
    match failure {
        Failure::System(error) => system(py, error),
        Failure::Tls(error) => protocol(error.to_string()),
        Failure::Gone => {
            PyConnectionResetError::new_err((Errno::CONNRESET.raw_os_error(), "the connection was closed"))
        }
        Failure::Cut => protocol("it ended without TLS's farewell".into()),
        Failure::TooLarge => protocol("it sent a message that is too large".into()),
    }
}

/// As Python's own sockets raise it: `OSError` makes a `BlockingIOError` of EAGAIN, and so on.
fn system(py: Python<'_>, error: Errno) -> PyErr {
    let number = error.raw_os_error();
    let words = py.import("os").and_then(|os| os.call_method1("strerror", (number,)));
    words.map_or_else(|error| error, |words| PyOSError::new_err((number, words.unbind())))
}

fn protocol(words: String) -> PyErr {
    PyOSError::new_err((Errno::PROTO.raw_os_error(), words))
}
