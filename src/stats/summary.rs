//! The summary of a run: all that any report shows. Serialised, it is `summary.json`.
//!
//! Names carry their units at the end. What was not measured is null or missing, never zero.
//! Invariant: there is a cell for every planned variant and phase, also where nothing came of it.

use crate::ids::{Name, RunId, TrialId};
use crate::run::calibration::Calibration;
use crate::run::effective::EffectiveConfig;
use crate::run::outcome::{AttemptOutcome, Ending, ExitStatus, Teardown};
use crate::run::provenance::Provenance;
use crate::stats::cards;
use crate::stats::cell::Cell;
use crate::stats::compare::{self, Ratio};
use crate::stats::cost::cost;
use crate::stats::data::{Fact, PhasePlan, RunData, Setup, TrialData, VariantFacts};
use crate::stats::hardware::{self, CellAgainst};
use crate::stats::interval::OverTrials;
use crate::stats::marks::{self, Mark};
use crate::stats::marks_gpu;
use crate::stats::phase::PhaseTrial;
use crate::stats::search::{self, SearchSummary};
use crate::sweep::def::PlannedTrial;
use crate::units::count_f64;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) format: u32,
    pub(crate) run: RunId,
    pub(crate) sweep: Name,
    pub(crate) status: Status,
    pub(crate) setup: Setup,
    pub(crate) host: Vec<Fact>,
    #[serde(default)]
    pub(crate) provenance: Option<Provenance>,
    pub(crate) variants: Vec<VariantSummary>,
    pub(crate) phases: Vec<PhasePlan>,
    /// By phase, within it by variant, both in the order of the sweep.
    pub(crate) cells: Vec<Cell>,
    pub(crate) ratios: Vec<Ratio>,
    /// Measured cells of variants whose hardware and model are known, in the order of the cells.
    #[serde(default)]
    pub(crate) against_hardware: Vec<CellAgainst>,
    /// Every planned trial in the order of running.
    pub(crate) trials: Vec<TrialSummary>,
    /// Launches before the first block; empty where there were none.
    #[serde(default)]
    pub(crate) smoke: Vec<TrialSummary>,
    /// What the load generator adds, where that was measured.
    #[serde(default)]
    pub(crate) calibration: Option<Calibration>,
    /// Searches for the load that each variant bears.
    #[serde(default)]
    pub(crate) searches: Vec<SearchSummary>,
    pub(crate) marks: Vec<Mark>,
}

