//! How the phases of a trial used a data set. Pure.
//!
//! Invariant: what was asked twice, and what was not asked at all, is counted.

use crate::run::phase::PhaseFacts;
use crate::run::record::RequestRecord;
use crate::workload::dataset::{PartFacts, Turns};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One phase's use of its part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DatasetUse {
    pub(crate) part: PartFacts,
    /// Conversations that were begun, or single messages that were asked.
    pub(crate) begun: u64,
    /// Of these, those of entries that had been begun before in the phase.
    pub(crate) repeated: u64,
}

impl DatasetUse {
    pub(crate) fn of(facts: &PhaseFacts, records: &[RequestRecord]) -> Option<Self> {
        let part = facts.dataset.as_deref()?.clone();
        let mut asked: Vec<(u32, u32, u32)> = records
            .iter()
            .filter_map(|record| Some((record.user, record.turn, record.dataset_entry?)))
            .collect();
        asked.sort_unstable();
        let goes_on = |at: usize| match (part.turns, at.checked_sub(1).and_then(|n| asked.get(n))) {
            (Turns::First, _) | (_, None) => false,
            (Turns::All, Some(before)) => {
                asked.get(at).is_some_and(|this| (this.0, this.2) == (before.0, before.2))
            }
        };
        let begun = (0..asked.len()).filter(|at| !goes_on(*at)).count();
        let different: BTreeSet<u32> = asked.iter().map(|(_, _, entry)| *entry).collect();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Some(Self {
            part,
            begun: count(begun),
            repeated: count(begun.saturating_sub(different.len())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture::{facts, ms, record};

    #[test]
    fn what_was_asked_again_is_counted() {
        let mut facts = facts("p", 1, [0, 0, 1000, 1000]);
        let part = |turns| PartFacts {
            turns,
            entries: 5,
            looked_at: 5,
            fitting: 3,
            left_out: [("too long".to_owned(), 2)].into(),
        };
        let asked = |each: &[(u32, u32, u32)]| -> Vec<RequestRecord> {
            let one = |(user, turn, entry): &(u32, u32, u32)| RequestRecord {
                user: *user,
                turn: *turn,
                dataset_entry: Some(*entry),
                ..record(0, ms(0), &[10], 1)
            };
            each.iter().map(one).collect()
        };
        let used = |facts: &PhaseFacts, records: &[RequestRecord]| {
            DatasetUse::of(facts, records).map(|used| (used.begun, used.repeated))
        };
        // In the order of their ends, as files have them.
        let records = asked(&[(1, 0, 8), (0, 1, 7), (0, 0, 7), (0, 2, 9), (1, 1, 9)]);
        assert_eq!(used(&facts, &records), None);
        facts.dataset = Some(Box::new(part(Turns::First)));
        assert_eq!(used(&facts, &records), Some((5, 2)));
        facts.dataset = Some(Box::new(part(Turns::All)));
        assert_eq!(used(&facts, &records), Some((4, 1)));
    }
}
