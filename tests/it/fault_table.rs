//! `faults.toml`: every fault in every state that it can meet, through the real binary.
//!
//! The table is complete by its own count: each fault that the simulated engine knows, and each
//! thing that can be done to a trial from outside, has a row or a reason for every state.

use crate::harness::{Run, SWEEPD, Sandbox, eventually, sweep};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

/// Rows that run at the same time; most of a row is waiting.
const AT_ONCE: usize = 8;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    states: Vec<String>,
    acts: Vec<String>,
    row: Vec<Row>,
    unreachable: Vec<Unreachable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// The simulated engine's fault, with its value if it takes one.
    #[serde(default)]
    fault: Option<String>,
    /// What is done from outside.
    #[serde(default)]
    act: Option<String>,
    at: String,
    /// It holds for the engine's whole life, and shows in this state.
    #[serde(default)]
    always: bool,
    /// Further faults that bring the state about.
    #[serde(default)]
    with: Vec<String>,
    /// Words of the sweep that are replaced.
    #[serde(default)]
    sweep: BTreeMap<String, String>,
    because: String,
    ending: String,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    during: Option<String>,
    #[serde(default = "clean")]
    verdict: String,
    #[serde(default = "one")]
    attempts: u64,
    /// Found in the last attempt's outcome or in its log.
    #[serde(default)]
    evidence: Option<String>,
}

fn clean() -> String {
    "clean".to_owned()
}

const fn one() -> u64 {
    1
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unreachable {
    faults: Vec<String>,
    at: Vec<String>,
    because: String,
}

impl Row {
    fn what(&self) -> &str {
        self.fault.as_deref().or(self.act.as_deref()).unwrap_or_default()
    }

    /// Without its value.
    fn name(&self) -> &str {
        self.what().split('=').next().unwrap_or_default()
    }

    fn title(&self) -> String {
        format!("{} at {}", self.what(), self.at)
    }

    /// As the engine takes it. Requests: the probe's is 1, the warm-up's are 2 to 4 at most, the
    /// first phase's end at 17 at most.
    fn spec(&self) -> Option<String> {
        let fault = self.fault.as_ref()?;
        let (name, value) = fault.split_once('=').unwrap_or((fault, ""));
        let trigger = match self.at.as_str() {
            _ if self.always => "@start",
            "loading" | "stopping" => "@start",
            "proving" => "@request=1",
            "warm-up" => "@request=2",
            "phase" => "@request=8",
            "later phase" => "@request=20",
            other => panic!("no state {other:?}"),
        };
        let value = if value.is_empty() { String::new() } else { format!("={value}") };
        Some(format!("{name}{trigger}{value}"))
    }

    fn sweep(&self) -> String {
        let faults: Vec<String> = self.spec().into_iter().chain(self.with.clone()).collect();
        let mut text = sweep(&crate::harness::variant(
            "bad",
            &faults.iter().map(String::as_str).collect::<Vec<_>>(),
        ));
        text = text.replace("\"200ms\"", "\"0s\"");
        for (from, to) in &self.sweep {
            assert!(text.contains(from), "{}: {from:?} is not in the sweep", self.title());
            text = text.replace(from, to);
        }
        text
    }

    fn run(&self, sandbox: &Sandbox) -> Run {
        let Some(act) = &self.act else { return sandbox.run(&self.sweep()) };
        let mut running = sandbox.start(&self.sweep());
        running.until_it_says(match self.at.as_str() {
            "loading" => "loading",
            "proving" => "proving",
            "warm-up" => "warming up",
            "phase" => "phase 2-users",
            "later phase" => "phase 4-users",
            "stopping" => "stopping",
            other => panic!("no state {other:?}"),
        });
        let _held = self.act(act, &mut running, sandbox);
        let status = running.wait(Duration::from_secs(240));
        running.run(status)
    }

    fn act(
        &self,
        act: &str,
        running: &mut crate::harness::Running<'_>,
        sandbox: &Sandbox,
    ) -> Option<TcpListener> {
        let send = |pid: i32, signal| kill(Pid::from_raw(pid), signal).ok();
        let sweepd = i32::try_from(running.child.id()).unwrap();
        match act {
            "kill-leader" => send(leader(running.guard()), Signal::SIGKILL),
            "term-leader" => send(leader(running.guard()), Signal::SIGTERM),
            "stop-leader" => send(leader(running.guard()), Signal::SIGSTOP),
            "kill-guard" => send(running.guard(), Signal::SIGKILL),
            "quit-guard" => send(running.guard(), Signal::SIGQUIT),
            "kill-load" => send(load(sweepd), Signal::SIGKILL),
            "stop-load" => send(load(sweepd), Signal::SIGSTOP),
            "interrupt" => send(sweepd, Signal::SIGINT),
            "interrupt-twice" => {
                send(sweepd, Signal::SIGINT);
                running.until_it_says("stopping");
                send(sweepd, Signal::SIGINT)
            }
            "take-port" => {
                let port = u16::try_from(port(sandbox)).unwrap();
                return Some(TcpListener::bind(("127.0.0.1", port)).unwrap());
            }
            other => panic!("nobody knows how to {other:?}"),
        };
        None
    }

    /// Everything that is not as it should be.
    fn check(&self) -> Vec<String> {
        let sandbox = Sandbox::new();
        let run = self.run(&sandbox);
        let outcome = run.trial("01-bad");
        let attempts = outcome["attempts"].as_u64().unwrap();
        let folder = format!("trials/01-bad/attempt-{attempts}");
        let attempt = run.json(&format!("{folder}/outcome.json"));
        let mut wrong = Vec::new();
        let mut same = |what: &str, got: &Value, expected: Option<&str>| {
            if got.as_str() != expected {
                wrong.push(format!("{what} is {got}, not {expected:?}"));
            }
        };
        same("the ending", &outcome["ending"], Some(&self.ending));
        same("the kind", &outcome["failure"]["kind"], self.kind.as_deref());
        same("the verdict", &attempt["teardown"]["verdict"], Some(&self.verdict));
        if attempts != self.attempts {
            wrong.push(format!("{attempts} attempts, not {}", self.attempts));
        }
        if let Some(during) = &self.during
            && outcome["failure"]["during"].as_str() != Some(during)
        {
            wrong.push(format!("during {}, not {during}", outcome["failure"]["during"]));
        }
        if self.ending == "completed" && self.attempts == 1 && self.verdict == "clean" {
            run.expect_measured("01-bad");
        }
        let before_phases = ["loading", "proving", "warm-up"].contains(&self.at.as_str());
        if self.ending == "engine_failed" && before_phases && outcome["phases"] != json!([]) {
            wrong.push(format!("phases {} before there was one", outcome["phases"]));
        }
        if let Some(kind) = &self.kind
            && !run.report().contains(kind)
        {
            wrong.push(format!("the report does not say {kind}"));
        }
        if let Some(evidence) = &self.evidence {
            let log = fs::read_to_string(run.dir.join(folder).join("engine.log"));
            let seen = format!("{outcome}\n{attempt}\n{}", log.unwrap_or_default());
            if !Regex::new(evidence).unwrap().is_match(&seen) {
                wrong.push(format!("{evidence:?} is nowhere"));
            }
        }
        let code = run.status.code();
        let expected = if self.ending == "completed" { Some(0) } else { Some(1) };
        if code != expected {
            wrong.push(format!("sweepd exited with {code:?}: {}", run.stderr));
        }
        let left = crate::harness::left_of(&run.dir);
        if !left.is_empty() && self.verdict != "port_held" {
            wrong.push(format!("left behind: {left:?}"));
        }
        if wrong.is_empty() {
            return wrong;
        }
        wrong.push(format!("{outcome:#}\n{:#}\n{:#}", attempt["timeline"], attempt["teardown"]));
        wrong
    }
}

/// The child of the guard that became the engine: the first one.
fn leader(guard: i32) -> i32 {
    eventually(Duration::from_secs(10), "the engine runs", || {
        let path = format!("/proc/{guard}/task/{guard}/children");
        fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
    })
}

fn load(sweepd: i32) -> i32 {
    eventually(Duration::from_secs(10), "a load process runs", || {
        let tasks = fs::read_dir(format!("/proc/{sweepd}/task")).ok()?.flatten();
        let children: String = tasks
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .collect();
        let is_load = |pid: &i32| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline"));
            line.is_ok_and(|line| line.contains("__load"))
        };
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is_load)
    })
}