/// How far the run has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Every planned trial has ended, however it ended.
    pub(crate) complete: bool,
    /// At least one variant is a simulation.
    pub(crate) simulated: bool,
    pub(crate) trials_planned: u64,
    pub(crate) trials_ended: u64,
    pub(crate) trials_completed: u64,
    pub(crate) trials_engine_failed: u64,
    pub(crate) trials_broken: u64,
    pub(crate) trials_cancelled: u64,
    pub(crate) trials_skipped: u64,
    /// Trials that sweepd's own end interrupted at least once; they were run again.
    #[serde(default)]
    pub(crate) trials_interrupted: u64,
    /// RFC 3339, UTC: the first trial's start and the last one's end.
    pub(crate) started: Option<String>,
    pub(crate) ended: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct VariantSummary {
    #[serde(flatten)]
    pub(crate) facts: VariantFacts,
    /// Over trials: the launch that the trial's last phase stood on.
    pub(crate) time_to_ready_ms: Option<OverTrials>,
    pub(crate) peak_host_memory_bytes: Option<OverTrials>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrialSummary {
    pub(crate) block: u32,
    pub(crate) variant: Name,
    /// Absent while the trial has not ended.
    pub(crate) outcome: Option<Ending>,
    pub(crate) started: Option<String>,
    pub(crate) ended: Option<String>,
    /// Phases whose figures count.
    pub(crate) measured_phases: Vec<Name>,
    /// Trials that ran at the same time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) beside: Vec<TrialId>,
    pub(crate) attempts: Vec<AttemptSummary>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AttemptSummary {
    pub(crate) attempt: u32,
    pub(crate) outcome: Ending,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) time_to_ready_ms: Option<u64>,
    pub(crate) peak_host_memory_bytes: Option<u64>,
    pub(crate) teardown: Option<Teardown>,
    #[serde(default)]
    pub(crate) effective: Option<EffectiveConfig>,
    /// Relative to the run's folder.
    pub(crate) log: String,
}

impl Summary {
    pub(crate) fn variant(&self, name: &Name) -> Option<&VariantSummary> {
        self.variants.iter().find(|variant| variant.facts.name == *name)
    }

    pub(crate) fn cell_marks<'a>(&'a self, cell: &'a Cell) -> impl Iterator<Item = &'a Mark> {
        self.marks.iter().filter(|mark| {
            mark.variant.as_ref() == Some(&cell.variant) && mark.phase.as_ref() == Some(&cell.phase)
        })
    }
}

pub(crate) fn summarise(run: &RunData) -> Summary {
    let cells: Vec<Cell> = run
        .phases
        .iter()
        .flat_map(|phase| run.variants.iter().map(move |variant| cell(run, &variant.name, phase)))
        .collect();
    let trials = trials(run, &cells);
    let against_hardware = hardware::against(run, &cells);
    let mut marks = marks::marks(&cells, &trials, &run.version_changes);
    marks.extend(run.trials.iter().filter_map(placement));
    marks.extend(cards::marks(&run.variants, &run.trials));
    marks.sort_by_key(|mark| mark.code);
    marks.splice(0..0, hardware::marks(&against_hardware));
    Summary {
        format: crate::run::FORMAT,
        run: run.run.clone(),
        sweep: run.sweep.clone(),
        status: status(run),
        setup: run.setup.clone(),
        host: run
            .host
            .iter()
            .map(|(name, value)| Fact { name: name.clone(), value: value.clone() })
            .collect(),
        provenance: run.provenance.clone(),
        variants: run.variants.iter().map(|facts| variant(facts, &trials)).collect(),
        phases: run.phases.clone(),
        ratios: compare::ratios(&cells),
        searches: search::summarise(run),
        calibration: run.calibration.clone(),
        marks,
        against_hardware,
        cells,
        trials,
        smoke: smoke(run),
    }
}

/// A trial whose engine was not seen to be alone on its own GPU.
fn placement(trial: &TrialData) -> Option<Mark> {
    let ended = matches!(trial.outcome.ending, Ending::Completed);
    let gpu = trial.gpu.as_ref().filter(|_| ended)?;
    let (code, detail) = marks_gpu::about_placement(gpu.placement)?;
    let id = &trial.outcome.trial;
    let variant = Some(id.variant.clone());
    Some(Mark { code, variant, phase: None, block: Some(id.block), detail })
}

fn cell(run: &RunData, variant: &Name, phase: &PhasePlan) -> Cell {
    let planned = run.planned.iter().filter(|trial| trial.variant == *variant).count();
    let mut found = Vec::new();
    for trial in run.trials.iter().filter(|trial| trial.outcome.trial.variant == *variant) {
        let Some(data) = trial.phases.iter().find(|data| data.facts.phase == phase.name) else {
            continue;
        };
        let source = trial.outcome.phases.iter().find(|source| source.phase == phase.name);
        let attempt = source.map_or(trial.outcome.attempts, |source| source.attempt);
        found.push(PhaseTrial::of(trial.outcome.trial.block, attempt, data));
    }
    found.sort_by_key(|(trial, _)| trial.block);
    let mut cell = Cell::of(variant, phase, u64::try_from(planned).unwrap_or(u64::MAX), found);
    cell.cost_per_million =
        run.setup.price.as_ref().zip(cell.gpu).map(|(price, gpu)| cost(price, &cell, &gpu));
    cell
}

fn status(run: &RunData) -> Status {
    let mut status = Status {
        simulated: run.variants.iter().any(|variant| variant.simulated)
            || run.trials.iter().any(|trial| trial.outcome.simulated),
        ..Status::default()
    };
    for planned in &run.planned {
        status.trials_planned += 1;
        let Some(trial) = trial_of(run, planned.block, &planned.variant) else { continue };
        let interrupted = |a: &AttemptOutcome| matches!(a.ending, Ending::Interrupted { .. });
        status.trials_interrupted += u64::from(trial.attempts.iter().any(interrupted));
        status.trials_ended += 1;
        match trial.outcome.ending {
            Ending::Completed => status.trials_completed += 1,
            Ending::EngineFailed { .. } => status.trials_engine_failed += 1,
            Ending::Broken { .. } => status.trials_broken += 1,
            Ending::Cancelled { .. } => status.trials_cancelled += 1,
            Ending::Skipped { .. } => status.trials_skipped += 1,
            // No trial's outcome says so: an interrupted trial has none until it was run again.
            Ending::Interrupted { .. } => {}
        }
    }
    status.complete = status.trials_ended == status.trials_planned;
    // RFC 3339 in UTC sorts as text.
    status.started = run.trials.iter().map(|trial| trial.outcome.started.clone()).min();
    status.ended = run.trials.iter().map(|trial| trial.outcome.ended.clone()).max();
    status
}

fn smoke(run: &RunData) -> Vec<TrialSummary> {
    let data = |variant: &Name| {
        run.smoke_trials.iter().find(|trial| trial.outcome.trial.variant == *variant)
    };
    let summary = |trial: &PlannedTrial| {
        trial_summary(trial.block, &trial.variant, data(&trial.variant), Vec::new())
    };
    run.smoke.iter().map(summary).collect()
}

fn trial_of<'a>(run: &'a RunData, block: u32, variant: &Name) -> Option<&'a TrialData> {
    let is = |trial: &&TrialData| {
        trial.outcome.trial.block == block && trial.outcome.trial.variant == *variant
    };
    run.trials.iter().find(is)
}

