//! One variant in one phase, over its trials.
//!
//! Throughput is a figure of a trial, so its mean and interval are over trials. Percentiles pool
//! the requests of all trials, because a tail needs many requests; each trial's own stand beside.

use crate::ids::Name;
use crate::stats::cost::Cost;
use crate::stats::data::PhasePlan;
use crate::stats::engine::EngineOverTrials;
use crate::stats::gpu::GpuOverTrials;
use crate::stats::group::{Group, GroupTrial};
use crate::stats::interval::OverTrials;
use crate::stats::metric::{Censoring, Distributions, Metric, Samples};
use crate::stats::phase::{Client, PhaseTrial, Requests, Tokens};
use crate::stats::window::Window;
use crate::units::count_f64;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) variant: Name,
    pub(crate) phase: Name,
    /// Of a closed loop; of an open one the most requests that were in flight at once, or, where
    /// nothing was measured, that might have been.
    pub(crate) users: u32,
    /// An open loop, in words.
    #[serde(default)]
    pub(crate) open: Option<String>,
    pub(crate) trials_planned: u64,
    /// Trials whose figures are in here.
    pub(crate) trials_measured: u64,
    pub(crate) steady: Throughput,
    pub(crate) whole: Throughput,
    /// Over the requests of all measured trials together.
    pub(crate) latency: Distributions,
    /// p99 - mean.
    pub(crate) ttft_jitter_ms: Option<f64>,
    pub(crate) output_tokens_per_chunk: Option<f64>,
    pub(crate) censoring: Censoring,
    /// Of all trials, also those that broke off.
    pub(crate) requests: Requests,
    pub(crate) tokens: Tokens,
    pub(crate) client: Client,
    pub(crate) client_cpu_s_per_million_output_tokens: Option<f64>,
    /// What the engine said of itself.
    #[serde(default)]
    pub(crate) engine: Option<EngineOverTrials>,
    /// Absent where no GPU was sampled.
    #[serde(default)]
    pub(crate) gpu: Option<GpuOverTrials>,
    /// Of a million output tokens; absent where the sweep has no price or no GPU was sampled.
    #[serde(default)]
    pub(crate) cost_per_million: Option<Cost>,
    /// Classes of its requests, and stages of its schedule.
    #[serde(default)]
    pub(crate) groups: Vec<Group>,
    pub(crate) trials: Vec<PhaseTrial>,
}

/// Throughput in one kind of window, over trials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Throughput {
    pub(crate) duration_s: Option<OverTrials>,
    pub(crate) output_tokens_per_s: Option<OverTrials>,
    pub(crate) total_tokens_per_s: Option<OverTrials>,
    pub(crate) requests_per_s: Option<OverTrials>,
}

impl Throughput {
    fn of<'a>(windows: impl Iterator<Item = &'a Window>) -> Self {
        let windows: Vec<&Window> = windows.collect();
        let over = |rate: fn(&Window) -> Option<f64>| {
            OverTrials::of(&windows.iter().filter_map(|window| rate(window)).collect::<Vec<_>>())
        };
        Self {
            duration_s: over(|window| Some(window.duration_s)),
            output_tokens_per_s: over(|window| window.output_tokens_per_s),
            total_tokens_per_s: over(|window| window.total_tokens_per_s),
            requests_per_s: over(|window| Some(window.requests_per_s)),
        }
    }
}

