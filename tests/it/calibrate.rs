//! What the load generator adds, against a server that knows its times.

use crate::harness::{Sandbox, sweep, variant};
use serde_json::Value;
use std::fs;

#[test]
fn the_errors_of_a_level_are_measured() {
    let sandbox = Sandbox::new();
    let done = sandbox
        .command(&["calibrate", "--users", "30", "--gap", "5ms", "--ttft", "20ms", "--json"])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let result: Value = serde_json::from_slice(&done.stdout).unwrap();
    let point = &result["points"][0];
    assert_eq!((&point["users"], &point["failed"]), (&30.into(), &0.into()), "{point:#}");
    assert_eq!(point["requests"], 300, "{point:#}");
    // The medians stand on a busy machine, too: the stamps are the kernel's.
    let error = point["ttft_p50_error_ms"].as_f64().unwrap();
    assert!(error.abs() < 2.0, "{point:#}");
    assert!(point["ttft_p99_error_ms"].is_f64() && point["itl_p99_error_ms"].is_f64());
    assert!(
        point["cpu_share"].as_f64().unwrap() > 0.0
            && point["tokens_per_s"].as_f64().unwrap() > 500.0
    );
}

#[test]
fn a_run_keeps_its_calibration_and_its_report_shows_it() {
    let sandbox = Sandbox::new();
    let run = sandbox.run(&sweep(&variant("good", &[]))).expect_exit(0);
    let folder = run.dir.to_str().unwrap();
    let done = sandbox.command(&["calibrate", folder]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let kept = run.json("calibration.json");
    let users: Vec<&Value> =
        kept["points"].as_array().unwrap().iter().map(|p| &p["users"]).collect();
    assert!(users.contains(&&2.into()) && users.contains(&&4.into()), "{kept:#}");
    let report = fs::read_to_string(run.dir.join("report.md")).unwrap();
    assert!(report.contains("Calibration"), "{report}");
    let refused = sandbox.command(&["calibrate", "--users", "0"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}
