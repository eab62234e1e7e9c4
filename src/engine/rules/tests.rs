//! The weighing, on rules made up for it.

use super::rule::{FailureRule, LogPhase, LogRules, Mark, RuleRole};
use super::scan::{Hit, ScanSpec, Scanner};
use super::*;
use crate::run::outcome::{EvidenceLine, ExitStatus, FailureKind};
use FailureKind::*;
use regex::bytes::Regex;
use std::sync::LazyLock;
use std::time::Duration;

fn rule(pattern: &str, kind: FailureKind, role: RuleRole) -> FailureRule {
    FailureRule {
        pattern: Regex::new(pattern).unwrap(),
        kind,
        role,
        phases: Vec::new(),
        frame: None,
        exclusive: false,
        versions: None,
        advice: Some(format!("about {pattern}")),
        retries: None,
        origin: None,
        one_sample: false,
    }
}

fn rules() -> LogRules {
    let failures = vec![
        rule("out of memory", GpuOomRuntime, RuleRole::Root),
        rule("core failed", AssertionOrPythonException, RuleRole::Cascade),
        rule("address in use", PortInUse, RuleRole::Root),
        rule("peer lost", NcclError, RuleRole::Likely),
        rule("^ValueError: ", AssertionOrPythonException, RuleRole::Residual),
    ];
    LogRules { failures, ..LogRules::default() }
}

/// As a guard reads and reports the log.
pub(in crate::engine) fn read(rules: &LogRules, log: &str) -> Matcher {
    read_from(rules, log, LogPhase::Starting)
}

pub(in crate::engine) fn read_from(rules: &LogRules, log: &str, phase: LogPhase) -> Matcher {
    read_with(Scanner::new(ScanSpec::new(rules), phase), rules, log).0
}

pub(in crate::engine) fn read_with(
    mut scanner: Scanner,
    rules: &LogRules,
    log: &str,
) -> (Matcher, Scanner) {
    let lines = (1..).zip(log.lines());
    let lines: Vec<_> =
        lines.map(|(line, text)| EvidenceLine { line, text: text.to_owned() }).collect();
    let mut hits: Vec<Hit> =
        lines.iter().flat_map(|line| scanner.read(line.line, &line.text)).collect();
    hits.extend(scanner.finish());
    (Matcher::reported(rules, None, &hits, &lines), scanner)
}

fn fed(log: &str) -> Matcher {
    static PREPARED: LazyLock<(LogRules, Scanner)> = LazyLock::new(|| {
        let rules = rules();
        let scanner = Scanner::new(ScanSpec::new(&rules), LogPhase::Starting);
        (rules, scanner)
    });
    read_with(PREPARED.1.clone(), &PREPARED.0, log).0
}

#[track_caller]
fn check(log: &str, expected: Option<(FailureKind, u64)>) {
    let matcher = fed(log);
    let verdict = matcher.strongest().map(|found| (found.rule.kind, found.line.line));
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
    assert_eq!(failure.summary, "it ended by itself with exit code 1; line 3 of its log says why");
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
    assert_eq!(failure.advice, None);
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
    let log = format!("{}out of memory{}", "ä".repeat(1000), "ö".repeat(1000));
    let matcher = fed(&log);
    let text = &matcher.strongest().unwrap().line.text;
    assert!(text.len() < 510 && text.contains("out of memory"), "{text}");
}

