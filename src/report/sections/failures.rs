//! Trials that did not complete, and why. Failures of one variant that look alike are told once.

use crate::ids::wire_name;
use crate::report::block::Block;
use crate::report::sections::{block_list, label};
use crate::run::outcome::{Ending, ExitStatus};
use crate::stats::summary::{AttemptSummary, Summary, TrialSummary};
use crate::sweep::smoke::SMOKE_BLOCK;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let mut groups: Vec<(&TrialSummary, &Ending, Option<&AttemptSummary>, Vec<u32>)> = Vec::new();
    for trial in summary.smoke.iter().chain(&summary.trials) {
        for (ending, attempt) in bad_endings(trial) {
            let known = groups.iter_mut().find(|(other, seen, ..)| {
                other.variant == trial.variant
                    && alike(seen, ending)
                    && (other.block == SMOKE_BLOCK) == (trial.block == SMOKE_BLOCK)
            });
            match known {
                Some((.., blocks)) if blocks.contains(&trial.block) => {}
                Some((.., blocks)) => blocks.push(trial.block),
                None => groups.push((trial, ending, attempt, vec![trial.block])),
            }
        }
    }
    let tell = |(trial, ending, attempt, blocks): (&TrialSummary, &Ending, _, Vec<u32>)| {
        tell(summary, trial, ending, attempt, &blocks)
    };
    groups.into_iter().flat_map(tell).collect()
}

/// How the trial ended, and how attempts ended that a later one made good.
fn bad_endings(trial: &TrialSummary) -> Vec<(&Ending, Option<&AttemptSummary>)> {
    let bad = |ending: &Ending| *ending != Ending::Completed;
    let mut found: Vec<(&Ending, Option<&AttemptSummary>)> = trial
        .attempts
        .iter()
        .filter(|attempt| bad(&attempt.outcome))
        .map(|attempt| (&attempt.outcome, Some(attempt)))
        .collect();
    if let Some(outcome) = trial.outcome.as_ref().filter(|outcome| bad(outcome))
        && !found.iter().any(|(ending, _)| alike(ending, outcome))
    {
        found.push((outcome, trial.attempts.last()));
    }
    found
}

fn alike(a: &Ending, b: &Ending) -> bool {
    match (a, b) {
        (Ending::EngineFailed { failure: a }, Ending::EngineFailed { failure: b }) => {
            (a.kind, &a.during, &a.summary) == (b.kind, &b.during, &b.summary)
        }
        (a, b) => a == b,
    }
}

fn tell(
    summary: &Summary,
    trial: &TrialSummary,
    ending: &Ending,
    attempt: Option<&AttemptSummary>,
    blocks: &[u32],
) -> Vec<Block> {
    let who = format!("{}, {}", label(summary, &trial.variant), block_list(blocks));
    let mut told = Vec::new();
    let mut facts = Vec::new();
    match ending {
        Ending::Completed => return told,
        Ending::EngineFailed { failure } => {
            let kind = wire_name(&failure.kind);
            told.push(Block::subheading(format!("{who}: {kind} during {}", failure.during)));
            told.push(Block::Text(sentence(&failure.summary)));
            let lines: Vec<String> = failure
                .evidence
                .iter()
                .map(|line| format!("{:>6}  {}", line.line, line.text))
                .collect();
            if !lines.is_empty() {
                told.push(Block::Code(lines.join("\n")));
            }
            facts.extend(failure.advice.as_ref().map(|advice| format!("What to do: {advice}")));
        }
        Ending::Broken { reason } => {
            told.push(Block::subheading(format!("{who}: broken by the machine or by sweepd")));
            told.push(Block::Text(sentence(reason)));
        }
        Ending::Cancelled { reason } => {
            told.push(Block::subheading(format!("{who}: cancelled")));
            told.push(Block::Text(sentence(reason)));
        }
        Ending::Interrupted { reason } => {
            told.push(Block::subheading(format!("{who}: interrupted")));
            told.push(Block::Text(sentence(reason)));
        }
        Ending::Skipped { reason } => {
            told.push(Block::subheading(format!("{who}: skipped")));
            told.push(Block::Text(sentence(reason)));
        }
    }
    facts.extend(circumstances(trial, attempt));
    if !facts.is_empty() {
        told.push(Block::List(facts));
    }
    told
}

fn circumstances(trial: &TrialSummary, attempt: Option<&AttemptSummary>) -> Vec<String> {
    let mut facts = Vec::new();
    let phases: Vec<&str> = trial.measured_phases.iter().map(|phase| phase.as_str()).collect();
    if !phases.is_empty() {
        let phases = phases.join(", ");
        facts.push(format!("Phases of block {} that were measured: {phases}", trial.block));
    }
    let Some(attempt) = attempt else { return facts };
    if trial.attempts.len() > 1 {
        let others = if trial.outcome == Some(Ending::Completed) {
            "a later one completed the trial"
        } else {
            "none completed the trial"
        };
        let count = trial.attempts.len();
        facts.push(format!("Attempt {} of {count}; {others}", attempt.attempt));
    }
    facts.extend(attempt.exit.map(|exit| format!("The engine ended with {}", exit_text(exit))));
    facts.push(format!("Log: {}", attempt.log));
    facts
}

pub(super) fn exit_text(exit: ExitStatus) -> String {
    match exit {
        ExitStatus::Code(code) => format!("exit code {code}"),
        ExitStatus::Signal(signal) => format!("signal {signal}"),
    }
}

fn sentence(text: &str) -> String {
    let mut chars = text.trim().chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let rest = chars.as_str().trim_end_matches('.');
    format!("{first}{rest}.")
}
