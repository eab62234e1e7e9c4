//! The guard's loop: waits for whatever happens next, lets `state` decide, does it.
#![expect(clippy::disallowed_methods, reason = "the clock enters here")]

use super::message::{GuardEvent, GuardOrder, GuardReport, GuardSpec};
use super::spawn;
use super::state::{Action, Guard, Input, Limits, Phase};
use crate::engine::rules::rule::LogPhase;
use crate::engine::rules::scan::{Hit, Scanner};
use crate::run::outcome::{EvidenceLine, ExitStatus};
use crate::supervise::log::{BoundedLog, LineCutter};
use crate::supervise::tree;
use crate::units::MonoNs;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{ChildStderr, ChildStdout, ExitCode};
use std::time::{Duration, Instant};

/// Runs the guard on the socket that is its stdin.
pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(3),
    }
}

fn run() -> io::Result<()> {
    // A session of its own: Ctrl-C in the terminal must reach sweepd, not the guard.
    setsid().ok();
    nix::sys::prctl::set_child_subreaper(true)?;
    let signals = block_signals()?;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut lines = BufReader::new(socket.try_clone()?);
    let mut first = String::new();
    lines.read_line(&mut first)?;
    let spec: GuardSpec = serde_json::from_str(&first)?;
    let mut orders = Orders { pending: lines.buffer().to_vec() };
    let mut voice = Voice { socket: Some(socket) };
    let child = match spawn::engine(&spec) {
        Ok(child) => child,
        Err(error) => {
            let error = format!("cannot start {}: {error}", spec.argv.first().map_or("", |a| a));
            voice.say(&GuardEvent::LaunchFailed { error });
            return Ok(());
        }
    };
    let mut shell = Shell::new(spec, child, voice)?;
    let result = shell.run(&signals, &mut orders);
    if result.is_err() {
        // A guard that cannot wait cannot guard: nothing may be left behind.
        shell.kill_all();
    }
    result
}

fn block_signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    // SIGQUIT: an orphaned worker may send it to its new parent, and that is the guard.
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// The way to sweepd. Gone is gone: writing to a dead supervisor is not an error.
struct Voice {
    socket: Option<UnixStream>,
}

impl Voice {
    fn say(&mut self, event: &GuardEvent) {
        let Some(socket) = &mut self.socket else { return };
        let sent = serde_json::to_string(event)
            .map_err(io::Error::from)
            .and_then(|line| socket.write_all(format!("{line}\n").as_bytes()));
        if sent.is_err() {
            self.socket = None;
        }
    }
}

/// Lines from sweepd that came in pieces.
struct Orders {
    pending: Vec<u8>,
}

impl Orders {
    /// What is new on the socket; end of file means that the supervisor is gone.
    fn read(&mut self, socket: &UnixStream) -> Vec<Input> {
        let mut buffer = [0; 512];
        let mut inputs = Vec::new();
        match (&*socket).read(&mut buffer) {
            Ok(0) => inputs.push(Input::SupervisorGone),
            Ok(count) => self.pending.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => inputs.push(Input::SupervisorGone),
        }
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(GuardOrder::Stop) => inputs.push(Input::StopAsked),
                // An order that cannot be read is a broken supervisor: stop.
                Ok(GuardOrder::Kill) | Err(_) => inputs.push(Input::KillAsked),
            }
        }
        inputs
    }
}

struct Shell {
    spec: GuardSpec,
    guard: Guard,
    limits: Limits,
    leader: i32,
    leader_fd: OwnedFd,
    leader_status: Option<ExitStatus>,
    voice: Voice,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    cutters: [LineCutter; 2],
    log: BoundedLog,
    scanner: Scanner,
    strays_killed: HashMap<(i32, u64), ()>,
    started: Instant,
}

