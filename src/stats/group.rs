//! Requests of a phase that belong together: those of one class, or of one stage of an open loop. Pure.
//!
//! Invariant: every request of a phase with classes is in one class at most, and every request of
//! one with stages in one stage; failed ones are in, and keep to no limit.

use crate::ids::Name;
use crate::run::phase::PhaseFacts;
use crate::run::record::RequestRecord;
use crate::run::slo::Slo;
use crate::stats::goodput;
use crate::stats::interval::OverTrials;
use crate::stats::metric::{Censoring, Distributions, Metric, Samples, share};
use crate::stats::request::RequestMetrics;
use crate::stats::span;
use crate::units::{MonoNs, PerSecond, count_f64};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GroupKey {
    Class(Name),
    /// From 0.
    Stage(u32),
}

/// A group in one phase of one trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct GroupTrial {
    pub(crate) key: GroupKey,
    /// Its limits, or its rate.
    pub(crate) what: String,
    pub(crate) sent: u64,
    pub(crate) ok: u64,
    /// Kept to all limits; absent where there are none.
    pub(crate) met: Option<u64>,
    /// Of the whole phase, or of the stage; absent where the phase broke off.
    pub(crate) sent_per_s: Option<f64>,
    pub(crate) goodput_per_s: Option<f64>,
}

/// A group over the trials of a phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) key: GroupKey,
    pub(crate) what: String,
    pub(crate) sent: u64,
    pub(crate) ok: u64,
    pub(crate) met: Option<u64>,
    /// Of those that were sent.
    pub(crate) met_share: Option<f64>,
    pub(crate) sent_per_s: Option<OverTrials>,
    /// Requests that kept to all limits, a second of the whole phase.
    pub(crate) goodput_per_s: Option<OverTrials>,
    /// TTFT, TPOT and E2EL, over the requests of all trials together.
    pub(crate) latency: Distributions,
}

/// How a phase's requests are told apart.
struct Kind {
    key: GroupKey,
    what: String,
    slo: Option<Slo>,
    duration: Duration,
    /// Of a stage: when it began and ended.
    within: Option<(MonoNs, MonoNs)>,
}

impl Kind {
    fn has(&self, record: &RequestRecord) -> bool {
        match (&self.key, self.within) {
            (GroupKey::Class(name), _) => record.class.as_ref() == Some(name),
            (GroupKey::Stage(_), Some((from, to))) => (from..to).contains(&record.scheduled),
            (GroupKey::Stage(_), None) => false,
        }
    }
}

fn kinds(facts: &PhaseFacts) -> Vec<Kind> {
    let whole = facts.ended.since(facts.started);
    let classes = facts.classes.iter().map(|class| Kind {
        key: GroupKey::Class(class.name.clone()),
        what: class.slo.describe(),
        slo: Some(class.slo),
        duration: whole,
        within: None,
    });
    let stages = (0..).zip(span::stages(facts)).map(|(n, (stage, from, to))| Kind {
        key: GroupKey::Stage(n),
        what: stage.describe(),
        slo: None,
        // What had not begun when the phase was stopped is no time of it.
        duration: to.min(facts.stopped_at.max(from)).since(from),
        within: Some((from, to)),
    });
    classes.chain(stages).collect()
}

/// The groups of a phase; their times go to `samples`, unless the phase broke off.
pub(crate) fn groups(
    facts: &PhaseFacts,
    records: &[RequestRecord],
    measured: bool,
    samples: &mut Samples,
) -> Vec<GroupTrial> {
    let one = |kind: Kind| {
        let (mut sent, mut ok, mut met) = (0_u64, 0_u64, 0_u64);
        for record in records.iter().filter(|record| kind.has(record)) {
            sent += 1;
            let Some(metrics) = RequestMetrics::of(record) else { continue };
            ok += 1;
            met += u64::from(kind.slo.is_some_and(|slo| goodput::met(&slo, &metrics)));
            if measured {
                let own = samples.of_group(&kind.key);
                own.add(Metric::Ttft, metrics.ttft_ms);
                own.add(Metric::Tpot, metrics.tpot_ms);
                own.add(Metric::E2el, metrics.e2el_ms);
            }
        }
        let rate = |count: u64| {
            let rate = PerSecond::over(count_f64(count), kind.duration).map(PerSecond::get);
            rate.filter(|_| measured)
        };
        GroupTrial {
            sent,
            ok,
            met: kind.slo.map(|_| met),
            sent_per_s: rate(sent),
            goodput_per_s: kind.slo.and_then(|_| rate(met)),
            key: kind.key,
            what: kind.what,
        }
    };
    kinds(facts).into_iter().map(one).collect()
}

