//! What is asked of an engine while it works: its metrics once a second, its effective
//! configuration once. Tasks beside the attempt; none of them decides anything.

use super::{AttemptPlan, ReadBack};
use crate::engine::exposition::MetricName;
use crate::run::effective::EffectiveConfig;
use crate::run::engine_sample::EngineSample;
use crate::run::phase::PhaseFacts;
use crate::sample::engine::{self, Metered};
use crate::store::dirs::AttemptDir;
use crate::units::MonoNs;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// For a question that is under way, and for files that are being written.
const SETTLE: Duration = Duration::from_secs(10);

/// The questions to one engine.
pub(super) struct Asking {
    base: String,
    readback: ReadBack,
    dir: AttemptDir,
    metered: Option<Metered>,
    metrics: Option<Metrics>,
    samples: Vec<EngineSample>,
    effective: Option<JoinHandle<EffectiveConfig>>,
    /// Files that are being written; each says what went wrong.
    writing: Vec<JoinHandle<Result<(), String>>>,
}

/// The task that samples, when it is told to.
struct Metrics {
    now: Arc<Notify>,
    samples: UnboundedReceiver<EngineSample>,
    task: JoinHandle<()>,
}

impl Asking {
    pub(super) fn new(plan: &AttemptPlan, dir: &AttemptDir) -> Self {
        Self {
            base: plan.probe.base.clone(),
            readback: plan.readback.clone(),
            dir: dir.clone(),
            metered: None,
            metrics: None,
            samples: Vec::new(),
            effective: None,
            writing: Vec::new(),
        }
    }

    /// It can generate: now it can be asked.
    pub(super) fn begin(&mut self) {
        let metrics = self.readback.engine.metrics.clone();
        self.metered = metrics.and_then(|metrics| Metered::new(&self.base, metrics).ok());
        if let Some(metered) = self.metered.clone() {
            let (out, samples) = unbounded_channel();
            let now = Arc::new(Notify::new());
            let task = tokio::spawn(metered.watch(now.clone(), out));
            self.metrics = Some(Metrics { now, samples, task });
            self.ask();
        }
        let (base, readback, log) = (self.base.clone(), self.readback.clone(), self.dir.log());
        self.effective = Some(tokio::spawn(async move {
            engine::effective(&base, &readback.engine, &readback.params, &log).await
        }));
    }

