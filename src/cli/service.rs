//! The daemon and the commands that speak with it, and what is generated from them all.

use super::{control, daemon, follow, generate, queue, submit, wait};
use clap::Subcommand;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Keep the queue and run it, also through crashes and reboots.
    Daemon(daemon::DaemonArguments),
    /// Put a sweep into the daemon's queue.
    Submit(submit::SubmitArguments),
    /// List the queue.
    Queue(queue::QueueArguments),
    /// Tell what the daemon does now, or how far a run is.
    Status(queue::StatusArguments),
    /// Show status and queue again and again.
    Watch(queue::WatchArguments),
    /// Tell what happened.
    Events(follow::EventsArguments),
    /// Tell what sweepd did in a trial, or what its engine wrote.
    Logs(follow::LogsArguments),
    /// Start no more trials, of the queue or of one run.
    Pause(control::WholeOrRun),
    /// Let the queue, or a paused or held run, go on.
    Resume(control::WholeOrRun),
    /// Cancel a run, or one of its trials.
    Cancel(control::RunOrTrial),
    /// Run trials again that did not complete, or the one that is named.
    Retry(control::RunOrTrial),
    /// Change a run's place in the queue.
    Move(control::MoveArguments),
    /// Take no new runs and finish those in the queue.
    Drain(control::DrainArguments),
    /// Wait for a run's end; the exit code tells what it came to.
    Wait(wait::WaitArguments),
    /// Print completions for a shell.
    Completions(generate::CompletionsArguments),
    /// Print the manual page.
    Man(generate::ManArguments),
}

impl ServiceCommand {
    pub(super) fn is_daemon(&self) -> bool {
        matches!(self, Self::Daemon(_))
    }
}

pub(super) fn run(command: &ServiceCommand, folders: Vec<PathBuf>) -> anyhow::Result<ExitCode> {
    use ServiceCommand as C;
    match command {
        C::Daemon(arguments) => daemon::run(arguments),
        C::Submit(arguments) => submit::run(arguments, folders),
        C::Queue(arguments) => queue::queue(arguments),
        C::Status(arguments) => queue::status(arguments),
        C::Watch(arguments) => queue::watch(arguments),
        C::Events(arguments) => follow::events(arguments),
        C::Logs(arguments) => follow::logs(arguments),
        C::Pause(arguments) => control::whole_or_run(arguments, "pause"),
        C::Resume(arguments) => control::whole_or_run(arguments, "resume"),
        C::Cancel(arguments) => control::run_or_trial(arguments, "cancel"),
        C::Retry(arguments) => control::run_or_trial(arguments, "retry"),
        C::Move(arguments) => control::move_run(arguments),
        C::Drain(arguments) => control::drain(arguments),
        C::Wait(arguments) => wait::run(arguments),
        C::Completions(arguments) => generate::completions(arguments),
        C::Man(arguments) => generate::man(arguments),
    }
}
