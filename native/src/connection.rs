//! One TLS connection: records come into one reused piece of memory, and are decrypted where they are.
//!
//! Nothing here knows of Python.  After any failure but a time-out or an interruption the connection is of no more use,
//! and says the same again.

use rustix::io::Errno;
use rustix::net::{recv, send, RecvFlags, SendFlags};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, Error};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The most that one record takes on the wire (RFC 8446, 5.2; RFC 5246, 6.2.3).
const MOST_RECORD_BYTES: usize = 5 + (1 << 14) + 2048;
const MOST_SENT_BYTES: usize = 1 << 14;
/// What a record adds to what is sent in it, at most.
const AROUND_BYTES: usize = 256;

/// Why something did not work.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The system says so; also silence (EAGAIN, by the socket's time-out) and a signal (EINTR).
    System(Errno),
    /// The other side does not keep to TLS, or is not believed, or says so of us.
    Tls(Error),
    /// The other side went during the handshake.
    Gone,
    /// The other side went without a farewell.
    Cut,
    /// A message is larger than the memory for it.
    TooLarge,
}

impl Failure {
    /// Whether the same may work later.
    fn passes(&self) -> bool {
        matches!(self, Self::System(Errno::AGAIN | Errno::INTR))
    }
}

enum Step {
    /// Something was done, and there may be more to do without the wire.
    More,
    /// More is needed from the wire; during the handshake.
    Waiting,
    /// The same, after the handshake; what was to be sent is sent.
    Idle,
    /// The other side said farewell.
    Ended,
}

/// Where decrypted text goes: first to the caller, and what it has no room for into `kept`.
struct Text<'a> {
    into: &'a mut [u8],
    count: usize,
    kept: &'a mut Vec<u8>,
}

impl Text<'_> {
    fn put(&mut self, text: &[u8]) {
        let now = text.len().min(self.into.len() - self.count);
        self.into[self.count..self.count + now].copy_from_slice(&text[..now]);
        self.count += now;
        self.kept.extend_from_slice(&text[now..]);
    }
}

/// A TLS client's side.
pub struct Connection {
    tls: UnbufferedClientConnection,
    /// What came from the wire and is not used up is at `start..end`.
    wire: Vec<u8>,
    start: usize,
    end: usize,
    outgoing: Vec<u8>,
    /// Decrypted text that nobody had room for, from `kept_at` on: of one record, unless it came while something was sent.
    kept: Vec<u8>,
    kept_at: usize,
    ended: bool,
    failed: Option<Failure>,
}

impl Connection {
    /// `wire_bytes` of memory for what comes; never less than two records.
    pub fn new(config: Arc<ClientConfig>, name: ServerName<'static>, wire_bytes: usize) -> Result<Self, Error> {
        Ok(Self {
            tls: UnbufferedClientConnection::new(config, name)?,
            wire: vec![0; wire_bytes.max(2 * MOST_RECORD_BYTES)],
            start: 0,
            end: 0,
            outgoing: Vec::new(),
            kept: Vec::new(),
            kept_at: 0,
            ended: false,
            failed: None,
        })
    }

    /// Agree on keys; call it again after an interruption.
    pub fn handshake(&mut self, socket: &OwnedFd) -> Result<(), Failure> {
        self.remembering(|this| loop {
            match this.step(socket, &mut [], &mut 0, &mut &[][..])? {
                Step::More => {}
                Step::Waiting => this.feed(socket, 0).map_err(|failure| match failure {
                    Failure::Cut => Failure::Gone,
                    other => other,
                })?,
                Step::Idle => return Ok(()),
                Step::Ended => return Err(Failure::Gone),
            }
        })
    }

    /// Send all of `data`, which is advanced over what needs not be given again after an interruption.
    pub fn send(&mut self, socket: &OwnedFd, data: &mut &[u8]) -> Result<(), Failure> {
        self.remembering(|this| {
            flush(&mut this.outgoing, socket)?;
            while !data.is_empty() {
                match this.step(socket, &mut [], &mut 0, data)? {
                    Step::More | Step::Idle => {}
                    Step::Waiting | Step::Ended => return Err(Failure::Cut),
                }
            }
            Ok(())
        })
    }

    /// Receive into `into`, from its place `count` on, which is advanced: something, or `all` of it; nothing at the end.
    pub fn receive(&mut self, socket: &OwnedFd, into: &mut [u8], count: &mut usize, all: bool) -> Result<(), Failure> {
        self.take_kept(into, count);
        self.remembering(|this| {
            while *count < into.len() && !this.ended {
                match this.step(socket, into, count, &mut &[][..])? {
                    Step::More => {}
                    Step::Ended => this.ended = true,
                    Step::Waiting | Step::Idle if *count > 0 && !all => break,
                    Step::Waiting | Step::Idle => this.feed(socket, if all { into.len() - *count } else { 0 })?,
                }
            }
            Ok(())
        })
    }

