//! SIGKILL of the daemon at random instants, its index removed or damaged in between: the queue is
//! done all the same, no trial is lost, none is counted twice, and nothing is left.

use crate::daemon::Daemon;
use crate::harness::{Sandbox, eventually, left_of, mixed, sweep, variant, walk};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn kills() -> u64 {
    match std::env::var("SWEEPD_TEST_TIER").as_deref() {
        Ok("full") => 200,
        _ => 20,
    }
}

/// When the daemon is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instantly {
    /// Some time after its start.
    Anytime,
    /// Just after an attempt's manifest is there: the engine is being launched.
    Launching,
    /// Just when a file is being written, or was.
    Writing,
}

fn quick_sweep() -> String {
    sweep(&format!("{}{}", variant("a", &[]), variant("b", &["setsid-child"])))
        .replace("blocks = 1", "blocks = 2")
}

fn files_named(runs: &Path, is: impl Fn(&str) -> bool) -> usize {
    walk(runs)
        .iter()
        .filter(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(&is))
        .count()
}

/// Polls without a pause until there are more such files than before, or the time is over.
fn until_more(runs: &Path, is: impl Fn(&str) -> bool + Copy, within: Duration) -> bool {
    let before = files_named(runs, is);
    let by = Instant::now() + within;
    while Instant::now() < by {
        if files_named(runs, is) > before {
            return true;
        }
    }
    false
}

/// Waits for the instant; what was hit.
fn wait_for(when: Instantly, runs: &Path, random: u64) -> Instantly {
    let pause = |span| {
        let until: Instant = Instant::now() + span;
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    };
    let within = Duration::from_secs(5);
    match when {
        Instantly::Anytime => {
            pause(Duration::from_millis(random % 2500));
            Instantly::Anytime
        }
        Instantly::Launching => {
            let seen = until_more(runs, |name| name == "manifest.json", within);
            pause(Duration::from_millis(random % 60));
            if seen { Instantly::Launching } else { Instantly::Anytime }
        }
        Instantly::Writing => {
            let is_writing = |name: &str| name.ends_with(".tmp");
            let seen = until_more(runs, is_writing, within);
            if seen { Instantly::Writing } else { Instantly::Anytime }
        }
    }
}

/// Does something bad to the index of a daemon that is not there.
fn spoil(index: &Path, random: u64) {
    match random % 4 {
        0 => {
            for suffix in ["", "-wal", "-shm"] {
                fs::remove_file(PathBuf::from(format!("{}{suffix}", index.display()))).ok();
            }
        }
        1 => fs::write(index, b"no database, but long enough that somebody looks at it").unwrap(),
        2 => {
            // A page in the middle.
            let mut bytes = fs::read(index).unwrap_or_default();
            let middle = bytes.len() / 2;
            for byte in bytes.iter_mut().skip(middle).take(512) {
                *byte ^= 0xff;
            }
            fs::write(index, bytes).unwrap();
        }
        _ => {}
    }
}

#[track_caller]
fn expect_whole(daemon: &Daemon, run: &str) {
    let dir = daemon.run_dir(run);
    let read = |path: PathBuf| -> Value {
        serde_json::from_slice(&fs::read(&path).unwrap_or_else(|e| panic!("{path:?}: {e}")))
            .unwrap()
    };
    let summary = read(dir.join("summary.json"));
    let status = &summary["status"];
    assert_eq!(status["trials_completed"], 4, "{run}: {status:#}");
    for trial in ["01-a", "01-b", "02-a", "02-b"] {
        let outcome = read(dir.join(format!("trials/{trial}/outcome.json")));
        let attempts = outcome["attempts"].as_u64().unwrap();
        let endings: Vec<String> = (1..=attempts)
            .map(|n| read(dir.join(format!("trials/{trial}/attempt-{n}/outcome.json"))))
            .map(|outcome| outcome["ending"].as_str().unwrap().to_owned())
            .collect();
        let completed = endings.iter().filter(|ending| *ending == "completed").count();
        assert_eq!(completed, 1, "{run} {trial}: {endings:?}");
        let others = endings.iter().filter(|ending| *ending != "completed");
        assert!(others.clone().all(|ending| ending == "interrupted"), "{run} {trial}: {endings:?}");
    }
    for cell in summary["cells"].as_array().unwrap() {
        assert_eq!(cell["trials"].as_array().unwrap().len(), 2, "{run}: one trial a block");
    }
    let left = left_of(&dir);
    assert!(left.is_empty(), "{run}: left behind: {left:?}");
}

