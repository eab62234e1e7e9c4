//! Why an engine failed: its log's lines against the rules, and its end. Pure.
//!
//! Of all lines that a rule knows, the earliest that names a cause wins; what followed from it is
//! evidence at most. How the process ended speaks only where the log names no cause.

use super::def::{FailureRule, RuleRole};
use crate::run::outcome::{EvidenceLine, ExitStatus, Failure, FailureKind};
use std::collections::VecDeque;
use std::time::Duration;

/// Enough to see the cause and what followed; after that, matching stops.
const EVIDENCE_LINES: usize = 8;
const TAIL_LINES: usize = 8;
/// Of a line that is kept.
const LINE_BYTES: usize = 500;

/// What the rules know of a log.
#[derive(Clone, Debug)]
pub(crate) struct Matcher {
    rules: Vec<FailureRule>,
    root: Option<Match>,
    cascade: Option<Match>,
    evidence: Vec<EvidenceLine>,
    tail: VecDeque<EvidenceLine>,
}

#[derive(Clone, Debug)]
struct Match {
    /// Index of the rule.
    rule: usize,
    line: EvidenceLine,
}

/// What a log says about why an engine failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict<'m> {
    pub(crate) rule: &'m FailureRule,
    /// The line that decided.
    pub(crate) line: &'m EvidenceLine,
}

impl Matcher {
    /// From what a guard reported while it read the log: which rule matched which line, in order, and
    /// the log's last lines.
    pub(crate) fn reported(
        rules: &[FailureRule],
        matches: &[(usize, EvidenceLine)],
        tail: &[EvidenceLine],
    ) -> Self {
        let mut matcher = Self {
            rules: rules.to_vec(),
            root: None,
            cascade: None,
            evidence: Vec::new(),
            tail: VecDeque::new(),
        };
        let mut rest = matches;
        while let Some((_, line)) = rest.first() {
            let same = rest.iter().take_while(|(_, other)| other.line == line.line).count();
            let (of_line, after) = rest.split_at(same);
            // A line may name its cause in the words of a cascade: roots are asked first.
            let by_role = |role| {
                let mut rules = of_line.iter().map(|(rule, _)| *rule);
                rules.find(|rule| matcher.rules.get(*rule).is_some_and(|r| r.role == role))
            };
            if let Some(rule) = by_role(RuleRole::Root).or_else(|| by_role(RuleRole::Cascade)) {
                let text = shortened(&line.text);
                matcher.remember(rule, EvidenceLine { line: line.line, text });
            }
            rest = after;
        }
        let skipped = tail.len().saturating_sub(TAIL_LINES);
        matcher.tail.extend(tail.iter().skip(skipped).cloned());
        matcher
    }

    fn remember(&mut self, rule: usize, line: EvidenceLine) {
        if self.evidence.len() < EVIDENCE_LINES {
            self.evidence.push(line.clone());
        }
        let place = match self.rules[rule].role {
            RuleRole::Root => &mut self.root,
            RuleRole::Cascade => &mut self.cascade,
        };
        place.get_or_insert(Match { rule, line });
    }

    /// The earliest line that names a cause; without one, the earliest that speaks of a cascade.
    pub(crate) fn verdict(&self) -> Option<Verdict<'_>> {
        let found = self.root.as_ref().or(self.cascade.as_ref())?;
        Some(Verdict { rule: &self.rules[found.rule], line: &found.line })
    }

    /// The lines that speak for the verdict, the deciding one first.
    fn evidence(&self, verdict: Option<Verdict<'_>>) -> Vec<EvidenceLine> {
        let Some(verdict) = verdict else { return self.tail.iter().cloned().collect() };
        let others = self.evidence.iter().filter(|line| *line != verdict.line);
        std::iter::once(verdict.line).chain(others).take(EVIDENCE_LINES).cloned().collect()
    }
}

