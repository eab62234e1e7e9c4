//! A failure rule, and what else an engine file says about its log. Only data.

use crate::run::outcome::FailureKind;
use regex::bytes::Regex;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// What a line that a rule matches says about the cause. Stronger first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RuleRole {
    /// It names the cause.
    Root,
    /// It names the cause, unless a root is anywhere in the log: what often follows from
    /// something else, and where ranks write at the same time also before it.
    Likely,
    /// Something went wrong of which no rule knows more. Void once the engine is seen to go on.
    Residual,
    /// It only followed from something else. Void likewise.
    Cascade,
}

/// How far the engine had come when it wrote a line.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogPhase {
    #[default]
    Starting,
    Weights,
    KvCache,
    /// Graph capture, compilation and warm-up: everything fits so far, nobody is served.
    Graphs,
    Serving,
    Stopping,
}

/// A line of the log that tells why an engine failed.
#[derive(Clone, Debug)]
pub(crate) struct FailureRule {
    pub(crate) pattern: Regex,
    pub(crate) kind: FailureKind,
    pub(crate) role: RuleRole,
    /// It holds in these phases only; empty: in all.
    pub(crate) phases: Vec<LogPhase>,
    /// A frame of the traceback that the line ends.
    pub(crate) frame: Option<Regex>,
    /// No later rule is asked about the line.
    pub(crate) exclusive: bool,
    pub(crate) versions: Option<Versions>,
    pub(crate) advice: Option<String>,
    /// It passes by itself: worth so many more launches.
    pub(crate) retries: Option<u32>,
    /// The engine's file or the document that the pattern was taken from.
    pub(crate) origin: Option<String>,
    /// It was seen in one log only and is in no source that was read.
    pub(crate) one_sample: bool,
}

/// A line by which the engine tells how far it has come.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) pattern: Regex,
    pub(crate) phase: LogPhase,
    /// It shows that tokens are made: what went wrong before did not end the engine.
    pub(crate) alive: bool,
}

/// How a process ended, where that means something of its own with this engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExitRule {
    pub(crate) status: crate::run::outcome::ExitStatus,
    pub(crate) before_ready: bool,
    pub(crate) kind: FailureKind,
    pub(crate) advice: Option<String>,
    pub(crate) origin: Option<String>,
}

/// All that is known of an engine's log and end.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogRules {
    /// An engine's own first, then those of `common.toml`.
    pub(crate) failures: Vec<FailureRule>,
    pub(crate) marks: Vec<Mark>,
    /// Lines that sound like a failure and are none.
    pub(crate) harmless: Vec<Regex>,
    pub(crate) exits: Vec<ExitRule>,
}

impl LogRules {
    /// These, then those of another.
    pub(crate) fn then(mut self, other: &Self) -> Self {
        self.failures.extend_from_slice(&other.failures);
        self.marks.extend_from_slice(&other.marks);
        self.harmless.extend_from_slice(&other.harmless);
        self.exits.extend_from_slice(&other.exits);
        self
    }
}

/// Versions of an engine: `>=0.5, <0.9`. Every bound must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Versions(Vec<(Bound, Vec<u64>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    AtLeast,
    Below,
}

impl Versions {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bound = |part: &str| {
            let part = part.trim();
            let (bound, version) = match part.strip_prefix(">=") {
                Some(version) => (Bound::AtLeast, version),
                None => (Bound::Below, part.strip_prefix('<')?),
            };
            let version = version.trim();
            let plain = version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            (plain && !version.is_empty()).then(|| (bound, numbers(version)))
        };
        text.split(',').map(bound).collect::<Option<Vec<_>>>().map(Self)
    }

    /// An unknown version may be any.
    pub(crate) fn hold(&self, version: Option<&str>) -> bool {
        let Some(version) = version.map(numbers).filter(|numbers| !numbers.is_empty()) else {
            return true;
        };
        self.0.iter().all(|(bound, other)| match bound {
            Bound::AtLeast => compared(&version, other) != Ordering::Less,
            Bound::Below => compared(&version, other) == Ordering::Less,
        })
    }
}

/// `v0.4.6.post1+cu121` -> 0, 4, 6: the numbers of its dotted beginning.
fn numbers(version: &str) -> Vec<u64> {
    let version = version.trim_start_matches(|first: char| !first.is_ascii_digit());
    let part = |part: &str| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse().ok()
    };
    version.split(['.', '+', '-']).map_while(part).collect()
}

/// A part that is missing is zero.
fn compared(one: &[u64], other: &[u64]) -> Ordering {
    let part = |version: &[u64], at: usize| version.get(at).copied().unwrap_or(0);
    let parts = 0..one.len().max(other.len());
    parts
        .map(|at| part(one, at).cmp(&part(other, at)))
        .find(|o| o.is_ne())
        .unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (range, version, holds) in [
            (">=0.5", "0.5.0", true),
            (">=0.5", "v0.4.6.post1+cu121", false),
            (">=0.4.6", "v0.4.6.post1", true),
            (">=0.5, <0.9", "0.10.2", false),
            (">=0.5, <0.9", "0.8.99", true),
            ("<b1", "1", false),
        ] {
            let held = Versions::parse(range).is_some_and(|range| range.hold(Some(version)));
            assert_eq!(held, holds, "{version} in {range}");
        }
        assert!(Versions::parse(">=1").unwrap().hold(None));
        assert_eq!(Versions::parse("1.0"), None);
        assert_eq!(Versions::parse(""), None);
    }
}