impl Group {
    /// Those of all trials, each group once, in the order of the first trial that has it.
    pub(crate) fn over_trials(trials: &[&[GroupTrial]], samples: &mut Samples) -> Vec<Self> {
        let mut keys: Vec<&GroupTrial> = Vec::new();
        for group in trials.iter().copied().flatten() {
            if !keys.iter().any(|known| known.key == group.key) {
                keys.push(group);
            }
        }
        let one = |first: &GroupTrial| {
            let own: Vec<&GroupTrial> =
                trials.iter().copied().flatten().filter(|group| group.key == first.key).collect();
            let sum = |count: fn(&GroupTrial) -> u64| own.iter().map(|group| count(group)).sum();
            let over = |rate: fn(&GroupTrial) -> Option<f64>| {
                OverTrials::of(&own.iter().filter_map(|group| rate(group)).collect::<Vec<_>>())
            };
            let met: Option<u64> = own.iter().filter_map(|group| group.met).reduce(|a, b| a + b);
            let sent = sum(|group| group.sent);
            Self {
                key: first.key.clone(),
                what: first.what.clone(),
                sent,
                ok: sum(|group| group.ok),
                met,
                met_share: met.and_then(|met| share(met, sent)),
                sent_per_s: over(|group| group.sent_per_s),
                goodput_per_s: over(|group| group.goodput_per_s),
                latency: samples.of_group(&first.key).distributions(Censoring::default()),
            }
        };
        keys.into_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::record::RequestOutcome;
    use crate::run::slo::Class;
    use crate::stats::fixture::{facts, failed, ms, name, record};
    use crate::workload::schedule::Stage;

    fn class(label: &str, ttft_ms: f64) -> Class {
        let slo = Slo { ttft_ms: Some(ttft_ms), ..Slo::default() };
        Class { name: name(label), share: None, value: label.to_owned(), slo }
    }

    fn of_class(label: &str, mut record: RequestRecord) -> RequestRecord {
        record.class = Some(name(label));
        record
    }

    #[test]
    fn goodput_worked_by_hand() {
        let mut facts = facts("p", 2, [0, 0, 4_000, 5_000]);
        facts.classes = vec![class("quick", 150.0), class("slow", 5_000.0)];
        let records = vec![
            of_class("quick", record(0, ms(0), &[100, 200], 2)),
            of_class("quick", record(1, ms(0), &[150, 200], 2)),
            of_class("quick", record(2, ms(0), &[151, 200], 2)),
            of_class("quick", failed(3, ms(0), RequestOutcome::Cut, "cut")),
            of_class("slow", record(4, ms(0), &[3_000, 4_000], 2)),
            record(5, ms(0), &[3_000, 4_000], 2),
        ];
        let mut samples = Samples::default();
        let got = groups(&facts, &records, true, &mut samples);
        assert_eq!((got[0].sent, got[0].ok, got[0].met), (4, 3, Some(2)));
        assert_eq!((got[0].goodput_per_s, got[0].sent_per_s), (Some(0.4), Some(0.8)));
        assert_eq!((got[1].sent, got[1].met), (1, Some(1)));
        assert_eq!(got[0].what, "TTFT 150 ms");
        let over = Group::over_trials(&[&got, &got], &mut samples);
        assert_eq!((over[0].sent, over[0].met, over[0].met_share), (8, Some(4), Some(0.5)));
        assert_eq!(over[0].goodput_per_s.unwrap().mean, 0.4);
        assert_eq!(over[0].latency[&Metric::Ttft].n, 3);
        // A phase that broke off has counts alone.
        let mut none = Samples::default();
        let broken = groups(&facts, &records, false, &mut none);
        assert_eq!((broken[0].sent, broken[0].met, broken[0].goodput_per_s), (4, Some(2), None));
        assert!(Group::over_trials(&[&broken], &mut none)[0].latency.is_empty());
    }

    #[test]
    fn a_request_is_of_the_stage_in_which_it_was_due() {
        let mut facts = facts("p", 1, [0, 0, 3_000, 4_000]);
        let stage = |rate_per_s, to_per_s, seconds| Stage { rate_per_s, to_per_s, seconds };
        facts.stages = vec![stage(1.0, None, 2.0), stage(1.0, Some(5.0), 2.0)];
        let due = |at: i64| record(0, ms(at), &[at + 100], 1);
        let records = vec![due(0), due(1_999), due(2_000), due(2_500), due(2_900)];
        let got = groups(&facts, &records, true, &mut Samples::default());
        let seen: Vec<_> = got.iter().map(|g| (g.what.as_str(), g.sent, g.sent_per_s)).collect();
        // The second was stopped after one of its two seconds.
        assert_eq!(seen, [("1 for 2 s", 2, Some(1.0)), ("1 to 5 in 2 s", 3, Some(3.0))]);
        assert_eq!((got[0].met, got[0].goodput_per_s), (None, None));
    }
}
