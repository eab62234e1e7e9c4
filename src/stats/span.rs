//! Which part of a phase is meant to be steady: from when its concurrency has come to its level. Pure.
//!
//! A closed loop's level is known: all of its users. An open loop has none of its own; its level is the
//! mean number of requests in flight over the second half, and is reached when there are that many for
//! the first time. Where that takes more than half, it never settled: as a rule more came than was
//! answered. Of an open loop in stages the steady part lies in its longest stage at one rate, and one
//! that only ramps has none.
//!
//! Invariant: what is cut off lies at the ends, and never because of what latencies were.

use crate::run::phase::PhaseFacts;
use crate::run::record::RequestRecord;
use crate::units::{MonoNs, count_f64};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: MonoNs,
    pub(crate) to: MonoNs,
    /// Of an open loop: whether the number in flight came to its level in the first half.
    pub(crate) level: Option<bool>,
}

/// `None` where the users were never all busy, or the rate never held.
pub(crate) fn steady(facts: &PhaseFacts, records: &[RequestRecord]) -> Option<Span> {
    let full = facts.full_at?;
    if facts.open.is_none() {
        return Some(Span { from: full, to: facts.stopped_at, level: None });
    }
    let (from, to) = held(facts)?;
    let reached = level_reached(records, from, to);
    Some(Span { from: reached.unwrap_or(from), to, level: Some(reached.is_some()) })
}

/// While the rate was one and the same.
fn held(facts: &PhaseFacts) -> Option<(MonoNs, MonoNs)> {
    if facts.stages.is_empty() {
        return Some((facts.started, facts.stopped_at));
    }
    let stages = stages(facts).filter(|(stage, _, _)| stage.to_per_s.is_none());
    let spans = stages.map(|(_, from, to)| (from, to.min(facts.stopped_at)));
    // Of equal ones the first.
    spans.filter(|(from, to)| from < to).rev().max_by_key(|(from, to)| to.since(*from))
}

/// The stages of an open loop, each with when it began and ended.
pub(crate) fn stages(
    facts: &PhaseFacts,
) -> impl DoubleEndedIterator<Item = (crate::workload::schedule::Stage, MonoNs, MonoNs)> {
    let mut at = facts.started;
    let mut all = Vec::with_capacity(facts.stages.len());
    for stage in &facts.stages {
        let from = at;
        at = at.plus(Duration::try_from_secs_f64(stage.seconds).unwrap_or(Duration::ZERO));
        all.push((*stage, from, at));
    }
    all.into_iter()
}

/// When the number in flight first came to its mean of the second half; `None` after the middle.
fn level_reached(records: &[RequestRecord], from: MonoNs, to: MonoNs) -> Option<MonoNs> {
    let middle = from.plus(to.since(from) / 2);
    let mut steps: Vec<(MonoNs, i64)> = Vec::with_capacity(records.len() * 2);
    for record in records {
        if let Some(sent) = record.sent {
            steps.extend([(sent, 1), (record.end, -1)]);
        }
    }
    steps.sort_unstable();
    // Requests are whole.
    let level = mean(&steps, middle, to).round();
    let at_from: i64 = steps.iter().filter(|(at, _)| *at <= from).map(|(_, step)| step).sum();
    let rises = in_flight(at_from) < level;
    let mut open = at_from;
    let later = steps.iter().filter(|(at, _)| *at > from).map(|(at, step)| {
        open += step;
        (*at, open)
    });
    let is_there = |open: i64| {
        if rises { in_flight(open) >= level } else { in_flight(open) <= level }
    };
    let mut all = std::iter::once((from, at_from)).chain(later);
    let first = all.find(|(_, open)| is_there(*open)).map(|(at, _)| at)?;
    (first <= middle).then_some(first)
}

