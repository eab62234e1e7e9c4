//! Processes that run this same executable in another role, spoken to in lines.

use std::io;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// The file that this process runs from, also when it was replaced or removed since: an upgrade in
/// the middle of a night must not mix two versions in one run.
const EXECUTABLE: &str = "/proc/self/exe";

/// `sweepd ROLE`, not started yet.
pub(crate) fn command(role: &str) -> Command {
    let mut command = Command::new(EXECUTABLE);
    command.arg0("sweepd").arg(role);
    command
}

/// A process that takes lines on its stdin and answers in lines; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Piped {
    pub(crate) child: Child,
    pub(crate) stdin: ChildStdin,
    pub(crate) lines: Lines<BufReader<ChildStdout>>,
}

impl Piped {
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C in the terminal is for sweepd alone, which then ends it in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let missing = || io::Error::other("the process has no pipes");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let lines = BufReader::new(child.stdout.take().ok_or_else(missing)?).lines();
        Ok(Self { child, stdin, lines })
    }
}
