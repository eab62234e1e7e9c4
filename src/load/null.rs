//! A server that only streams, at times that it knows: what a client adds shows against it. Edge.
//!
//! One line on stdout with its port; then it serves `/v1/completions` until its stdin ends, and
//! says in one more line when requests arrived, by the kernel's stamp, and when it sent what. A
//! token is due by an absolute schedule from its request's arrival on; the truth is the clock just
//! before its send, so that a server that is late is not taken for a client that is wrong.
//!
//! Invariant: a stream's tokens are sent in order, each with the time of its own send.

use super::clock::WallOffset;
use super::conn::{self, ReadBuffer, Received};
use super::driver::{DriveError, Stopper, now, sample_clocks, system};
use super::process;
use crate::units::MonoNs;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{self, MsgFlags, sockopt};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::time::Duration;

const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;
const TIMER: u64 = u64::MAX - 2;
/// Tokens sent in one turn; then the sockets are looked at again.
const MAX_SENDS: usize = 256;
const MOST_TOKENS: u32 = 100_000;

/// What the server knows of its requests, in the order of their arrival.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct NullTruth {
    /// Nanoseconds from each request's arrival to the send of its first token.
    pub(crate) ttft_ns: Vec<i64>,
    /// Between the sends of neighbouring tokens, all streams together.
    pub(crate) gaps_ns: Vec<i64>,
}

/// Said first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NullPort {
    pub(crate) port: u16,
}

struct Stream {
    conn: usize,
    arrival: MonoNs,
    tokens: u32,
    sends: Vec<MonoNs>,
}

struct Peer {
    socket: TcpStream,
    input: Vec<u8>,
    /// What the socket would not take yet.
    output: Vec<u8>,
    gone: bool,
}

struct Server {
    epoll: Epoll,
    listener: TcpListener,
    timer: TimerFd,
    buffer: ReadBuffer,
    offset: WallOffset,
    peers: Vec<Peer>,
    streams: Vec<Stream>,
    /// First tokens and later ones: each queue is in the order of its times.
    firsts: VecDeque<(MonoNs, usize)>,
    nexts: VecDeque<(MonoNs, usize)>,
    ttft: Duration,
    gap: Duration,
    token: Vec<u8>,
}

/// The entry of `sweepd __null`.
pub(crate) fn main(ttft: Duration, gap: Duration) -> ExitCode {
    let failed = |error: &dyn std::fmt::Display| {
        // Nobody may read it; the exit code says enough.
        writeln!(io::stderr(), "the null server failed: {error}").ok();
        ExitCode::FAILURE
    };
    match serve(ttft, gap) {
        Ok(truth) => match say(&truth) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        },
        Err(error) => failed(&error),
    }
}

fn say(line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line).map_err(io::Error::other)?;
    text.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    out.flush()
}

