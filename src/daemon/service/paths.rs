//! Where the daemon keeps things: what must last, and what lives as long as the machine is up.

use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Paths {
    /// Runs, the queue's own decisions, the index.
    pub(crate) state: PathBuf,
    /// The socket, and what must be undone.
    pub(crate) runtime: PathBuf,
}

impl Paths {
    pub(crate) fn runs(&self) -> PathBuf {
        self.state.join("runs")
    }

    pub(crate) fn run(&self, id: &str) -> PathBuf {
        self.runs().join(id)
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.state.join("sweepd.db")
    }

    /// Decisions about the queue as a whole.
    pub(crate) fn control(&self) -> PathBuf {
        self.state.join("control.jsonl")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    /// Messages about ended runs that have not been delivered.
    pub(crate) fn outbox(&self) -> PathBuf {
        self.state.join("outbox")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(&self.runtime)
    }
}

pub(crate) fn socket_in(runtime: &Path) -> PathBuf {
    runtime.join("sweepd.sock")
}
