//! sweepd's side of a load process: starts it, hands it its plan, reads its events.
//!
//! Dropping the handle closes its stdin, and that ends it.

use super::message::{LoadEvent, LoadPlan};
use crate::cpus::CpuSet;
use crate::own::{self, Piped};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

/// After its last event and the end of its stdin, it has nothing left to do.
const EXIT: Duration = Duration::from_secs(10);

/// A running load process.
#[derive(Debug)]
pub(crate) struct LoadHandle {
    child: Child,
    orders: Option<ChildStdin>,
    events: Lines<BufReader<ChildStdout>>,
}

impl LoadHandle {
    /// Bound to no CPUs.
    pub(crate) async fn start(plan: &LoadPlan) -> io::Result<Self> {
        Self::start_on(plan, None).await
    }

    /// `cpus`: what it is bound to, from its first instant.
    pub(crate) async fn start_on(plan: &LoadPlan, cpus: Option<&CpuSet>) -> io::Result<Self> {
        let mut command = own::command("__load");
        command.args(cpus.map(|cpus| format!("--cpus={cpus}")));
        let Piped { child, stdin: mut orders, lines: events } = Piped::start(command)?;
        orders.write_all(format!("{}\n", serde_json::to_string(plan)?).as_bytes()).await?;
        Ok(Self { child, orders: Some(orders), events })
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        self.child.id().and_then(|pid| i32::try_from(pid).ok())
    }

    /// The next event; `None` when the process is gone. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<LoadEvent> {
        loop {
            let line = self.events.next_line().await.ok()??;
            if let Ok(event) = serde_json::from_str(&line) {
                return Some(event);
            }
        }
    }

    /// Asks it to close its streams and to say `Done`.
    pub(crate) async fn stop(&mut self) {
        if let Some(orders) = &mut self.orders {
            orders.write_all(b"stop\n").await.ok();
        }
    }

    /// Waits for its exit after its last event; how it ended, in words, when that was not well.
    pub(crate) async fn reap(mut self) -> Option<String> {
        self.orders = None;
        match timeout(EXIT, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => None,
            Ok(Ok(status)) => Some(format!("the load process ended with {status}")),
            Ok(Err(error)) => Some(format!("the load process could not be waited for: {error}")),
            // Dropping the child kills it.
            Err(_) => Some("the load process did not exit and was killed".to_owned()),
        }
    }
}
