//! A search for saturation, on simulated engines whose capacity is known.

use crate::harness::{Run, Sandbox, sweep, variant};
use serde_json::Value;
use std::fs;

/// Four requests at a time, each of 8 steps of 5 ms: beyond four users they queue.
const SLOW: &str = "[[variants]]\nname = \"slow\"\nengine = \"sim\"\n\
    params = { step-ms = 5.0, max-running = 4 }\n\n";

/// The harness's sweep with these phases instead of its own.
fn searching(variants: &str, phases: &str) -> String {
    let text = sweep(variants);
    let (head, rest) = text.split_once("[[phases]]").unwrap();
    let (_, tail) = rest.split_once("[deadlines]").unwrap();
    format!("{head}{phases}\n[deadlines]{tail}")
}

fn found(run: &Run, trial: &str) -> Value {
    run.json(&format!("trials/{trial}/attempt-1/outcome.json"))["searches"][0].clone()
}

#[test]
fn the_most_users_within_the_limits_are_found() {
    let sandbox = Sandbox::new();
    // With 8 users half of them wait for some 40 ms, with 128 for more than a second.
    let search = "[[phases]]\nname = \"sat\"\nsearch = [8, 128]\nmin_requests = 300\n\
                  slo = { ttft_p99 = \"700ms\" }\ntolerance = 1.0\nrepeats = 1\nmax_runs = 9\n";
    let run = sandbox.run(&searching(SLOW, search)).expect_exit(0);
    let search = found(&run, "01-slow");
    let runs = search["runs"].as_array().unwrap();
    let users: Vec<u64> = runs.iter().map(|run| run["users"].as_u64().unwrap()).collect();
    assert_eq!(users[..3], [8, 128, 32], "{search:#}");
    assert_eq!(search["end"]["why"], "found", "{search:#}");
    let summary = run.json("summary.json");
    let met = summary["searches"][0]["trials"][0]["met_users"].as_u64().unwrap();
    assert!((8..128).contains(&met), "{summary:#}");
    // Every run has its records, and a seed of its own.
    let outcome = run.trial("01-slow");
    assert_eq!(outcome["phases"].as_array().unwrap().len(), runs.len());
    assert!(run.dir.join("trials/01-slow/attempt-1/phases/sat-32/requests.parquet").exists());
    let report = fs::read_to_string(run.dir.join("report.md")).unwrap();
    assert!(report.contains("## Saturation"), "{report}");
    run.expect_nothing_left();
}

#[test]
fn what_an_engine_breaks_by_is_the_result() {
    let sandbox = Sandbox::new();
    let search = "[[phases]]\nname = \"sat\"\nsearch = [2, 4, 8]\nmin_requests = 40\n\n\
                  [[phases]]\nname = \"last\"\nusers = 1\nmin_requests = 5\n";
    // Within the second level: before it come 1, 2 or 3, and 40 or 41 requests.
    let text = searching(&variant("bad", &["oom@request=60"]), search);
    let run = sandbox.run(&text).expect_exit(1);
    let search = found(&run, "01-bad");
    let end = &search["end"];
    assert_eq!((&end["why"], &end["kind"]), (&"failed".into(), &"gpu_oom_runtime".into()));
    assert_eq!((&end["users"], &search["runs"][0]["users"]), (&4.into(), &2.into()), "{search:#}");
    let outcome = run.trial("01-bad");
    let phases = outcome["phases"].as_array().unwrap();
    let last = phases.iter().find(|phase| phase["phase"] == "last").expect("it went on");
    assert_eq!(last["attempt"], 2, "{outcome:#}");
    let summary = run.json("summary.json");
    let trial = &summary["searches"][0]["trials"][0];
    assert_eq!((&trial["met_users"], &trial["missed_users"]), (&2.into(), &4.into()), "{trial:#}");
    let report = fs::read_to_string(run.dir.join("report.md")).unwrap();
    assert!(report.contains("the engine failed at 4 (gpu_oom_runtime)"), "{report}");
    run.expect_nothing_left();
}

#[test]
fn a_search_is_checked_like_everything_else() {
    let sandbox = Sandbox::new();
    let check = |phases: &str| {
        let file = sandbox.write("sweep.toml", &searching(SLOW, phases));
        let done = sandbox.command(&["check"]).arg(&file).output().unwrap();
        let text = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, said) = check(
        "[[phases]]\nname = \"sat\"\nsearch = [200, 300]\nmin_duration = \"30s\"\n\
         slo = { ttft_p99 = \"2s\", tpot_p99 = \"100ms\" }\n",
    );
    assert_eq!(code, Some(0), "{said}");
    for part in ["search from 200, 300 users", "TTFT p99 at most 2000 ms", "30 at most"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    for (phase, want) in [
        ("search = []", "is an empty list"),
        ("search = [300, 200]", "no ascending list"),
        ("search = [300]\nusers = 5", "finds its load itself"),
        ("search = [300]\nslo = {}", "has no limit"),
        ("search = [300]\nslo = { ttft = \"1s\" }", "ttft_p99"),
        ("search = [300]\ntolerance = 0.0", "out of range"),
    ] {
        let text = format!("[[phases]]\nname = \"sat\"\nmin_requests = 9\n{phase}\n");
        let (code, said) = check(&text);
        assert_eq!((code, said.contains(want)), (Some(2), true), "{phase}: {said}");
    }
    let clash = "[[phases]]\nname = \"sat\"\nmin_requests = 9\nsearch = [300]\n\
                 [[phases]]\nname = \"sat-300\"\nmin_requests = 9\nusers = 3\n";
    let (code, said) = check(clash);
    assert_eq!((code, said.contains("may be a level")), (Some(2), true), "{said}");
}
