//! What limits how far a figure can be trusted.
//!
//! Each mark is one fact about one phase of one trial (or about a trial, or the run), found by a
//! rule with a stated threshold. A mark never removes a figure; it stands beside it.

use crate::ids::Name;
use crate::run::outcome::TeardownVerdict;
use crate::run::phase::PhaseEnd;
use crate::stats::cell::Cell;
use crate::stats::data::VersionChange;
use crate::stats::group::GroupKey;
use crate::stats::metric::{Censoring, Metric, share};
use crate::stats::phase::{Client, PhaseTrial};
use crate::stats::summary::{AttemptSummary, TrialSummary};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// More censored first texts than this: the client could not read fast enough.
pub(crate) const CENSORED_LIMIT: f64 = 0.01;
/// A steady window should last this long, and this share of the whole.
pub(crate) const STEADY_MIN_S: f64 = 10.0;
pub(crate) const STEADY_MIN_SHARE: f64 = 0.1;
/// More failed requests than this: latencies are those of the survivors.
pub(crate) const FAILED_LIMIT: f64 = 0.01;
/// More prompt tokens from the server's cache than this: the prompts are not what they seem.
pub(crate) const CACHED_LIMIT: f64 = 0.02;
/// Requests left later than they were due, on average, by more than this.
pub(crate) const SEND_LAG_LIMIT_MS: f64 = 10.0;
/// More of its one CPU than this: the client's loop was full.
pub(crate) const CPU_LIMIT: f64 = 0.9;
/// More requests of an open loop than this left late or never.
pub(crate) const LATE_LIMIT: f64 = 0.01;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MarkCode {
    AboveRoofline,
    HardwareDiffers,
    PhaseUnfinished,
    PhaseDeadline,
    RecordsLost,
    FailedRequests,
    ClientLimited,
    SendLag,
    NoSteadyWindow,
    ShortSteadyWindow,
    NotSettled,
    OutputShortfall,
    PromptTokenMismatch,
    UsageMissing,
    PrefixCacheHits,
    DatasetRepeats,
    TtftAbsent,
    ClockStep,
    NoKernelStamps,
    TeardownNotClean,
    ConfigDiffers,
    EngineVersionChanged,
    Tainted,
    Throttled,
    Xid,
    GpuNotVerified,
    GpuTelemetryGap,
    EnergyUncertain,
    SideBySide,
    BusyNeighbour,
    NoGpuTelemetry,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) code: MarkCode,
    pub(crate) variant: Option<Name>,
    pub(crate) phase: Option<Name>,
    pub(crate) block: Option<u32>,
    /// The fact, for a reader.
    pub(crate) detail: String,
}

/// All marks of a run, the gravest kinds first.
pub(crate) fn marks(
    cells: &[Cell],
    trials: &[TrialSummary],
    version_changes: &[VersionChange],
) -> Vec<Mark> {
    let mut all: Vec<Mark> = cells.iter().flat_map(of_cell).collect();
    all.extend(trials.iter().flat_map(of_trial));
    all.extend(version_changes.iter().map(|change| Mark {
        code: MarkCode::EngineVersionChanged,
        variant: Some(change.variant.clone()),
        phase: None,
        block: None,
        detail: format!("{} until {}, {} since", change.before, change.at, change.after),
    }));
    all.extend(without_telemetry(cells));
    all.sort_by_key(|mark| mark.code);
    all
}

/// Once for the run where no GPU was sampled, or for each variant of which none was. A run without a
/// phase of a fixed load has no figures that could lack it.
fn without_telemetry(cells: &[Cell]) -> Vec<Mark> {
    if cells.is_empty() {
        return Vec::new();
    }
    let mark = |variant| Mark {
        code: MarkCode::NoGpuTelemetry,
        variant,
        phase: None,
        block: None,
        detail: "no GPU telemetry was taken: power, clocks, temperature and memory are unknown"
            .into(),
    };
    let variants: BTreeSet<&Name> = cells.iter().map(|cell| &cell.variant).collect();
    let sampled = |cell: &Cell| cell.trials.iter().any(|trial| trial.gpu.is_some());
    if !cells.iter().any(sampled) {
        return vec![mark(None)];
    }
    let missing = |name: &&Name| {
        let own = || cells.iter().filter(|cell| cell.variant == **name);
        own().any(|cell| !cell.trials.is_empty()) && !own().any(sampled)
    };
    variants.into_iter().filter(missing).map(|name| mark(Some(name.clone()))).collect()
}

