//! One TCP connection without blocking, stamped by the kernel. Edge.
//!
//! It decides nothing. `SO_TIMESTAMPNS` is set before connecting, so that no segment of an answer
//! can be without a stamp. With TLS (`tls`) what is received and sent passes through a session, and
//! without it nothing is copied: bytes are read where they are looked at.

use super::censor;
use super::tls::{self, Over, Session, Setup};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{
    self, AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType,
    SockaddrIn, sockopt,
};
use std::io::{self, IoSliceMut, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// One read's worth: several hundred tokens.
const BUFFER: usize = 128 * 1024;

/// What reading needs, shared by all connections of the loop.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    pub(crate) bytes: Vec<u8>,
    control: Vec<u8>,
    /// What came of the wire, where that is not what is looked at.
    wire: Vec<u8>,
}

impl ReadBuffer {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; BUFFER],
            control: nix::cmsg_space!(nix::sys::time::TimeSpec),
            wire: Vec::new(),
        }
    }
}

/// What a read brought; the bytes are in the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// None with TLS, while a record is not whole.
    Bytes {
        length: usize,
        stamp_realtime_ns: Option<i64>,
        /// It took less than it could: nothing was left.
        drained: bool,
    },
    Eof,
    /// The connection ended, and the peer has not said that it would: somebody may have cut it.
    Truncated,
    /// What came is no good TLS.
    Broken(String),
    /// Nothing to read now.
    Empty,
    Failed(Errno),
}

/// A connection under way or open.
#[derive(Debug)]
pub(crate) struct Conn {
    fd: OwnedFd,
    tls: Option<Box<Session>>,
}

/// How far a handshake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shake {
    GoesOn,
    Done,
    Failed(String),
}

impl Conn {
    /// Begins to connect and has `epoll` say under `key` when something happens. Edge-triggered
    /// for both directions: registered once, nothing to switch on a token.
    pub(crate) fn open(address: SockaddrIn, epoll: &Epoll, key: u64) -> Result<Self, Errno> {
        let fd = socket::socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::Tcp,
        )?;
        socket::setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
        socket::setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
        match socket::connect(fd.as_raw_fd(), &address) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let wanted = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        epoll.add(&fd, EpollEvent::new(wanted, key))?;
        Ok(Self { fd, tls: None })
    }

    /// How connecting went, once the socket is writable.
    pub(crate) fn connect_result(&self) -> Result<(), Errno> {
        match socket::getsockopt(&self.fd, sockopt::SocketError)? {
            0 => Ok(()),
            error => Err(Errno::from_raw(error)),
        }
    }

    /// Sends what it takes now; how much that is.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let fd = self.fd.as_raw_fd();
        let Some(session) = &mut self.tls else { return send(fd, bytes) };
        flush(fd, session)?;
        let taken = session.put(bytes);
        match flush(fd, session) {
            // It waits in the session, and goes out when the socket says so.
            Ok(()) | Err(Errno::EAGAIN) => Ok(taken),
            Err(error) => Err(error),
        }
    }

    /// Sends what waits in the session, if there is one.
    pub(crate) fn flush(&mut self) -> Result<(), Errno> {
        match &mut self.tls {
            Some(session) if session.wants_write() => flush(self.fd.as_raw_fd(), session),
            Some(_) | None => Ok(()),
        }
    }

    /// Nothing to read and not closed: what an idle connection must be to be used again. With TLS
    /// there may be words about the session itself, which are no answer.
    pub(crate) fn is_quiet(&mut self, buffer: &mut ReadBuffer) -> bool {
        if self.tls.is_none() {
            let peeked = socket::recv(self.fd.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK);
            return peeked == Err(Errno::EAGAIN);
        }
        loop {
            match self.receive(buffer, BUFFER) {
                Received::Bytes { length: 0, .. } => {}
                other => return other == Received::Empty,
            }
        }
    }

    /// Something waits in the session for the socket.
    pub(crate) fn wants_flush(&self) -> bool {
        self.tls.as_ref().is_some_and(|session| session.wants_write())
    }

    pub(crate) const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// How much to take at a time so that what was sent apart is read apart: each event, or with
    /// TLS each record. Looks ahead and leaves all where it is.
    pub(crate) fn pieces(&self, buffer: &mut ReadBuffer) -> Vec<usize> {
        let peeked = socket::recv(self.fd.as_raw_fd(), &mut buffer.bytes, MsgFlags::MSG_PEEK);
        let there = buffer.bytes.get(..peeked.unwrap_or(0)).unwrap_or_default();
        match &self.tls {
            Some(session) => session.pieces(there),
            None => censor::pieces(there),
        }
    }

    /// Takes at most so many bytes.
    pub(crate) fn receive(&mut self, buffer: &mut ReadBuffer, most: usize) -> Received {
        let fd = self.fd.as_raw_fd();
        match &mut self.tls {
            Some(session) => receive_tls(fd, session, buffer, most),
            None => receive(fd, buffer, most),
        }
    }

    /// The first word of a handshake, once connected.
    pub(crate) fn begin_tls(&mut self, setup: &Setup) -> Result<(), String> {
        let session = Session::new(setup).map_err(|error| tls::words(&error))?;
        self.tls = Some(Box::new(session));
        self.flush().or_else(|error| match error {
            Errno::EAGAIN => Ok(()),
            error => Err(error.desc().to_owned()),
        })
    }

    /// Goes on with the handshake as far as the other side has.
    pub(crate) fn shake(&mut self, buffer: &mut ReadBuffer) -> Shake {
        loop {
            let received = self.receive(buffer, BUFFER);
            if !self.tls.as_ref().is_some_and(|session| session.is_handshaking()) {
                return match self.flush() {
                    Ok(()) | Err(Errno::EAGAIN) => Shake::Done,
                    Err(error) => Shake::Failed(error.desc().to_owned()),
                };
            }
            match received {
                Received::Bytes { drained: false, .. } => {}
                Received::Bytes { .. } | Received::Empty => return Shake::GoesOn,
                Received::Eof | Received::Truncated => {
                    return Shake::Failed("the server closed the connection".to_owned());
                }
                Received::Broken(why) => return Shake::Failed(why),
                Received::Failed(error) => return Shake::Failed(error.desc().to_owned()),
            }
        }
    }

    /// Version and cipher, as they are called; of a connection with TLS.
    pub(crate) fn protocol(&self) -> Option<String> {
        self.tls.as_ref()?.protocol()
    }
}

