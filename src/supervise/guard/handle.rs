//! sweepd's side of a guard: starts it, reads its events, gives it orders.
//!
//! Dropping the handle closes the socket, and that stops the engine.

use super::keep;
use super::message::{GuardEvent, GuardOrder, GuardSpec};
use crate::own;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;

/// The variable that names the attempt of a guard. Not the one of its engine's processes: those are
/// killed by theirs.
pub(crate) const GUARD: &str = "SWEEPD_GUARD";

/// A running guard.
#[derive(Debug)]
pub(crate) struct GuardHandle {
    child: Child,
    events: Lines<BufReader<OwnedReadHalf>>,
    orders: OwnedWriteHalf,
}

impl GuardHandle {
    /// Starts this executable as `sweepd __guard` and hands it its spec. It holds `keep` until its end.
    pub(crate) async fn start(spec: &GuardSpec, keep: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        keep::send(&ours, keep)?;
        let child = own::command("__guard")
            .env(GUARD, &spec.marker)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let (read, orders) = UnixStream::from_std(ours)?.into_split();
        let mut handle = Self { child, events: BufReader::new(read).lines(), orders };
        handle.send(&serde_json::to_string(spec)?).await?;
        Ok(handle)
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        self.child.id().and_then(|pid| i32::try_from(pid).ok())
    }

    /// The next event; `None` when the guard is gone. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<GuardEvent> {
        loop {
            let line = self.events.next_line().await.ok()??;
            // A line that cannot be read is left out; the guard's last word still counts.
            if let Ok(event) = serde_json::from_str(&line) {
                return Some(event);
            }
        }
    }

    /// A guard that is gone cannot be told anything; its absence shows in `next`.
    pub(crate) async fn order(&mut self, order: GuardOrder) {
        if let Ok(line) = serde_json::to_string(&order) {
            self.send(&line).await.ok();
        }
    }

    /// Waits for the guard's own exit, after its last event.
    pub(crate) async fn reap(&mut self) {
        self.child.wait().await.ok();
    }

    async fn send(&mut self, line: &str) -> io::Result<()> {
        self.orders.write_all(format!("{line}\n").as_bytes()).await
    }
}