fn of_cell(cell: &Cell) -> Vec<Mark> {
    let mark = |trial: &PhaseTrial, (code, detail)| Mark {
        code,
        variant: Some(cell.variant.clone()),
        phase: Some(cell.phase.clone()),
        block: Some(trial.block),
        detail,
    };
    let rules = [about_phase, about_times, about_tokens, noticed];
    let found = cell.trials.iter().flat_map(|trial| {
        rules.iter().flat_map(|rule| rule(trial)).map(|found| mark(trial, found))
    });
    found.collect()
}

pub(crate) fn is_client_limited(censoring: Censoring) -> bool {
    censoring.first_text_share().is_some_and(|share| share > CENSORED_LIMIT)
}

type Found = (MarkCode, String);

/// How the phase went, and its requests.
fn about_phase(trial: &PhaseTrial) -> Vec<Found> {
    let mut found = Vec::new();
    match trial.end {
        PhaseEnd::Finished => {}
        PhaseEnd::Deadline => found.push((
            MarkCode::PhaseDeadline,
            "stopped by its deadline before it had the requests asked for".to_owned(),
        )),
        PhaseEnd::Hang | PhaseEnd::EngineGone | PhaseEnd::OnlyFailures | PhaseEnd::Stopped => {
            let why = match trial.end {
                PhaseEnd::Hang => "no stream made progress",
                PhaseEnd::EngineGone => "the engine was gone",
                PhaseEnd::OnlyFailures => "every request failed",
                _ => "it was stopped",
            };
            let detail = format!("broke off ({why}); its requests are counted, not timed");
            found.push((MarkCode::PhaseUnfinished, detail));
        }
    }
    let requests = &trial.requests;
    if requests.lost > 0 {
        let detail = format!("{} of {} sent have no record", requests.lost, sent(trial));
        found.push((MarkCode::RecordsLost, detail));
    }
    if share(requests.failed, requests.sent).is_some_and(|share| share > FAILED_LIMIT) {
        let detail = format!("{} of {} failed", requests.failed, requests.sent);
        found.push((MarkCode::FailedRequests, detail));
    }
    if trial.measured && requests.without_ttft > 0 {
        let detail =
            format!("{} of {} ok requests have no TTFT", requests.without_ttft, requests.ok);
        found.push((MarkCode::TtftAbsent, detail));
    }
    found
}

/// What GPUs and host gave it.
fn noticed(trial: &PhaseTrial) -> Vec<Found> {
    trial.noticed.clone()
}

/// Windows, stamps and the client.
fn about_times(trial: &PhaseTrial) -> Vec<Found> {
    let mut found = Vec::new();
    if is_client_limited(trial.censoring) {
        let detail = format!(
            "{} of {} first texts have only bounds for a time",
            trial.censoring.first_texts, trial.censoring.first_texts_of
        );
        found.push((MarkCode::ClientLimited, detail));
    }
    found.extend(about_client(&trial.client));
    found.extend(about_window(trial));
    let mean = |metric| trial.latency.get(&metric).map(|sample| sample.mean);
    let lag = mean(Metric::TtftFromScheduled).zip(mean(Metric::Ttft)).map(|(due, sent)| due - sent);
    if let Some(lag) = lag.filter(|lag| *lag > SEND_LAG_LIMIT_MS) {
        found
            .push((MarkCode::SendLag, format!("sent {lag:.0} ms after they were due, on average")));
    }
    if trial.client.clock_steps > 0 || trial.client.clock_step_requests > 0 {
        let Client { clock_steps, clock_step_requests, .. } = trial.client;
        let detail = format!(
            "the wall clock was stepped ({clock_steps} seen) during {clock_step_requests} requests"
        );
        found.push((MarkCode::ClockStep, detail));
    }
    if trial.client.phases_without_kernel_stamps > 0 {
        let detail = "arrival times were taken by the client, not by the kernel".to_owned();
        found.push((MarkCode::NoKernelStamps, detail));
    }
    found
}

