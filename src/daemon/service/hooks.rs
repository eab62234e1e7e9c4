//! How the morning person is told: a message for each run that ended, kept until it is delivered.
//!
//! Delivery never holds up the queue. Invariant: a message is on the disk before its run counts as
//! ended, and goes only when every hook took it or a week has passed.

use super::config::Hooks;
use crate::clock;
use crate::stats::summary::Summary;
use crate::store::files::{self, StoreError};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

const WITHIN: Duration = Duration::from_secs(60);
const TRIES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a hook is told: who, how far, and where to read on.
pub(super) fn write(outbox: &Path, summary: &Summary) -> Result<(), StoreError> {
    fs::create_dir_all(outbox).map_err(StoreError::io("create", outbox))?;
    let status = &summary.status;
    let message = serde_json::json!({
        "event": "run_ended",
        "run": summary.run,
        "sweep": summary.sweep,
        "status": status,
        "text": format!(
            "{}: {} of {} trials completed",
            summary.run, status.trials_completed, status.trials_planned
        ),
        "headline": crate::report::headline_table(summary),
    });
    files::write_json(&outbox.join(format!("{}.json", summary.run)), &message)
}

/// Delivers what is in the outbox, beside everything else.
pub(super) fn deliver(outbox: PathBuf, hooks: Hooks, run_as: Option<String>) {
    let entries = fs::read_dir(&outbox).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    for path in paths.filter(|path| path.extension().is_some_and(|e| e == "json")) {
        if hooks.command.is_empty() && hooks.webhook.is_none() {
            fs::remove_file(&path).ok();
            continue;
        }
        tokio::spawn(deliver_one(path, hooks.clone(), run_as.clone()));
    }
}

async fn deliver_one(path: PathBuf, hooks: Hooks, run_as: Option<String>) {
    // Whoever takes it first delivers it.
    let taken = path.with_extension("sending");
    if fs::rename(&path, &taken).is_err() {
        return;
    }
    let message = fs::read(&taken).unwrap_or_default();
    let mut pause = FIRST_PAUSE;
    let (mut command, mut webhook) = (!hooks.command.is_empty(), hooks.webhook.is_some());
    for attempt in 1..=TRIES {
        if command {
            command =
                tell("command", attempt, run(&hooks.command, run_as.as_deref(), &message).await);
        }
        if let Some(url) = hooks.webhook.as_ref().filter(|_| webhook) {
            webhook = tell("webhook", attempt, post(url, &message).await);
        }
        if !command && !webhook {
            fs::remove_file(&taken).ok();
            return;
        }
        sleep(pause).await;
        pause *= 2;
    }
    // For the next start, unless nobody will ever take it.
    if is_old(&taken) {
        fs::remove_file(&taken).ok()
    } else {
        fs::rename(&taken, &path).ok()
    };
}

/// Messages that were on their way when sweepd ended.
pub(super) fn take_back(outbox: &Path) {
    for entry in fs::read_dir(outbox).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "sending") {
            fs::rename(&path, path.with_extension("json")).ok();
        }
    }
}

fn is_old(path: &Path) -> bool {
    let written = fs::metadata(path).and_then(|facts| facts.modified());
    written.is_ok_and(|at| clock::system_time().duration_since(at).is_ok_and(|age| age > KEPT))
}

/// Whether it must be tried again.
fn tell(hook: &str, attempt: u32, result: Result<(), String>) -> bool {
    if let Err(reason) = &result {
        tracing::warn!(hook, attempt, reason, "a hook was not delivered");
    }
    result.is_err()
}

async fn run(argv: &[String], run_as: Option<&str>, message: &[u8]) -> Result<(), String> {
    let (program, arguments) = argv.split_first().ok_or("the command is empty")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.kill_on_drop(true);
    if let Some(user) = run_as.filter(|_| nix::unistd::geteuid().is_root()) {
        let user = nix::unistd::User::from_name(user).ok().flatten();
        let user = user.ok_or("`run_as` names no user of this machine")?;
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    let work = async {
        let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read its input may still have done its work.
            stdin.write_all(message).await.ok();
        }
        let status = child.wait().await.map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("{program} ended with {status}")) }
    };
    timeout(WITHIN, work).await.map_err(|_| format!("{program} did not end in time"))?
}

async fn post(url: &str, message: &[u8]) -> Result<(), String> {
    let client = reqwest::Client::builder().timeout(WITHIN).build().map_err(|e| e.to_string())?;
    let message: Value = serde_json::from_slice(message).map_err(|error| error.to_string())?;
    let answer = client.post(url).json(&message).send().await.map_err(|error| error.to_string())?;
    answer.error_for_status().map(|_| ()).map_err(|error| error.to_string())
}
