//! What engines say of themselves: sampled, read back, and set against what was asked.

use crate::harness::{Sandbox, repository, sweep, variant};

#[test]
fn what_really_ran_is_read_back_and_the_engine_is_sampled() {
    let sandbox = Sandbox::new();
    let text = sweep(&variant("a", &[])).replace("step-ms = 1.0", "step-ms = 1.0, max-running = 3");
    // Long enough for a sample or two.
    let text = text.replace("\"200ms\"", "\"2500ms\"");
    let run = sandbox.run(&text).expect_exit(0);
    run.expect_measured("01-a");
    let attempt = run.attempt("01-a");
    assert_eq!(attempt["effective"]["values"]["max_running"], "3", "{attempt:#}");
    assert_eq!(attempt["effective"]["differences"], serde_json::json!([]), "{attempt:#}");
    let summary = run.json("summary.json");
    let cell = &summary["cells"][1];
    assert_eq!(cell["phase"], "4-users");
    assert_eq!(cell["engine"]["unanswered"], 0, "{cell:#}");
    assert!(cell["engine"]["samples"].as_u64().unwrap() >= 1, "{cell:#}");
    assert!(cell["engine"]["running_max"].as_f64().unwrap() <= 3.0, "{cell:#}");
    assert!(run.dir.join("trials/01-a/attempt-1/phases/4-users/engine.parquet").exists());
    let report = run.report();
    assert!(report.contains("## What really ran") && report.contains("## Inside the engines"));
    assert!(!report.contains("NOT AS ASKED"), "{report}");
}

#[test]
fn a_configuration_that_differs_stands_on_page_one_and_marks_the_trial() {
    let sandbox = Sandbox::new();
    // An engine whose flag does not do what its file says.
    let file = std::fs::read_to_string(repository().join("engines/sim.toml")).unwrap();
    let wrong =
        file.replace("[params.max-running]", "[params.max-running]\nflag = \"--kv-tokens\"");
    let wrong = wrong.replace("[params.kv-tokens]", "[params.kv-tokens]\nflag = \"--max-running\"");
    assert_ne!(wrong, file);
    sandbox.write("config/sweepd/engines/twisted.toml", &wrong);
    let text = sweep(&variant("a", &[])).replace("\"sim\"\nparams", "\"twisted\"\nparams");
    let text = text.replace("step-ms = 1.0", "step-ms = 1.0, max-running = 4000");
    let run = sandbox.run(&text).expect_exit(0);
    let attempt = run.attempt("01-a");
    let differences = attempt["effective"]["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 1, "{attempt:#}");
    assert_eq!(differences[0]["name"], "max_running");
    assert_eq!(differences[0]["asked"], "4000");
    assert_eq!(differences[0]["found"], "32");
    let report = run.report();
    let (page_one, _) = report.split_once("## Headline").unwrap();
    assert!(
        page_one.contains("NOT AS ASKED: a (simulated) ran with max_running 32 instead of 4000"),
        "{report}"
    );
    assert!(report.contains("config_differs"), "{report}");
}
