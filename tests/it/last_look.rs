//! The last look at an engine that lives and makes no progress: what agreed is said, stacks are kept.

use crate::harness::{SWEEPD, Sandbox, repository, sweep, variant};
use crate::nvml::{StandIn, now};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// What a dump of a Python process's stack would print.
const DUMPED: &str = "Thread 1 (active+gil): forward (model.py:42)";

/// An engine whose program is called as Python's is, and a `py-spy` that knows its stack.
fn python_engine(sandbox: &Sandbox) {
    let program = sandbox.path().join("python-engine");
    fs::copy(SWEEPD, &program).unwrap();
    let file = fs::read_to_string(repository().join("engines/sim.toml")).unwrap();
    let launched = format!("\"{}\", \"sim\", \"--host\"", program.display());
    let file = file.replace("\"{sweepd}\", \"sim\", \"--host\"", &launched);
    assert!(file.contains("python-engine"));
    sandbox.write("config/sweepd/engines/mine.toml", &file);
    let tool =
        format!("#!/bin/sh\n[ \"$1\" = dump ] || exit 1\necho '{DUMPED}'\necho \"pid: $4\"\n");
    let tool = sandbox.write("bin/py-spy", &tool);
    fs::set_permissions(tool, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    sandbox.set("PATH", format!("{}:{path}", sandbox.path().join("bin").display()));
}

#[test]
fn a_hang_says_which_signals_agreed_and_keeps_the_stacks() {
    let sandbox = Sandbox::new();
    python_engine(&sandbox);
    StandIn::new(&sandbox, &format!("{}gpu\nuuid GPU-hung\nutil 0\n", now()));
    // Long enough for its counters to be read more than once, also on a busy machine.
    let text = format!("{}\n[gpu]\n", sweep(&variant("bad", &["hang@request=8"])))
        .replace("engine = \"sim\"", "engine = \"mine\"")
        .replace("stall = \"2s\"", "stall = \"8s\"");
    let run = sandbox.run(&text).expect_exit(1);
    let outcome = run.trial("01-bad");
    let failure = &outcome["failure"];
    assert_eq!(failure["kind"], "watchdog_timeout", "{outcome:#}");
    assert_eq!(failure["during"], "phase 2-users", "{outcome:#}");
    let summary = failure["summary"].as_str().unwrap();
    for words in ["no stream brought a byte for 8s", "counters stood still", "still answered 200"] {
        assert!(summary.contains(words), "{words:?} in {summary:?}");
    }
    let attempt = run.attempt("01-bad");
    let signals = attempt["signals"].as_array().unwrap();
    let of = |source: &str| signals.iter().find(|signal| signal["source"] == source).unwrap();
    assert_eq!(of("counters")["progress"], false, "{attempt:#}");
    assert_eq!(of("gpu")["seen"], "its GPUs were busy 0 % of the silence", "{attempt:#}");
    assert_eq!(of("gpu")["progress"], false, "{attempt:#}");
    assert!(of("health")["progress"].is_null(), "an answer is no progress: {attempt:#}");
    assert!(of("processes")["seen"].as_str().unwrap().contains("its process ("), "{attempt:#}");
    let timeline = attempt["timeline"].to_string();
    assert!(timeline.contains("looking at it once more"), "{timeline}");
    let stacks = run.dir.join("trials/01-bad/attempt-1/stacks.txt");
    let stacks = fs::read_to_string(stacks).unwrap();
    assert!(stacks.contains("== pid ") && stacks.contains("thread "), "{stacks}");
    assert!(stacks.contains(DUMPED), "{stacks}");
    run.expect_nothing_left();
}
