//! What is asked of an engine while it works: its metrics once a second, its effective
//! configuration once. Tasks beside the attempt; none of them decides anything.

use super::{AttemptPlan, ReadBack};
use crate::run::effective::EffectiveConfig;
use crate::run::engine_sample::EngineSample;
use crate::run::phase::PhaseFacts;
use crate::sample::engine::{self, Metered};
use crate::store::dirs::AttemptDir;
use std::time::Duration;
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
    metrics: Option<(UnboundedReceiver<EngineSample>, JoinHandle<()>)>,
    samples: Vec<EngineSample>,
    effective: Option<JoinHandle<EffectiveConfig>>,
    /// Files that are being written; each says what went wrong.
    writing: Vec<JoinHandle<Result<(), String>>>,
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
            self.metrics = Some((samples, tokio::spawn(metered.watch(out))));
        }
        let (base, readback, log) = (self.base.clone(), self.readback.clone(), self.dir.log());
        self.effective = Some(tokio::spawn(async move {
            engine::effective(&base, &readback.engine, &readback.params, &log).await
        }));
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
        if let Some((samples, _)) = &mut self.metrics {
            while let Ok(sample) = samples.try_recv() {
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

    /// The engine is about to be told to stop: it is asked nothing more.
    pub(super) fn end(&mut self) {
        self.collect();
        if let Some((_, task)) = self.metrics.take() {
            task.abort();
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