fn shortened(text: &str) -> String {
    if text.len() <= LINE_BYTES {
        return text.to_owned();
    }
    let end = (0..=LINE_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

/// What was seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Symptom {
    /// The process ended although nobody had asked it to.
    Exited { status: ExitStatus, was_ready: bool },
    /// The deadline for becoming ready passed.
    NotReady { waited: Duration, last_probe: Option<String> },
    /// It answered, but no token could be had from it.
    CannotGenerate { detail: String },
    /// No stream brought a byte for so long.
    NoProgress { silent: Duration },
    /// It never ran.
    CannotLaunch { detail: String },
    /// Its port was taken by a process that is not its own.
    PortTaken { port: u16 },
    /// What was asked of it was not done by the deadline, although it made progress.
    TooSlow { detail: String },
    /// It lives, but accepts no connections any more.
    NoConnections,
}

/// What a symptom alone allows to say.
struct Finding {
    kind: FailureKind,
    summary: String,
    advice: Option<&'static str>,
    /// It says more than a cascade's line does.
    is_specific: bool,
}

/// Why the engine failed. A cause named in the log beats the symptom; a specific symptom beats a
/// cascade; the last lines are the evidence where no line is known.
pub(crate) fn diagnose(log: &Matcher, symptom: &Symptom, during: &str) -> Failure {
    let finding = finding(symptom);
    let verdict =
        log.verdict().filter(|verdict| verdict.rule.role == RuleRole::Root || !finding.is_specific);
    let (kind, summary, advice) = match verdict {
        Some(verdict) => (
            verdict.rule.kind,
            format!("{}; line {} of its log says why", finding.summary, verdict.line.line),
            verdict.rule.advice.clone(),
        ),
        None => (finding.kind, finding.summary, finding.advice.map(str::to_owned)),
    };
    let evidence = log.evidence(verdict);
    Failure { kind, during: during.to_owned(), summary, evidence, advice }
}

fn finding(symptom: &Symptom) -> Finding {
    let (kind, summary, advice, is_specific) = match symptom {
        Symptom::Exited { status, was_ready } => return exited(*status, *was_ready),
        Symptom::NotReady { waited, last_probe } => (
            FailureKind::StartupTimeoutOrHang,
            match last_probe {
                Some(met) => format!("it was not ready after {}: {met}", shown(*waited)),
                None => format!("it was not ready after {}", shown(*waited)),
            },
            Some("see the end of its log; a slow disk or compilation may need `deadlines.load`"),
            false,
        ),
        Symptom::CannotGenerate { detail } => (
            FailureKind::CannotGenerate,
            format!("it answered, but could not generate one token: {detail}"),
            None,
            false,
        ),
        Symptom::NoProgress { silent } => (
            FailureKind::WatchdogTimeout,
            format!("no stream brought a byte for {}", shown(*silent)),
            None,
            false,
        ),
        Symptom::CannotLaunch { detail } => {
            (FailureKind::CannotLaunch, format!("it could not be started: {detail}"), None, true)
        }
        Symptom::PortTaken { port } => (
            FailureKind::PortInUse,
            format!("port {port} was taken by a process that is not its own"),
            None,
            true,
        ),
        Symptom::TooSlow { detail } => (
            FailureKind::RequestTimeout,
            detail.clone(),
            Some("give the phase a longer deadline, fewer requests, or fewer users"),
            false,
        ),
        Symptom::NoConnections => (
            FailureKind::ExitedUnexpectedly,
            "it no longer accepted connections".to_owned(),
            None,
            false,
        ),
    };
    Finding { kind, summary, advice, is_specific }
}

fn exited(status: ExitStatus, was_ready: bool) -> Finding {
    match status {
        ExitStatus::Signal(signal) => ended_by(signal),
        ExitStatus::Code(code) => Finding {
            kind: FailureKind::ExitedUnexpectedly,
            summary: format!("it ended by itself with exit code {code}"),
            advice: (code == 2 && !was_ready).then_some(
                "exit code 2 is customary for a wrong command line: check the parameters",
            ),
            is_specific: false,
        },
    }
}

fn ended_by(signal: i32) -> Finding {
    let kind = match signal {
        libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE => FailureKind::CrashSegfault,
        // A program that finds itself in an impossible state ends itself so.
        libc::SIGABRT => FailureKind::AssertionOrPythonException,
        libc::SIGTERM | libc::SIGINT | libc::SIGHUP => FailureKind::KilledByUser,
        _ => FailureKind::ExitedUnexpectedly,
    };
    let advice = match signal {
        libc::SIGILL => Some("its build needs instructions that this CPU lacks"),
        libc::SIGBUS => Some("often a full /dev/shm, or a model file cut short while in use"),
        libc::SIGKILL => Some("sweepd did not send it: most often the kernel, out of memory"),
        _ => None,
    };
    let name = nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned());
    Finding {
        kind,
        summary: format!("it was ended by {name}"),
        advice,
        is_specific: kind != FailureKind::ExitedUnexpectedly,
    }
}

/// To the tenth of a second.
fn shown(span: Duration) -> String {
    let tenths = u64::try_from(span.as_millis() / 100).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(tenths.saturating_mul(100))).to_string()
}

#[cfg(test)]
pub(in crate::engine) mod tests {
    use super::*;
    use FailureKind::*;
    use regex::Regex;

    fn rules() -> Vec<FailureRule> {
        let rule = |pattern, kind, role| FailureRule {
            pattern: Regex::new(pattern).unwrap(),
            kind,
            role,
            advice: Some(format!("about {pattern}")),
            origin: None,
        };
        vec![
            rule("out of memory", GpuOomRuntime, RuleRole::Root),
            rule("core failed", AssertionOrPythonException, RuleRole::Cascade),
            rule("address in use", PortInUse, RuleRole::Root),
        ]
    }

