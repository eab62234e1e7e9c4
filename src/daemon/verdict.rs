//! What a finding means: how the attempt ended, and how its teardown went. Pure.

use super::finding::Finding;
use crate::engine::rules::rule::LogRules;
use crate::engine::rules::{Matcher, Symptom, diagnose};
use crate::run::outcome::{Ending, Teardown, TeardownVerdict};
use crate::run::signal::{self, Signal, Source};
use crate::supervise::state::Why;

/// How the attempt ended, in the vocabulary of outcomes.
pub(crate) fn ending(finding: &Finding, rules: &LogRules, version: Option<&str>) -> Ending {
    match &finding.why {
        Why::Completed => Ending::Completed,
        Why::Cancelled { reason } => Ending::Cancelled { reason: reason.clone() },
        Why::Broken { reason } => Ending::Broken { reason: reason.clone() },
        Why::Failed { symptom } => {
            let tail = finding.report.as_ref().map(|report| report.tail.as_slice());
            let log = Matcher::reported(rules, version, &finding.matches, tail.unwrap_or_default())
                .seen(&finding.circumstances);
            let symptom = weighed(symptom, &finding.signals);
            let mut failure = diagnose(&log, &symptom, &finding.during);
            if !finding.signals.is_empty() {
                let together = signal::together(&finding.signals);
                failure.summary = format!("{} ({together})", failure.summary);
            }
            Ending::EngineFailed { failure }
        }
    }
}

/// Silent streams of an engine whose own counters go on are slow ones.
fn weighed(symptom: &Symptom, signals: &[Signal]) -> Symptom {
    let moved =
        |signal: &Signal| signal.source == Source::Counters && signal.progress == Some(true);
    match symptom {
        Symptom::NoProgress { silent } if signals.iter().any(moved) => {
            let silent = humantime::format_duration(*silent);
            let detail =
                format!("no stream brought a byte for {silent}, but its own counters went on");
            Symptom::TooSlow { detail }
        }
        other => other.clone(),
    }
}

/// What SIGKILL did not end.
pub(crate) fn survivors(finding: &Finding) -> Option<String> {
    let report = finding.report.as_ref().filter(|report| !report.empty)?;
    let left = report.left.iter().map(ToString::to_string).collect::<Vec<_>>();
    Some(left.join("; "))
}

/// How the teardown went; `None` if nothing was launched.
pub(crate) fn teardown(finding: &Finding) -> Option<Teardown> {
    if !finding.launched {
        return None;
    }
    let (verdict, detail) = match &finding.report {
        None => (
            TeardownVerdict::Unknown,
            Some(format!(
                "the guard itself ended; {} processes with its marker were killed",
                finding.marked_killed
            )),
        ),
        Some(report) if !report.empty => (TeardownVerdict::Unkillable, survivors(finding)),
        Some(_) if !finding.port_free => {
            (TeardownVerdict::PortHeld, Some("its port is still not free".to_owned()))
        }
        Some(_) => match &finding.gpu_not_released {
            Some(why) => (TeardownVerdict::GpuNotReleased, Some(why.clone())),
            None => (TeardownVerdict::Clean, None),
        },
    };
    let report = finding.report.as_ref();
    let took = finding.stop_took.map_or(0, |span| span.as_millis());
    Some(Teardown {
        verdict,
        leader_killed: report.is_some_and(|report| report.leader_killed),
        strays_killed: report.map_or(0, |report| report.strays_killed) + finding.marked_killed,
        took_ms: u64::try_from(took).unwrap_or(u64::MAX),
        detail,
        left: report.map(|report| report.left.clone()).unwrap_or_default(),
        shared_memory: report.map(|report| report.shm.clone()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn silence_is_a_hang_unless_the_engine_counts_on() {
        let silence = Symptom::NoProgress { silent: Duration::from_secs(60) };
        let said = |source, progress| Signal { source, progress, seen: String::new() };
        let counted = |progress| weighed(&silence, &[said(Source::Counters, progress)]);
        assert!(matches!(counted(Some(true)), Symptom::TooSlow { .. }));
        assert_eq!(counted(Some(false)), silence);
        assert_eq!(counted(None), silence);
        // Health is no progress, and counters are no answer to another failure.
        assert_eq!(weighed(&silence, &[said(Source::Health, Some(true))]), silence);
        let gone = Symptom::NoConnections;
        assert_eq!(weighed(&gone, &[said(Source::Counters, Some(true))]), gone);
    }
}