fn chunked(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

fn serve(ttft: Duration, gap: Duration) -> Result<NullTruth, DriveError> {
    let stopper = Stopper::new()?;
    let ended = stopper.clone();
    std::thread::spawn(move || {
        // Whatever is said, only its end counts.
        io::stdin().lock().read_to_end(&mut Vec::new()).ok();
        ended.stop();
    });
    process::all_files().map_err(system("raise the limit of open files"))?;
    let io_failed = |action| {
        move |error: io::Error| {
            system(action)(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
        }
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io_failed("listen"))?;
    listener.set_nonblocking(true).map_err(io_failed("listen"))?;
    // Again, for a longer queue; what it accepts inherits the stamps.
    socket::listen(&listener, socket::Backlog::MAXCONN).map_err(system("listen"))?;
    socket::setsockopt(&listener, sockopt::ReceiveTimestampns, &true)
        .map_err(system("ask for stamps"))?;
    let port = listener.local_addr().map_err(io_failed("listen"))?.port();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(system("make an epoll"))?;
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(system("make a timer"))?;
    let watch = |fd: &dyn AsFd, key, flags| {
        epoll.add(fd.as_fd(), EpollEvent::new(flags, key)).map_err(system("watch"))
    };
    watch(&listener, LISTENER, EpollFlags::EPOLLIN)?;
    watch(stopper.descriptor(), STOP, EpollFlags::EPOLLIN)?;
    watch(&timer, TIMER, EpollFlags::EPOLLIN | EpollFlags::EPOLLET)?;
    let event = r#"{"id":"n","object":"text_completion","created":1,"model":"null","choices":[{"index":0,"text":" w","finish_reason":null}]}"#;
    let mut server = Server {
        epoll,
        listener,
        timer,
        buffer: ReadBuffer::new(),
        offset: WallOffset::new(sample_clocks()?),
        peers: Vec::new(),
        streams: Vec::new(),
        firsts: VecDeque::new(),
        nexts: VecDeque::new(),
        ttft,
        gap,
        token: chunked(&format!("data: {event}\n\n")).into_bytes(),
    };
    say(&NullPort { port }).map_err(io_failed("say the port"))?;
    server.turns()?;
    Ok(server.truth())
}

/// How many tokens a request asks for.
fn max_tokens(body: &[u8]) -> u32 {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let asked = body["max_tokens"].as_u64().and_then(|n| u32::try_from(n).ok());
    asked.unwrap_or(1).clamp(1, MOST_TOKENS)
}

/// The body of the first whole request in `input`, and how long that request is.
fn whole_request(input: &[u8]) -> Option<(&[u8], usize)> {
    let head = memchr::memmem::find(input, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(input.get(..head)?).ok()?.to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(Some(0), |length| length.trim().parse().ok())?;
    Some((input.get(head..head.checked_add(length)?)?, head + length))
}

impl Server {
    fn turns(&mut self) -> Result<(), DriveError> {
        let mut events = vec![EpollEvent::empty(); 512];
        loop {
            self.offset.follow(sample_clocks()?);
            self.send_due()?;
            let timeout = if self.arm()? { EpollTimeout::ZERO } else { EpollTimeout::NONE };
            let ready = match self.epoll.wait(&mut events, timeout) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(source) => return Err(system("wait")(source)),
            };
            for event in events.get(..ready).unwrap_or_default() {
                match event.data() {
                    STOP => return Ok(()),
                    TIMER => {}
                    LISTENER => self.accept()?,
                    peer => self.on_peer(usize::try_from(peer).unwrap_or(usize::MAX))?,
                }
            }
        }
    }

    fn due(&self) -> Option<MonoNs> {
        let first = |queue: &VecDeque<(MonoNs, usize)>| queue.front().map(|(due, _)| *due);
        first(&self.firsts).into_iter().chain(first(&self.nexts)).min()
    }

    /// Sets the timer; true if something is due already.
    fn arm(&self) -> Result<bool, DriveError> {
        let Some(due) = self.due() else { return Ok(false) };
        let at = Expiration::OneShot(TimeSpec::nanoseconds(due.get()));
        self.timer
            .set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            .map_err(system("set the timer"))?;
        Ok(due <= now()?)
    }

    fn send_due(&mut self) -> Result<(), DriveError> {
        let began = now()?;
        for _ in 0..MAX_SENDS {
            let Some(due) = self.due().filter(|due| *due <= began) else { break };
            let from_firsts = self.firsts.front().is_some_and(|(first, _)| *first == due);
            let queue = if from_firsts { &mut self.firsts } else { &mut self.nexts };
            let Some((_, stream)) = queue.pop_front() else { break };
            self.send_token(stream, due)?;
        }
        Ok(())
    }

    fn send_token(&mut self, id: usize, due: MonoNs) -> Result<(), DriveError> {
        let Some(stream) = self.streams.get_mut(id) else { return Ok(()) };
        let Some(peer) = self.peers.get_mut(stream.conn).filter(|peer| !peer.gone) else {
            return Ok(());
        };
        let number = u32::try_from(stream.sends.len()).unwrap_or(u32::MAX) + 1;
        let last = number >= stream.tokens;
        stream.sends.push(now()?);
        if last {
            let tokens = stream.tokens;
            let finish = r#"data: {"choices":[{"index":0,"text":"","finish_reason":"length"}]}"#;
            let usage = format!(
                "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":8,\"completion_tokens\":{tokens}}}}}"
            );
            let ends =
                [finish, &usage, "data: [DONE]"].map(|event| chunked(&format!("{event}\n\n")));
            peer.send(&self.token);
            peer.send((ends.concat() + "0\r\n\r\n").as_bytes());
        } else {
            peer.send(&self.token);
            self.nexts.push_back((due.plus(self.gap), id));
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<(), DriveError> {
        while let Ok((socket, _)) = self.listener.accept() {
            let made = socket.set_nonblocking(true).and_then(|()| socket.set_nodelay(true));
            if made.is_err() {
                continue;
            }
            let key = u64::try_from(self.peers.len()).unwrap_or(u64::MAX);
            let wanted = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            self.epoll.add(&socket, EpollEvent::new(wanted, key)).map_err(system("watch"))?;
            self.peers.push(Peer { socket, input: Vec::new(), output: Vec::new(), gone: false });
        }
        Ok(())
    }

    fn on_peer(&mut self, id: usize) -> Result<(), DriveError> {
        loop {
            let Some(peer) = self.peers.get_mut(id).filter(|peer| !peer.gone) else {
                return Ok(());
            };
            peer.send(&[]);
            let began = now()?;
            match conn::receive(peer.socket.as_raw_fd(), &mut self.buffer, usize::MAX) {
                Received::Bytes { length, stamp_realtime_ns, .. } => {
                    let bytes = self.buffer.bytes.get(..length).unwrap_or_default();
                    peer.input.extend_from_slice(bytes);
                    let earliest = MonoNs::new(0);
                    let arrival = stamp_realtime_ns
                        .and_then(|stamp| self.offset.place(stamp, earliest, began))
                        .unwrap_or(began);
                    self.begin(id, arrival)?;
                }
                Received::Empty => return Ok(()),
                Received::Eof | Received::Truncated | Received::Broken(_) | Received::Failed(_) => {
                    peer.gone = true;
                    self.epoll.delete(&peer.socket).map_err(system("watch"))?;
                    peer.socket.shutdown(std::net::Shutdown::Both).ok();
                    return Ok(());
                }
            }
        }
    }

    /// Begins a stream if a whole request is there.
    fn begin(&mut self, id: usize, arrival: MonoNs) -> Result<(), DriveError> {
        let Some(peer) = self.peers.get_mut(id) else { return Ok(()) };
        let Some((body, length)) = whole_request(&peer.input) else { return Ok(()) };
        let tokens = max_tokens(body);
        peer.input.drain(..length);
        peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        let room = usize::try_from(tokens).unwrap_or(0);
        self.firsts.push_back((arrival.plus(self.ttft), self.streams.len()));
        self.streams.push(Stream { conn: id, arrival, tokens, sends: Vec::with_capacity(room) });
        Ok(())
    }

    fn truth(&self) -> NullTruth {
        let mut truth = NullTruth::default();
        for stream in &self.streams {
            let first = stream.sends.first();
            truth.ttft_ns.extend(first.map(|first| first.since_ns(stream.arrival)));
            let gaps = stream.sends.windows(2).filter_map(|pair| match pair {
                [a, b] => Some(b.since_ns(*a)),
                _ => None,
            });
            truth.gaps_ns.extend(gaps);
        }
        truth
    }
}

impl Peer {
    /// Sends what was left, then these bytes, as far as the socket takes them.
    fn send(&mut self, bytes: &[u8]) {
        if !self.output.is_empty() {
            let left = std::mem::take(&mut self.output);
            self.put(&left);
        }
        if self.output.is_empty() {
            self.put(bytes);
        } else {
            self.output.extend_from_slice(bytes);
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.gone {
            match socket::send(self.socket.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return self.output.extend_from_slice(rest),
                // Its reading side will say how it ended.
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_with_its_body() {
        let request =
            b"POST /v1/completions HTTP/1.1\r\nContent-Length: 16\r\n\r\n{\"max_tokens\":3}";
        for cut in 0..request.len() {
            assert_eq!(whole_request(&request[..cut]), None, "{cut}");
        }
        let (body, length) = whole_request(request).unwrap();
        assert_eq!((max_tokens(body), length), (3, request.len()));
        assert_eq!(max_tokens(b"{}"), 1);
    }
}
