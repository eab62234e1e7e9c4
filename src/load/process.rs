//! The load process: stdin, stdout and limits around the driver. Edge.
//!
//! Lines are read and written by threads, so that neither the parent's silence nor a full pipe
//! can hold up the loop.
//!
//! Invariant: the last line on stdout is `done` or `broken`.

#![expect(clippy::print_stderr, reason = "what even stdout could not be told")]

use super::driver::{DriveError, Stopper};
use super::loops::LoadPhase;
use super::message::{LoadEvent, LoadPlan};
use crate::cpus::CpuSet;
use crate::run::phase::PhaseFacts;
use crate::secrets;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

/// Descriptors beside the users' connections.
const OTHER_FILES: u64 = 64;

/// The entry of `sweepd __load`. `cpus`: what it is bound to.
pub(crate) fn main(cpus: Option<&CpuSet>) -> ExitCode {
    // Before there is another thread: all of them inherit it.
    let bound = cpus.map_or(Ok(()), CpuSet::pin_this_thread);
    let (notes, events) = mpsc::channel();
    let printer = std::thread::spawn(move || print_events(&events, &mut io::stdout()));
    let bound = bound.map_err(|why| format!("the load generator cannot {why}"));
    let last = match bound.and_then(|()| drive(&notes)) {
        Ok(facts) => LoadEvent::Done { facts: Box::new(facts) },
        Err(reason) => LoadEvent::Broken { reason },
    };
    let code = match &last {
        LoadEvent::Broken { .. } => ExitCode::FAILURE,
        LoadEvent::Started | LoadEvent::Tick(_) | LoadEvent::Done { .. } => ExitCode::SUCCESS,
    };
    let told = notes.send(last).is_ok();
    drop(notes);
    match printer.join() {
        Ok(Ok(())) if told => code,
        Ok(Ok(()) | Err(_)) | Err(_) => {
            eprintln!("cannot report the end of the phase: stdout is closed");
            ExitCode::FAILURE
        }
    }
}

fn drive(notes: &mpsc::Sender<LoadEvent>) -> Result<PhaseFacts, String> {
    // Ctrl-C reaches the whole terminal; whether this phase goes on is the parent's to say.
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::new(AtomicBool::new(false)))
        .map_err(|error| format!("cannot ignore SIGINT: {error}"))?;
    // The lock is given back at once: the thread that watches stdin reads on from there.
    let plan = read_plan(&mut io::stdin().lock())?;
    // What a server says may hold it.
    secrets::learn(plan.peer.key.iter().map(|key| key.expose().to_owned()));
    make_room_for(plan.users)?;
    let stopper = Stopper::new().map_err(|error| error.to_string())?;
    watch_stdin(stopper.clone()).map_err(|error| format!("cannot watch stdin: {error}"))?;
    LoadPhase::prepare(plan, stopper, notes.clone())
        .and_then(LoadPhase::run)
        .map_err(|error: DriveError| error.to_string())
}

fn read_plan(input: &mut impl BufRead) -> Result<LoadPlan, String> {
    let mut line = String::new();
    input.read_line(&mut line).map_err(|error| format!("cannot read the plan: {error}"))?;
    let plan: LoadPlan =
        serde_json::from_str(&line).map_err(|error| format!("the plan is no plan: {error}"))?;
    if plan.users == 0 {
        return Err("the plan has no users".to_owned());
    }
    Ok(plan)
}

/// Raises the limit of open files to what is allowed; that.
pub(super) fn all_files() -> nix::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Raises the limit of open files to what is allowed, and looks whether the users fit.
fn make_room_for(users: u32) -> Result<(), String> {
    let cannot = |error| format!("cannot raise the limit of open files: {error}");
    check_room(users, all_files().map_err(cannot)?)
}

fn check_room(users: u32, limit: u64) -> Result<(), String> {
    let needed = u64::from(users) + OTHER_FILES;
    if needed > limit {
        return Err(format!(
            "{users} users need {needed} open files and the limit is {limit} (ulimit -Hn)"
        ));
    }
    Ok(())
}

/// `stop`, or the end of stdin, ends the phase.
fn watch_stdin(stopper: Stopper) -> io::Result<()> {
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        for line in io::stdin().lines() {
            if line.is_ok_and(|line| line.trim() != "stop") {
                continue;
            }
            break;
        }
        stopper.stop();
    })?;
    Ok(())
}

fn print_events(events: &mpsc::Receiver<LoadEvent>, out: &mut impl Write) -> io::Result<()> {
    for event in events {
        let mut line = serde_json::to_vec(&event).map_err(io::Error::other)?;
        line.push(b'\n');
        out.write_all(&line)?;
        out.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::message::LoadTick;

    #[test]
    fn events_are_lines() {
        let (notes, events) = mpsc::channel();
        notes.send(LoadEvent::Started).unwrap();
        notes.send(LoadEvent::Tick(LoadTick { sent: 3, ..LoadTick::default() })).unwrap();
        drop(notes);
        let mut out = Vec::new();
        print_events(&events, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<LoadEvent> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], LoadEvent::Started);
    }

    #[test]
    fn what_is_no_plan_is_said() {
        let error = read_plan(&mut "{}\n".as_bytes()).unwrap_err();
        assert!(error.contains("phase"), "{error}");
        assert!(read_plan(&mut "".as_bytes()).is_err());
    }

    #[test]
    fn users_beyond_the_limit_of_files_are_refused() {
        assert_eq!(check_room(960, 1024), Ok(()));
        let error = check_room(961, 1024).unwrap_err();
        assert!(error.contains("961 users need 1025 open files"), "{error}");
    }
}