fn trials(run: &RunData, cells: &[Cell]) -> Vec<TrialSummary> {
    let summary = |block: u32, variant: &Name| {
        let data = trial_of(run, block, variant);
        let measured = cells.iter().filter(|cell| {
            cell.variant == *variant
                && cell.trials.iter().any(|trial| trial.block == block && trial.measured)
        });
        let measured = measured.map(|cell| cell.phase.clone()).collect();
        trial_summary(block, variant, data, measured)
    };
    run.planned.iter().map(|planned| summary(planned.block, &planned.variant)).collect()
}

fn trial_summary(
    block: u32,
    variant: &Name,
    data: Option<&TrialData>,
    measured_phases: Vec<Name>,
) -> TrialSummary {
    TrialSummary {
        block,
        variant: variant.clone(),
        outcome: data.map(|data| data.outcome.ending.clone()),
        started: data.map(|data| data.outcome.started.clone()),
        ended: data.map(|data| data.outcome.ended.clone()),
        measured_phases,
        beside: data.map(|data| data.outcome.beside.clone()).unwrap_or_default(),
        attempts: data.map(attempts).unwrap_or_default(),
    }
}

fn attempts(data: &TrialData) -> Vec<AttemptSummary> {
    let trial = &data.outcome.trial;
    let summary = |attempt: &AttemptOutcome| AttemptSummary {
        attempt: attempt.attempt,
        outcome: attempt.ending.clone(),
        exit: attempt.exit,
        time_to_ready_ms: attempt.time_to_ready_ms,
        peak_host_memory_bytes: attempt.peak_host_memory_bytes,
        teardown: attempt.teardown.clone(),
        effective: attempt.effective.clone(),
        log: format!("trials/{trial}/attempt-{}/engine.log", attempt.attempt),
    };
    data.attempts.iter().map(summary).collect()
}

