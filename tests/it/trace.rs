//! A phase that plays a trace: its times, and each request's own lengths.

use crate::harness::{Sandbox, sweep, variant};
use std::fs;

fn playing(trace: &str) -> String {
    let text = sweep(&variant("good", &[]));
    let (head, rest) = text.split_once("[[phases]]").unwrap();
    let (_, tail) = rest.split_once("[deadlines]").unwrap();
    format!("{head}[[phases]]\nname = \"played\"\n{trace}\n[deadlines]{tail}")
}

#[test]
fn a_trace_is_played_at_its_times_and_with_its_lengths() {
    let sandbox = Sandbox::new();
    let lines = (0..20).map(|n| format!("{},X,{},{},0,API log\n", 100 + n, 5 + n, 1 + n % 4));
    let head = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n".to_owned();
    sandbox.write("burst.csv", &std::iter::once(head).chain(lines).collect::<String>());
    let text = playing("trace = \"burst.csv\"\nspeed_up = 20.0\n");
    let run = sandbox.run(&text).expect_exit(0);
    let folder = run.dir.join("trials/01-good/attempt-1");
    let schedule = fs::read_to_string(folder.join("schedule-played.csv")).unwrap();
    let due: Vec<&str> = schedule.lines().skip(1).collect();
    assert_eq!((due.len(), due[1]), (20, "1,50000000"), "{schedule}");
    let summary = run.json("summary.json");
    let cell = &summary["cells"][0];
    assert_eq!((&cell["requests"]["ok"], &cell["requests"]["failed"]), (&20.into(), &0.into()));
    // Five times 1 to 4 tokens, and prompts of 5 to 24, one token more each by the tokenizer's own.
    assert_eq!(cell["tokens"]["output"], 50, "{cell:#}");
    assert_eq!(cell["tokens"]["output_short"], 0, "{cell:#}");
    assert_eq!(cell["tokens"]["prompt_mismatched"], 0, "{cell:#}");
    assert!(cell["tokens"]["prompt"].as_u64().unwrap() >= (5..25).sum::<u64>(), "{cell:#}");
    let data = &run.json("provenance.json")["data"];
    assert_eq!(data[0]["files"][0]["name"], "burst.csv", "{data:#}");
    let report = fs::read_to_string(run.dir.join("report.md")).unwrap();
    assert!(report.contains("20 requests at the times of a trace"), "{report}");
}

#[test]
fn a_trace_that_cannot_be_played_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("bad.csv", "Timestamp,Request tokens,Response tokens\n1,2,x\n");
    sandbox.write("long.csv", "Timestamp,Request tokens,Response tokens\n1,2,3\n9999,2,3\n");
    for (phase, want) in [
        ("trace = \"bad.csv\"", "line 2: \"x\" is no number of tokens"),
        ("trace = \"no.csv\"", "No such file"),
        ("trace = \"long.csv\"", "longer than a phase may"),
        ("trace = \"long.csv\"\nspeed_up = 1000.0\nrate = 3", "says itself what comes when"),
    ] {
        let file = sandbox.write("sweep.toml", &playing(&format!("{phase}\n")));
        let done = sandbox.command(&["check"]).arg(&file).output().unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!((done.status.code(), said.contains(want)), (Some(2), true), "{phase}: {said}");
    }
}
