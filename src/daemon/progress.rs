//! What is happening, for whoever watches. Nothing is decided by it.

use crate::ids::{Name, TrialId};
use crate::load::message::{Goal, LoadTick};
use crate::run::outcome::TrialOutcome;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

#[derive(Clone, Debug)]
pub(crate) enum Progress {
    TrialStarted {
        number: usize,
        of: usize,
        /// How long it and those behind it still take; `None` while that is not known.
        left: Option<Duration>,
        trial: TrialId,
        attempt: u32,
    },
    /// A new state, in words.
    State {
        what: String,
    },
    PhaseStarted {
        phase: Name,
        /// Who asks, in words: `50 users`.
        who: String,
        goal: Goal,
    },
    Tick(LoadTick),
    /// The task that does the work is not stuck.
    Alive,
    TrialEnded {
        outcome: Box<TrialOutcome>,
    },
    /// All trials of a block have ended and the report was rewritten.
    BlockEnded {
        block: u32,
        of: u32,
    },
}

/// Where progress goes. Nobody listening is not an error.
#[derive(Clone, Debug)]
pub(crate) struct Watcher(pub(crate) UnboundedSender<Progress>);

impl Watcher {
    pub(crate) fn say(&self, progress: Progress) {
        self.0.send(progress).ok();
    }
}
