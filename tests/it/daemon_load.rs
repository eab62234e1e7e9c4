//! Many who look at the daemon, and a long past: it answers at once, and what it measures is the same.
//! In the full tier, on a machine that does nothing else; a small round of each in CI.

use crate::daemon::{Daemon, ask_at};
use crate::harness::{Sandbox, sweep, variant};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn is_full() -> bool {
    std::env::var("SWEEPD_TEST_TIER").as_deref() == Ok("full")
}

/// Pollers and followers, until they are told to go.
struct Crowd {
    gone: Arc<AtomicBool>,
    pollers: Vec<std::thread::JoinHandle<Vec<Duration>>>,
    followers: Vec<std::thread::JoinHandle<usize>>,
    _silent: Vec<UnixStream>,
}

fn follower(socket: &Path) -> Option<UnixStream> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
    stream.write_all(b"GET /v1/events?after=0 HTTP/1.1\r\nhost: x\r\n\r\n").ok()?;
    Some(stream)
}

impl Crowd {
    fn come(socket: &Path, pollers: u32, followers: usize, silent: usize) -> Self {
        let gone = Arc::new(AtomicBool::new(false));
        let poll = |n: u32| {
            let (socket, gone) = (socket.to_owned(), gone.clone());
            std::thread::spawn(move || {
                // Each second, spread over it.
                let mut due = Instant::now() + Duration::from_millis(u64::from(n) * 5 % 1000);
                let mut took = Vec::new();
                while !gone.load(Ordering::Relaxed) {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let asked = Instant::now();
                    let answer = ask_at(&socket, "GET", "/v1/status", b"");
                    assert_eq!(answer.map(|answer| answer.status), Some(200));
                    took.push(asked.elapsed());
                    due += Duration::from_secs(1);
                }
                took
            })
        };
        let follow = |_| {
            let (socket, gone) = (socket.to_owned(), gone.clone());
            std::thread::spawn(move || {
                let mut stream = follower(&socket).unwrap();
                let (mut bytes, mut read) = ([0; 4096], 0);
                while !gone.load(Ordering::Relaxed) {
                    read += stream.read(&mut bytes).unwrap_or(0);
                }
                read
            })
        };
        Self {
            pollers: (0..pollers).map(poll).collect(),
            followers: (0..followers).map(follow).collect(),
            _silent: (0..silent).map(|_| follower(socket).unwrap()).collect(),
            gone,
        }
    }

    /// Sends all away; how long each answer took, sorted.
    fn go(self) -> Vec<Duration> {
        self.gone.store(true, Ordering::Relaxed);
        for follower in self.followers {
            assert!(follower.join().unwrap() > 0, "a follower heard nothing");
        }
        let took = self.pollers.into_iter().flat_map(|poller| poller.join().unwrap());
        let mut took: Vec<Duration> = took.collect();
        took.sort();
        took
    }
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)]
}

/// Whether it moves a figure is measured by `scripts/measure-crowd`.
#[test]
fn a_crowd_is_answered_at_once() {
    let blocks = if is_full() { 10 } else { 1 };
    let sandbox = Sandbox::new();
    // Paced far below what the client could take.
    let text = sweep(&variant("paced", &[]).replace("step-ms = 1.0", "step-ms = 20.0"))
        .replace("blocks = 1", &format!("blocks = {blocks}"))
        .replace("min_requests = 12", "min_requests = 30")
        .replace("\"200ms\"", "\"1s\"");
    let file = sandbox.write("sweep.toml", &text);
    let daemon = Daemon::start(&sandbox);
    let run = daemon.submit(&file, &json!({}));
    let crowd = Crowd::come(&daemon.socket(), 200, 40, 10);
    until_block_is_over(&daemon, &run, blocks);
    let took = crowd.go();
    daemon.until_ended(&run, Duration::from_secs(60));
    eprintln!("{} answers, p50 {:?}, p99 {:?}", took.len(), took[took.len() / 2], p99(&took));
    // A machine that runs other tests says little of the daemon.
    assert!(!is_full() || p99(&took) < Duration::from_millis(50));
}

