//! What the rules know of a log: the earliest line of each role, and lines to show.

use super::normal::without_escapes;
use super::rule::{ExitRule, FailureRule, LogPhase, LogRules, RuleRole};
use super::scan::{Hit, ScanSpec, Scanner};
use super::symptom::Circumstances;
use crate::run::outcome::EvidenceLine;
use regex::bytes::Regex;
use std::collections::{BTreeMap, VecDeque};

/// Enough to see the cause and what followed.
const EVIDENCE_LINES: usize = 8;
const TAIL_LINES: usize = 8;
/// Of a line that is kept.
const LINE_BYTES: usize = 500;

/// What the rules know of a log, and what is known besides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matcher {
    rules: LogRules,
    /// The earliest match of each role, by the rule's index.
    first: BTreeMap<RuleRole, (usize, EvidenceLine)>,
    evidence: Vec<EvidenceLine>,
    tail: VecDeque<EvidenceLine>,
    /// What the kernel's log says of it.
    kernel: Option<(usize, EvidenceLine)>,
    pub(super) oom_kills: Option<u64>,
    pub(super) gpu_bytes_of_others: Option<u64>,
}

/// What a log says about why an engine failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'m> {
    pub(crate) rule: &'m FailureRule,
    /// The line that decided.
    pub(crate) line: &'m EvidenceLine,
}

impl Matcher {
    /// From what was reported while the log was read: which rule holds for which line, and the log's
    /// last lines. Rules of other versions of the engine do not count.
    pub(crate) fn reported(
        rules: &LogRules,
        version: Option<&str>,
        hits: &[Hit],
        tail: &[EvidenceLine],
    ) -> Self {
        let mut matcher = Self { rules: rules.clone(), ..Self::default() };
        for (rule, line) in matcher.by_line(version, hits) {
            matcher.remember(rule, line);
        }
        let skipped = tail.len().saturating_sub(TAIL_LINES);
        let shown = |line: &EvidenceLine| EvidenceLine { line: line.line, text: plain(&line.text) };
        matcher.tail.extend(tail.iter().skip(skipped).map(shown));
        matcher
    }

    /// With what else was seen while the engine ran.
    pub(crate) fn seen(mut self, circumstances: &Circumstances) -> Self {
        self.oom_kills = circumstances.oom_kills;
        self.gpu_bytes_of_others = circumstances.gpu_bytes_of_others;
        let mut scanner = Scanner::new(ScanSpec::new(&self.rules), LogPhase::Starting);
        let lines = circumstances.kernel_log.iter();
        let hits: Vec<Hit> = lines.flat_map(|line| scanner.read(0, line)).collect();
        self.kernel = hits.into_iter().find(|(rule, _)| {
            self.rules.failures.get(*rule).is_some_and(|rule| rule.role == RuleRole::Root)
        });
        self
    }

    /// The best rule for each line, in the order of the log.
    fn by_line(&self, version: Option<&str>, hits: &[Hit]) -> Vec<Hit> {
        let mut best: BTreeMap<u64, (RuleRole, usize, &EvidenceLine)> = BTreeMap::new();
        for (index, line) in hits {
            let Some(rule) = self.rules.failures.get(*index) else { continue };
            if !rule.versions.as_ref().is_none_or(|versions| versions.hold(version)) {
                continue;
            }
            // A line may name its cause in the words of a cascade: roots are asked first.
            let candidate = (rule.role, *index, line);
            let known = best.entry(line.line).or_insert(candidate);
            if (candidate.0, candidate.1) < (known.0, known.1) {
                *known = candidate;
            }
        }
        best.into_values().map(|(_, index, line)| (index, line.clone())).collect()
    }

    fn remember(&mut self, index: usize, line: EvidenceLine) {
        let Some(rule) = self.rules.failures.get(index) else { return };
        let text = excerpt(&line.text, &rule.pattern);
        let line = EvidenceLine { line: line.line, text };
        if self.evidence.len() < EVIDENCE_LINES {
            self.evidence.push(line.clone());
        }
        self.first.entry(rule.role).or_insert((index, line));
    }

    /// The earliest line of this role.
    pub(super) fn found(&self, role: RuleRole) -> Option<Found<'_>> {
        self.first.get(&role).and_then(|found| self.show(found))
    }

    pub(super) fn kernel(&self) -> Option<Found<'_>> {
        self.kernel.as_ref().and_then(|found| self.show(found))
    }

    fn show<'m>(&'m self, (index, line): &'m (usize, EvidenceLine)) -> Option<Found<'m>> {
        self.rules.failures.get(*index).map(|rule| Found { rule, line })
    }

    /// What the log alone says: the earliest line of the strongest role.
    #[cfg(test)]
    pub(crate) fn strongest(&self) -> Option<Found<'_>> {
        self.first.values().next().and_then(|found| self.show(found))
    }

    pub(super) fn exits(&self) -> &[ExitRule] {
        &self.rules.exits
    }

    /// The lines that speak for the verdict, the deciding one first; the last lines where none did.
    pub(super) fn evidence(&self, deciding: Option<&EvidenceLine>) -> Vec<EvidenceLine> {
        match deciding {
            Some(line) => {
                let others = self.evidence.iter().filter(|other| *other != line);
                std::iter::once(line).chain(others).take(EVIDENCE_LINES).cloned().collect()
            }
            None if !self.evidence.is_empty() => self.evidence.clone(),
            None => self.tail.iter().cloned().collect(),
        }
    }
}

fn plain(text: &str) -> String {
    let text = without_escapes(text);
    let text = text.trim_end();
    if text.len() <= LINE_BYTES {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(LINE_BYTES)])
}

/// The line, or of a long one the part in which the pattern stands.
fn excerpt(text: &str, pattern: &Regex) -> String {
    let text = without_escapes(text);
    let found = pattern.find(text.as_bytes()).map_or(0, |found| found.start());
    let begin = text.floor_char_boundary(found.saturating_sub(LINE_BYTES / 4));
    if found < LINE_BYTES / 2 || text.len() <= LINE_BYTES {
        return plain(&text);
    }
    format!("…{}", plain(&text[begin..]))
}
