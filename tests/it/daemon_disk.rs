//! A full disk under the daemon, at each stage of a trial: told, nothing damaged, and on when there is
//! space again. Needs root, for a small disk of the test's own.

use crate::daemon::{Daemon, daemon_command};
use crate::harness::{Sandbox, eventually, sweep, variant, walk};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const DISK: &str = "size=12m";

/// A daemon whose state lies on a small disk that only it and its children see.
fn on_a_small_disk(home: &Path) -> Option<Daemon> {
    fs::create_dir_all(home.join("state")).unwrap();
    let daemon = daemon_command(home);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(format!("mount -t tmpfs -o {DISK} tmpfs \"$0\" && exec \"$@\""))
        .arg(home.join("state"))
        .arg(daemon.get_program())
        .args(daemon.get_args())
        .stdin(std::process::Stdio::null());
    let works = Command::new("unshare").args(["--mount", "true"]).status();
    if !nix::unistd::geteuid().is_root() || !works.is_ok_and(|status| status.success()) {
        return None;
    }
    let daemon = Daemon::spawn_command(home, command);
    daemon.until_ready();
    Some(daemon)
}

/// The daemon's state folder as it sees it.
fn seen(daemon: &Daemon) -> PathBuf {
    let state = daemon.state();
    PathBuf::from(format!("/proc/{}/root{}", daemon.child.id(), state.display()))
}

fn fill(state: &Path) {
    let mut file = File::create(state.join("filler")).unwrap();
    for block in [vec![1_u8; 1 << 16], vec![1; 1]] {
        while file.write_all(&block).is_ok() {}
    }
}

fn expect_whole(state: &Path, when: &str) {
    for path in walk(&state.join("runs")) {
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read(&path).unwrap();
            let whole: Result<Value, _> = serde_json::from_slice(&text);
            assert!(whole.is_ok(), "{when}: {} is not whole", path.display());
        }
    }
}

#[test]
fn a_full_disk_is_told_damages_nothing_and_ends_when_there_is_space() {
    let sandbox = Sandbox::new();
    let home = sandbox.path().join("daemon");
    let Some(daemon) = on_a_small_disk(&home) else {
        eprintln!("skipped: no mounts of one's own on this machine");
        return;
    };
    let state = seen(&daemon);
    let text = sweep(&variant("only", &[])).replace("\"200ms\"", "\"1s\"");
    let file = sandbox.write("sweep.toml", &text);
    for stage in ["preparing", "loading", "warming up", "phase 2-users", "phase 4-users"] {
        let run = daemon.submit(&file, &json!({}));
        // A stage may be over before it is seen; then the disk is full in the next one.
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            let status = daemon.get("/v1/status");
            let now = status["current"]["state"].as_str().unwrap_or_default().to_owned();
            if now.contains(stage) || (now.starts_with("phase") && stage != "phase 4-users") {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{stage}: {status:#}");
        }
        fill(&state);
        let told = || {
            let status = daemon.get("/v1/status");
            (status["state"] == "no_space").then(|| status["problem"].as_str().unwrap().to_owned())
        };
        let problem = eventually(Duration::from_secs(60), &format!("{stage}: it is told"), told);
        assert!(problem.contains("No space left"), "{problem}");
        expect_whole(&state, stage);
        let body = json!({ "sweep": text, "file": file }).to_string();
        let refused = daemon.ask("POST", "/v1/runs", &body);
        assert_eq!(refused.status, 507, "{stage}: {refused:?}");
        assert_eq!(daemon.get("/v1/runs").as_array().unwrap().len(), 1, "{stage}");
        fs::remove_file(state.join("filler")).unwrap();
        let detail = daemon.until_ended(&run, Duration::from_secs(90));
        let trial = &detail["trials"][0];
        let why = trial["text"].as_str().unwrap_or_default();
        let honest = trial["state"] == "completed" || why.contains("No space");
        assert!(honest, "{stage}: {trial:#}");
        expect_whole(&state, stage);
        eprintln!("{stage}: {problem}; then {}", trial["state"]);
    }
}