#[test]
fn a_rule_may_hold_in_a_phase_or_below_a_frame_only() {
    let mut rules = rules();
    let kinds = [(LogPhase::Weights, GpuOomWeights), (LogPhase::KvCache, GpuOomKvCache)];
    for (phase, kind) in kinds.into_iter().rev() {
        let mut by_phase = rule("out of memory", kind, RuleRole::Root);
        by_phase.phases = vec![phase];
        rules.failures.insert(0, by_phase);
    }
    let mut by_frame = rule("out of memory", HostOom, RuleRole::Root);
    by_frame.frame = Some(Regex::new("in pin_memory$").unwrap());
    rules.failures.insert(0, by_frame);
    for (phase, pattern) in [(LogPhase::Weights, "^weights"), (LogPhase::KvCache, "^cache")] {
        rules.marks.push(Mark { pattern: Regex::new(pattern).unwrap(), phase, alive: false });
    }
    let frame = "Traceback (most recent call last):\n  File \"x.py\", line 1, in";
    for (log, expected) in [
        ("out of memory".to_owned(), GpuOomRuntime),
        ("weights begin\nout of memory".to_owned(), GpuOomWeights),
        ("weights begin\ncache\nout of memory".to_owned(), GpuOomKvCache),
        (format!("cache\n{frame} pin_memory\n    x()\nout of memory"), HostOom),
        (format!("cache\n{frame} other\n    x()\nout of memory"), GpuOomKvCache),
        // Another traceback's frame does not count.
        (format!("{frame} pin_memory\nValueError: a\n{frame} f\nout of memory"), GpuOomRuntime),
        // Two ranks at the same time.
        (format!("{frame} pin_memory\n{frame} f\nout of memory"), HostOom),
    ] {
        assert_eq!(read(&rules, &log).strongest().unwrap().rule.kind, expected, "{log}");
    }
    let served = read_from(&rules, "weights begin\nout of memory", LogPhase::Serving);
    assert_eq!(served.strongest().unwrap().rule.kind, GpuOomRuntime);
}

#[test]
fn roles_are_weighed_before_the_order_of_lines() {
    let hang = Symptom::NoProgress { silent: Duration::from_secs(60) };
    for (log, symptom, expected) in [
        ("peer lost\nout of memory", None, Some(GpuOomRuntime)),
        ("ValueError: x\npeer lost", None, Some(NcclError)),
        ("core failed\nValueError: x", None, Some(AssertionOrPythonException)),
        ("peer lost", Some(&SEGFAULT), Some(CrashSegfault)),
        ("peer lost", Some(&hang), Some(NcclError)),
        ("core failed", Some(&hang), Some(WatchdogTimeout)),
        ("all well", None, None),
    ] {
        let judged = judge(&fed(log), symptom);
        assert_eq!(judged.map(|judged| judged.kind), expected, "{log}");
    }
}

#[test]
fn an_exception_that_the_engine_outlived_is_no_cause() {
    let mut rules = rules();
    let pattern = Regex::new("^decode batch").unwrap();
    rules.marks.push(Mark { pattern, phase: LogPhase::Serving, alive: true });
    let kind = |log: &str| judge(&read(&rules, log), None).map(|judged| judged.kind);
    assert_eq!(kind("ValueError: x"), Some(AssertionOrPythonException));
    assert_eq!(kind("ValueError: x\ndecode batch 1"), None);
    assert_eq!(kind("decode batch\nValueError: x"), Some(AssertionOrPythonException));
    assert_eq!(kind("out of memory\ndecode batch 1"), Some(GpuOomRuntime));
    let pattern = Regex::new("^shutting down").unwrap();
    rules.marks.push(Mark { pattern, phase: LogPhase::Stopping, alive: false });
    let kind = |log: &str| judge(&read(&rules, log), None).map(|judged| judged.kind);
    assert_eq!(kind("shutting down\nValueError: x\ncore failed"), None);
    assert_eq!(kind("core failed\nshutting down"), Some(AssertionOrPythonException));
    let many = format!("{}decode batch\nValueError: x", "ValueError: x\n".repeat(20));
    assert_eq!(kind(&many), Some(AssertionOrPythonException));
}

#[test]
fn a_line_may_be_harmless_or_belong_to_one_rule_alone() {
    let mut rules = rules();
    let mut own = rule("core failed: address in use", KilledByUser, RuleRole::Cascade);
    own.exclusive = true;
    rules.failures.insert(0, own);
    rules.harmless.push(Regex::new("if you run out of memory").unwrap());
    let kind = |log: &str| judge(&read(&rules, log), None).map(|judged| judged.kind);
    assert_eq!(kind("core failed: address in use"), Some(KilledByUser));
    assert_eq!(kind("hint: if you run out of memory"), None);
}

