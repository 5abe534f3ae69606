//! What Python owns and this crate works with while it does not hold the interpreter lock: all unsafe code is here.
#![allow(unsafe_code)]

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::PyResult;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

/// A descriptor of our own for the same socket: it stays open, and its number stays ours, whatever Python closes.
pub fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(rustix::io::Errno::BADF.into());
    }
    // SAFETY: `borrow_raw` wants a descriptor that is open as long as the borrow, which is this one call.  The caller
    // holds the interpreter lock and passes `sock.fileno()`.  Were the number closed all the same, the system call
    // would fail, or give another file of this process: no memory depends on it.
    unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()
}

/// The memory of a buffer that can be written to.
pub fn memory(buffer: &mut PyBuffer<u8>) -> PyResult<&mut [u8]> {
    if buffer.readonly() || !buffer.is_c_contiguous() {
        return Err(PyValueError::new_err("a writable, contiguous buffer is needed"));
    }
    if buffer.len_bytes() == 0 {
        return Ok(&mut []);
    }
    // SAFETY: the memory is `len_bytes` bytes, initialised, contiguous, writable, not null, and stays where it is while
    // `buffer` is held: its exporter may not move or free it (a bytearray refuses to be resized).  What Rust cannot see
    // is another thread of Python that uses the same memory meanwhile.  As for `socket.recv_into`, which has the
    // same gap, the caller promises that there is none: a connection and its buffer belong to one thread at a
    // time.  Bytes are all that could be mixed up: no byte is invalid, and none is read here.
    Ok(unsafe { std::slice::from_raw_parts_mut(buffer.buf_ptr().cast(), buffer.len_bytes()) })
}
