//! What sweepd decided after an attempt or instead of one, and why. Only data.

use super::outcome::FailureKind;
use crate::ids::{Name, TrialId};
use serde::{Deserialize, Serialize};

/// One decision on the way of a trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Decision {
    /// RFC 3339, UTC.
    pub(crate) at: String,
    /// After which attempt; absent if none was made.
    pub(crate) attempt: Option<u32>,
    #[serde(flatten)]
    pub(crate) choice: Choice,
    /// One sentence for a reader.
    pub(crate) because: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "decision")]
pub(crate) enum Choice {
    /// The trial is over: everything was measured, or nothing more can be.
    End,
    /// Launched again: the cause lies outside the variant.
    TryAgain { kind: FailureKind, retry: u32, of: u32 },
    /// The phase is the variant's limit: its failure is the result.
    Limit { phase: Name, kind: FailureKind },
    /// Not tried: it asks for more than a phase that failed.
    SkipPhase { phase: Name, limit: Name },
    /// The phases that are left go on in a new attempt.
    GoOn { phases: Vec<Name> },
    /// The whole trial is skipped: what failed in the other trials would fail here.
    SkipTrial { kind: FailureKind, trials: Vec<TrialId> },
}