impl Shell {
    fn new(spec: GuardSpec, mut child: std::process::Child, mut voice: Voice) -> io::Result<Self> {
        let leader = i32::try_from(child.id()).map_err(io::Error::other)?;
        let pid = rustix::process::Pid::from_raw(leader)
            .ok_or_else(|| io::Error::other("the kernel gave pid 0"))?;
        let log = BoundedLog::create(&spec.log, spec.log_head_bytes, spec.log_tail_bytes)
            .or_else(|_| BoundedLog::create("/dev/null".as_ref(), 0, 0))?;
        voice.say(&GuardEvent::Launched { pid: leader });
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let pipes = [stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
        for pipe in pipes.into_iter().flatten() {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self {
            guard: Guard::launched(),
            limits: Limits {
                grace: Duration::from_millis(spec.grace_ms),
                kill: Duration::from_millis(spec.kill_ms),
            },
            leader,
            leader_fd: pidfd_open(pid, PidfdFlags::empty())?,
            leader_status: None,
            voice,
            stdout,
            stderr,
            cutters: [LineCutter::default(), LineCutter::default()],
            log,
            scanner: Scanner::new(spec.scan.clone(), LogPhase::Starting),
            strays_killed: HashMap::new(),
            started: Instant::now(),
            spec,
        })
    }

    fn run(&mut self, signals: &SignalFd, orders: &mut Orders) -> io::Result<()> {
        while self.guard.phase != Phase::Over {
            let ready = self.wait(signals)?;
            if ready.output {
                self.read_output();
            }
            if ready.signal {
                self.take_signals(signals);
            }
            if ready.signal || ready.leader {
                self.reap();
            }
            if ready.socket
                && let Some(socket) = &self.voice.socket
            {
                let inputs = orders.read(socket);
                for input in inputs {
                    if input == Input::SupervisorGone {
                        self.voice.socket = None;
                    }
                    self.input(input);
                }
            } else if self.voice.socket.is_none() && self.guard.phase == Phase::Running {
                self.input(Input::SupervisorGone);
            }
            self.input(Input::Tick);
        }
        self.read_output();
        self.report();
        Ok(())
    }

    fn wait(&self, signals: &SignalFd) -> io::Result<Ready> {
        let sources: [Option<BorrowedFd<'_>>; 5] = [
            Some(signals.as_fd()),
            self.leader_status.is_none().then(|| self.leader_fd.as_fd()),
            self.voice.socket.as_ref().map(AsFd::as_fd),
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
        ];
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut polled = fds.iter().map(|fd| fd.any().unwrap_or(false));
        let [signal, leader, socket, stdout, stderr] =
            sources.map(|source| source.is_some() && polled.next().unwrap_or(false));
        Ok(Ready { signal, leader, socket, output: stdout || stderr })
    }

    fn timeout(&self) -> PollTimeout {
        let Some(at) = self.guard.wake_at() else { return PollTimeout::NONE };
        // One millisecond more than the rest, so that the wake-up is never just too early.
        let wait = at.since(now()) + Duration::from_millis(1);
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    }

    fn input(&mut self, input: Input) {
        let (next, action) = self.guard.on(input, now(), self.limits);
        self.guard = next;
        match action {
            Some(Action::SignalLeader) => self.signal_leader(),
            Some(Action::KillAll) => {
                self.kill_all();
                self.reap();
            }
            Some(Action::Finish) | None => {}
        }
    }

    fn signal_leader(&mut self) {
        let sent = rustix::process::Signal::from_named_raw(self.spec.stop_signal)
            .is_some_and(|signal| pidfd_send_signal(&self.leader_fd, signal).is_ok());
        if !sent {
            self.voice.say(&GuardEvent::Note { text: "the stop signal could not be sent".into() });
        }
    }

    fn kill_all(&mut self) {
        let me = nix::unistd::getpid().as_raw();
        for process in tree::descendants(&tree::all(), me) {
            if tree::kill(&process) && process.pid != self.leader {
                self.strays_killed.insert((process.pid, process.start_ticks), ());
            }
        }
    }

    fn take_signals(&mut self, signals: &SignalFd) {
        while let Ok(Some(info)) = signals.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            match Signal::try_from(number) {
                Ok(Signal::SIGCHLD) | Err(_) => {}
                Ok(Signal::SIGTERM) => self.input(Input::StopAsked),
                Ok(other) => self.voice.say(&GuardEvent::Note {
                    text: format!("the guard received {other} from pid {}", info.ssi_pid),
                }),
            }
        }
    }

