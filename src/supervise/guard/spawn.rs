//! Starts the engine: in its groups, in a session of its own, with the rights it shall have, no core
//! dumps and no inherited environment.

use super::message::GuardSpec;
use crate::cpus::CpuSet;
use crate::supervise::cgroup::Hold;
use crate::supervise::user::RunAs;
use nix::fcntl::{OFlag, open};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchown, setsid};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// The variable that marks every process of an attempt.
pub(crate) const MARKER: &str = "SWEEPD_ATTEMPT";
/// When the host's memory runs out, the engine goes before sweepd and whoever else is here.
const OOM_SCORE: &[u8] = b"300";

/// Starts the engine on its CPUs. The guard goes there for as long as that takes, since what it starts
/// inherits its own, and an error can say more than its number.
pub(super) fn engine(spec: &GuardSpec, hold: &Hold) -> io::Result<Child> {
    let Some(cpus) = &spec.cpus else { return start(spec, hold) };
    let own = CpuSet::of_this_thread()?;
    let there = cpus.pin_this_thread().map_err(|why| io::Error::other(format!("it cannot {why}")));
    let started = there.and_then(|()| start(spec, hold));
    // Back from wherever it is now; on the engine's CPUs it would be in the way, and no more.
    own.pin_this_thread().ok();
    started
}

/// Starts the engine with both outputs piped. An error here is a group's, a right's or exec's own: no
/// such program, no permission.
#[expect(unsafe_code, reason = "pre_exec: the closure makes only async-signal-safe system calls")]
fn start(spec: &GuardSpec, hold: &Hold) -> io::Result<Child> {
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
    let mut doors = hold.doors()?;
    // Looked up here: between fork and exec nothing may be allocated.
    let user = spec.run_as.clone().map(|user| (user.group_list(), user));
    let guard = std::process::id();
    // SAFETY: between fork and exec of a single-threaded process, only system calls are made.
    unsafe {
        command.pre_exec(move || {
            doors.enter()?;
            setsid()?;
            // The guard takes its signals from a descriptor, so they are blocked in it; a blocked
            // SIGTERM would be inherited.
            SigSet::empty().thread_set_mask()?;
            limits()?;
            if let Some((groups, user)) = &user {
                take_rights(user, groups)?;
            }
            // A backstop for the guard's own death by SIGKILL; it reaches the leader only. The guard
            // has one thread, so "parent thread died" means "guard died". Set after the change of
            // user, which clears it.
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            // The guard may have died before that was set.
            if nix::unistd::getppid().as_raw().cast_unsigned() != guard {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    command.spawn()
}

fn limits() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // Hundreds of streams are as many open files; the soft limit is for programs that use select.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    // Best effort: a wish, not a limit.
    if let Ok(file) = open(c"/proc/self/oom_score_adj", OFlag::O_WRONLY, Mode::empty()) {
        nix::unistd::write(&file, OOM_SCORE).ok();
    }
    Ok(())
}

#[expect(unsafe_code, reason = "descriptors 1 and 2 are open: they were just made pipes")]
fn take_rights(user: &RunAs, groups: &[Gid]) -> io::Result<()> {
    // A program may open its /dev/stderr anew.
    for pipe in [1, 2] {
        // SAFETY: the descriptor is open for as long as it is borrowed.
        let pipe = unsafe { BorrowedFd::borrow_raw(pipe) };
        fchown(pipe, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid))).ok();
    }
    user.become_it(groups)
}
