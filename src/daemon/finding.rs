//! What is known of an attempt when it has ended. Only data.

use crate::engine::rules::Circumstances;
use crate::ids::Name;
use crate::run::effective::EffectiveConfig;
use crate::run::outcome::{EvidenceLine, ExitStatus, TimelineEntry};
use crate::run::phase::PhaseFacts;
use crate::supervise::guard::message::GuardReport;
use crate::supervise::state::Why;
use std::time::Duration;

/// What is known when an attempt has ended.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) why: Why,
    /// The state it was in when the reason to stop came.
    pub(crate) during: String,
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
    pub(crate) timeline: Vec<TimelineEntry>,
}

impl Finding {
    pub(super) fn empty(why: Why) -> Self {
        Self {
            why,
            during: "launching".into(),
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
            timeline: Vec::new(),
        }
    }

    /// Nothing was started at all.
    pub(super) fn never_began(reason: String) -> Self {
        Self::empty(Why::Broken { reason })
    }
}