    fn take_kept(&mut self, into: &mut [u8], count: &mut usize) {
        let kept = &self.kept[self.kept_at..];
        let now = kept.len().min(into.len() - *count);
        into[*count..*count + now].copy_from_slice(&kept[..now]);
        *count += now;
        self.kept_at += now;
        if self.kept_at == self.kept.len() {
            self.kept.clear();
            self.kept_at = 0;
        }
    }

    fn remembering(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Failure>) -> Result<(), Failure> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        let result = work(self);
        self.failed = result.as_ref().err().filter(|failure| !failure.passes()).cloned();
        result
    }

    /// Work on what has come, as far as one state of rustls goes; `data` is what to send as soon as that can be.
    fn step(
        &mut self,
        socket: &OwnedFd,
        into: &mut [u8],
        count: &mut usize,
        data: &mut &[u8],
    ) -> Result<Step, Failure> {
        let UnbufferedStatus { discard, state, .. } =
            self.tls.process_tls_records(&mut self.wire[self.start..self.end]);
        let result = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut text = Text { into, count: *count, kept: &mut self.kept };
                let mut result = Ok(Step::More);
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => text.put(record.payload),
                        Err(error) => result = Err(Failure::Tls(error)),
                    }
                }
                *count = text.count;
                result
            }
            Ok(ConnectionState::EncodeTlsData(mut message)) => {
                encode(&mut self.outgoing, |room| match message.encode(room) {
                    Err(EncodeError::InsufficientSize(needed)) => Err(needed.required_size),
                    other => Ok(other.unwrap_or(0)),
                });
                Ok(Step::More)
            }
            Ok(ConnectionState::TransmitTlsData(sent)) => flush(&mut self.outgoing, socket).map(|()| {
                sent.done();
                Step::More
            }),
            Ok(ConnectionState::WriteTraffic(mut traffic)) if !data.is_empty() => {
                let (piece, rest) = data.split_at(data.len().min(MOST_SENT_BYTES));
                let mut exhausted = false;
                encode(&mut self.outgoing, |room| match traffic.encrypt(piece, room) {
                    Err(EncryptError::InsufficientSize(needed)) => Err(needed.required_size),
                    Err(EncryptError::EncryptExhausted) => {
                        exhausted = true;
                        Ok(0)
                    }
                    Ok(size) => Ok(size),
                });
                *data = rest;
                if exhausted {
                    Err(Failure::Tls(Error::EncryptError))
                } else {
                    flush(&mut self.outgoing, socket).map(|()| Step::More)
                }
            }
            Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Idle),
            Ok(ConnectionState::BlockedHandshake) => Ok(Step::Waiting),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Step::Ended),
            // Early data, which a client has not; and what a later rustls may add.
            Ok(_) => Err(Failure::Tls(Error::General("a state that is not expected".into()))),
            Err(error) => Err(Failure::Tls(error)),
        };
        self.start += discard;
        if let Err(Failure::Tls(_)) = result {
            self.say_why(socket);
        }
        result
    }

    /// Send the alert that rustls has for its error; the other side may be gone, which is not what went wrong.
    fn say_why(&mut self, socket: &OwnedFd) {
        // What is left of the wire goes with it: rustls remembers places in there.
        let UnbufferedStatus { state, .. } = self.tls.process_tls_records(&mut self.wire[self.start..self.end]);
        if let Ok(ConnectionState::EncodeTlsData(mut message)) = state {
            encode(&mut self.outgoing, |room| match message.encode(room) {
                Err(EncodeError::InsufficientSize(needed)) => Err(needed.required_size),
                other => Ok(other.unwrap_or(0)),
            });
            let _ = flush(&mut self.outgoing, socket);
        }
    }

    /// Let something come from the wire.  `expected` bytes of text are still to come: at least as many are on their
    /// way, but for a record of which a part is here.
    fn feed(&mut self, socket: &OwnedFd, expected: usize) -> Result<(), Failure> {
        self.wire.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let room = &mut self.wire[self.end..];
        if room.is_empty() {
            return Err(Failure::TooLarge);
        }
        let certain = expected >= room.len() + MOST_RECORD_BYTES;
        let flags = if certain { RecvFlags::WAITALL } else { RecvFlags::empty() };
        match recv(socket, room, flags) {
            Ok((_, 0)) => Err(Failure::Cut),
            Ok((_, received)) => {
                self.end += received;
                Ok(())
            }
            Err(error) => Err(Failure::System(error)),
        }
    }
}

/// Append what `message` writes; it says how much room it needs if there is too little.
fn encode(outgoing: &mut Vec<u8>, mut message: impl FnMut(&mut [u8]) -> Result<usize, usize>) {
    let old = outgoing.len();
    let mut room = MOST_SENT_BYTES + AROUND_BYTES;
    loop {
        outgoing.resize(old + room, 0);
        match message(&mut outgoing[old..]) {
            Ok(size) => return outgoing.truncate(old + size),
            Err(needed) => room = needed,
        }
    }
}

fn flush(outgoing: &mut Vec<u8>, socket: &OwnedFd) -> Result<(), Failure> {
    while !outgoing.is_empty() {
        let count = send(socket, outgoing, SendFlags::NOSIGNAL).map_err(Failure::System)?;
        outgoing.drain(..count);
    }
    Ok(())
}