impl Drop for Conn {
    /// A peer that is told does not take the end for an attack.
    fn drop(&mut self) {
        if let Some(session) = &mut self.tls
            && !session.is_handshaking()
        {
            session.close();
            // As far as the socket takes it now; it is closed next, whatever comes of it.
            flush(self.fd.as_raw_fd(), session).ok();
        }
    }
}

fn send(fd: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    socket::send(fd, bytes, MsgFlags::MSG_NOSIGNAL)
}

/// A socket as rustls writes to it.
struct Wire(RawFd);

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        send(self.0, bytes).map_err(io::Error::from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn flush(fd: RawFd, session: &mut Session) -> Result<(), Errno> {
    session
        .write_to(&mut Wire(fd))
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

fn receive_tls(fd: RawFd, session: &mut Session, buffer: &mut ReadBuffer, most: usize) -> Received {
    let over = |over: Over| match over {
        Over::Closed => Received::Eof,
        Over::Failed(error) => Received::Broken(tls::words(&error)),
    };
    if let Some(how) = session.over() {
        return over(how);
    }
    let ReadBuffer { bytes, wire, control } = buffer;
    wire.resize(BUFFER, 0);
    let room = wire.get_mut(..most.min(BUFFER)).unwrap_or_default();
    match receive_into(fd, room, control) {
        Received::Bytes { length, stamp_realtime_ns, drained } => {
            let length = session.take(room.get(..length).unwrap_or_default(), bytes);
            // An alert, or the end of a handshake. What hinders it shows in the next read.
            flush(fd, session).ok();
            match session.over() {
                Some(how) if length == 0 => over(how),
                how => {
                    Received::Bytes { length, stamp_realtime_ns, drained: drained && how.is_none() }
                }
            }
        }
        Received::Eof => Received::Truncated,
        other => other,
    }
}

/// Reads at most so many bytes, with the newest stamp of what they came in.
pub(super) fn receive(fd: RawFd, buffer: &mut ReadBuffer, most: usize) -> Received {
    let most = most.min(buffer.bytes.len());
    let room = buffer.bytes.get_mut(..most).unwrap_or_default();
    receive_into(fd, room, &mut buffer.control)
}

fn receive_into(fd: RawFd, room: &mut [u8], control: &mut [u8]) -> Received {
    let most = room.len();
    let mut slices = [IoSliceMut::new(room)];
    let got = socket::recvmsg::<()>(fd, &mut slices, Some(control), MsgFlags::empty());
    match got {
        Ok(message) if message.bytes == 0 => Received::Eof,
        Ok(message) => Received::Bytes {
            length: message.bytes,
            stamp_realtime_ns: message.cmsgs().ok().and_then(|mut all| all.find_map(stamp_of)),
            drained: message.bytes < most,
        },
        Err(Errno::EAGAIN) => Received::Empty,
        Err(error) => Received::Failed(error),
    }
}

fn stamp_of(message: ControlMessageOwned) -> Option<i64> {
    let ControlMessageOwned::ScmTimestampns(time) = message else { return None };
    time.tv_sec().checked_mul(1_000_000_000)?.checked_add(time.tv_nsec())
}

/// A socket that does nothing but keep the kernel's stamping switched on. The kernel switches it
/// on with the first socket that asks and off with the last, and on takes effect with a delay.
pub(crate) fn keep_stamping() -> Result<OwnedFd, Errno> {
    let fd = socket::socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    socket::setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
    Ok(fd)
}

/// What epoll says about a connection: whose it is, and which of theirs.
pub(super) fn make_key(user: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(user)
}

/// User and generation of a connection.
pub(super) fn split_key(key: u64) -> (u32, u32) {
    let low = u32::try_from(key & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    (low, u32::try_from(key >> 32).unwrap_or(u32::MAX))
}
