//! Ctrl-C once, Ctrl-C twice, and SIGKILL: no engine is left, and what was measured is kept.

use crate::harness::{SWEEPD, Sandbox, eventually, left_of, repository, sweep, variant};
use std::time::Duration;

/// Long enough to be stopped in the middle.
fn long_sweep(faults: &[&str]) -> String {
    sweep(&variant("only", faults)).replace("min_duration = \"200ms\"", "min_duration = \"20s\"")
}

#[test]
fn sigkill_of_sweepd_leaves_no_engine_and_needs_no_restart() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.start(&long_sweep(&["setsid-child"]));
    running.until_it_says("phase 2-users");
    let dir = sandbox.only_run().unwrap();
    assert!(!left_of(&dir).is_empty(), "the engine runs");
    running.signal(libc::SIGKILL);
    running.wait(Duration::from_secs(5));
    // Grace 2 s and SIGKILL after it; the rest is for a busy machine.
    eventually(Duration::from_secs(10), "no engine is left", || {
        left_of(&dir).is_empty().then_some(())
    });
    assert!(!dir.join("trials/01-only/outcome.json").exists(), "the trial is not finished");
}

#[test]
fn sigkill_while_the_engine_loads_leaves_none_either() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.start(&long_sweep(&["never-ready", "ignore-sigterm"]));
    running.until_it_says("loading");
    let dir = sandbox.only_run().unwrap();
    running.signal(libc::SIGKILL);
    running.wait(Duration::from_secs(5));
    eventually(Duration::from_secs(10), "no engine is left", || {
        left_of(&dir).is_empty().then_some(())
    });
}

#[test]
fn one_ctrl_c_ends_in_order_with_a_report_of_what_there_is() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.start(&long_sweep(&[]));
    running.until_it_says("phase 2-users");
    let frames = "trials/01-only/attempt-1/2-users.frames";
    let frames = sandbox.only_run().unwrap().join(frames);
    eventually(Duration::from_secs(20), "records of requests are there", || {
        frames.metadata().is_ok_and(|file| file.len() > 100).then_some(())
    });
    running.signal(libc::SIGINT);
    let status = running.wait(Duration::from_secs(20));
    let run = running.run(status).expect_exit(1);
    let outcome = run.trial("01-only");
    assert_eq!(outcome["ending"], "cancelled", "{outcome:#}");
    run.expect_nothing_left();
    // The streams were closed by us, and every request has its record.
    let facts = run.json("trials/01-only/attempt-1/phases/2-users/facts.json");
    assert_eq!(facts["end"], "stopped", "{facts:#}");
    assert!(facts["records"].as_u64().unwrap() > 0, "{facts:#}");
    assert!(run.report().contains("cancelled"));
}

#[test]
fn a_second_ctrl_c_takes_no_more_grace() {
    let sandbox = Sandbox::new();
    let text = long_sweep(&["ignore-sigterm"]).replace("stop = \"2s\"", "stop = \"60s\"");
    let mut running = sandbox.start(&text);
    running.until_it_says("phase 2-users");
    running.signal(libc::SIGINT);
    running.until_it_says("stopping");
    running.signal(libc::SIGINT);
    let status = running.wait(Duration::from_secs(20));
    let run = running.run(status).expect_exit(1);
    assert_eq!(run.attempt("01-only")["teardown"]["leader_killed"], true);
    run.expect_nothing_left();
}

#[test]
fn a_guard_that_is_killed_takes_nothing_with_it_but_its_trial() {
    let sandbox = Sandbox::new();
    let text = sweep(&format!("{}{}", variant("bad", &["setsid-child"]), variant("good", &[])));
    // The order of the seed puts `bad` first or second; the first guard is the one to be killed.
    let mut running = sandbox.start(&text.replace("\"200ms\"", "\"2s\""));
    running.until_it_says("phase 2-users");
    let guard = running.guard();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(guard), nix::sys::signal::SIGKILL).unwrap();
    let status = running.wait(Duration::from_secs(40));
    let run = running.run(status).expect_exit(1);
    let endings = ["01-bad", "01-good"].map(|trial| run.trial(trial)["ending"].clone());
    assert!(endings.contains(&"broken".into()), "{endings:?}");
    assert!(endings.contains(&"completed".into()), "{endings:?}");
    run.expect_nothing_left();
}

#[test]
fn an_executable_that_is_replaced_in_mid_run_is_still_the_one_that_runs() {
    let sandbox = Sandbox::new();
    let copy = sandbox.path().join("sweepd");
    std::fs::copy(SWEEPD, &copy).unwrap();
    // The engine is this build's own simulation: it is named by a path of its own.
    let engine = std::fs::read_to_string(repository().join("engines/sim.toml")).unwrap();
    let engine = engine.replace("\"{sweepd}\"", &format!("{SWEEPD:?}"));
    sandbox.write("config/sweepd/engines/sim.toml", &engine);
    let text = sweep(&format!("{}{}", variant("a", &[]), variant("b", &[])));
    let mut running = sandbox.start_with(&copy, &text);
    running.until_it_says("phase 2-users");
    std::fs::remove_file(&copy).unwrap();
    let status = running.wait(Duration::from_secs(40));
    let run = running.run(status).expect_exit(0);
    run.expect_measured("01-a");
    run.expect_measured("01-b");
    run.expect_nothing_left();
}
