//! Random walks through the whole supervisor: faults, signals and kills at any moment, of anything.
//!
//! After each: no process left, no port left, every trial that ended has one outcome, and a run that
//! was broken off can be finished. The seed is printed; `SWEEPD_TEST_SEED` walks one again.

use crate::harness::{Sandbox, left_of, sweep, variant, walk};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

const AT_ONCE: usize = 6;
const IN_CI: u64 = 50;
const IN_FULL: u64 = 500;

/// A small generator of its own: a walk is its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }
}

const AT_REQUEST: [&str; 10] = [
    "oom",
    "exit=7",
    "crash",
    "leader-exit",
    "hang",
    "cut",
    "garbage",
    "error-event",
    "no-done",
    "http-500",
];
const AT_START: [&str; 6] = [
    "slow-start=1",
    "never-ready",
    "ignore-sigterm",
    "setsid-child",
    "hold-port",
    "log-flood=5000",
];

fn fault(dice: &mut Dice) -> String {
    let drawn = dice.below(AT_REQUEST.len() + AT_START.len());
    let (fault, trigger) = match AT_REQUEST.get(drawn) {
        Some(fault) => (*fault, format!("@request={}", 1 + dice.below(30))),
        None => (AT_START[drawn - AT_REQUEST.len()], "@start".to_owned()),
    };
    let (name, value) =
        fault.split_once('=').map_or((fault, String::new()), |(n, v)| (n, format!("={v}")));
    format!("{name}{trigger}{value}")
}

/// Processes below one, with the words of their command lines.
fn below(ancestor: u32) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    let mut next = vec![ancestor.to_string()];
    while let Some(parent) = next.pop() {
        let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace() {
                let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                found.push((child.parse().unwrap(), line));
                next.push(child.to_owned());
            }
        }
    }
    found
}

/// One act against the run; never against anything that is not below it.
fn act(dice: &mut Dice, sweepd: u32) -> String {
    let processes = below(sweepd);
    let signal = *[
        Signal::SIGKILL,
        Signal::SIGKILL,
        Signal::SIGTERM,
        Signal::SIGSTOP,
        Signal::SIGSEGV,
        Signal::SIGQUIT,
    ]
    .get(dice.below(6))
    .unwrap();
    let send = |pid: i32, signal| {
        kill(Pid::from_raw(pid), signal).ok();
    };
    match dice.below(8) {
        0 => {
            send(i32::try_from(sweepd).unwrap(), Signal::SIGINT);
            "SIGINT to sweepd".to_owned()
        }
        1 => {
            send(i32::try_from(sweepd).unwrap(), Signal::SIGKILL);
            "SIGKILL to sweepd".to_owned()
        }
        2 => {
            let guard = processes.iter().find(|(_, line)| line.contains("__guard"));
            guard.iter().for_each(|(pid, _)| {
                send(*pid, if signal == Signal::SIGSTOP { Signal::SIGKILL } else { signal })
            });
            format!("{signal} to the guard")
        }
        3 => {
            let engine = processes.iter().filter(|(_, line)| line.contains(" sim "));
            engine.for_each(|(pid, _)| send(*pid, signal));
            format!("{signal} to every engine process")
        }
        4 => {
            let load = processes.iter().find(|(_, line)| line.contains("__load"));
            load.iter().for_each(|(pid, _)| send(*pid, Signal::SIGKILL));
            "SIGKILL to the load process".to_owned()
        }
        5 => {
            processes.iter().for_each(|(pid, _)| send(*pid, Signal::SIGKILL));
            "SIGKILL to everything below sweepd".to_owned()
        }
        _ => {
            if processes.is_empty() {
                return "nothing to signal".to_owned();
            }
            let (pid, line) = &processes[dice.below(processes.len())];
            // A stopped guard or load process is waited for by deadline: minutes, not a walk.
            let own = line.contains("__guard") || line.contains("__load");
            let signal = if own && signal == Signal::SIGSTOP { Signal::SIGKILL } else { signal };
            send(*pid, signal);
            format!("{signal} to {}", line.chars().take(40).collect::<String>())
        }
    }
}

