//! What is happening, for whoever watches. Nothing is decided by it.

use crate::ids::{Name, RunId, TrialId};
use crate::load::message::{Goal, LoadTick};
use crate::run::outcome::TrialOutcome;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

#[derive(Clone, Debug)]
pub(crate) enum Progress {
    TrialStarted {
        number: usize,
        of: usize,
        /// How long it and those behind it still take; `None` while that is not known.
        left: Option<Duration>,
        attempt: u32,
    },
    /// Its run has been opened: what may run beside it is known.
    Opened,
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

/// Which trial something is said of: several may be under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) run: RunId,
    pub(crate) trial: TrialId,
}

#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// `None`: of no trial in particular.
    pub(crate) of: Option<Arc<Subject>>,
    pub(crate) progress: Progress,
}

/// Where progress goes. Nobody listening is not an error.
#[derive(Clone, Debug)]
pub(crate) struct Watcher {
    sender: UnboundedSender<Said>,
    of: Option<Arc<Subject>>,
}

impl Watcher {
    pub(crate) fn new(sender: UnboundedSender<Said>) -> Self {
        Self { sender, of: None }
    }

    /// The same, for what is said of this trial.
    pub(crate) fn of(&self, run: &RunId, trial: &TrialId) -> Self {
        let subject = Subject { run: run.clone(), trial: trial.clone() };
        Self { of: Some(Arc::new(subject)), ..self.clone() }
    }

    pub(crate) fn say(&self, progress: Progress) {
        self.sender.send(Said { of: self.of.clone(), progress }).ok();
    }
}
