//! What a user types wrongly, and what comes back.

use crate::harness::{Sandbox, sweep, variant};
use std::fs;

#[test]
fn every_mistake_of_a_sweep_is_told_at_once_and_nothing_is_begun() {
    let sandbox = Sandbox::new();
    let text = sweep(&variant("a", &[]))
        .replace("blocks = 1", "blocks = 0")
        .replace("min_requests = 12", "min-requests = 12")
        .replace("endpoint = \"completions\"", "endpoint = \"complete\"")
        .replace("step-ms = 1.0", "step-m = 1.0");
    let file = sandbox.write("sweep.toml", &text);
    let output = sandbox.command(&["run", file.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    let mistakes = ["blocks", "`min_requests`", "completions", "`step-ms`"];
    for mistake in mistakes {
        assert!(said.contains(mistake), "{mistake} in\n{said}");
    }
    let line = 1 + text.lines().position(|line| line.starts_with("blocks")).unwrap();
    assert!(said.contains(&format!("sweep.toml:{line}:")), "{said}");
    assert_eq!(sandbox.only_run(), None);
}

#[test]
fn a_check_shows_the_plan_and_launches_nothing() {
    let sandbox = Sandbox::new();
    let text = sweep(&format!("{}{}", variant("a", &[]), variant("b", &[])));
    let file = sandbox.write("sweep.toml", &text.replace("blocks = 1", "blocks = 3"));
    let output = sandbox.command(&["check", "--json", file.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let trials = plan["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 6);
    for block in 1..=3 {
        let of_block = trials.iter().filter(|trial| trial["block"] == block);
        assert_eq!(of_block.count(), 2, "every block has every variant once: {plan:#}");
    }
    assert_eq!(sandbox.only_run(), None);
}

#[test]
fn what_is_not_a_run_is_refused_and_left_alone() {
    let sandbox = Sandbox::new();
    let output = sandbox.command(&["report", "no-such-run"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a run"));
    let output = sandbox.command(&["run", "no-such-sweep.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.matches("No such file").count(), 1, "{said}");
    sandbox.write("odd/plan.json", "{\"format\": 99}");
    let odd = sandbox.path().join("odd");
    let output = sandbox.command(&["report", odd.to_str().unwrap()]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("format 99"));
    assert_eq!(fs::read_to_string(odd.join("plan.json")).unwrap(), "{\"format\": 99}");
}

#[test]
fn whoever_stops_reading_is_no_fault() {
    let sandbox = Sandbox::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = sandbox
        .command(&["engines"])
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.as_ref()), (Some(141), ""));
}
