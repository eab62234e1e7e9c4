//! Ctrl-C and SIGTERM as a count: once to finish in order, twice to kill engines now.

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::thread;
use tokio::sync::watch;

/// Counts the requests to stop, on a thread of its own, for as long as someone listens.
pub(super) fn stop_requests() -> anyhow::Result<watch::Receiver<u32>> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot watch signals")?;
    let (count, requests) = watch::channel(0);
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for _ in signals.forever() {
                count.send_modify(|count| *count += 1);
            }
        })
        .context("cannot start the thread for signals")?;
    Ok(requests)
}
