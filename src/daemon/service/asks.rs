//! What the keeper can be asked, and how it answers.

use super::view::{Done, Move, Refusal, RunDetail, Submitted};
use crate::daemon::order::Order;
use crate::ids::{RunId, TrialId};
use crate::store::control::{By, Schedule};
use crate::store::files::StoreError;
use tokio::sync::oneshot;

/// Why something was not done; `status` is HTTP's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) refusal: Refusal,
}

impl Refused {
    pub(crate) fn new(status: u16, error: impl Into<String>) -> Self {
        Self { status, refusal: Refusal { error: error.into(), help: None } }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.refusal.help = Some(help.into());
        self
    }

    pub(crate) fn no_run(run: &RunId) -> Self {
        Self::new(404, format!("there is no run `{run}`")).help("`sweepd queue --all` lists them")
    }

    pub(crate) fn no_trial(run: &RunId, trial: &str) -> Self {
        Self::new(404, format!("run `{run}` has no trial `{trial}`"))
            .help("a trial is named by block and variant: `01-NAME`")
    }

    /// It could not be written down, so it was not done.
    pub(crate) fn store(error: &StoreError) -> Self {
        let status = if error.is_disk_full() { 507 } else { 500 };
        Self::new(status, format!("nothing was changed: {error}"))
    }
}

pub(crate) type Answer<T> = oneshot::Sender<Result<T, Refused>>;

/// A change of the queue, by somebody who may.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) what: What,
    pub(crate) by: By,
    pub(crate) answer: Answer<Done>,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Cancel { run: RunId, trial: Option<TrialId> },
    Pause { run: Option<RunId> },
    Continue { run: Option<RunId> },
    Retry { run: RunId, trial: Option<TrialId> },
    Move { run: RunId, to: Move },
    Drain,
}

#[derive(Debug)]
pub(crate) enum Ask {
    Submit {
        order: Box<Order>,
        schedule: Schedule,
        by: By,
        answer: Answer<Submitted>,
    },
    Change(Request),
    /// `None` for a run that is not in the queue (any more).
    Detail {
        run: RunId,
        answer: oneshot::Sender<Option<RunDetail>>,
    },
    /// For tests of the watchdog: the control loop hangs.
    Stick,
}
