//! What follows from a failure: tried again, a limit, skipped; and that it can be asked why.

use crate::harness::{Run, Sandbox, sweep, variant};
use serde_json::Value;

/// What `sweepd why` says, in words and as data.
fn why(sandbox: &Sandbox, run: &Run, trial: &str) -> (String, Value) {
    let folder = run.dir.to_str().unwrap();
    let words = sandbox.command(&["why", folder, trial]).output().unwrap();
    assert!(words.status.success(), "{}", String::from_utf8_lossy(&words.stderr));
    let json = sandbox.command(&["why", folder, trial, "--json"]).output().unwrap();
    (String::from_utf8(words.stdout).unwrap(), serde_json::from_slice(&json.stdout).unwrap())
}

fn choices(outcome: &Value) -> Vec<&str> {
    let decisions = outcome["decisions"].as_array().unwrap();
    decisions.iter().map(|decision| decision["decision"].as_str().unwrap()).collect()
}

#[test]
fn out_of_memory_under_load_is_a_limit_and_what_asks_for_no_more_goes_on() {
    let sandbox = Sandbox::new();
    // The probe's 1, the warm-up's 2 or 3 and the first phase's 12 or 13 make 17 at most.
    let more = "[[phases]]\nusers = 8\nmin_requests = 8\n\n\
                [[phases]]\nname = \"last\"\nusers = 1\nmin_requests = 8\n\n[deadlines]";
    let text = sweep(&variant("bad", &["oom@request=20"])).replace("\"200ms\"", "\"0s\"");
    let run = sandbox.run(&text.replace("[deadlines]", more)).expect_exit(1);
    let outcome = run.trial("01-bad");
    assert_eq!(outcome["failure"]["kind"], "gpu_oom_runtime", "{outcome:#}");
    assert_eq!(choices(&outcome), ["limit", "skip_phase", "go_on", "end"], "{outcome:#}");
    assert_eq!(outcome["decisions"][1]["phase"], "8-users", "{outcome:#}");
    let phases = outcome["phases"].as_array().unwrap();
    let last = phases.iter().find(|phase| phase["phase"] == "last").expect("it went on");
    assert_eq!((&outcome["attempts"], &last["attempt"]), (&2.into(), &2.into()), "{outcome:#}");
    let facts = run.json("trials/01-bad/attempt-2/phases/last/facts.json");
    assert_eq!(facts["end"], "finished", "{facts:#}");
    let (words, json) = why(&sandbox, &run, "01-bad");
    for said in ["4-users is a limit", "8-users was skipped", "goes on with last"] {
        assert!(words.contains(said), "{said}: {words}");
    }
    assert_eq!(json[0]["outcome"]["decisions"], outcome["decisions"]);
    run.expect_nothing_left();
}

#[test]
fn a_cause_that_cannot_change_skips_the_variants_other_trials() {
    let sandbox = Sandbox::new();
    // The parameter is a text to sweepd; the engine itself refuses it.
    let text = sweep(&format!("{}{}", variant("bad", &["no-such-fault"]), variant("good", &[])));
    let run = sandbox.run(&text.replace("blocks = 1", "blocks = 2")).expect_exit(1);
    let first = run.trial("01-bad");
    assert_eq!(first["failure"]["kind"], "bad_flag", "{first:#}");
    let second = run.trial("02-bad");
    assert_eq!(second["ending"], "skipped", "{second:#}");
    assert_eq!(choices(&second), ["skip_trial"], "{second:#}");
    assert!(!run.dir.join("trials/02-bad/attempt-1").exists(), "nothing was launched");
    run.expect_measured("01-good");
    assert_eq!(run.trial("02-good")["ending"], "completed");
    let (words, _) = why(&sandbox, &run, "02-bad");
    assert!(words.contains("skipped because of 01-bad"), "{words}");
}

#[test]
fn equal_failures_in_a_row_open_the_breaker() {
    let sandbox = Sandbox::new();
    let text = sweep(&variant("bad", &["crash@start"])).replace("blocks = 1", "blocks = 3");
    let run = sandbox.run(&format!("{text}\n[policy]\nbreaker = 2\n")).expect_exit(1);
    let endings: Vec<_> =
        ["01-bad", "02-bad", "03-bad"].map(|t| run.trial(t)["ending"].clone()).to_vec();
    assert_eq!(endings, ["engine_failed", "engine_failed", "skipped"]);
    let reason = run.trial("03-bad")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("failed alike: crash_segfault"), "{reason}");
}

#[test]
fn a_trial_that_is_not_there_is_told_with_those_that_are() {
    let sandbox = Sandbox::new();
    let run = sandbox.run(&sweep(&variant("good", &[]))).expect_exit(0);
    let asked = sandbox.command(&["why", run.dir.to_str().unwrap(), "09-x"]).output().unwrap();
    let said = String::from_utf8(asked.stderr).unwrap();
    assert_eq!(asked.status.code(), Some(2), "{said}");
    assert!(said.contains("01-good"), "{said}");
}
