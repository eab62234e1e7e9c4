//! `[smoke]`: whether each variant is launched once before the first block, to see that it works.
//!
//! A smoke launch is a trial of block 0: one request at the longest input and output, no warm-up,
//! torn down again. Its figures are in no result; that it failed, and how long it took, is known.

use super::def::{Pattern, Phase, PlannedTrial, Sweep, Warmup};
use crate::form::Fields;
use crate::ids::Name;
use std::num::NonZeroU32;
use std::time::Duration;

/// The block of smoke launches; blocks that count begin with 1.
pub(crate) const SMOKE_BLOCK: u32 = 0;

/// A sweep without `[smoke]` begins with it.
pub(super) fn first(fields: Option<&Fields<'_>>) -> bool {
    fields.and_then(|fields| fields.optional("first").boolean()).unwrap_or(true)
}

/// The launches that come before the first block, in the order of the sweep file.
pub(crate) fn planned(sweep: &Sweep) -> Vec<PlannedTrial> {
    let variants = sweep.variants.iter().filter(|_| sweep.smoke_first);
    let trial = |name: &Name| PlannedTrial { block: SMOKE_BLOCK, variant: name.clone() };
    variants.map(|variant| trial(&variant.name)).collect()
}

/// What a smoke launch runs: the sweep with nothing but one request.
pub(crate) fn sweep(whole: &Sweep) -> Sweep {
    let one = NonZeroU32::MIN;
    let phase = |name: Name| Phase {
        name,
        users: one,
        pattern: Pattern::CLOSED,
        min_requests: 1,
        min_duration: Duration::ZERO,
    };
    Sweep {
        warmup: Warmup { requests: 0, users: one },
        phases: Name::new("smoke").map(phase).into_iter().collect(),
        ..whole.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::parse::tests::{RIGHT, sweep as read};

    #[test]
    fn every_variant_is_launched_once_unless_told_otherwise() {
        let names = |text: &str| -> Vec<String> {
            planned(&read(text)).iter().map(|trial| trial.id().to_string()).collect()
        };
        assert_eq!(names(RIGHT), ["00-slow", "00-fast"]);
        let without = RIGHT.replace("[workload]", "[smoke]\nfirst = false\n[workload]");
        assert!(names(&without).is_empty());
    }

    #[test]
    fn a_smoke_launch_sends_one_request_of_the_same_lengths() {
        let whole = read(RIGHT);
        let smoke = sweep(&whole);
        assert_eq!(smoke.workload, whole.workload);
        assert_eq!((smoke.warmup.requests, smoke.phases.len()), (0, 1));
        assert_eq!((smoke.phases[0].min_requests, smoke.phases[0].users.get()), (1, 1));
    }
}
