//! Asks an engine for its version, once a run. Not knowing it stops nothing.

use super::prepare;
use crate::engine::launch;
use crate::sweep::def::Variant;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// Python engines import for seconds before they say their version.
const WITHIN: Duration = Duration::from_secs(60);

/// The version that the variant's engine tells of itself; `None` when it cannot be had.
pub(crate) async fn of(
    variant: &Variant,
    sweepd: &Path,
    inherited: &BTreeMap<String, String>,
) -> Option<String> {
    let slots = prepare::slots(variant, 0, sweepd);
    let argv = launch::version_argv(&variant.engine, &slots).ok()??;
    let env = prepare::environment(variant, inherited, &slots).ok()?;
    let (program, arguments) = argv.split_first()?;
    let output = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(WITHIN, output).await.ok()?.ok()?;
    // Some print it on stdout, some on stderr.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    launch::version_in(&variant.engine, &text).map(str::to_owned)
}
