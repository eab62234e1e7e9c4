//! TCP ports: a free one for each attempt, and who listens on it.
//!
//! A port is free when nothing listens on it and a bind with SO_REUSEADDR works. Ports are taken
//! below the kernel's ephemeral range, so that no outgoing connection can take one in between, and kept
//! from this process's other attempts until theirs is over.

use super::tree::Process;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, listen, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};

/// The range that ports are chosen from; `ip_local_port_range` starts at 32768 by default.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Ports of attempts that may not listen on them yet.
static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Ports that are one attempt's own, until this is dropped.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) first: u16,
    count: u16,
}

impl Drop for Ports {
    fn drop(&mut self) {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        (self.first..self.first + self.count).for_each(|port| {
            taken.remove(&port);
        });
    }
}

/// The first `count` free ports in a row, looked for from a place that `start` picks. `None` if a
/// thousand places are taken.
pub(crate) fn choose(start: u64, count: u16) -> Option<Ports> {
    let start = u16::try_from(start % u64::from(COUNT)).unwrap_or(0);
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut places = (0..1_000).map(|step| FIRST + (start + step) % COUNT);
    let is_ours = |port: u16| !taken.contains(&port) && is_free(port);
    let first = places.find(|port| (0..count).all(|above| is_ours(port + above)))?;
    taken.extend(first..first + count);
    Some(Ports { first, count })
}

/// Nothing listens on it and it can be bound.
pub(crate) fn is_free(port: u16) -> bool {
    listening_inodes(port).is_empty() && can_bind(port)
}

fn can_bind(port: u16) -> bool {
    let bound = || -> nix::Result<()> {
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port))?;
        listen(&fd, nix::sys::socket::Backlog::new(1)?)
    };
    bound().is_ok()
}

/// Whether a connection to it would be taken. The kernel's table of sockets, which says whose it is,
/// costs milliseconds to read; this costs next to nothing.
pub(crate) fn takes_connections(port: u16) -> bool {
    let connected = || -> nix::Result<()> {
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::SendTimeout, &TimeVal::milliseconds(20))?;
        connect(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port))
    };
    // A backlog that is full is somebody's.
    !matches!(connected(), Err(Errno::ECONNREFUSED))
}

/// Inodes of the sockets that listen on the port, whatever the address.
fn listening_inodes(port: u16) -> Vec<u64> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| parse_listeners(&table, port))
        .collect()
}

/// The listening sockets' inodes in a table as `/proc/net/tcp` prints it.
fn parse_listeners(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, hex) = fields.get(1)?.rsplit_once(':')?;
            let here = u16::from_str_radix(hex, 16).ok()? == port && *fields.get(3)? == LISTEN;
            here.then(|| fields.get(9)?.parse().ok()).flatten()
        })
        .collect()
}

/// Who listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    Nobody,
    /// One of the given processes.
    Ours,
    /// None of them: what answers there is not our engine.
    Foreign,
}

/// Whether `ours` hold the port's listening socket. Where several sockets share a port, the kernel
/// deals connections out among them: one of a stranger's is enough to make the port foreign.
pub(crate) fn listener(port: u16, ours: &[Process]) -> Listener {
    let mut strangers: BTreeSet<String> =
        listening_inodes(port).iter().map(|inode| format!("socket:[{inode}]")).collect();
    if strangers.is_empty() {
        return Listener::Nobody;
    }
    for process in ours {
        let held = fs::read_dir(format!("/proc/{}/fd", process.pid));
        for target in held.into_iter().flatten().flatten().flat_map(|fd| fs::read_link(fd.path())) {
            if let Some(name) = target.to_str() {
                strangers.remove(name);
            }
        }
    }
    if strangers.is_empty() { Listener::Ours } else { Listener::Foreign }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::tree;
    use std::net::TcpListener;

    #[test]
    fn listeners_are_read_from_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:4E20 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100\n\
            1: 0100007F:4E20 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 78 1 0 100\n\
            2: 00000000:4E21 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 79 1 0 100\n";
        assert_eq!(parse_listeners(table, 20_000), [77]);
        assert_eq!(parse_listeners(table, 20_001), [79]);
        assert!(parse_listeners(table, 20_002).is_empty());
    }

    #[test]
    fn a_port_someone_listens_on_is_not_free_and_its_owner_is_known() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(!is_free(port) && takes_connections(port));
        let me = i32::try_from(std::process::id()).unwrap();
        let mine: Vec<_> = tree::all().into_iter().filter(|p| p.pid == me).collect();
        assert_eq!(listener(port, &mine), Listener::Ours);
        assert_eq!(listener(port, &[]), Listener::Foreign);
        drop(socket);
        assert!(is_free(port) && !takes_connections(port));
        assert_eq!(listener(port, &mine), Listener::Nobody);
    }

    #[test]
    fn a_port_that_is_shared_with_a_stranger_is_foreign() {
        let shared = |port| {
            let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
                .unwrap();
            setsockopt(&fd, sockopt::ReusePort, &true).unwrap();
            bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).unwrap();
            listen(&fd, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
            TcpListener::from(fd)
        };
        let stranger = shared(0);
        let port = stranger.local_addr().unwrap().port();
        // A process that inherits the second socket as its stdin, and not the first.
        let own = shared(port);
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdin(std::os::fd::OwnedFd::from(own.try_clone().unwrap()))
            .spawn()
            .unwrap();
        let ours = [tree::read(i32::try_from(child.id()).unwrap()).unwrap()];
        let seen = listener(port, &ours);
        drop(stranger);
        let alone = listener(port, &ours);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((seen, alone), (Listener::Foreign, Listener::Ours));
    }

    #[test]
    fn a_chosen_port_is_below_the_ephemeral_range() {
        let ports = choose(u64::MAX, 3).unwrap();
        assert!((FIRST..FIRST + COUNT).contains(&ports.first));
    }

    #[test]
    fn two_attempts_that_look_from_one_place_have_ports_apart() {
        let one = choose(4_000, 3).unwrap();
        let other = choose(4_000, 3).unwrap();
        assert!(other.first >= one.first + 3, "{one:?} {other:?}");
        let first = one.first;
        drop(one);
        assert_eq!(choose(u64::from(first - FIRST), 3).unwrap().first, first);
    }
}