    /// A sample is due. While one is under way, one more is remembered.
    pub(super) fn ask(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.now.notify_one();
        }
    }

    /// A phase is about to begin: from here its counters count. The prefix cache is emptied where
    /// the engine file says how; what came of it.
    pub(super) async fn before_phase(&mut self) -> Option<String> {
        let note = self.reset_cache().await;
        if let Some(metered) = &self.metered {
            let sample = timeout(SETTLE, metered.sample()).await;
            self.collect();
            self.samples.extend(sample);
        }
        note
    }

    async fn reset_cache(&self) -> Option<String> {
        let path = self.readback.engine.endpoints.reset_cache.as_ref()?;
        Some(match engine::reset_cache(&self.base, path).await {
            Ok(()) => "its prefix cache was emptied".to_owned(),
            Err(why) => format!("its prefix cache was not emptied: {why}"),
        })
    }

    /// Takes in what has been sampled so far.
    pub(super) fn collect(&mut self) {
        if let Some(metrics) = &mut self.metrics {
            while let Ok(sample) = metrics.samples.try_recv() {
                self.samples.push(sample);
            }
        }
    }

    /// A phase has ended: its samples become a file, with the one before it and one after it, which
    /// counters need.
    pub(super) fn keep(&mut self, facts: &PhaseFacts) {
        self.collect();
        let Some(metered) = self.metered.clone() else { return };
        let before = self.samples.iter().rposition(|sample| sample.at <= facts.started);
        let mut own: Vec<EngineSample> =
            self.samples.iter().skip(before.unwrap_or(0)).cloned().collect();
        let (dir, phase) = (self.dir.clone(), facts.phase.clone());
        self.writing.push(tokio::spawn(async move {
            own.push(metered.sample().await);
            let write = move || dir.write_engine_samples(&phase, &own);
            match tokio::task::spawn_blocking(write).await {
                Ok(written) => written.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        }));
    }

    /// Whether its counters of tokens moved after an instant; else why they say nothing of it.
    pub(super) fn moved_since(&mut self, since: MonoNs) -> Result<bool, &'static str> {
        self.collect();
        if self.readback.engine.metrics.is_none() {
            return Err("it offers no counters");
        }
        if self.metered.is_none() {
            return Err("its own counters were not read yet");
        }
        moved(&self.samples, since)
    }

    /// A reason to stop has come: the engine is asked nothing more.
    pub(super) fn end(&mut self) {
        self.collect();
        if let Some(metrics) = self.metrics.take() {
            metrics.task.abort();
        }
    }

    /// What was read back, and what went wrong with the files.
    pub(super) async fn settle(mut self) -> (Option<EffectiveConfig>, Vec<String>) {
        self.end();
        let effective = match self.effective.take() {
            Some(mut task) => match timeout(SETTLE, &mut task).await {
                Ok(answer) => answer.ok(),
                Err(_) => {
                    task.abort();
                    None
                }
            },
            None => None,
        };
        let mut problems = Vec::new();
        for task in self.writing {
            match timeout(SETTLE, task).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(problem))) => problems.push(problem),
                Ok(Err(error)) => problems.push(error.to_string()),
                Err(_) => problems.push("engine.parquet was not written in time".to_owned()),
            }
        }
        (effective, problems)
    }
}

/// Whether the counters of tokens moved between the samples after an instant.
fn moved(samples: &[EngineSample], since: MonoNs) -> Result<bool, &'static str> {
    let tokens = |sample: &EngineSample| {
        let counters = [MetricName::PromptTokensTotal, MetricName::GenerationTokensTotal];
        let figures = counters.iter().filter_map(|name| sample.figures.get(name));
        figures.copied().reduce(|a, b| a + b)
    };
    // Both within the silence: what was done before it began is no progress in it.
    let silent = samples.iter().filter(|sample| sample.at > since);
    let (answered, mute): (Vec<_>, Vec<_>) = silent.partition(|sample| sample.answered);
    match answered.as_slice() {
        [] if !mute.is_empty() => Err("its own counters were not to be had"),
        [] | [_] => Err("its own counters were not read often enough"),
        [first, .., last] => match (tokens(first), tokens(last)) {
            (Some(first), Some(last)) => Ok(last > first),
            _ => Err("it does not count its tokens"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_s: i64, answered: bool, tokens: Option<f64>) -> EngineSample {
        EngineSample {
            at: MonoNs::new(at_s * 1_000_000_000),
            took_ns: 1_000,
            answered,
            figures: tokens.map(|n| (MetricName::GenerationTokensTotal, n)).into_iter().collect(),
        }
    }

    #[test]
    fn counters_speak_of_progress_only_by_what_they_did_in_the_silence() {
        let since = MonoNs::new(10_000_000_000);
        let went_before = [sample(5, true, Some(1.0)), sample(11, true, Some(9.0))];
        assert!(moved(&went_before, since).unwrap_err().contains("often enough"));
        let still = [went_before.as_slice(), &[sample(14, true, Some(9.0))]].concat();
        assert_eq!(moved(&still, since), Ok(false));
        let went_on = [still.as_slice(), &[sample(15, true, Some(10.0))]].concat();
        assert_eq!(moved(&went_on, since), Ok(true));
        assert!(moved(&[sample(11, false, None)], since).unwrap_err().contains("not to be had"));
        let uncounted = [sample(11, true, None), sample(12, true, None)];
        assert!(moved(&uncounted, since).unwrap_err().contains("does not count"));
    }
}