/// Whether there was a steady part, and one that is long enough.
fn about_window(trial: &PhaseTrial) -> Vec<Found> {
    let mut found = Vec::new();
    if let Some(parts) = trial.parts.filter(|parts| parts.settled == Some(false)) {
        let detail = match parts.level {
            Some(false) => {
                "in its second half there were more, or fewer, requests in flight than ever in its first"
            }
            Some(true) | None => "latencies were still changing in the second half",
        };
        found.push((MarkCode::NotSettled, detail.to_owned()));
    }
    match (&trial.steady, &trial.whole) {
        (None, Some(_)) => {
            let ramps = trial.groups.iter().any(|group| matches!(group.key, GroupKey::Stage(_)));
            let detail = if ramps {
                "its rate never held"
            } else {
                "the users were never all busy at once before sending stopped"
            };
            found.push((MarkCode::NoSteadyWindow, detail.to_owned()));
        }
        (Some(steady), Some(whole)) => {
            let least = STEADY_MIN_S.max(STEADY_MIN_SHARE * whole.duration_s);
            // What it took to settle is in the window, and is not steady.
            let settled = trial.parts.map_or(steady.duration_s, |parts| parts.steady_s);
            let part = steady.duration_s.min(settled);
            if part < least {
                let detail = format!("{part:.1} s of {:.1} s", whole.duration_s);
                found.push((MarkCode::ShortSteadyWindow, detail));
            }
        }
        _ => {}
    }
    found
}

/// Whether the client itself kept up.
fn about_client(client: &Client) -> Vec<Found> {
    let mut found = Vec::new();
    if client.cpu_share > CPU_LIMIT {
        let detail = format!("its loop took {:.0} % of one CPU", client.cpu_share * 100.0);
        found.push((MarkCode::ClientLimited, detail));
    }
    let Client { scheduled, started_late, not_started, .. } = *client;
    let missed = share(started_late + not_started, scheduled);
    if missed.is_some_and(|share| share > LATE_LIMIT) {
        let detail = format!(
            "of {scheduled} requests that were due {started_late} began late and {not_started} never"
        );
        found.push((MarkCode::SendLag, detail));
    }
    found
}

/// The server's counts against what was asked.
fn about_tokens(trial: &PhaseTrial) -> Vec<Found> {
    let mut found = Vec::new();
    let (tokens, ok) = (&trial.tokens, trial.requests.ok);
    if tokens.output_short > 0 {
        let detail = format!(
            "{} of {ok} ok requests brought fewer tokens than asked ({} tokens in all)",
            tokens.output_short, tokens.output_short_tokens
        );
        found.push((MarkCode::OutputShortfall, detail));
    }
    if tokens.prompt_mismatched > 0 {
        let detail = format!(
            "{} of {} prompts have another token count at the server than expected",
            tokens.prompt_mismatched, tokens.prompt_compared
        );
        found.push((MarkCode::PromptTokenMismatch, detail));
    }
    if tokens.usage_missing > 0 {
        let detail =
            format!("no token count from the server for {} of {ok} requests", tokens.usage_missing);
        found.push((MarkCode::UsageMissing, detail));
    }
    let cached = tokens.cached.and_then(|cached| share(cached, tokens.prompt));
    let meant = tokens.meant_share().unwrap_or(trial.intended_cached);
    if let Some(cached) = cached.filter(|cached| *cached > CACHED_LIMIT + meant) {
        let (cached, meant) = (cached * 100.0, meant * 100.0);
        let detail = format!(
            "{cached:.1} % of prompt tokens came from the server's cache; {meant:.0} % were meant to"
        );
        found.push((MarkCode::PrefixCacheHits, detail));
    }
    if let Some(used) = trial.dataset.as_ref().filter(|used| used.repeated > 0) {
        let (repeated, begun, fitting) = (used.repeated, used.begun, used.part.fitting);
        let detail = format!(
            "{repeated} of {begun} conversations had been asked before in this phase; {fitting} entries of its part fit"
        );
        found.push((MarkCode::DatasetRepeats, detail));
    }
    found
}

