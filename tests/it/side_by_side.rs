//! Trials side by side on two GPUs, through the real binary and the stand-in of the driver's library.

use crate::cpus::{allowed, own};
use crate::daemon::{Daemon, daemon_command};
use crate::harness::{Run, Sandbox, eventually, left_of, marked_pids, sweep, variant};
use crate::nvml::{StandIn, now};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Two GPUs, on which pinned engines show up by themselves.
fn two(name: &str) -> String {
    let card = |which: &str| {
        format!("gpu\nuuid GPU-{name}{which}\nmem_used_mib 300\nprocess_engine 9000\npower 200\n")
    };
    format!("{}{}{}", now(), card("a"), card("b"))
}

/// Two trials at once, each on one GPU; bound to CPUs of their own, or on a machine with one CPU
/// refused, which no machine that runs these tests is.
fn at_once(variants: &str, lasting: &str) -> String {
    let text = sweep(variants).replace("seed = 7", "seed = 7\nside_by_side = 2");
    let text = text.replace("\"200ms\"", &format!("{lasting:?}"));
    let cpus = own();
    let lanes = [cpus.first(), cpus.last()].map(|cpu| cpu.unwrap());
    format!(
        "{text}\n[gpu]\nclean_within = \"3s\"\n[cpus]\ntrial = ['{}', '{}']\n",
        lanes[0], lanes[1]
    )
}

/// From when to when something was under way, in milliseconds of wall time.
fn span(facts: &Value) -> (i64, i64) {
    let wall = |key: &str| {
        let time = humantime(facts[key].as_str().unwrap());
        i64::try_from(time).unwrap()
    };
    (wall("started"), wall("ended"))
}