fn until_block_is_over(daemon: &Daemon, run: &str, block: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let detail = daemon.get(&format!("/v1/runs/{run}"));
        let ended = detail["trials_ended"].as_u64().unwrap();
        if ended >= block {
            return;
        }
        assert!(Instant::now() < deadline, "block {block}: {detail:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Run folders as a daemon leaves them, `runs` of 100 trials each.
fn write_past(state: &Path, runs: u32) {
    for run in 0..runs {
        let id = format!("past-{run:05}");
        let dir = state.join("runs").join(&id);
        let planned: Vec<Value> =
            (1..=100).map(|block| json!({ "block": block, "variant": "a" })).collect();
        let write = |path: PathBuf, value: &Value| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value.to_string()).unwrap();
        };
        let plan = json!({
            "format": 1, "run": id, "sweep": "past", "variants": [], "phases": [],
            "planned": planned, "origin": { "file": "/nowhere/sweep.toml", "engine_folders": [] },
            "setup": {
                "endpoint": "completions", "prompt_tokens": 1, "output_tokens": 1, "blocks": 100,
                "seed": 0, "sampling": [], "warmup_requests": 0,
            },
        });
        for block in 1..=100 {
            let outcome = json!({
                "format": 1, "run": id, "block": block, "variant": "a", "simulated": true,
                "ending": "completed", "attempts": 1, "phases": [],
                "started": "2026-11-25T00:00:00.000Z", "ended": "2026-11-25T00:01:00.000Z",
            });
            write(dir.join(format!("trials/{block:02}-a/outcome.json")), &outcome);
        }
        let by = json!({ "uid": 0, "pid": 1 });
        let schedule = json!({ "priority": 0, "rank": 1.0, "not_before": null, "finish_by": null });
        let submitted = json!({
            "format": 1, "at": "2026-11-25T00:00:00.000Z", "change": "submitted", "by": by,
            "schedule": schedule,
        });
        let ended = json!({ "format": 1, "at": "2026-11-25T00:00:00.000Z", "change": "ended" });
        fs::write(dir.join("control.jsonl"), format!("{submitted}\n{ended}\n")).unwrap();
        write(dir.join("plan.json"), &plan);
    }
}

#[test]
fn a_long_past_costs_no_time_at_the_start() {
    let runs = if is_full() { 1000 } else { 20 };
    let sandbox = Sandbox::new();
    let home = sandbox.path().join("daemon");
    write_past(&home.join("state"), runs);
    let start = || {
        let began = Instant::now();
        let daemon = Daemon::start_in(&home);
        (daemon, began.elapsed())
    };
    let (mut daemon, filling) = start();
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait(Duration::from_secs(20)).success());
    let (mut daemon, clean) = start();
    daemon.kill();
    let (daemon, unclean) = start();
    let asked = Instant::now();
    assert_eq!(daemon.get("/v1/status")["runs_open"], 0, "{}", daemon.log());
    let status = asked.elapsed();
    let listed = daemon.get("/v1/runs?all=true").as_array().unwrap().len();
    assert_eq!(listed, usize::try_from(runs).unwrap());
    let ticks = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    let idle = Duration::from_secs(if is_full() { 30 } else { 1 });
    let began = Instant::now();
    std::thread::sleep(idle.saturating_sub(began.elapsed()));
    let used = Duration::from_millis(10 * (ticks() - before));
    let text = fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let resident = text.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    eprintln!(
        "{} trials: filled in {filling:?}, start {clean:?}, after a kill {unclean:?}, status \
         {status:?}, {resident}, {used:?} CPU in {idle:?}",
        runs * 100
    );
    if is_full() {
        assert!(clean < Duration::from_secs(1) && status < Duration::from_secs(1));
    }
}
