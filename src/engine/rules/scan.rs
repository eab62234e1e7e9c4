//! Reads a log line by line, as it passes, and says which rules hold for which lines. Pure.
//!
//! The same in the guard, beside a running engine, and over a finished file. What is remembered is
//! bounded, whatever the length of the log.
//!
//! Invariant: a line is reported only if pattern, phase and frame of its rule all hold.

use super::normal::{is_indented, message};
use super::rule::{LogPhase, LogRules, RuleRole};
use crate::run::outcome::EvidenceLine;
use regex::bytes::{RegexSet, RegexSetBuilder};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Reported for each rule: enough for evidence, no flood.
const HITS_PER_RULE: u32 = 3;
/// A line is matched this far.
const MATCHED_BYTES: usize = 16 * 1024;

/// What a scanner needs of the rules; it travels to the guard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScanSpec {
    rules: Vec<ScanRule>,
    marks: Vec<ScanMark>,
    harmless: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ScanRule {
    pattern: String,
    role: RuleRole,
    phases: Vec<LogPhase>,
    frame: Option<String>,
    exclusive: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ScanMark {
    pattern: String,
    phase: LogPhase,
    alive: bool,
}

impl ScanSpec {
    pub(crate) fn new(rules: &LogRules) -> Self {
        let text = |regex: &regex::bytes::Regex| regex.as_str().to_owned();
        let rule = |rule: &super::rule::FailureRule| ScanRule {
            pattern: text(&rule.pattern),
            role: rule.role,
            phases: rule.phases.clone(),
            frame: rule.frame.as_ref().map(text),
            exclusive: rule.exclusive,
        };
        let mark = |mark: &super::rule::Mark| ScanMark {
            pattern: text(&mark.pattern),
            phase: mark.phase,
            alive: mark.alive,
        };
        Self {
            rules: rules.failures.iter().map(rule).collect(),
            marks: rules.marks.iter().map(mark).collect(),
            harmless: rules.harmless.iter().map(text).collect(),
        }
    }
}

/// A rule, by its index, that holds for a line.
pub(crate) type Hit = (usize, EvidenceLine);

/// Reads one log.
#[derive(Clone, Debug)]
pub(crate) struct Scanner {
    spec: ScanSpec,
    /// The rules, then the marks, then what is harmless.
    lines: Arc<RegexSet>,
    /// Each different frame once; `frame_of` has its index for each rule.
    frames: Arc<RegexSet>,
    frame_of: Vec<Option<usize>>,
    seen_frames: Vec<bool>,
    /// The traceback whose frames were seen has ended.
    traceback_over: bool,
    phase: LogPhase,
    /// Known from outside; what the log says cannot come before it.
    least_phase: LogPhase,
    counts: Vec<u32>,
    /// The log has the engine's beginning, as a mark tells.
    began: bool,
    /// The last line was a frame of a traceback.
    below_frame: bool,
    /// What may still prove to have ended nothing.
    pending: Vec<Hit>,
}

impl Scanner {
    /// Patterns that are too large together match nothing: an engine is not lost for its log.
    pub(crate) fn new(spec: ScanSpec, least_phase: LogPhase) -> Self {
        let patterns = spec.rules.iter().map(|rule| &rule.pattern);
        let marks = spec.marks.iter().map(|mark| &mark.pattern);
        let lines = set(patterns.chain(marks).chain(&spec.harmless));
        let mut frames: Vec<&String> = Vec::new();
        let mut frame_of = Vec::new();
        for rule in &spec.rules {
            frame_of.push(rule.frame.as_ref().map(|frame| {
                frames.iter().position(|known| *known == frame).unwrap_or_else(|| {
                    frames.push(frame);
                    frames.len() - 1
                })
            }));
        }
        let seen_frames = vec![false; frames.len()];
        let frames = set(frames.into_iter());
        Self {
            counts: vec![0; spec.rules.len()],
            spec,
            lines,
            frames,
            frame_of,
            seen_frames,
            traceback_over: true,
            phase: least_phase,
            least_phase,
            began: false,
            below_frame: false,
            pending: Vec::new(),
        }
    }

    /// The rules that hold for the log's next line.
    pub(crate) fn read(&mut self, number: u64, line: &str) -> Vec<Hit> {
        let line = beginning(line);
        let message = message(line);
        let below_frame = std::mem::replace(&mut self.below_frame, false);
        // The source text below a frame holds the words of exceptions that may not have come.
        if message.is_empty() || below_frame && is_indented(line, &message) {
            return Vec::new();
        }
        if message.starts_with("File \"") {
            self.below_frame = true;
            self.take_frame(&message);
            return Vec::new();
        }
        if message.contains("Traceback (most recent call last)") && self.traceback_over {
            self.seen_frames.fill(false);
            self.traceback_over = false;
        }
        let matches = self.lines.matches(message.as_bytes());
        if !matches.matched_any() {
            return Vec::new();
        }
        let (rules, marks) = (self.spec.rules.len(), self.spec.marks.len());
        for index in matches.iter().filter(|index| (rules..rules + marks).contains(index)) {
            self.take_mark(index - rules);
        }
        if matches.iter().any(|index| index >= rules + marks) {
            return Vec::new();
        }
        let known: Vec<usize> = matches.iter().take_while(|index| *index < rules).collect();
        self.take_matches(&known, number, line)
    }

    /// What was held back and did end the engine, for all that the log says.
    pub(crate) fn finish(&mut self) -> Vec<Hit> {
        std::mem::take(&mut self.pending)
    }

    /// The log has a beginning and ends before anything was served.
    pub(crate) fn ends_while_starting(&self) -> bool {
        self.began && self.phase < LogPhase::Serving
    }

    fn take_frame(&mut self, message: &str) {
        for frame in self.frames.matches(message.as_bytes()) {
            if let Some(seen) = self.seen_frames.get_mut(frame) {
                *seen = true;
            }
        }
    }

    fn take_mark(&mut self, index: usize) {
        let Some(mark) = self.spec.marks.get(index) else { return };
        self.began |= mark.phase == LogPhase::Starting;
        self.phase = mark.phase.max(self.least_phase);
        if mark.alive {
            for (rule, _) in self.pending.drain(..) {
                self.counts[rule] = 0;
            }
        }
    }

    fn take_matches(&mut self, known: &[usize], number: u64, line: &str) -> Vec<Hit> {
        let mut hits = Vec::new();
        for &index in known {
            let rule = &self.spec.rules[index];
            // The last line of a traceback is the exception, which some rule knows.
            self.traceback_over = true;
            let phase = rule.phases.is_empty() || rule.phases.contains(&self.phase);
            if !phase || !self.frame_of[index].is_none_or(|frame| self.seen_frames[frame]) {
                continue;
            }
            // A program that is told to end tears itself down with many words.
            let ends = self.phase == LogPhase::Stopping && self.least_phase < LogPhase::Stopping;
            if ends && matches!(rule.role, RuleRole::Residual | RuleRole::Cascade) {
                continue;
            }
            self.counts[index] += 1;
            if self.counts[index] <= HITS_PER_RULE {
                let hit = (index, EvidenceLine { line: number, text: line.to_owned() });
                match rule.role {
                    RuleRole::Residual | RuleRole::Cascade => self.pending.push(hit),
                    RuleRole::Root | RuleRole::Likely => hits.push(hit),
                }
            }
            if rule.exclusive {
                break;
            }
        }
        hits
    }
}

/// Over bytes: `.` is then one state instead of a dozen, which counts where it is repeated.
fn set<'p>(patterns: impl Iterator<Item = &'p String>) -> Arc<RegexSet> {
    let set = RegexSetBuilder::new(patterns)
        .unicode(false)
        .size_limit(64 << 20)
        .dfa_size_limit(32 << 20)
        .build()
        .unwrap_or_else(|_| RegexSet::empty());
    Arc::new(set)
}

fn beginning(line: &str) -> &str {
    let end = line.floor_char_boundary(MATCHED_BYTES);
    &line[..end]
}
