//! What a fault of the engine does to the neighbour, to what was measured and to the report: nothing wrong.
//!
//! The outcome of every fault in every state is in `faults.toml`.

use crate::harness::{Run, Sandbox, sweep, variant};
use serde_json::Value;

/// Runs a faulty variant beside a good one; the sweep goes on, the good one is measured.
#[track_caller]
fn beside_a_good_one(faults: &[&str], code: i32) -> Run {
    run_beside(&sweep(&format!("{}{}", variant("bad", faults), variant("good", &[]))), code)
}

#[track_caller]
fn run_beside(text: &str, code: i32) -> Run {
    let sandbox = Sandbox::new();
    let run = sandbox.run(text).expect_exit(code);
    run.expect_measured("01-good");
    // An engine that obeys its stop signal is not killed.
    let good = run.attempt("01-good");
    assert_eq!(good["teardown"]["leader_killed"], false, "{good:#}");
    assert_eq!(good["exit"]["code"], 0, "{good:#}");
    run.expect_nothing_left();
    // The sandbox goes with this function; what is needed of the run is read before.
    std::mem::forget(sandbox);
    run
}

#[track_caller]
fn expect_failure(run: &Run, kind: &str, during: &str, evidence: &str) -> Value {
    let outcome = run.trial("01-bad");
    assert_eq!(outcome["ending"], "engine_failed", "{outcome:#}");
    let failure = &outcome["failure"];
    assert_eq!(failure["kind"], kind, "{failure:#}");
    assert!(failure["during"].as_str().unwrap().contains(during), "{failure:#}");
    assert!(failure.to_string().contains(evidence), "{evidence} in {failure:#}");
    let report = run.report();
    assert!(report.contains(kind), "the report names the kind:\n{report}");
    outcome
}

#[test]
fn a_slow_start_within_its_deadline_is_measured() {
    let run = beside_a_good_one(&["slow-start=2"], 0);
    run.expect_measured("01-bad");
    let ready = run.attempt("01-bad")["time_to_ready_ms"].as_u64().unwrap();
    assert!((1_990..5_000).contains(&ready), "{ready} ms");
}

#[test]
fn an_out_of_memory_exit_under_load_keeps_what_was_measured_before() {
    // Without a duration, requests alone end a phase: the probe's 1, the warm-up's 2 or 3 and the
    // first phase's 12 or 13 make 17 at most, so that number 20 falls into the second phase.
    let variants = format!("{}{}", variant("bad", &["oom@request=20"]), variant("good", &[]));
    let run = run_beside(&sweep(&variants).replace("\"200ms\"", "\"0s\""), 1);
    let outcome = expect_failure(&run, "gpu_oom_runtime", "phase 4-users", "CUDA out of memory");
    assert!(outcome["failure"]["advice"].as_str().is_some_and(|advice| !advice.is_empty()));
    let phases = outcome["phases"].as_array().unwrap();
    assert_eq!(phases[0]["phase"], "2-users", "{outcome:#}");
    let attempt = run.attempt("01-bad");
    assert_eq!(attempt["exit"]["code"], 1, "{attempt:#}");
    // The records of the phase it died in are kept, each with its class.
    let facts = run.json("trials/01-bad/attempt-1/phases/4-users/facts.json");
    assert!(facts["records"].as_u64().unwrap() > 0, "{facts:#}");
}

#[test]
fn a_child_in_a_session_of_its_own_is_ended_too() {
    let run = beside_a_good_one(&["setsid-child"], 0);
    run.expect_measured("01-bad");
    let teardown = &run.attempt("01-bad")["teardown"];
    assert!(teardown["strays_killed"].as_u64().unwrap() >= 1, "{teardown:#}");
}

#[test]
fn a_crash_by_signal_is_named() {
    let run = beside_a_good_one(&["crash@request=8"], 1);
    expect_failure(&run, "crash_segfault", "phase 2-users", "SIGSEGV");
}

#[test]
fn broken_streams_are_counted_by_class_and_end_nothing() {
    for (fault, class) in [
        ("cut@request=8", "cut"),
        ("garbage@request=8", "malformed"),
        ("error-event@request=8", "error_event"),
        ("http-500@request=8", "http_error"),
    ] {
        let run = beside_a_good_one(&[fault], 0);
        run.expect_measured("01-bad");
        let summary = run.json("summary.json");
        let count = |class: &str| -> u64 {
            let cells = summary["cells"].as_array().unwrap();
            let bad = cells.iter().filter(|cell| cell["variant"] == "bad");
            bad.map(|cell| cell["requests"]["failed_by_class"][class].as_u64().unwrap_or(0)).sum()
        };
        assert_eq!(count(class), 1, "{fault}: {summary:#}");
    }
}

#[test]
fn a_flooded_log_is_bounded_and_blocks_nobody() {
    let run = beside_a_good_one(&["log-flood=200000"], 0);
    run.expect_measured("01-bad");
    let size = run.log("01-bad").len();
    assert!(size < 17 << 20, "{size} bytes");
}