fn port(sandbox: &Sandbox) -> u64 {
    eventually(Duration::from_secs(10), "a manifest", || {
        let path = sandbox.only_run()?.join("trials/01-bad/attempt-1/manifest.json");
        let manifest: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        manifest["port"].as_u64()
    })
}

fn table() -> Table {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/faults.toml");
    toml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The faults that the simulated engine knows, by its own word.
fn known_faults() -> Vec<String> {
    let asked = Command::new(SWEEPD)
        .args(["sim", "--port", "1", "--model", "x", "--fault", "no-such-fault"])
        .output()
        .unwrap();
    let said = String::from_utf8(asked.stderr).unwrap();
    let (_, list) = said.split_once("there are ").expect("it lists its faults");
    let list = list.lines().next().unwrap();
    list.split(", ").map(|name| name.trim_matches(['\'', '.', ' ']).to_owned()).collect()
}

#[test]
fn the_table_of_faults_is_complete() {
    let table = table();
    let mut known: BTreeSet<String> = known_faults().into_iter().collect();
    assert!(known.len() > 15 && known.contains("hang"), "{known:?}");
    known.extend(table.acts.iter().cloned());
    let mut cells: BTreeMap<(String, String), u32> = BTreeMap::new();
    for row in &table.row {
        assert!(known.contains(row.name()), "there is no {}", row.name());
        assert!(row.because.len() > 10, "{} has no reason", row.title());
        *cells.entry((row.name().to_owned(), row.at.clone())).or_default() += 1;
    }
    for none in &table.unreachable {
        assert!(none.because.len() > 10, "{none:?} has no reason");
        for fault in &none.faults {
            assert!(known.contains(fault), "there is no {fault}");
            for state in &none.at {
                *cells.entry((fault.clone(), state.clone())).or_default() += 1;
            }
        }
    }
    for fault in &known {
        for state in &table.states {
            let count = cells.get(&(fault.clone(), state.clone())).copied().unwrap_or(0);
            assert_eq!(count, 1, "{fault} at {state} has {count} rows or reasons, not one");
        }
    }
    let of_known_states = cells.keys().all(|(_, state)| table.states.contains(state));
    assert!(of_known_states, "a row is in a state that is not listed");
}

#[test]
fn every_fault_in_every_state_has_the_outcome_that_the_table_says() {
    let table = table();
    let only = std::env::var("SWEEPD_TEST_FAULT").unwrap_or_default();
    let rows: Vec<&Row> = table.row.iter().filter(|row| row.title().contains(&only)).collect();
    let queue = Mutex::new(rows.iter());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(row) = queue.lock().unwrap().next() else { return };
                    let problems = std::panic::catch_unwind(|| row.check())
                        .unwrap_or_else(|_| vec!["it panicked: see above".to_owned()]);
                    if !problems.is_empty() {
                        let text = format!("== {}\n{}", row.title(), problems.join("\n"));
                        wrong.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n\n"));
}
