//! The guard's loop: waits for whatever happens next, lets `state` decide, does it.
#![expect(clippy::disallowed_methods, reason = "the clock enters here")]

use super::message::{GuardEvent, GuardOrder, GuardReport, GuardSpec};
use super::output::Output;
use super::state::{Action, Guard, Input, Limits, Phase};
use super::voice::{Heard, Orders, Voice};
use super::{keep, spawn};
use crate::run::containment::SharedMemory;
use crate::run::outcome::ExitStatus;
use crate::secrets;
use crate::supervise::cgroup::Hold;
use crate::supervise::oom::KernelWatch;
use crate::supervise::shm::ShmWatch;
use crate::supervise::tree::{self, Process};
use crate::supervise::{cgroup, stuck};
use crate::units::MonoNs;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use std::collections::HashSet;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitCode};
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
    // Held until this process ends, and never looked at.
    let _kept = keep::receive(&socket)?;
    let mut lines = BufReader::new(socket.try_clone()?);
    let mut first = String::new();
    lines.read_line(&mut first)?;
    let spec: GuardSpec = serde_json::from_str(&first)?;
    secrets::learn(spec.secrets.clone());
    let mut orders = Orders { pending: lines.buffer().to_vec() };
    let mut voice = Voice { socket: Some(socket) };
    let watches = Watches {
        hold: Hold::take(spec.groups.clone()),
        kernel: KernelWatch::begin(),
        shm: ShmWatch::begin(),
    };
    let started = Instant::now();
    let child = match spawn::engine(&spec, &watches.hold) {
        Ok(child) => child,
        Err(error) => {
            let error = format!("cannot start {}: {error}", spec.argv.first().map_or("", |a| a));
            voice.say(&GuardEvent::LaunchFailed { error });
            cgroup::remove_empty(&spec.groups);
            return Ok(());
        }
    };
    let mut shell = Shell::new(&spec, child, voice, watches, started)?;
    let result = shell.run(&signals, &mut orders);
    if result.is_err() {
        // A guard that cannot wait cannot guard: nothing may be left behind.
        shell.kill_all();
    }
    shell.report();
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

/// What was begun before the engine, to tell afterwards what was the engine's doing.
struct Watches {
    hold: Hold,
    kernel: KernelWatch,
    shm: ShmWatch,
}

struct Shell {
    stop_signal: i32,
    guard: Guard,
    limits: Limits,
    leader: i32,
    leader_fd: OwnedFd,
    leader_status: Option<ExitStatus>,
    voice: Voice,
    output: Output,
    watches: Watches,
    /// Who was sent SIGKILL: pid and start time. A second one would change nothing.
    signalled: HashSet<(i32, u64)>,
    strays_killed: u32,
}

impl Shell {
    fn new(
        spec: &GuardSpec,
        mut child: Child,
        mut voice: Voice,
        watches: Watches,
        started: Instant,
    ) -> io::Result<Self> {
        let leader = i32::try_from(child.id()).map_err(io::Error::other)?;
        let pid = rustix::process::Pid::from_raw(leader)
            .ok_or_else(|| io::Error::other("the kernel gave pid 0"))?;
        let output = Output::new(spec, &mut child, started)?;
        voice.say(&GuardEvent::Launched { pid: leader });
        Ok(Self {
            stop_signal: spec.stop_signal,
            guard: Guard::launched(),
            limits: Limits {
                grace: Duration::from_millis(spec.grace_ms),
                kill: Duration::from_millis(spec.kill_ms),
            },
            leader,
            leader_fd: pidfd_open(pid, PidfdFlags::empty())?,
            leader_status: None,
            voice,
            output,
            watches,
            signalled: HashSet::new(),
            strays_killed: 0,
        })
    }

    fn run(&mut self, signals: &SignalFd, orders: &mut Orders) -> io::Result<()> {
        while self.guard.phase != Phase::Over {
            let ready = self.wait(signals)?;
            if ready.output {
                self.output.read(&mut self.voice);
            }
            if ready.shared_memory && self.watches.shm.take_made() {
                self.engine();
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
                for heard in orders.read(socket) {
                    self.heard(heard);
                }
            } else if self.voice.socket.is_none() && self.guard.phase == Phase::Running {
                self.input(Input::SupervisorGone);
            }
            self.input(Input::Tick);
        }
        self.output.read(&mut self.voice);
        Ok(())
    }

    fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Order(GuardOrder::Stop) => self.input(Input::StopAsked),
            Heard::Order(GuardOrder::Kill) => self.input(Input::KillAsked),
            Heard::Order(GuardOrder::Look) => {
                self.engine();
            }
            Heard::Nobody => {
                self.voice.socket = None;
                self.input(Input::SupervisorGone);
            }
        }
    }

    /// The engine's living processes. What they have in `/dev/shm` is noted at the same time.
    fn engine(&mut self) -> Vec<Process> {
        let engine = tree::descendants(&tree::all(), nix::unistd::getpid().as_raw());
        self.watches.shm.look(&engine);
        engine
    }

    fn wait(&self, signals: &SignalFd) -> io::Result<Ready> {
        let [stdout, stderr] = self.output.pipes();
        let sources: [Option<BorrowedFd<'_>>; 6] = [
            Some(signals.as_fd()),
            self.leader_status.is_none().then(|| self.leader_fd.as_fd()),
            self.voice.socket.as_ref().map(AsFd::as_fd),
            self.watches.shm.made(),
            stdout,
            stderr,
        ];
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut polled = fds.iter().map(|fd| fd.any().unwrap_or(false));
        let [signal, leader, socket, shared_memory, stdout, stderr] =
            sources.map(|source| source.is_some() && polled.next().unwrap_or(false));
        Ok(Ready { signal, leader, socket, shared_memory, output: stdout || stderr })
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
        self.engine();
        let sent = rustix::process::Signal::from_named_raw(self.stop_signal)
            .is_some_and(|signal| pidfd_send_signal(&self.leader_fd, signal).is_ok());
        if !sent {
            self.voice.say(&GuardEvent::Note { text: "the stop signal could not be sent".into() });
        }
    }

    /// SIGKILL, once for each process: one that it does not end waits in the kernel.
    fn kill_all(&mut self) {
        let id = |process: &Process| (process.pid, process.start_ticks);
        let mut left = self.engine();
        left.retain(|process| !self.signalled.contains(&id(process)));
        if left.is_empty() {
            return;
        }
        let grouped = self.watches.hold.kill();
        for process in left {
            self.signalled.insert(id(&process));
            if (tree::kill(&process) || grouped) && process.pid != self.leader {
                self.strays_killed += 1;
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
            self.output.read(&mut self.voice);
            self.voice.say(&GuardEvent::LeaderExited { status });
            self.input(Input::LeaderGone);
        }
    }

    fn report(mut self) {
        self.output.finish(&mut self.voice);
        let empty = self.guard.empty;
        let left = if empty { Vec::new() } else { self.engine() };
        let kernel = self.watches.kernel.end(&self.watches.hold, self.leader);
        if empty && self.watches.hold.populated() == Some(true) {
            let text = "somebody put a process that is not the engine's into its control group";
            self.voice.say(&GuardEvent::Note { text: text.into() });
        }
        let report = GuardReport {
            leader: self.leader_status,
            leader_killed: self.guard.leader_killed,
            strays_killed: self.strays_killed,
            empty,
            left: left.iter().map(stuck::evidence).collect(),
            groups_left: self.watches.hold.remove(),
            kernel,
            shm: if empty { self.watches.shm.end() } else { SharedMemory::default() },
            log_lines: self.output.log.lines,
            log_bytes_elided: self.output.log.elided_bytes,
            log_bytes_lost: self.output.log.lost_bytes,
            tail: self.output.tail(),
        };
        self.voice.say(&GuardEvent::Ended(Box::new(report)));
    }
}

#[derive(Clone, Copy, Debug)]
struct Ready {
    signal: bool,
    leader: bool,
    socket: bool,
    shared_memory: bool,
    output: bool,
}

fn now() -> MonoNs {
    crate::clock::now()
}