    /// Takes the status of everything that died. ECHILD is the proof that nothing is left.
    fn reap(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.died(pid, ExitStatus::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.died(pid, ExitStatus::Signal(signal as i32));
                }
                Ok(WaitStatus::StillAlive) => return,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => {
                    if !self.guard.empty {
                        self.input(Input::NothingLeft);
                    }
                    return;
                }
            }
        }
    }

    fn died(&mut self, pid: Pid, status: ExitStatus) {
        if pid.as_raw() == self.leader && self.leader_status.is_none() {
            self.leader_status = Some(status);
            // What it wrote last belongs before the news of its end.
            self.read_output();
            self.voice.say(&GuardEvent::LeaderExited { status });
            self.input(Input::LeaderGone);
        }
    }

    fn read_output(&mut self) {
        let mut out = self.stdout.take();
        let mut err = self.stderr.take();
        if !drain(&mut out, |bytes| self.take_bytes(0, bytes)) {
            out = None;
        }
        if !drain(&mut err, |bytes| self.take_bytes(1, bytes)) {
            err = None;
        }
        (self.stdout, self.stderr) = (out, err);
    }

    fn take_bytes(&mut self, source: usize, bytes: &[u8]) {
        let mut lines = Vec::new();
        if let Some(cutter) = self.cutters.get_mut(source) {
            cutter.feed(bytes, |line| lines.push(line));
        }
        for line in lines {
            self.take_line(source, &line);
        }
    }

    fn tell(&mut self, hits: Vec<Hit>) {
        for (rule, EvidenceLine { line, text }) in hits {
            self.voice.say(&GuardEvent::Matched { rule, line, text });
        }
    }

    fn take_line(&mut self, source: usize, text: &str) {
        let elapsed = self.started.elapsed().as_secs_f64();
        let name = if source == 0 { "out" } else { "err" };
        let number = self.log.line(&format!("[{elapsed:10.3} {name}] "), text);
        let hits = self.scanner.read(number, text);
        self.tell(hits);
    }

    fn report(&mut self) {
        for source in 0..self.cutters.len() {
            if let Some(rest) = self.cutters.get_mut(source).and_then(LineCutter::rest) {
                self.take_line(source, &rest);
            }
        }
        let held_back = self.scanner.finish();
        self.tell(held_back);
        self.log.finish();
        let me = nix::unistd::getpid().as_raw();
        let left = if self.guard.empty {
            Vec::new()
        } else {
            tree::descendants(&tree::all(), me).iter().map(tree::describe).collect()
        };
        let tail = |(line, text): &(u64, String)| EvidenceLine { line: *line, text: text.clone() };
        let report = GuardReport {
            leader: self.leader_status,
            leader_killed: self.guard.leader_killed,
            strays_killed: u32::try_from(self.strays_killed.len()).unwrap_or(u32::MAX),
            empty: self.guard.empty,
            left,
            log_lines: self.log.lines,
            log_bytes_elided: self.log.elided_bytes,
            log_bytes_lost: self.log.lost_bytes,
            tail: self.log.recent().map(tail).collect(),
        };
        self.voice.say(&GuardEvent::Ended(report));
    }
}

#[derive(Clone, Copy, Debug)]
struct Ready {
    signal: bool,
    leader: bool,
    socket: bool,
    output: bool,
}

/// Reads what is there, up to a bound so that a flood cannot starve the rest. False at the end.
fn drain(source: &mut Option<impl Read>, mut take: impl FnMut(&[u8])) -> bool {
    let Some(reader) = source else { return false };
    let mut buffer = [0; 64 * 1024];
    for _ in 0..16 {
        match reader.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => take(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

fn now() -> MonoNs {
    crate::clock::now()
}
