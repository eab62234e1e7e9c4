//! What is known of an attempt when it has ended. Only data.

use crate::engine::rules::Circumstances;
use crate::ids::Name;
use crate::run::effective::EffectiveConfig;
use crate::run::outcome::{EvidenceLine, ExitStatus, TimelineEntry};
use crate::run::phase::PhaseFacts;
use crate::run::search::SearchOutcome;
use crate::run::signal::Signal;
use crate::supervise::guard::message::GuardReport;
use crate::supervise::state::Why;
use crate::units::{ClockAnchor, MonoNs};
use std::time::Duration;

/// What is known when an attempt has ended.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) why: Why,
    /// What the times of its timeline count from, until they are moved.
    pub(crate) began: Option<MonoNs>,
    /// The state it was in when the reason to stop came.
    pub(crate) during: String,
    /// What the last look at it showed.
    pub(crate) signals: Vec<Signal>,
    /// From when to when it made no progress, as the last look took it.
    pub(crate) silence: Option<(MonoNs, MonoNs)>,
    /// The phase that was driven then.
    pub(crate) failed_phase: Option<Name>,
    pub(crate) matches: Vec<(usize, EvidenceLine)>,
    /// What the kernel and the GPUs showed meanwhile.
    pub(crate) circumstances: Circumstances,
    pub(crate) report: Option<GuardReport>,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) launched: bool,
    pub(crate) port_free: bool,
    /// Processes with our marker that the guard could not see, for example after its own death.
    pub(crate) marked_killed: u32,
    pub(crate) time_to_ready: Option<Duration>,
    pub(crate) stop_took: Option<Duration>,
    pub(crate) peak_memory_bytes: Option<u64>,
    pub(crate) effective: Option<EffectiveConfig>,
    pub(crate) phases: Vec<PhaseFacts>,
    pub(crate) searches: Vec<SearchOutcome>,
    pub(crate) timeline: Vec<TimelineEntry>,
    /// Why its GPUs were not given back as they were.
    pub(crate) gpu_not_released: Option<String>,
}

impl Finding {
    pub(super) fn empty(why: Why) -> Self {
        Self {
            why,
            began: None,
            during: "launching".into(),
            signals: Vec::new(),
            silence: None,
            failed_phase: None,
            matches: Vec::new(),
            circumstances: Circumstances::default(),
            report: None,
            exit: None,
            launched: false,
            port_free: true,
            marked_killed: 0,
            time_to_ready: None,
            stop_took: None,
            peak_memory_bytes: None,
            effective: None,
            phases: Vec::new(),
            searches: Vec::new(),
            timeline: Vec::new(),
            gpu_not_released: None,
        }
    }

    /// Moves the timeline, which began when the guard was started, to where the attempt began.
    pub(super) fn shift(&mut self, began: ClockAnchor) {
        let Some(from) = self.began.take() else { return };
        let by = milliseconds(MonoNs::new(began.mono_ns), from);
        for entry in &mut self.timeline {
            entry.at_ms += by;
        }
    }

    /// Puts what else happened in its place in the timeline.
    pub(super) fn note(
        &mut self,
        began: ClockAnchor,
        notes: impl IntoIterator<Item = (MonoNs, String)>,
    ) {
        let began = MonoNs::new(began.mono_ns);
        let entry = |(at, what)| TimelineEntry { at_ms: milliseconds(began, at), what };
        self.timeline.extend(notes.into_iter().map(entry));
        self.timeline.sort_by_key(|entry| entry.at_ms);
    }

    /// Nothing was started at all.
    pub(super) fn never_began(reason: String) -> Self {
        Self::empty(Why::Broken { reason })
    }
}

fn milliseconds(from: MonoNs, to: MonoNs) -> u64 {
    u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX)
}
