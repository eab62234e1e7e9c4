//! One TCP connection without blocking, stamped by the kernel. Edge.
//!
//! It decides nothing. `SO_TIMESTAMPNS` is set before connecting, so that no segment of an answer
//! can be without a stamp.

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{
    self, AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType,
    SockaddrIn, sockopt,
};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// One read's worth: several hundred tokens.
const BUFFER: usize = 128 * 1024;

/// What reading needs, shared by all connections of the loop.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    pub(crate) bytes: Vec<u8>,
    control: Vec<u8>,
}

impl ReadBuffer {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; BUFFER], control: nix::cmsg_space!(nix::sys::time::TimeSpec) }
    }
}

/// What a read brought; the bytes are in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Bytes {
        length: usize,
        stamp_realtime_ns: Option<i64>,
    },
    Eof,
    /// Nothing to read now.
    Empty,
    Failed(Errno),
}

/// A connection under way or open.
#[derive(Debug)]
pub(crate) struct Conn {
    fd: OwnedFd,
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
        Ok(Self { fd })
    }

    /// How connecting went, once the socket is writable.
    pub(crate) fn connect_result(&self) -> Result<(), Errno> {
        match socket::getsockopt(&self.fd, sockopt::SocketError)? {
            0 => Ok(()),
            error => Err(Errno::from_raw(error)),
        }
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        socket::send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)
    }

    /// Nothing to read and not closed: what an idle connection must be to be used again.
    pub(crate) fn is_quiet(&self) -> bool {
        let peeked = socket::recv(self.fd.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK);
        peeked == Err(Errno::EAGAIN)
    }

    /// Copies what there is and leaves it there; how much that is.
    pub(crate) fn peek(&self, buffer: &mut ReadBuffer) -> usize {
        socket::recv(self.fd.as_raw_fd(), &mut buffer.bytes, MsgFlags::MSG_PEEK).unwrap_or(0)
    }

    /// Takes at most so many bytes.
    pub(crate) fn receive(&self, buffer: &mut ReadBuffer, most: usize) -> Received {
        receive(self.fd.as_raw_fd(), buffer, most)
    }
}

/// Reads at most so many bytes, with the newest stamp of what they came in.
pub(super) fn receive(fd: RawFd, buffer: &mut ReadBuffer, most: usize) -> Received {
    let most = most.min(buffer.bytes.len());
    let room = buffer.bytes.get_mut(..most).unwrap_or_default();
    let mut slices = [IoSliceMut::new(room)];
    let control = Some(buffer.control.as_mut_slice());
    let got = socket::recvmsg::<()>(fd, &mut slices, control, MsgFlags::empty());
    match got {
        Ok(message) if message.bytes == 0 => Received::Eof,
        Ok(message) => Received::Bytes {
            length: message.bytes,
            stamp_realtime_ns: message.cmsgs().ok().and_then(|mut all| all.find_map(stamp_of)),
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
