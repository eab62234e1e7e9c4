//! Starts the engine: its own session, no core dumps, no inherited environment.

use super::message::GuardSpec;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::SigSet;
use nix::unistd::setsid;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// The variable that marks every process of an attempt.
pub(crate) const MARKER: &str = "SWEEPD_ATTEMPT";

/// Starts the engine with both outputs piped. An error here is exec's own: no such program, no permission.
#[expect(unsafe_code, reason = "pre_exec: the closure makes only async-signal-safe system calls")]
pub(super) fn engine(spec: &GuardSpec) -> io::Result<Child> {
    let (program, arguments) = spec
        .argv
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .env(MARKER, &spec.marker)
        .current_dir(&spec.cwd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: between fork and exec of a single-threaded process, only system calls are made.
    unsafe {
        command.pre_exec(|| {
            setsid()?;
            // The guard takes its signals from a descriptor, so they are blocked in it; a blocked
            // SIGTERM would be inherited.
            SigSet::empty().thread_set_mask()?;
            setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
            // A backstop for the guard's own death by SIGKILL; it reaches the leader only.
            // The guard has one thread, so "parent thread died" means "guard died".
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            Ok(())
        });
    }
    command.spawn()
}