    /// As a guard would report the log.
    pub(in crate::engine) fn read(rules: &[FailureRule], log: &str) -> Matcher {
        let lines = (1..).zip(log.lines());
        let lines: Vec<_> =
            lines.map(|(line, text)| EvidenceLine { line, text: text.to_owned() }).collect();
        let known = |line: &EvidenceLine| {
            let rules = rules.iter().enumerate();
            let known = rules.filter(|(_, rule)| rule.pattern.is_match(&line.text));
            known.map(|(rule, _)| (rule, line.clone())).collect::<Vec<_>>()
        };
        let matches: Vec<_> = lines.iter().flat_map(known).collect();
        Matcher::reported(rules, &matches, &lines)
    }

    fn fed(log: &str) -> Matcher {
        read(&rules(), log)
    }

    #[track_caller]
    fn check(log: &str, expected: Option<(FailureKind, u64)>) {
        let matcher = fed(log);
        let verdict = matcher.verdict().map(|verdict| (verdict.rule.kind, verdict.line.line));
        assert_eq!(verdict, expected, "{log}");
    }

    #[test]
    fn the_earliest_root_wins() {
        check("", None);
        check("a\nb\n", None);
        check("core failed\n", Some((AssertionOrPythonException, 1)));
        check("core failed\nx\nout of memory\n", Some((GpuOomRuntime, 3)));
        check("out of memory\ncore failed\n", Some((GpuOomRuntime, 1)));
        check("address in use\nout of memory\n", Some((PortInUse, 1)));
        check("core failed: address in use\n", Some((PortInUse, 1)));
        let many_cascades = "core failed\n".repeat(100);
        check(&format!("{many_cascades}out of memory\n"), Some((GpuOomRuntime, 101)));
    }

    const SEGFAULT: Symptom =
        Symptom::Exited { status: ExitStatus::Signal(libc::SIGSEGV), was_ready: true };

    fn code(code: i32, was_ready: bool) -> Symptom {
        Symptom::Exited { status: ExitStatus::Code(code), was_ready }
    }

    #[test]
    fn a_cause_in_the_log_beats_the_symptom_and_a_specific_symptom_beats_a_cascade() {
        let hour = Duration::from_secs(3600);
        for (log, symptom, expected) in [
            ("out of memory", &SEGFAULT, GpuOomRuntime),
            ("core failed", &SEGFAULT, CrashSegfault),
            ("", &SEGFAULT, CrashSegfault),
            ("core failed", &code(1, true), AssertionOrPythonException),
            ("", &code(1, true), ExitedUnexpectedly),
            ("", &code(2, false), ExitedUnexpectedly),
            ("", &Symptom::NotReady { last_probe: None, waited: hour }, StartupTimeoutOrHang),
            ("address in use", &Symptom::NotReady { last_probe: None, waited: hour }, PortInUse),
            ("", &Symptom::NoProgress { silent: hour }, WatchdogTimeout),
            ("out of memory", &Symptom::NoProgress { silent: hour }, GpuOomRuntime),
            ("", &Symptom::CannotGenerate { detail: "500".into() }, CannotGenerate),
            ("", &Symptom::CannotLaunch { detail: "no such file".into() }, CannotLaunch),
            (
                "",
                &Symptom::Exited { status: ExitStatus::Signal(libc::SIGABRT), was_ready: false },
                AssertionOrPythonException,
            ),
            (
                "core failed",
                &Symptom::Exited { status: ExitStatus::Signal(libc::SIGKILL), was_ready: false },
                AssertionOrPythonException,
            ),
        ] {
            let failure = diagnose(&fed(log), symptom, "loading");
            assert_eq!(failure.kind, expected, "{log} {symptom:?}");
        }
    }

    #[test]
    fn a_failure_has_its_evidence_and_advice() {
        let log = fed("x\ncore failed\nout of memory\ny\n");
        let failure = diagnose(&log, &code(1, true), "phase 50-users");
        assert_eq!(failure.during, "phase 50-users");
        assert_eq!(
            failure.summary,
            "it ended by itself with exit code 1; line 3 of its log says why"
        );
        assert_eq!(failure.advice.as_deref(), Some("about out of memory"));
        let lines: Vec<u64> = failure.evidence.iter().map(|line| line.line).collect();
        assert_eq!(lines, [3, 2]);
    }

    #[test]
    fn without_a_known_line_the_last_lines_are_the_evidence() {
        let log: String = (1..=20).map(|n| format!("line {n}\n")).collect();
        let failure = diagnose(&fed(&log), &code(2, false), "loading");
        assert_eq!(failure.evidence.first().unwrap().line, 13);
        assert_eq!(failure.evidence.last().unwrap().text, "line 20");
        assert!(failure.advice.unwrap().contains("command line"));
        assert_eq!(
            diagnose(
                &fed(""),
                &Symptom::NotReady { last_probe: None, waited: Duration::from_millis(61_234) },
                "x"
            )
            .summary,
            "it was not ready after 1m 1s 200ms"
        );
    }

    #[test]
    fn a_long_line_is_kept_in_part_and_matched_whole() {
        let log = format!("{}out of memory", "ä".repeat(1000));
        let matcher = fed(&log);
        assert!(matcher.verdict().unwrap().line.text.len() < 510);
    }
}