#[test]
fn what_the_kernel_did_beats_what_the_engine_made_of_it() {
    let log = || fed("out of memory");
    let killed = log().seen(&Circumstances { oom_kills: Some(1), ..Circumstances::default() });
    let failure = diagnose(&killed, &code(1, true), "x");
    assert_eq!((failure.kind, failure.evidence.len()), (HostOom, 1));

    let mut rules = rules();
    rules.failures.push(rule("^Killed", HostOom, RuleRole::Likely));
    for (oom_kills, expected) in
        [(None, HostOom), (Some(0), ExitedUnexpectedly), (Some(1), HostOom)]
    {
        let circumstances = Circumstances { oom_kills, ..Circumstances::default() };
        let judged = judge(&read(&rules, "Killed").seen(&circumstances), None).unwrap();
        assert_eq!(judged.kind, expected, "{oom_kills:?}");
    }
    rules.failures.push(rule("NVRM: Xid", XidOrHwFault, RuleRole::Root));
    let kernel_log = vec!["[12.3] NVRM: Xid (PCI:0000:01:00): 79".to_owned()];
    let circumstances = Circumstances { kernel_log, ..Circumstances::default() };
    let judged = judge(&read(&rules, "out of memory").seen(&circumstances), None).unwrap();
    assert_eq!(judged.kind, XidOrHwFault);
    assert!(judged.root_cause.contains("Xid"));
}

#[test]
fn memory_that_others_hold_explains_what_is_missing() {
    let mut rules = rules();
    rules.failures.insert(0, rule("no room for weights", GpuOomWeights, RuleRole::Root));
    for (others, log, expected) in [
        (None, "no room for weights", GpuOomWeights),
        (Some(1 << 20), "no room for weights", GpuOomWeights),
        (Some(8 << 30), "no room for weights", GpuBusyOrLeaked),
        (Some(8 << 30), "out of memory", GpuOomRuntime),
    ] {
        let circumstances = Circumstances { gpu_bytes_of_others: others, ..Default::default() };
        let judged = judge(&read(&rules, log).seen(&circumstances), None).unwrap();
        assert_eq!(judged.kind, expected, "{others:?} {log}");
    }
}

#[test]
fn an_exit_code_may_stand_for_a_signal_and_an_engine_may_say_what_an_exit_means() {
    use super::rule::ExitRule;
    let mut rules = rules();
    rules.exits.push(ExitRule {
        status: ExitStatus::Code(2),
        before_ready: true,
        kind: BadFlag,
        advice: Some("see its help".into()),
        origin: None,
    });
    for (status, was_ready, expected) in [
        (ExitStatus::Code(139), true, CrashSegfault),
        (ExitStatus::Code(135), false, CrashSegfault),
        (ExitStatus::Code(-11), false, CrashSegfault),
        (ExitStatus::Code(143), false, KilledByUser),
        (ExitStatus::Code(137), false, ExitedUnexpectedly),
        (ExitStatus::Code(2), false, BadFlag),
        (ExitStatus::Code(2), true, ExitedUnexpectedly),
    ] {
        let symptom = Symptom::Exited { status, was_ready };
        assert_eq!(diagnose(&read(&rules, ""), &symptom, "x").kind, expected, "{status}");
    }
}

#[test]
fn versions_choose_among_rules() {
    let mut rules = rules();
    let mut old = rule("out of memory", HostOom, RuleRole::Root);
    old.versions = super::rule::Versions::parse("<0.5");
    rules.failures.insert(0, old);
    let hits = [0, 1].map(|rule| (rule, EvidenceLine { line: 1, text: "out of memory".into() }));
    for (version, expected) in
        [(None, HostOom), (Some("0.4"), HostOom), (Some("0.5"), GpuOomRuntime)]
    {
        let log = Matcher::reported(&rules, version, &hits, &[]);
        assert_eq!(log.strongest().unwrap().rule.kind, expected, "{version:?}");
    }
}

#[test]
fn the_source_text_in_a_traceback_is_not_what_happened() {
    let log = "Traceback (most recent call last):\n  File \"x.py\", line 1, in f\n    \
               raise RuntimeError('out of memory')\nValueError: x\nout of memory";
    assert_eq!(fed(log).strongest().unwrap().line.line, 5);
    let log = "  File \"x.py\", line 1, in f\nout of memory";
    assert_eq!(fed(log).strongest().unwrap().line.line, 2);
}

proptest::proptest! {
    #[test]
    fn no_log_makes_it_panic(log in proptest::collection::vec(
        "(Traceback \\(most recent call last\\):|  File \"x\", line 1, in f|ValueError: |out of memory|\\PC{0,12}|\u{1b}\\[[0-9;]{0,3}m?)", 0..20))
    {
        let log = fed(&log.join("\n"));
        judge(&log, None);
        diagnose(&log, &code(1, true), "x");
    }
}