/// What went wrong in this walk.
fn one(seed: u64) -> Vec<String> {
    let mut dice = Dice(seed);
    let faults: Vec<String> = (0..dice.below(3)).map(|_| fault(&mut dice)).collect();
    let faults: Vec<&str> = faults.iter().map(String::as_str).collect();
    let text = sweep(&format!("{}{}", variant("a", &faults), variant("b", &[])))
        .replace("load = \"5s\"", "load = \"4s\"")
        .replace("stop = \"2s\"", "stop = \"1s\"");
    let sandbox = Sandbox::new();
    let mut running = sandbox.start(&text);
    let mut acts = Vec::new();
    for _ in 0..dice.below(4) {
        // Not waiting for anything: the moment is random.
        let moment = Instant::now() + Duration::from_millis(dice.below(1_500) as u64);
        while Instant::now() < moment && running.child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        if running.child.try_wait().unwrap().is_none() {
            acts.push(act(&mut dice, running.child.id()));
        }
    }
    let status = running.wait(Duration::from_secs(240));
    let mut wrong = Vec::new();
    let Some(dir) = sandbox.only_run() else { return wrong };
    if manifests(&dir) > 0 {
        // Guards of a killed sweepd finish their work: its grace, the kill, the proof.
        let by = Instant::now() + Duration::from_secs(60);
        while !left_of(&dir).is_empty() && Instant::now() < by {
            std::thread::sleep(Duration::from_millis(50));
        }
        wrong.extend(left_of(&dir));
    }
    let killed = status.code().is_none();
    // A run that was killed or interrupted has trials that did not begin.
    let broken_off = killed || acts.iter().any(|act| act.contains("SIGINT"));
    let missing = |problem: &String| problem.ends_with(NONE);
    wrong.extend(outcomes(&dir).into_iter().filter(|problem| !(broken_off && missing(problem))));
    let temporary = walk(&dir).into_iter().find(|p| p.extension().is_some_and(|e| e == "tmp"));
    if let Some(path) = temporary.filter(|_| !killed) {
        wrong.push(format!("{} is left", path.display()));
    }
    if status.code().is_some_and(|code| code > 1) {
        wrong.push(format!(
            "sweepd ended with {status}: {}",
            fs::read_to_string(sandbox.path().join("stderr")).unwrap()
        ));
    }
    if broken_off && dir.join("plan.json").exists() {
        wrong.extend(finished_by_resuming(&sandbox, &dir));
    }
    if !wrong.is_empty() {
        wrong.insert(0, format!("faults {faults:?}, acts {acts:?}"));
    }
    wrong
}

const NONE: &str = "has no outcome";

/// Trials that have not one outcome that can be read.
fn outcomes(dir: &Path) -> Vec<String> {
    let problem = |trial: &str| {
        let path = dir.join("trials").join(trial).join("outcome.json");
        match fs::read(&path).ok().map(|bytes| serde_json::from_slice::<Value>(&bytes)) {
            Some(Ok(outcome)) if outcome["ending"].is_string() => None,
            Some(other) => Some(format!("{trial}: {other:?}")),
            None => Some(format!("{trial} {NONE}")),
        }
    };
    ["01-a", "01-b"].into_iter().filter_map(problem).collect()
}

fn finished_by_resuming(sandbox: &Sandbox, dir: &Path) -> Vec<String> {
    let run = sandbox.resume();
    let mut wrong = outcomes(dir);
    if run.status.code().is_none_or(|code| code > 1) {
        wrong.push(format!("it cannot be resumed: {}: {}", run.status, run.stderr));
    }
    if manifests(dir) > 0 {
        wrong.extend(left_of(dir));
    }
    wrong
}

fn manifests(dir: &Path) -> usize {
    walk(dir).iter().filter(|path| path.ends_with("manifest.json")).count()
}

#[test]
fn random_walks_leave_nothing_and_lose_nothing() {
    let full = std::env::var("SWEEPD_TEST_TIER").is_ok_and(|tier| tier == "full");
    let given = std::env::var("SWEEPD_TEST_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let first = given.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) << 20
    });
    let count = if given.is_some() {
        1
    } else if full {
        IN_FULL
    } else {
        IN_CI
    };
    println!("walks {first} to {}", first + count - 1);
    let queue = Mutex::new(first..first + count);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(seed) = queue.lock().unwrap().next() else { return };
                    let problems = std::panic::catch_unwind(|| one(seed))
                        .unwrap_or_else(|_| vec!["it panicked: see above".to_owned()]);
                    if !problems.is_empty() {
                        let text = format!("== SWEEPD_TEST_SEED={seed}\n{}", problems.join("\n"));
                        wrong.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {count} walks:\n{}", wrong.len(), wrong.join("\n\n"));
}