fn sent(trial: &PhaseTrial) -> u64 {
    trial.requests.sent + trial.requests.lost
}

fn of_trial(trial: &TrialSummary) -> Vec<Mark> {
    let unclean = trial.attempts.iter().filter_map(|attempt| {
        let teardown = attempt.teardown.as_ref()?;
        let verdict = match teardown.verdict {
            TeardownVerdict::Clean => return None,
            TeardownVerdict::PortHeld => "the port was still held",
            TeardownVerdict::GpuNotReleased => "the GPU was not released",
            TeardownVerdict::Unkillable => "a process survived SIGKILL",
            TeardownVerdict::Unknown => "nobody could say what was left",
        };
        let detail = teardown.detail.as_ref().map_or_else(String::new, |more| format!(": {more}"));
        Some(Mark {
            code: MarkCode::TeardownNotClean,
            variant: Some(trial.variant.clone()),
            phase: None,
            block: Some(trial.block),
            detail: format!("attempt {}: {verdict}{detail}", attempt.attempt),
        })
    });
    let differs = trial.attempts.iter().filter_map(|attempt| differs(trial, attempt));
    unclean.chain(differs).chain(beside(trial)).collect()
}

/// What shared the machine, but not its GPUs.
fn beside(trial: &TrialSummary) -> Option<Mark> {
    let others: Vec<String> = trial.beside.iter().map(ToString::to_string).collect();
    (!others.is_empty()).then(|| Mark {
        code: MarkCode::SideBySide,
        variant: Some(trial.variant.clone()),
        phase: None,
        block: Some(trial.block),
        detail: format!("beside {}", others.join(" and ")),
    })
}

