//! Runs a program that only prints something: a version, a list of flags. Always within a bound.

use crate::supervise::user::RunAs;
use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// What the program printed, run by that user, on stdout first. The error completes "cannot ask it: …".
pub(super) async fn output(
    argv: &[String],
    env: &BTreeMap<String, String>,
    user: Option<&RunAs>,
    within: Duration,
) -> Result<String, String> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err("there is no command".to_owned());
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(env).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(user) = user.filter(|_| nix::unistd::geteuid().is_root()) {
        // Its other groups are dropped, too: to say a version takes no more rights.
        command.uid(user.uid).gid(user.gid);
    }
    let output = command.output();
    let asked = || argv.join(" ");
    let output = match timeout(within, output).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("`{}` cannot be started: {error}", asked())),
        Err(_) => {
            let within = humantime::format_duration(within);
            return Err(format!("`{}` did not end within {within}", asked()));
        }
    };
    // Some print it on stdout, some on stderr.
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(format!("`{}` ended with {}: {}", asked(), output.status, last.trim()))
}