/// Milliseconds of an RFC 3339 time of one day; tests that run at midnight compare in order all the same.
fn humantime(text: &str) -> u64 {
    let digits: Vec<u64> =
        text.split(['-', 'T', ':', '.', 'Z']).filter_map(|part| part.parse().ok()).collect();
    let [_, month, day, hour, minute, second, millis] = digits[..] else { panic!("{text}") };
    ((((month * 31 + day) * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis
}

fn overlap(one: (i64, i64), other: (i64, i64)) -> bool {
    one.0 < other.1 && other.0 < one.1
}

fn manifest(run: &Path, trial: &str) -> Option<Value> {
    let text = fs::read(run.join(format!("trials/{trial}/attempt-1/manifest.json"))).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Where the engines of the attempt may run, once it has one.
fn engine_cpus(manifest: &Value) -> Vec<String> {
    let pids = marked_pids(manifest["marker"].as_str().unwrap());
    pids.iter().filter_map(|pid| allowed(&pid.to_string())).collect()
}

#[test]
fn two_trials_of_a_block_run_at_once_on_gpus_and_cpus_of_their_own() {
    let sandbox = Sandbox::new();
    StandIn::new(&sandbox, &two("at-once"));
    let variants = format!("{}{}{}", variant("a", &[]), variant("b", &[]), variant("c", &[]));
    let text = at_once(&variants, "2s").replace("blocks = 1", "blocks = 2");
    let mut running = sandbox.start(&text);
    let run = eventually(Duration::from_secs(30), "a run begins", || sandbox.only_run());
    // Both lanes of the first block, caught in the act.
    let [one, other] = eventually(Duration::from_secs(60), "two engines at once", || {
        let begun = ["a", "b", "c"].map(|name| manifest(&run, &format!("01-{name}")));
        let begun: Vec<Value> = begun.into_iter().flatten().collect();
        let [one, other] = begun.try_into().ok()?;
        let live = |manifest: &Value| !engine_cpus(manifest).is_empty();
        (live(&one) && live(&other)).then_some([one, other])
    });
    for manifest in [&one, &other] {
        let bound = manifest["cpus"]["engine"].as_str().unwrap();
        assert!(engine_cpus(manifest).iter().all(|list| list == bound), "{manifest:#}");
        assert_eq!(manifest["cpus"]["client"], bound);
    }
    assert_ne!(one["cpus"], other["cpus"]);
    assert_ne!(one["lane"], other["lane"]);
    assert_ne!(one["port"], other["port"]);
    assert_ne!(one["env"]["CUDA_VISIBLE_DEVICES"], other["env"]["CUDA_VISIBLE_DEVICES"]);
    let status = running.wait(Duration::from_secs(120));
    let run = running.run(status).expect_exit(0);
    let all = ["01-a", "01-b", "01-c", "02-a", "02-b", "02-c"];
    all.iter().for_each(|trial| run.expect_measured(trial));
    blocks_stay_in_order(&run, &all);
    neighbours_are_told(&run, &all);
    run.expect_nothing_left();
}

/// The next block begins when the one before it has ended; within it, two run at once and never three.
#[track_caller]
fn blocks_stay_in_order(run: &Run, all: &[&str]) {
    let spans: Vec<_> = all.iter().map(|trial| span(&run.trial(trial))).collect();
    let (first, second) = spans.split_at(3);
    let ended = first.iter().map(|span| span.1).max();
    let began = second.iter().map(|span| span.0).min();
    assert!(ended <= began, "{spans:?}");
    for block in [first, second] {
        let pairs = [(0, 1), (0, 2), (1, 2)];
        let at_once = pairs.iter().filter(|(a, b)| overlap(block[*a], block[*b])).count();
        assert!((1..=2).contains(&at_once), "{block:?}");
    }
}

/// Outcomes and report say which trials ran beside which, and both say the same.
#[track_caller]
fn neighbours_are_told(run: &Run, all: &[&str]) {
    let beside = |trial: &str| -> Vec<String> {
        let outcome = run.trial(trial);
        let named = |other: &Value| {
            format!(
                "{:02}-{}",
                other["block"].as_u64().unwrap(),
                other["variant"].as_str().unwrap()
            )
        };
        outcome["beside"].as_array().unwrap().iter().map(named).collect()
    };
    for trial in all {
        let others = beside(trial);
        assert!(!others.is_empty(), "{trial}");
        for other in &others {
            assert!(beside(other).iter().any(|name| name == trial), "{other} beside {trial}");
            assert!(overlap(span(&run.trial(trial)), span(&run.trial(other))));
        }
        let gpu = run.json(&format!("trials/{trial}/attempt-1/gpu.json"));
        assert_eq!(gpu["placement"], "verified", "{gpu:#}");
        assert_eq!(gpu["foreign"], Value::Array(vec![]), "the neighbour is on its own: {gpu:#}");
    }
    let report = run.report();
    assert!(report.contains("side_by_side") && report.contains("beside 01-"), "{report}");
    assert!(report.contains("| trials at once"), "{report}");
    // What the other trial took is known as such, and is nobody else's.
    let cores = |trial: &&&str| {
        let host = run.json(&format!("trials/{trial}/attempt-1/phases/4-users/host.json"));
        host["beside_cores"].as_f64()
    };
    let cores: Vec<f64> = all.iter().filter_map(|trial| cores(&trial)).collect();
    assert!(cores.iter().any(|cores| *cores > 0.0), "{cores:?}");
}

#[test]
fn an_engine_that_crashes_leaves_the_trial_beside_it_alone() {
    let sandbox = Sandbox::new();
    StandIn::new(&sandbox, &two("crash"));
    let variants = format!("{}{}", variant("bad", &["crash@request=5"]), variant("good", &[]));
    let run = sandbox.run(&at_once(&variants, "2s")).expect_exit(1);
    assert_eq!(run.trial("01-bad")["ending"], "engine_failed", "{:#}", run.trial("01-bad"));
    run.expect_measured("01-good");
    let good = run.attempt("01-good");
    assert_eq!(good["attempt"], 1, "{good:#}");
    assert_eq!(run.trial("01-good")["beside"][0]["variant"], "bad");
    assert!(overlap(span(&run.trial("01-bad")), span(&run.trial("01-good"))));
    run.expect_nothing_left();
}

#[test]
fn ctrl_c_and_sigterm_in_mid_trial_leave_nothing_of_either() {
    for signal in [2, 15] {
        let sandbox = Sandbox::new();
        StandIn::new(&sandbox, &two("stop"));
        let variants = format!("{}{}", variant("a", &[]), variant("b", &[]));
        let mut running = sandbox.start(&at_once(&variants, "20s"));
        running.until_it_says("01-a: phase 2-users");
        running.until_it_says("01-b: phase 2-users");
        running.signal(signal);
        let status = running.wait(Duration::from_secs(30));
        let run = running.run(status).expect_exit(1);
        for trial in ["01-a", "01-b"] {
            assert_eq!(run.trial(trial)["ending"], "cancelled", "{:#}", run.trial(trial));
            assert_eq!(run.attempt(trial)["teardown"]["verdict"], "clean");
        }
        run.expect_nothing_left();
    }
}

#[test]
fn kill_9_with_two_under_way_and_resume_repeats_both() {
    let sandbox = Sandbox::new();
    StandIn::new(&sandbox, &two("resume"));
    let variants = format!("{}{}", variant("a", &[]), variant("b", &[]));
    let mut running = sandbox.start(&at_once(&variants, "2s"));
    running.until_it_says("01-a: phase 2-users");
    running.until_it_says("01-b: phase 2-users");
    running.signal(9);
    running.wait(Duration::from_secs(10));
    let run = sandbox.resume().expect_exit(0);
    for trial in ["01-a", "01-b"] {
        let first = run.json(&format!("trials/{trial}/attempt-1/outcome.json"));
        assert_eq!(first["ending"], "interrupted", "{first:#}");
        assert_eq!(run.trial(trial)["attempts"], 2);
        run.expect_measured(trial);
    }
    assert!(overlap(span(&run.trial("01-a")), span(&run.trial("01-b"))));
    run.expect_nothing_left();
}

#[test]
fn a_gpu_that_is_not_clean_is_nobodys_and_the_other_one_does_the_rest() {
    let sandbox = Sandbox::new();
    let standin = StandIn::new(&sandbox, &two("dirty"));
    let variants = format!("{}{}", variant("a", &[]), variant("b", &[]));
    let text = at_once(&variants, "2s").replace("blocks = 1", "blocks = 2");
    let text =
        text.replace("clean_within = \"3s\"", "clean_within = \"3s\"\nmax_start_memory_mib = 1000");
    let mut running = sandbox.start(&text);
    running.until_it_says("01-a: phase 4-users");
    running.until_it_says("01-b: phase 4-users");
    // One of the cards does not get its memory back, whoever is on it.
    let leaky = two("dirty").replacen("mem_used_mib 300", "mem_used_mib 7300", 1);
    standin.script(&leaky);
    let status = running.wait(Duration::from_secs(120));
    let run = running.run(status).expect_exit(0);
    let verdicts = ["01-a", "01-b"].map(|trial| run.attempt(trial)["teardown"]["verdict"].clone());
    assert!(verdicts.iter().any(|verdict| verdict == "gpu_not_released"), "{verdicts:?}");
    let second = ["02-a", "02-b"].map(|trial| span(&run.trial(trial)));
    assert!(!overlap(second[0], second[1]), "one GPU is left, so one runs at a time: {second:?}");
    for trial in ["02-a", "02-b"] {
        let gpu = run.json(&format!("trials/{trial}/attempt-1/gpu.json"));
        assert_eq!(gpu["gpus"][0]["uuid"], "GPU-dirtyb", "{gpu:#}");
    }
}

#[test]
fn too_few_gpus_for_two_at_once_are_told_at_check() {
    let sandbox = Sandbox::new();
    StandIn::new(&sandbox, &format!("{}gpu\nuuid GPU-lone\n", now()));
    let variants = format!("{}{}", variant("a", &[]), variant("b", &[]));
    let file = sandbox.write("sweep.toml", &at_once(&variants, "1s"));
    let output = sandbox.command(&["check", file.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("up to 2 trials of a block at once"), "{said}");
    assert!(said.contains("CPUs of lane 2: "), "{said}");
    assert!(said.contains("`a` fits beside no other variant on 1 GPUs"), "{said}");
}

/// A daemon with two GPUs, and the file of a sweep for it.
fn daemon_with(sandbox: &Sandbox, name: &str, lasting: &str) -> (Daemon, std::path::PathBuf) {
    StandIn::new(sandbox, &two(name));
    let variants = format!("{}{}", variant("a", &[]), variant("b", &[]));
    let text = at_once(&variants, lasting).replace("blocks = 1", "blocks = 2");
    let file = sandbox.write("sweep.toml", &text);
    let daemon = start_daemon(sandbox);
    (daemon, file)
}

fn start_daemon(sandbox: &Sandbox) -> Daemon {
    let home = sandbox.path().join("daemon");
    fs::create_dir_all(&home).unwrap();
    let mut command = daemon_command(&home);
    command.envs(sandbox.variables());
    let daemon = Daemon::spawn_command(&home, command);
    daemon.until_ready();
    daemon
}

/// Both lanes at work, as the daemon's status tells it.
fn until_two_under_way(daemon: &Daemon, state: &str) -> Value {
    eventually(Duration::from_secs(60), &format!("two trials are in {state:?}"), || {
        let status = daemon.try_ask("GET", "/v1/status", "")?.json();
        let under_way = status["under_way"].as_array()?.clone();
        let there = |trial: &Value| trial["state"].as_str().is_some_and(|s| s.contains(state));
        (under_way.len() == 2 && under_way.iter().all(there)).then_some(status)
    })
}

#[test]
fn the_daemon_runs_two_at_once_and_tells_of_both() {
    let sandbox = Sandbox::new();
    let (daemon, file) = daemon_with(&sandbox, "daemon", "2s");
    let run = daemon.submit(&file, &serde_json::json!({}));
    let status = until_two_under_way(&daemon, "phase");
    assert_eq!(status["current"], status["under_way"][0], "{status:#}");
    assert_eq!(status["state"], "working");
    let shown = daemon.client(&["status"]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("01-a") && shown.contains("01-b"), "{shown}");
    let metrics = daemon.ask("GET", "/metrics", "").body;
    assert_eq!(metrics.matches("sweepd_current_trial{").count(), 2, "{metrics}");
    let queue = daemon.get("/v1/runs");
    assert_eq!(queue[0]["state"], "running", "{queue:#}");
    let ended = daemon.until_ended(&run, Duration::from_secs(120));
    assert_eq!(ended["trials_completed"], 4, "{ended:#}");
    let dir = daemon.run_dir(&run);
    let outcome = |trial: &str| -> Value {
        let text = fs::read(dir.join(format!("trials/{trial}/outcome.json"))).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    for block in ["01", "02"] {
        let [a, b] = ["a", "b"].map(|name| outcome(&format!("{block}-{name}")));
        assert!(overlap(span(&a), span(&b)), "{a:#} {b:#}");
    }
    assert!(span(&outcome("02-a")).0 >= span(&outcome("01-b")).1, "blocks stay in order");
    assert!(fs::read_to_string(dir.join("report.md")).unwrap().contains("side_by_side"));
}

#[test]
fn a_run_that_is_cancelled_ends_both_and_one_trial_ends_alone() {
    let sandbox = Sandbox::new();
    let (daemon, file) = daemon_with(&sandbox, "cancel", "20s");
    let run = daemon.submit(&file, &serde_json::json!({}));
    until_two_under_way(&daemon, "phase");
    let path = format!("/v1/runs/{run}/cancel");
    let answer = daemon.ask("POST", &path, r#"{"trial":"01-a"}"#);
    assert!(answer.body.contains("01-a is being torn down"), "{answer:?}");
    let alone = || {
        let status = daemon.get("/v1/status");
        let under_way = status["under_way"].as_array().unwrap().clone();
        (under_way.len() == 1).then(|| under_way[0]["trial"]["variant"].clone())
    };
    let left = eventually(Duration::from_secs(30), "one is left", alone);
    assert_eq!(left, "b", "its neighbour goes on, and the next block waits for it");
    let answer = daemon.ask("POST", &path, "");
    assert!(answer.body.contains("01-b is being torn down"), "{answer:?}");
    let ended = daemon.until_ended(&run, Duration::from_secs(60));
    let states: Vec<&str> =
        ended["trials"].as_array().unwrap().iter().map(|t| t["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["cancelled"; 4], "{ended:#}");
    assert!(left_of(&daemon.run_dir(&run)).is_empty());
}

#[test]
fn sigterm_of_the_daemon_tears_both_down_and_the_next_one_repeats_both() {
    let sandbox = Sandbox::new();
    let (mut daemon, file) = daemon_with(&sandbox, "term", "3s");
    let run = daemon.submit(&file, &serde_json::json!({}));
    until_two_under_way(&daemon, "phase");
    daemon.signal(15);
    assert!(daemon.wait(Duration::from_secs(30)).success(), "{}", daemon.log());
    assert!(left_of(&daemon.run_dir(&run)).is_empty());
    let daemon = start_daemon(&sandbox);
    both_are_repeated(&daemon, &run);
}

#[test]
fn kill_9_of_the_daemon_with_two_under_way_repeats_both() {
    let sandbox = Sandbox::new();
    let (mut daemon, file) = daemon_with(&sandbox, "kill", "3s");
    let run = daemon.submit(&file, &serde_json::json!({}));
    until_two_under_way(&daemon, "phase");
    daemon.kill();
    let daemon = start_daemon(&sandbox);
    both_are_repeated(&daemon, &run);
}

#[track_caller]
fn both_are_repeated(daemon: &Daemon, run: &str) {
    let ended = daemon.until_ended(run, Duration::from_secs(120));
    assert_eq!(ended["trials_completed"], 4, "{ended:#}");
    let dir = daemon.run_dir(run);
    for trial in ["01-a", "01-b"] {
        let read = |name: &str| -> Value {
            serde_json::from_slice(&fs::read(dir.join(format!("trials/{trial}/{name}"))).unwrap())
                .unwrap()
        };
        assert_eq!(read("attempt-1/outcome.json")["ending"], "interrupted");
        assert_eq!(read("outcome.json")["attempts"], 2);
    }
    assert!(left_of(&dir).is_empty());
}