/// What ran is not what was asked.
fn differs(trial: &TrialSummary, attempt: &AttemptSummary) -> Option<Mark> {
    let differences = &attempt.effective.as_ref()?.differences;
    let detail: Vec<String> = differences
        .iter()
        .map(|d| format!("{} is {}, asked was {}", d.name, d.found, d.asked))
        .collect();
    (!detail.is_empty()).then(|| Mark {
        code: MarkCode::ConfigDiffers,
        variant: Some(trial.variant.clone()),
        phase: None,
        block: Some(trial.block),
        detail: format!("attempt {}: {}", attempt.attempt, detail.join("; ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::phase::{OpenFacts, PhaseFacts};
    use crate::run::record::{RequestOutcome, RequestRecord};
    use crate::stats::data::PhaseData;
    use crate::stats::fixture::{facts, failed, ms, record};

    /// A phase of 20 s that earns no mark, after `spoil`.
    #[track_caller]
    fn check(spoil: impl Fn(&mut PhaseFacts, &mut Vec<RequestRecord>), expected: &[MarkCode]) {
        let mut facts = facts("p", 1, [0, 100, 19_000, 20_000]);
        let mut records = vec![record(0, ms(0), &[100, 200, 300], 3); 50];
        facts.records = 50;
        spoil(&mut facts, &mut records);
        let (trial, _) = PhaseTrial::of(1, 1, &PhaseData::new(facts, records));
        let found = [about_phase(&trial), about_times(&trial), about_tokens(&trial)].concat();
        let codes: Vec<MarkCode> = found.into_iter().map(|(code, _)| code).collect();
        assert_eq!(codes, expected);
    }

    #[test]
    fn each_fault_earns_its_mark() {
        check(|_, _| {}, &[]);
        check(|f, _| f.end = PhaseEnd::Deadline, &[MarkCode::PhaseDeadline]);
        check(|f, _| f.end = PhaseEnd::Hang, &[MarkCode::PhaseUnfinished]);
        check(|f, _| f.records = 51, &[MarkCode::RecordsLost]);
        check(|f, _| f.full_at = None, &[MarkCode::NoSteadyWindow]);
        check(|f, _| f.full_at = Some(ms(9_001)), &[MarkCode::ShortSteadyWindow]);
        check(|f, _| f.full_at = Some(ms(9_000)), &[]);
        check(|f, _| f.kernel_stamps = false, &[MarkCode::NoKernelStamps]);
        check(|f, _| f.client.clock_steps = 1, &[MarkCode::ClockStep]);
        check(|_, r| r[0].clock_step = true, &[MarkCode::ClockStep]);
        check(|f, _| f.client.user_cpu_s = 18.0, &[MarkCode::ClientLimited]);
        let open = |late, not_started| OpenFacts {
            scheduled: 100,
            late,
            not_started,
            ..OpenFacts::default()
        };
        check(|f, _| f.open = Some(open(1, 0)), &[]);
        check(|f, _| f.open = Some(open(1, 1)), &[MarkCode::SendLag]);
        check(
            |f, r| {
                let slow_for_long = |n: u32| {
                    let sent = 200 + i64::from(n);
                    let took = if n < 300 { 500 } else { 100 };
                    record(n, ms(sent), &[sent + 10, sent + took], 3)
                };
                *r = (0..400).map(slow_for_long).collect();
                f.records = 400;
            },
            &[MarkCode::NotSettled],
        );
        check(|_, r| r[0].chunks[0].earliest = ms(90), &[MarkCode::ClientLimited]);
        check(|_, r| r[0].first_text_chunk = None, &[MarkCode::TtftAbsent]);
        check(|_, r| r[0].output_tokens_reported = Some(2), &[MarkCode::OutputShortfall]);
        check(|_, r| r[0].output_tokens_reported = None, &[MarkCode::UsageMissing]);
        check(|_, r| r[0].prompt_tokens_reported = Some(9), &[MarkCode::PromptTokenMismatch]);
        check(|_, r| r.iter_mut().for_each(|r| r.scheduled = ms(-11)), &[MarkCode::SendLag]);
        check(
            |f, r| {
                f.intended_cached = 0.5;
                r.iter_mut().for_each(|r| r.cached_tokens_reported = Some(5));
            },
            &[],
        );
        check(
            |_, r| {
                for record in r.iter_mut() {
                    (record.cached_tokens_meant, record.cached_tokens_reported) =
                        (Some(4), Some(4));
                }
            },
            &[],
        );
        check(
            |f, r| {
                f.intended_cached = 1.0;
                for record in r.iter_mut() {
                    (record.cached_tokens_meant, record.cached_tokens_reported) =
                        (Some(4), Some(5));
                }
            },
            &[MarkCode::PrefixCacheHits],
        );
        let cut = failed(0, ms(0), RequestOutcome::Cut, "cut");
        check(|_, r| r[0] = cut.clone(), &[MarkCode::FailedRequests]);
        check(|_, r| r[0].cached_tokens_reported = Some(10), &[]); // 10 of 500: 2 %
        check(
            |_, r| r.iter_mut().for_each(|r| r.cached_tokens_reported = Some(1)),
            &[MarkCode::PrefixCacheHits],
        );
    }

    /// A censored share of exactly 1 % is not more than 1 %.
    #[test]
    fn thresholds_are_exclusive() {
        check(
            |f, r| {
                *r = vec![record(0, ms(0), &[100, 200, 300], 3); 100];
                f.records = 100;
                r[0].chunks[0].earliest = ms(90);
                r[1] = failed(1, ms(0), RequestOutcome::Cut, "cut");
                r.push(r[2].clone());
                f.records += 1;
            },
            &[],
        );
    }
}
