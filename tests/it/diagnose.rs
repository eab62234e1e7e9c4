//! `sweepd diagnose`: anybody's log in, one verdict out.

use crate::harness::{Sandbox, repository};
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

const FIXTURE: &str = "engines/fixtures/common/port_in_use.log";

#[test]
fn a_log_gets_its_kind_with_evidence_and_advice() {
    let sandbox = Sandbox::new();
    let log = repository().join(FIXTURE);
    let arguments = ["diagnose", log.to_str().unwrap(), "--engine", "common"];
    let output = sandbox.command(&[arguments.as_slice(), &["--json"]].concat()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdict["kind"], "port_in_use");
    assert_eq!(verdict["confidence"], "high");
    let root_cause = verdict["root_cause"].as_str().unwrap();
    assert!(root_cause.contains("address already in use"), "{verdict:#}");
    let line = verdict["evidence"][0]["line"].as_u64().unwrap();
    let text = std::fs::read_to_string(&log).unwrap();
    let said = text.lines().nth(usize::try_from(line).unwrap() - 1).unwrap();
    assert_eq!(verdict["evidence"][0]["text"], said);
    assert!(verdict["advice"].is_string());

    let output = sandbox.command(&arguments).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.starts_with("port_in_use (confidence: high)\n"), "{shown}");
    assert!(shown.contains("advice: ") && shown.contains(&format!("{line} | ")), "{shown}");
}

#[test]
fn standard_input_is_a_log_and_its_end_counts_where_it_says_nothing() {
    let sandbox = Sandbox::new();
    for (log, more, kind) in [
        ("all is well\n", &[][..], "none"),
        ("all is well\n", &["--exit-code", "0"], "none"),
        ("", &["--exit-code", "139"], "crash_segfault"),
        (
            "10%\r50%\r\u{1b}[31mOSError: [Errno 98] address already in use\u{1b}[0m",
            &[],
            "port_in_use",
        ),
        ("", &["--signal", "15", "--phase", "teardown"], "killed_by_user"),
        ("", &["--exit-code", "1", "--phase", "load"], "exited_unexpectedly"),
    ] {
        let arguments = [&["diagnose", "-", "--engine", "sim", "--json"], more].concat();
        let mut command = sandbox.command(&arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(log.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(verdict["kind"], kind, "{log:?} {more:?}");
    }
}

#[test]
fn what_cannot_be_judged_is_told_and_is_the_users_mistake() {
    let sandbox = Sandbox::new();
    let log = repository().join(FIXTURE);
    let log = log.to_str().unwrap();
    for (arguments, told) in [
        (["diagnose", "/no/such.log", "--engine", "sim"].as_slice(), "cannot read /no/such.log: "),
        (&["diagnose", "/", "--engine", "sim"], "cannot read /: "),
        (&["diagnose", log, "--engine", "smi"], "there is no engine `smi`; did you mean `sim`?"),
        (&["diagnose", log, "--engine", "sim", "--phase", "later"], "one of startup, weights,"),
        (&["diagnose", log, "--engine", "sim", "--signal", "9", "--exit-code", "1"], "cannot be"),
        (&["diagnose", log], "--engine <NAME>"),
    ] {
        let output = sandbox.command(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(told), "{arguments:?}: {stderr}");
    }
}