#[test]
fn a_daemon_that_is_killed_at_any_instant_does_its_queue_all_the_same() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("sweep.toml", &quick_sweep());
    let mut daemon = Daemon::start(&sandbox);
    let home = sandbox.path().join("daemon");
    let mut runs = vec![daemon.submit(&file, &json!({}))];
    let (mut launching, mut writing) = (0, 0);
    for kill in 0..kills() {
        let random = mixed(kill);
        let when = match kill % 3 {
            0 => Instantly::Launching,
            1 => Instantly::Writing,
            _ => Instantly::Anytime,
        };
        let idle = daemon.get("/v1/runs").as_array().unwrap().is_empty();
        if idle {
            runs.push(daemon.submit(&file, &json!({})));
        }
        match wait_for(when, &daemon.state().join("runs"), random >> 8) {
            Instantly::Launching => launching += 1,
            Instantly::Writing => writing += 1,
            Instantly::Anytime => {}
        }
        daemon.kill();
        spoil(&daemon.state().join("sweepd.db"), random >> 32);
        daemon = Daemon::start_in(&home);
    }
    for run in &runs {
        daemon.until_ended(run, Duration::from_secs(120));
        expect_whole(&daemon, run);
    }
    let least = kills() / 10;
    assert!(launching >= least && writing >= least, "{launching} at launch, {writing} in writes");
    eprintln!(
        "{} kills ({launching} at launch, {writing} in writes), {} runs",
        kills(),
        runs.len()
    );
    // A daemon that dies asked for nothing that nobody undid.
    let intents = fs::read_dir(home.join("run/intents")).map_or(0, Iterator::count);
    assert_eq!(intents, 0);
}

#[test]
fn a_cancelled_run_stays_cancelled_when_the_index_is_made_again() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("sweep.toml", &quick_sweep());
    let mut daemon = Daemon::start(&sandbox);
    daemon.post("/v1/queue/pause");
    let run = daemon.submit(&file, &json!({}));
    daemon.post(&format!("/v1/runs/{run}/cancel"));
    daemon.kill();
    fs::remove_file(daemon.state().join("sweepd.db")).unwrap();
    let daemon = Daemon::start_in(&sandbox.path().join("daemon"));
    let detail = daemon.until_ended(&run, Duration::from_secs(20));
    assert_eq!(detail["state"], "cancelled", "{detail:#}");
    assert_eq!(daemon.get("/v1/status")["paused"], true, "so does the pause");
    let listed = daemon.get("/v1/runs?all=true");
    assert_eq!(listed[0]["state"], "cancelled", "{listed:#}");
}

#[test]
fn an_index_of_a_newer_sweepd_is_refused_and_left_alone() {
    let sandbox = Sandbox::new();
    let mut daemon = Daemon::start(&sandbox);
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait(Duration::from_secs(10)).success());
    let index = daemon.state().join("sweepd.db");
    let mut bytes = fs::read(&index).unwrap();
    bytes[60..64].copy_from_slice(&99_u32.to_be_bytes()); // `user_version` in the file's header
    fs::write(&index, &bytes).unwrap();
    let mut daemon = Daemon::spawn(&sandbox.path().join("daemon"));
    assert!(!daemon.wait(Duration::from_secs(10)).success());
    assert!(daemon.log().contains("layout 99"), "{}", daemon.log());
    assert_eq!(fs::read(&index).unwrap(), bytes);
}

#[test]
fn sigterm_tears_down_and_keeps_the_queue() {
    let sandbox = Sandbox::new();
    let text = quick_sweep().replace("\"200ms\"", "\"3s\"");
    let file = sandbox.write("sweep.toml", &text);
    let mut daemon = Daemon::start(&sandbox);
    let run = daemon.submit(&file, &json!({}));
    daemon.until_state("phase 2-users");
    daemon.signal(libc::SIGTERM);
    let status = daemon.wait(Duration::from_secs(20));
    assert!(status.success(), "{status}; {}", daemon.log());
    let dir = daemon.run_dir(&run);
    assert!(left_of(&dir).is_empty());
    let outcomes = walk(&dir).iter().filter(|path| path.ends_with("outcome.json")).count();
    assert_eq!(outcomes, 1, "that of the attempt alone");
    let daemon = Daemon::start_in(&sandbox.path().join("daemon"));
    daemon.until_ended(&run, Duration::from_secs(90));
    expect_whole(&daemon, &run);
}

#[test]
fn engines_of_a_killed_daemon_end_without_a_restart() {
    let sandbox = Sandbox::new();
    let text = quick_sweep().replace("\"200ms\"", "\"20s\"");
    let file = sandbox.write("sweep.toml", &text);
    let mut daemon = Daemon::start(&sandbox);
    let run = daemon.submit(&file, &json!({}));
    daemon.until_state("phase 2-users");
    let dir = daemon.run_dir(&run);
    assert!(!left_of(&dir).is_empty(), "the engine runs");
    daemon.kill();
    eventually(Duration::from_secs(10), "no engine is left", || {
        left_of(&dir).is_empty().then_some(())
    });
}
