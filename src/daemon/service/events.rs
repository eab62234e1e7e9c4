//! What happened, in order, for whoever follows: a bounded memory with numbers.
//!
//! Followers come with the number they have seen and read on at their own pace; nothing is kept
//! for any of them, so a slow one costs nobody anything. Who comes too late is told of the gap.
//!
//! Invariant: numbers only grow, also over sweepd's restarts.

use crate::clock;
use crate::ids::{RunId, TrialId};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// A night's worth of events, not of ticks.
const REMEMBERED: usize = 4096;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Event {
    pub(crate) id: u64,
    /// RFC 3339, UTC.
    pub(crate) at: String,
    pub(crate) event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trial: Option<TrialId>,
    /// For a reader.
    pub(crate) text: String,
}

#[derive(Debug)]
pub(crate) struct Events {
    kept: Mutex<VecDeque<Arc<Event>>>,
    latest: watch::Sender<u64>,
    /// Numbers up to this one are of an earlier sweepd.
    first: u64,
}

/// What a follower can no longer be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gap {
    Nothing,
    Events(u64),
    /// Something before sweepd's last start; how much, nobody knows.
    Unknown,
}

/// What a follower reads at once.
#[derive(Debug, PartialEq)]
pub(crate) struct Since {
    pub(crate) gap: Gap,
    pub(crate) events: Vec<Arc<Event>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        // Milliseconds since 1970, in thousandths: more than a million events a second would be
        // needed for a number to come twice.
        let first = clock::anchor().realtime_ns / 1_000;
        let first = u64::try_from(first).unwrap_or(0);
        Self { kept: Mutex::default(), latest: watch::Sender::new(first), first }
    }

    pub(crate) fn say(
        &self,
        event: &'static str,
        run: Option<&RunId>,
        trial: Option<&TrialId>,
        text: impl Into<String>,
    ) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *self.latest.borrow() + 1;
        kept.push_back(Arc::new(Event {
            id,
            at: clock::wall_time(),
            event,
            run: run.cloned(),
            trial: trial.cloned(),
            text: text.into(),
        }));
        if kept.len() > REMEMBERED {
            kept.pop_front();
        }
        drop(kept);
        self.latest.send_replace(id);
    }

    pub(crate) fn latest(&self) -> u64 {
        *self.latest.borrow()
    }

    /// Wakes up when there is more.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    /// Everything after number `seen`, at most `most` of them.
    pub(crate) fn since(&self, seen: u64, most: usize) -> Since {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let from = kept.partition_point(|event| event.id <= seen);
        let events: Vec<_> = kept.iter().skip(from).take(most).cloned().collect();
        let oldest = kept.front().map_or(seen + 1, |event| event.id);
        let gap = match seen {
            // Everything was asked for, whatever there is.
            0 => Gap::Nothing,
            _ if seen < self.first => Gap::Unknown,
            _ if oldest > seen + 1 => Gap::Events(oldest - seen - 1),
            _ => Gap::Nothing,
        };
        Since { gap, events }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_reads_on_from_its_number_and_is_told_of_a_gap() {
        let events = Events::new();
        let start = events.latest();
        for n in 0..10 {
            events.say("test", None, None, n.to_string());
        }
        assert_eq!(events.since(start, 100).events.len(), 10);
        let rest = events.since(start + 7, 100);
        assert_eq!((rest.gap, rest.events.len()), (Gap::Nothing, 3));
        assert!(events.since(events.latest(), 100).events.is_empty());
        for n in 0..REMEMBERED {
            events.say("test", None, None, n.to_string());
        }
        let rest = events.since(start + 7, 5);
        assert_eq!((rest.gap, rest.events.len()), (Gap::Events(3), 5));
        assert_eq!(rest.events[0].id, start + 11);
        assert_eq!(events.since(start - 5, 5).gap, Gap::Unknown);
        assert_eq!(events.since(0, 5).gap, Gap::Nothing);
    }
}
