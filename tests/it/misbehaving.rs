//! Engines that work, but not as they should: what is counted, what is marked, what is left.

use crate::harness::{Run, SWEEPD, Sandbox, eventually, sweep, variant};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

/// A sweep of one variant with these faults, to its end.
#[track_caller]
fn run(sandbox: &Sandbox, faults: &[&str], code: i32) -> Run {
    let run = sandbox.run(&sweep(&variant("odd", faults))).expect_exit(code);
    run.expect_nothing_left();
    run
}

fn marks(run: &Run) -> Vec<String> {
    let summary = run.json("summary.json");
    let marks = summary["marks"].as_array().unwrap().iter();
    marks.map(|mark| mark["code"].as_str().unwrap().to_owned()).collect()
}

fn failed(run: &Run) -> Value {
    let summary = run.json("summary.json");
    let mut all = serde_json::Map::new();
    for cell in summary["cells"].as_array().unwrap() {
        for (class, count) in cell["requests"]["failed_by_class"].as_object().unwrap() {
            let sum = all.get(class).and_then(Value::as_u64).unwrap_or(0);
            all.insert(class.clone(), (sum + count.as_u64().unwrap()).into());
        }
    }
    Value::Object(all)
}

/// A child that is deaf to SIGTERM keeps the engine's listening socket after the engine has ended:
/// the next engine would find the port taken, and its clients a server that never answers.
#[test]
fn a_port_that_is_held_after_the_stop_is_freed() {
    let sandbox = Sandbox::new();
    let run = run(&sandbox, &["hold-port"], 0);
    run.expect_measured("01-odd");
    let attempt = run.attempt("01-odd");
    assert_eq!(attempt["exit"]["code"], 0, "the leader obeyed: {attempt:#}");
    assert!(attempt["teardown"]["strays_killed"].as_u64().unwrap() >= 1, "{attempt:#}");
    assert_eq!(attempt["teardown"]["verdict"], "clean", "{attempt:#}");
}

/// The same when the leader dies by itself: requests then hang on a socket that nobody serves.
#[test]
fn a_port_that_is_held_by_a_dead_engines_child_is_freed() {
    let sandbox = Sandbox::new();
    let run = run(&sandbox, &["hold-port", "exit@request=8=3"], 1);
    let attempt = run.attempt("01-odd");
    assert_eq!(attempt["exit"]["code"], 3, "{attempt:#}");
    assert_eq!(attempt["teardown"]["verdict"], "clean", "{attempt:#}");
    assert_eq!(run.trial("01-odd")["failure"]["kind"], "exited_unexpectedly");
}

#[test]
fn a_stream_without_its_end_marker_is_whole_if_it_finished() {
    let sandbox = Sandbox::new();
    let run = run(&sandbox, &["no-done@request=8"], 0);
    run.expect_measured("01-odd");
    assert_eq!(failed(&run), serde_json::json!({}));
}

#[test]
fn a_late_header_is_part_of_the_time_to_the_first_token() {
    let sandbox = Sandbox::new();
    let run = run(&sandbox, &["slow-header@request=8=1"], 0);
    run.expect_measured("01-odd");
    let summary = run.json("summary.json");
    let slowest = summary["cells"].as_array().unwrap().iter();
    let slowest = slowest.filter_map(|cell| cell["latency"]["ttft_ms"]["max"].as_f64());
    assert!(slowest.fold(0.0, f64::max) >= 1000.0, "{summary:#}");
}

/// One silent stream among others that go on is that request's failure, not the engine's.
#[test]
fn a_single_stalled_stream_is_counted_and_ends_nothing() {
    let sandbox = Sandbox::new();
    let run = run(&sandbox, &["stall@request=8"], 0);
    run.expect_measured("01-odd");
    assert_eq!(failed(&run), serde_json::json!({ "stalled": 1 }));
}

#[test]
fn answers_that_end_early_or_are_not_counted_are_marked() {
    for (fault, mark) in [("short-answers", "output_shortfall"), ("no-usage", "usage_missing")] {
        let sandbox = Sandbox::new();
        let run = run(&sandbox, &[fault], 0);
        run.expect_measured("01-odd");
        assert!(marks(&run).contains(&mark.to_owned()), "{fault}: {:?}", marks(&run));
    }
}

/// Asked for 8, served 2, and not a word in the log: the report says so on its first page.
#[test]
fn a_configuration_that_was_clamped_silently_is_marked() {
    let sandbox = Sandbox::new();
    let clamped = variant("odd", &["clamp=2"]).replace("step-ms", "max-running = 8, step-ms");
    let run = sandbox.run(&sweep(&clamped)).expect_exit(0);
    run.expect_measured("01-odd");
    assert!(!run.log("01-odd").contains("clamp"), "{}", run.log("01-odd"));
    assert!(marks(&run).contains(&"config_differs".to_owned()), "{:?}", marks(&run));
    let report = run.report();
    assert!(report.contains("max_running is 2, asked was 8"), "{report}");
}

/// The fault itself: without a guard the port really stays taken.
#[test]
fn the_simulated_engines_child_holds_the_port_for_good() {
    let sandbox = Sandbox::new();
    let log = sandbox.path().join("log");
    let mut engine = Command::new(SWEEPD)
        .args(["sim", "--port", "0", "--fault", "hold-port"])
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let within = Duration::from_secs(30);
    let word_after = |text: &str| {
        let log = fs::read_to_string(&log).unwrap();
        let line = log.split_once(text)?.1.lines().next()?.to_owned();
        line.split_whitespace().next().map(str::to_owned)
    };
    let address = eventually(within, "it listens", || word_after("listening on http://"));
    let child: i32 = word_after("started child ").unwrap().parse().unwrap();
    let signal = |pid, signal| kill(Pid::from_raw(pid), signal).unwrap();
    signal(engine.id().try_into().unwrap(), Signal::SIGTERM);
    let status = eventually(within, "it ends", || engine.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    signal(child, Signal::SIGTERM);
    let held = TcpStream::connect(&address);
    signal(child, Signal::SIGKILL);
    assert!(held.is_ok(), "{address} is free: {held:?}");
    let freed = || TcpStream::connect(&address).is_err().then_some(());
    eventually(within, "the port is free", freed);
}
