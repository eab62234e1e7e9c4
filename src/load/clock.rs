//! Brings kernel stamps (`CLOCK_REALTIME`) onto the clock of everything stored.
//!
//! Pure: samples of both clocks come from outside. NTP slews both clocks alike, so between two
//! turns of the loop the offset moves only by the noise of reading it. A larger jump means that
//! somebody set the wall clock.
//!
//! Invariant: an offset is taken from a sample only if the sample is narrower than the change it
//! would make, so that a descheduled reader is not mistaken for a stepped clock.

use crate::units::MonoNs;

/// A change of the offset beyond this between two turns is a step, not slew or noise.
pub(crate) const STEP_NS: i64 = 50_000;

/// Samples wider than this say too little about small changes.
const WIDE_NS: i64 = 5_000;

/// The wall clock, read between two readings of the monotonic one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockSample {
    pub(crate) before: MonoNs,
    pub(crate) realtime_ns: i64,
    pub(crate) after: MonoNs,
}

impl ClockSample {
    pub(crate) const fn width_ns(self) -> i64 {
        self.after.since_ns(self.before)
    }

    pub(crate) const fn is_narrow(self) -> bool {
        self.width_ns() <= WIDE_NS
    }

    const fn offset_ns(self) -> i64 {
        self.realtime_ns - (self.before.get() + self.width_ns() / 2)
    }
}

/// What a sample said about the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClockChange {
    /// The offset was followed within noise and slew.
    Followed,
    /// The sample was too wide to say anything; the offset stays.
    Unclear,
    /// The wall clock was set.
    Stepped,
}

/// `CLOCK_REALTIME` less `CLOCK_MONOTONIC`, as last sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WallOffset {
    ns: i64,
}

impl WallOffset {
    pub(crate) const fn new(sample: ClockSample) -> Self {
        Self { ns: sample.offset_ns() }
    }

    pub(crate) fn follow(&mut self, sample: ClockSample) -> ClockChange {
        let moved = (sample.offset_ns() - self.ns).abs();
        // The true offset lies within half the width of the sampled one.
        if moved > STEP_NS + sample.width_ns() / 2 {
            self.ns = sample.offset_ns();
            return ClockChange::Stepped;
        }
        if !sample.is_narrow() {
            return ClockChange::Unclear;
        }
        self.ns = sample.offset_ns();
        ClockChange::Followed
    }

    /// The instant that a stamp names, if it can be true: an answer arrives after `sent` and
    /// before `read`, when its bytes were in hand. Noise beyond these is cut off; more than a
    /// step's worth means that the clock was set in between.
    ///
    /// A stamp may well lie before the socket was last seen empty: a packet is stamped when it
    /// reaches the machine, and under load it reaches the socket later.
    pub(crate) fn place(
        self,
        stamp_realtime_ns: i64,
        sent: MonoNs,
        read: MonoNs,
    ) -> Option<MonoNs> {
        let at = stamp_realtime_ns - self.ns;
        let possible = at >= sent.get() - STEP_NS && at <= read.get().saturating_add(STEP_NS);
        possible.then(|| MonoNs::new(at.max(sent.get()).min(read.get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: i64 = 1_700_000_000_000_000_000;

    fn sample(before: i64, offset: i64, width: i64) -> ClockSample {
        ClockSample {
            before: MonoNs::new(before),
            realtime_ns: before + width / 2 + offset,
            after: MonoNs::new(before + width),
        }
    }

    #[track_caller]
    fn check(turns: &[(i64, i64, ClockChange)]) {
        let mut offset = WallOffset::new(sample(0, EPOCH, 100));
        for (turn, &(ns, width, want)) in turns.iter().enumerate() {
            let before = i64::try_from(turn).unwrap() * 1_000_000;
            let got = offset.follow(sample(before, EPOCH + ns, width));
            assert_eq!(got, want, "turn {turn}");
        }
    }

    #[test]
    fn a_step_is_told_from_slew_and_noise() {
        use ClockChange::{Followed, Stepped, Unclear};
        check(&[(0, 100, Followed), (40_000, 100, Followed), (80_000, 100, Followed)]);
        check(&[(50_001, 0, Stepped), (50_001, 0, Followed)]);
        check(&[(-3_600_000_000_000, 100, Stepped), (0, 100, Stepped)]);
        // 500 ppm of relative drift over a millisecond is 500 ns: never a step.
        check(&[(500, 90, Followed), (1_000, 90, Followed), (1_500, 90, Followed)]);
        // A reader that lost its CPU between the readings learns nothing small from them...
        check(&[(30_000, 200_000, Unclear), (60_000, 200_000, Unclear)]);
        // ...but a jump that is larger than its own doubt is one.
        check(&[(1_000_000_000, 200_000, Stepped)]);
    }

    #[test]
    fn an_unclear_sample_leaves_the_offset() {
        let mut offset = WallOffset::new(sample(0, EPOCH, 100));
        assert_eq!(offset.follow(sample(10, EPOCH + 40_000, 80_000)), ClockChange::Unclear);
        assert_eq!(offset.place(EPOCH + 7, MonoNs::new(0), MonoNs::new(100)), Some(MonoNs::new(7)));
    }

    #[test]
    fn a_stamp_is_placed_where_it_can_be_true() {
        let offset = WallOffset::new(sample(0, EPOCH, 0));
        let place = |at: i64| {
            offset.place(EPOCH + at, MonoNs::new(1_000), MonoNs::new(9_000)).map(MonoNs::get)
        };
        for (stamp, want) in [
            (5_000, Some(5_000)),
            (1_000, Some(1_000)),
            (900, Some(1_000)),
            (9_300, Some(9_000)),
            (9_000 + STEP_NS, Some(9_000)),
            (9_001 + STEP_NS, None),
            (999 - STEP_NS, None),
            (-86_400_000_000_000, None),
        ] {
            assert_eq!(place(stamp), want, "stamp {stamp}");
        }
    }
}