/// Over time, not over requests.
fn mean(steps: &[(MonoNs, i64)], from: MonoNs, to: MonoNs) -> f64 {
    let (mut open, mut at, mut area) = (0_i64, from, 0.0);
    for (when, step) in steps {
        let upto = (*when).clamp(at, to.max(at));
        area += in_flight(open) * upto.since(at).as_secs_f64();
        at = upto;
        open += step;
    }
    area += in_flight(open) * to.since(at).as_secs_f64();
    let seconds = to.since(from).as_secs_f64();
    if seconds > 0.0 { area / seconds } else { 0.0 }
}

fn in_flight(open: i64) -> f64 {
    count_f64(u64::try_from(open).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::phase::OpenFacts;
    use crate::stats::fixture::{facts, ms, record};
    use crate::workload::schedule::Stage;

    /// A request every `gap` ms from `from` to `to`, each of which takes as long as `took` says.
    fn arrivals((from, to, gap): (i64, i64, i64), took: impl Fn(i64) -> i64) -> Vec<RequestRecord> {
        let each = (from..to).step_by(usize::try_from(gap).unwrap());
        each.map(|at| record(0, ms(at), &[at + took(at)], 1)).collect()
    }

    fn open(stages: &[(f64, Option<f64>, f64)]) -> PhaseFacts {
        let mut facts = facts("p", 1, [0, 10, 20_000, 21_000]);
        facts.open = Some(OpenFacts::default());
        let stage = |(rate_per_s, to_per_s, seconds): &(f64, Option<f64>, f64)| Stage {
            rate_per_s: *rate_per_s,
            to_per_s: *to_per_s,
            seconds: *seconds,
        };
        facts.stages = stages.iter().map(stage).collect();
        facts
    }

    #[track_caller]
    fn check(facts: &PhaseFacts, records: &[RequestRecord], want: Option<(i64, i64, bool)>) {
        let got = steady(facts, records);
        let want =
            want.map(|(from, to, level)| Span { from: ms(from), to: ms(to), level: Some(level) });
        assert_eq!(got, want);
    }

    #[test]
    fn a_closed_loop_is_steady_while_all_users_are_busy() {
        let closed = facts("p", 2, [0, 500, 9000, 9500]);
        let span = Span { from: ms(500), to: ms(9000), level: None };
        assert_eq!(steady(&closed, &[]), Some(span));
        let never = PhaseFacts { full_at: None, ..closed };
        assert_eq!(steady(&never, &[]), None);
    }

    #[test]
    fn an_open_loop_is_steady_when_as_many_are_in_flight_as_later() {
        // Ten a second that take 2 s each: twenty in flight, from 1.9 s on.
        check(&open(&[]), &arrivals((0, 20_000, 100), |_| 2_000), Some((1_900, 20_000, true)));
        // Answers that take longer and longer: the queue grows to the end.
        let growing = arrivals((0, 20_000, 100), |at| 500 + at / 2);
        check(&open(&[]), &growing, Some((0, 20_000, false)));
        check(&open(&[]), &[], Some((0, 20_000, true)));
    }

    #[test]
    fn a_stage_at_one_rate_is_the_steady_one() {
        let ramp = (0.0, Some(10.0), 4.0);
        let records = arrivals((0, 20_000, 100), |_| 300);
        check(&open(&[ramp, (10.0, None, 16.0)]), &records, Some((4_000, 20_000, true)));
        // The longest; of equals the first.
        let steps = [(10.0, None, 5.0), (10.0, None, 7.0), ramp, (10.0, None, 7.0)];
        check(&open(&steps), &records, Some((5_000, 12_000, true)));
        check(&open(&[ramp, ramp]), &records, None);
        // After a heavier stage it is steady when what that had left is done.
        let mut after = arrivals((0, 10_000, 10), |_| 300);
        after.extend(arrivals((10_000, 20_000, 100), |_| 310));
        let got = steady(&open(&[(100.0, None, 10.0), (10.0, None, 10.0)]), &after);
        assert_eq!(got.unwrap().to, ms(10_000), "of equal stages the first");
        let got = steady(&open(&[(100.0, None, 9.9), (10.0, None, 10.1)]), &after).unwrap();
        assert!(got.from > ms(9_900) && got.from < ms(10_400), "{got:?}");
    }
}
