//! The process that the engine is: its signals, its children, its ways to die.
//!
//! Everything here happens for real: a fault of the simulated engine is the very event that a
//! supervisor must cope with.

use super::fault::Death;
use super::options::ChildRole;
use super::{clock, log};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, raise};
use nix::unistd::{Pid, getsid, pause, setsid};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A connection is a file; the usual limit of 1,024 is less than a large sweep's users.
pub(crate) fn raise_file_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok();
    }
}

/// A token that SIGTERM or SIGINT cancels.
pub(crate) fn stop_on_signal(ignore_sigterm: bool) -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let theirs = stop.clone();
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("sim-signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if signal == SIGTERM && ignore_sigterm {
                log::info("SIGTERM ignored (simulated fault)");
            } else {
                log::info("shutting down");
                theirs.cancel();
            }
        }
    })?;
    Ok(stop)
}

/// A child that keeps this socket open, whatever becomes of this process.
pub(crate) fn hold(listener: &impl AsFd) -> io::Result<Child> {
    let socket = listener.as_fd().try_clone_to_owned()?;
    spawn_child(ChildRole::Port, Stdio::from(socket))
}

/// Starts this executable again as a child that inherits stdout and stderr.
pub(crate) fn spawn_child(role: ChildRole, stdin: Stdio) -> io::Result<Child> {
    let name = match role {
        ChildRole::Worker => "worker",
        ChildRole::Session => "session",
        ChildRole::Port => "port",
    };
    let child = Command::new(std::env::current_exe()?)
        .args(["sim", "--child", name])
        .stdin(stdin)
        .spawn()?;
    if role != ChildRole::Worker {
        await_session(&child);
    }
    log::info(&format!("started child {} ({name})", child.id()));
    Ok(child)
}

/// Waits until the child leads its own session, so that nothing that happens to this process
/// can reach it any more.
fn await_session(child: &Child) {
    let Ok(pid) = i32::try_from(child.id()).map(Pid::from_raw) else { return };
    let give_up = clock::now().plus(Duration::from_secs(2));
    while getsid(Some(pid)) != Ok(pid) && clock::now() < give_up {
        clock::sleep_until(clock::now().plus(Duration::from_millis(1)));
    }
}

/// The life of such a child: nothing, until a signal ends it.
pub(crate) fn live_as(role: ChildRole) -> ExitCode {
    // Before it leads its session, for then its parent goes on.
    let deaf = role != ChildRole::Port || ignore_sigterm().is_ok();
    if !deaf || (role != ChildRole::Worker && setsid().is_err()) {
        return ExitCode::FAILURE;
    }
    loop {
        pause();
    }
}

/// A handler that does nothing; the pause that it ends is begun again.
fn ignore_sigterm() -> io::Result<()> {
    let nothing = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, nothing).map(drop)
}

/// Writes lines to stdout until nobody reads them.
pub(crate) fn flood(lines_per_second: u32) -> io::Result<()> {
    let gap = Duration::from_secs(1) / lines_per_second;
    std::thread::Builder::new().name("sim-flood".to_owned()).spawn(move || {
        let mut at = clock::now();
        let mut number = 0_u64;
        let text = "a line that says nothing, written because of a simulated fault";
        while io::stdout().write_all(format!("DEBUG:    {number} {text}\n").as_bytes()).is_ok() {
            number += 1;
            at = at.plus(gap);
            clock::sleep_until(at);
        }
    })?;
    Ok(())
}

/// No way to die takes a child along.
pub(crate) fn die(death: Death) -> ! {
    match death {
        Death::Oom => out_of_memory(),
        Death::Exit(code) => exit(code),
        Death::Crash => crash(),
        Death::LeaderExit => exit(1),
    }
}

/// What a CUDA engine built on torch prints when the GPU's memory is full.
fn out_of_memory() -> ! {
    log::line(
        "Traceback (most recent call last):\n  \
         File \"sim/scheduler.py\", line 1, in run_batch\n    \
         logits = self.model.forward(batch)\n\
         torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a \
         total capacity of 44.45 GiB of which 1.12 GiB is free. Process has 43.33 GiB memory in \
         use. (simulated fault)",
    );
    exit(1)
}

#[expect(clippy::disallowed_methods, reason = "a fault ends the process wherever it stands")]
fn exit(code: u8) -> ! {
    log::error(&format!("exiting with code {code} (simulated fault)"));
    std::process::exit(i32::from(code))
}

/// Dies by SIGSEGV.
fn crash() -> ! {
    // A core dump would be of no use to anyone.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).ok();
    log::error("segmentation fault (simulated fault)");
    // The first one may only remove the handler that Rust installs to report stack overflows.
    for _ in 0..2 {
        raise(Signal::SIGSEGV).ok();
    }
    std::process::abort()
}
