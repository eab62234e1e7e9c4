//! Ctrl-C and SIGTERM as a count: once to finish in order, twice to kill engines now.

use crate::daemon::service::keeper::Signal;
use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::thread;
use tokio::sync::{mpsc, watch};

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

/// The daemon's: SIGTERM and SIGINT to end, SIGHUP to read the configuration again.
pub(super) fn daemon_signals() -> anyhow::Result<mpsc::UnboundedReceiver<Signal>> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot watch signals")?;
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                let signal = if signal == SIGHUP { Signal::Reload } else { Signal::Stop };
                if sender.send(signal).is_err() {
                    return;
                }
            }
        })
        .context("cannot start the thread for signals")?;
    Ok(receiver)
}
