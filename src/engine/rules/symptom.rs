//! What was seen of an engine from outside, and what that alone allows to say.

use super::rule::ExitRule;
use crate::run::outcome::{ExitStatus, FailureKind};
use std::time::Duration;

/// Why an attempt was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Symptom {
    /// The process ended although nobody had asked it to.
    Exited { status: ExitStatus, was_ready: bool },
    /// The deadline for becoming ready passed.
    NotReady { waited: Duration, last_probe: Option<String> },
    /// It is said to have failed while it started, and its log ends there.
    NeverReady,
    /// It answered, but no token could be had from it.
    CannotGenerate { detail: String },
    /// No stream brought a byte for so long.
    NoProgress { silent: Duration },
    /// It never ran.
    CannotLaunch { detail: String },
    /// Its port was taken by a process that is not its own.
    PortTaken { port: u16 },
    /// What was asked of it was not done by the deadline, although it made progress.
    TooSlow { detail: String },
    /// It lives, but accepts no connections any more.
    NoConnections,
    /// What the driver told of its GPU.
    Gpu { kind: FailureKind, detail: String },
}

/// What else was seen while it ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Circumstances {
    /// Processes of its container that the kernel killed for want of memory, where that is counted.
    pub(crate) oom_kills: Option<u64>,
    /// Lines of the kernel's log that speak of its processes or its GPUs.
    pub(crate) kernel_log: Vec<String>,
    /// Memory on its GPUs that was held by others, when it started or later.
    pub(crate) gpu_bytes_of_others: Option<u64>,
}

/// What a symptom alone allows to say.
pub(super) struct Finding {
    pub(super) kind: FailureKind,
    pub(super) summary: String,
    pub(super) advice: Option<String>,
    pub(super) strength: Strength,
}

/// Against what the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Strength {
    /// Anything that the log says is more.
    Weak,
    /// It says more than a cascade's line.
    Fair,
    /// Only a root cause in the log says more.
    Sure,
}

fn new(kind: FailureKind, summary: String, advice: Option<&str>, strength: Strength) -> Finding {
    Finding { kind, summary, advice: advice.map(str::to_owned), strength }
}

pub(super) fn finding(symptom: &Symptom, exits: &[ExitRule]) -> Finding {
    use FailureKind as Kind;
    use Strength::{Fair, Sure, Weak};
    match symptom {
        Symptom::Exited { status, was_ready } => exited(*status, *was_ready, exits),
        Symptom::NotReady { waited, last_probe } => {
            let met = last_probe.as_ref().map_or(String::new(), |met| format!(": {met}"));
            let summary = format!("it was not ready after {}{met}", shown(*waited));
            let advice =
                "see the end of its log; a slow disk or compilation may need `deadlines.load`";
            new(Kind::StartupTimeoutOrHang, summary, Some(advice), Weak)
        }
        Symptom::NeverReady => {
            let summary = "its log ends while it starts".to_owned();
            let advice =
                "it stands still, or the log was taken too early: see how old its last line is";
            new(Kind::StartupTimeoutOrHang, summary, Some(advice), Weak)
        }
        Symptom::CannotGenerate { detail } => {
            let summary = format!("it answered, but could not generate one token: {detail}");
            new(Kind::CannotGenerate, summary, None, Weak)
        }
        Symptom::NoProgress { silent } => {
            let summary = format!("no stream brought a byte for {}", shown(*silent));
            new(Kind::WatchdogTimeout, summary, None, Fair)
        }
        Symptom::CannotLaunch { detail } => {
            new(Kind::CannotLaunch, format!("it could not be started: {detail}"), None, Sure)
        }
        Symptom::PortTaken { port } => {
            let summary = format!("port {port} was taken by a process that is not its own");
            new(Kind::PortInUse, summary, None, Sure)
        }
        Symptom::TooSlow { detail } => {
            let advice = "give the phase a longer deadline, fewer requests, or fewer users";
            new(Kind::RequestTimeout, detail.clone(), Some(advice), Weak)
        }
        Symptom::Gpu { kind, detail } => {
            let advice = "look for Xid lines in dmesg; the GPU may need a reset or a reboot";
            let advice = (*kind == Kind::XidOrHwFault).then_some(advice);
            new(*kind, detail.clone(), advice, Sure)
        }
        Symptom::NoConnections => {
            let summary = "it no longer accepted connections".to_owned();
            new(Kind::ExitedUnexpectedly, summary, None, Weak)
        }
    }
}

fn exited(status: ExitStatus, was_ready: bool, exits: &[ExitRule]) -> Finding {
    let status = as_signal(status);
    let general = match status {
        ExitStatus::Signal(signal) => ended_by(signal),
        ExitStatus::Code(code) => new(
            FailureKind::ExitedUnexpectedly,
            format!("it ended by itself with exit code {code}"),
            None,
            Strength::Weak,
        ),
    };
    let own = exits.iter().find(|exit| exit.status == status && !(exit.before_ready && was_ready));
    let Some(own) = own else { return general };
    let advice = own.advice.clone().or(general.advice);
    Finding { kind: own.kind, advice, strength: Strength::Fair, ..general }
}

/// A shell, a container and a launcher give 128 and the signal as their own exit code.
pub(super) fn as_signal(status: ExitStatus) -> ExitStatus {
    match status {
        ExitStatus::Code(code @ 129..=159) => ExitStatus::Signal(code - 128),
        ExitStatus::Code(code @ -31..=-1) => ExitStatus::Signal(-code),
        other => other,
    }
}

fn ended_by(signal: i32) -> Finding {
    let (kind, strength) = match signal {
        libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE => {
            (FailureKind::CrashSegfault, Strength::Sure)
        }
        // A program that finds itself in an impossible state ends itself so.
        libc::SIGABRT => (FailureKind::AssertionOrPythonException, Strength::Fair),
        libc::SIGTERM | libc::SIGINT | libc::SIGHUP => (FailureKind::KilledByUser, Strength::Fair),
        _ => (FailureKind::ExitedUnexpectedly, Strength::Weak),
    };
    let advice = match signal {
        libc::SIGILL => Some("its build needs instructions that this CPU lacks"),
        libc::SIGBUS => Some("often a full /dev/shm, or a model file cut short while in use"),
        libc::SIGKILL => Some("sweepd did not send it: most often the kernel, out of memory"),
        _ => None,
    };
    let name = nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned());
    new(kind, format!("it was ended by {name}"), advice, strength)
}

/// To the tenth of a second.
fn shown(span: Duration) -> String {
    let tenths = u64::try_from(span.as_millis() / 100).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(tenths.saturating_mul(100))).to_string()
}