fn variant(facts: &VariantFacts, trials: &[TrialSummary]) -> VariantSummary {
    let own = || trials.iter().filter(|trial| trial.variant == facts.name);
    // The last attempt that became ready: an earlier one did not carry the trial to its end.
    let ready = own().filter_map(|trial| {
        trial.attempts.iter().rev().find_map(|attempt| attempt.time_to_ready_ms)
    });
    let memory = own().filter_map(|trial| {
        trial.attempts.iter().filter_map(|attempt| attempt.peak_host_memory_bytes).max()
    });
    VariantSummary {
        facts: facts.clone(),
        time_to_ready_ms: OverTrials::of(&ready.map(count_f64).collect::<Vec<_>>()),
        peak_host_memory_bytes: OverTrials::of(&memory.map(count_f64).collect::<Vec<_>>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture::{name, run};
    use crate::stats::metric::Metric;

    #[test]
    fn a_failed_trial_keeps_the_phases_it_measured() {
        let summary = summarise(&run());
        let cell = |variant, phase| {
            summary.cells.iter().find(|cell| cell.is(&name(variant), &name(phase))).unwrap()
        };
        assert_eq!(cell("sim-b", "10-users").trials_measured, 2);
        assert_eq!(cell("sim-b", "50-users").trials_measured, 1);
        let failed = summary.trials.last().unwrap();
        assert_eq!(failed.measured_phases, [name("10-users")]);
        assert_eq!(summary.status.trials_engine_failed, 1);
        assert!(summary.status.complete && summary.status.simulated);
    }

    #[test]
    fn sent_is_ok_and_failed_in_every_cell() {
        let data = run();
        let summary = summarise(&data);
        let records: usize =
            data.trials.iter().flat_map(|trial| &trial.phases).map(|p| p.records.len()).sum();
        let sent: u64 = summary.cells.iter().map(|cell| cell.requests.sent).sum();
        assert_eq!(sent, records as u64);
        assert!(summary.cells.iter().all(|cell| cell.requests.adds_up()));
    }

    #[test]
    fn what_has_not_run_is_absent() {
        let mut data = run();
        data.trials.clear();
        let summary = summarise(&data);
        assert!(!summary.status.complete);
        assert_eq!((summary.status.trials_planned, summary.status.trials_ended), (4, 0));
        assert_eq!(summary.cells.len(), 4);
        assert!(summary.cells.iter().all(|cell| cell.whole.output_tokens_per_s.is_none()));
        assert!(summary.trials.iter().all(|trial| trial.outcome.is_none()));
        assert_eq!(summary.variants[0].time_to_ready_ms, None);
    }

    #[test]
    fn json_reads_back_and_names_its_units() {
        let summary = summarise(&run());
        let text = serde_json::to_string(&summary).unwrap();
        // Floats may lose their last bit on the way; all else comes back as it was.
        let back: Summary = serde_json::from_str(&text).unwrap();
        assert_eq!((back.status, back.trials), (summary.status.clone(), summary.trials.clone()));
        assert_eq!((back.marks, back.setup), (summary.marks.clone(), summary.setup.clone()));
        assert_eq!(back.cells.len(), summary.cells.len());
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let cell = &json["cells"][0];
        assert_eq!(json["format"], 1);
        assert!(cell["latency"]["ttft_ms"]["p95"].is_f64());
        assert!(cell["steady"]["output_tokens_per_s"]["mean"].is_f64());
        assert!(summary.cells[0].latency[&Metric::Ttft].n >= 59);
        let gone = summary.cells.iter().find(|cell| cell.trials_measured == 1).unwrap();
        let json = serde_json::to_value(gone).unwrap();
        assert!(json["steady"]["output_tokens_per_s"]["ci95"].is_null());
    }
}