impl Cell {
    pub(crate) fn of(
        variant: &Name,
        phase: &PhasePlan,
        trials_planned: u64,
        measured: Vec<(PhaseTrial, Samples)>,
    ) -> Self {
        let mut pooled = Samples::default();
        let mut trials = Vec::with_capacity(measured.len());
        for (trial, samples) in measured {
            pooled.append(samples);
            trials.push(trial);
        }
        let mut censoring = Censoring::default();
        let (mut requests, mut tokens) = (Requests::default(), Tokens::default());
        let mut client = Client::default();
        for trial in &trials {
            censoring.add(trial.censoring);
            requests.add(&trial.requests);
            tokens.add(&trial.tokens);
            client.add(&trial.client);
        }
        let latency = pooled.distributions(censoring);
        let groups: Vec<&[GroupTrial]> = trials.iter().map(|trial| &*trial.groups).collect();
        let groups = Group::over_trials(&groups, &mut pooled);
        Self {
            variant: variant.clone(),
            phase: phase.name.clone(),
            users: match &phase.open {
                Some(_) => trials.iter().map(|t| t.most_in_flight).max().unwrap_or(phase.users),
                None => phase.users,
            },
            open: phase.open.clone(),
            trials_planned,
            trials_measured: trials.iter().map(|trial| u64::from(trial.measured)).sum(),
            steady: Throughput::of(trials.iter().filter_map(|trial| trial.steady.as_ref())),
            whole: Throughput::of(trials.iter().filter_map(|trial| trial.whole.as_ref())),
            ttft_jitter_ms: latency
                .get(&Metric::Ttft)
                .and_then(|ttft| ttft.p99.map(|p99| p99 - ttft.mean)),
            output_tokens_per_chunk: tokens.per_chunk(),
            client_cpu_s_per_million_output_tokens: (tokens.output > 0)
                .then(|| client.cpu_s / count_f64(tokens.output) * 1e6),
            latency,
            censoring,
            requests,
            tokens,
            client,
            engine: EngineOverTrials::of(trials.iter().filter_map(|trial| trial.engine.as_ref())),
            gpu: GpuOverTrials::of(trials.iter().filter_map(|trial| trial.gpu.as_ref())),
            cost_per_million: None,
            groups,
            trials,
        }
    }

    pub(crate) fn is(&self, variant: &Name, phase: &Name) -> bool {
        self.variant == *variant && self.phase == *phase
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::phase::PhaseEnd;
    use crate::stats::data::PhaseData;
    use crate::stats::fixture::{facts, ms, record};

    fn trial(block: u32, end: PhaseEnd, first_ms: i64) -> (PhaseTrial, Samples) {
        let mut facts = facts("p", 1, [0, 0, 1000, 1000]);
        facts.end = end;
        let records = vec![record(0, ms(0), &[first_ms, 900], 2); 3];
        PhaseTrial::of(block, 1, &PhaseData::new(facts, records))
    }

    fn cell(trials: Vec<(PhaseTrial, Samples)>) -> Cell {
        let phase = PhasePlan {
            name: Name::new("p").unwrap(),
            users: 1,
            min_requests: 3,
            min_duration_s: 1.0,
            open: None,
        };
        Cell::of(&Name::new("v").unwrap(), &phase, 3, trials)
    }

    #[test]
    fn requests_are_pooled_and_rates_are_over_trials() {
        let got = cell(vec![
            trial(1, PhaseEnd::Finished, 100),
            trial(2, PhaseEnd::Finished, 200),
            trial(3, PhaseEnd::Hang, 800),
        ]);
        assert_eq!((got.trials_planned, got.trials_measured), (3, 2));
        let ttft = got.latency[&Metric::Ttft];
        assert_eq!((ttft.n, ttft.mean, ttft.p50), (6, 150.0, Some(150.0)));
        assert_eq!(got.trials[0].latency[&Metric::Ttft].p50, None); // 3 of its own
        let rate = got.whole.output_tokens_per_s.unwrap();
        assert_eq!((rate.trials, rate.mean), (2, 6.0));
        // The trial that hung still answers for its requests.
        assert_eq!((got.requests.sent, got.requests.ok), (9, 9));
        assert_eq!(got.ttft_jitter_ms, None);
    }

    #[test]
    fn an_open_loop_has_no_users_but_so_many_in_flight() {
        let mut phase = PhasePlan {
            name: Name::new("p").unwrap(),
            users: 4096,
            min_requests: 3,
            min_duration_s: 1.0,
            open: Some("8 requests/s, Poisson".to_owned()),
        };
        let name = Name::new("v").unwrap();
        let users = |phase: &PhasePlan, n: u32| {
            let mut facts = facts("p", n, [0, 0, 1000, 1000]);
            facts.end = PhaseEnd::Finished;
            let records = vec![record(0, ms(0), &[100, 900], 2)];
            let trial = PhaseTrial::of(1, 1, &PhaseData::new(facts, records));
            Cell::of(&name, phase, 1, vec![trial]).users
        };
        assert_eq!(users(&phase, 7), 7);
        assert_eq!(Cell::of(&name, &phase, 1, Vec::new()).users, 4096);
        phase.open = None;
        assert_eq!(users(&phase, 7), 4096);
    }

    #[test]
    fn without_trials_everything_is_absent() {
        let got = cell(Vec::new());
        assert_eq!((got.trials_measured, got.requests.sent), (0, 0));
        assert_eq!(got.steady, Throughput::default());
        assert!(got.latency.is_empty());
        assert_eq!(got.client_cpu_s_per_million_output_tokens, None);
    }
}
