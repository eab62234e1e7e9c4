//! The daemon's API and the commands over it, as people and their scripts use them.

use crate::daemon::{Daemon, ask_at};
use crate::harness::{Sandbox, eventually, mixed, sweep, variant};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Output;
use std::time::Duration;

fn two_variants() -> String {
    sweep(&format!("{}{}", variant("a", &[]), variant("b", &[])))
}

fn said(output: &Output) -> String {
    let text = [output.stdout.clone(), output.stderr.clone()].concat();
    String::from_utf8(text).unwrap()
}

#[track_caller]
fn tell(daemon: &Daemon, arguments: &[&str], code: i32) -> String {
    let output = daemon.client(arguments).output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}\n{}", daemon.log());
    said
}

#[test]
fn a_sweep_is_submitted_waited_for_and_reported() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("sweep.toml", &two_variants());
    let daemon = Daemon::start(&sandbox);
    let text = tell(&daemon, &["submit", "--wait", file.to_str().unwrap()], 0);
    assert!(text.contains("2 of 2 trials completed"), "{text}");
    assert_eq!(tell(&daemon, &["queue"], 0).trim(), "the queue is empty");
    let all: Value =
        serde_json::from_str(&tell(&daemon, &["queue", "--all", "--json"], 0)).unwrap();
    let run = all[0]["run"].as_str().unwrap().to_owned();
    assert_eq!(all[0]["state"], "ended", "{all:#}");
    let report = daemon.ask("GET", &format!("/v1/runs/{run}/report"), "");
    assert!(report.body.contains("SIMULATED"), "{report:?}");
    assert_eq!(daemon.get(&format!("/v1/runs/{run}/summary"))["status"]["complete"], true);
    let log = tell(&daemon, &["logs", &run, "01-a", "--engine"], 0);
    assert!(log.contains("SIMULATED engine listening"), "{log}");
    let timeline = tell(&daemon, &["logs", &run, "01-a"], 0);
    assert!(timeline.contains("phase 2-users"), "{timeline}");
    let events = tell(&daemon, &["events"], 0);
    for event in ["run_submitted", "trial_started", "trial_ended", "run_ended"] {
        assert!(events.contains(event), "{event} in\n{events}");
    }
    assert_eq!(tell(&daemon, &["wait", &run, "--json"], 0).lines().count(), 1);
    let metrics = daemon.ask("GET", "/metrics", "").body;
    assert!(metrics.contains("sweepd_trials_total{ending=\"completed\"} 2"), "{metrics}");
}

#[test]
fn a_failed_run_says_so_by_its_exit_code_and_is_retried() {
    let sandbox = Sandbox::new();
    let text = sweep(&format!("{}{}", variant("good", &[]), variant("bad", &["cuda-oom-at-load"])));
    let file = sandbox.write("sweep.toml", &text);
    let daemon = Daemon::start(&sandbox);
    let text = tell(&daemon, &["submit", "--wait", file.to_str().unwrap()], 1);
    let run = text.split_whitespace().nth(1).unwrap().to_owned();
    let text = tell(&daemon, &["retry", &run], 0);
    assert!(text.contains("1 trial of"), "{text}");
    tell(&daemon, &["wait", &run], 1);
    let attempts = fs::read_dir(daemon.run_dir(&run).join("trials/01-bad")).unwrap();
    let attempts = attempts.flatten().filter(|e| e.path().is_dir()).count();
    assert_eq!(attempts, 2, "the first attempt's files are kept");
    let why = daemon.get(&format!("/v1/runs/{run}/why?trial=01-bad"));
    assert!(why["why"][0].as_str().unwrap().contains("01-bad engine_failed"), "{why}");
    let text = tell(&daemon, &["retry", &run, "01-nobody"], 2);
    assert!(text.contains("no trial"), "{text}");
}

#[test]
fn the_queue_is_steered() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("sweep.toml", &two_variants());
    let daemon = Daemon::start(&sandbox);
    tell(&daemon, &["pause"], 0);
    let runs: Vec<String> = (0..3).map(|_| daemon.submit(&file, &json!({}))).collect();
    let order = || -> Vec<String> {
        let runs = daemon.get("/v1/runs");
        let runs = runs.as_array().unwrap().iter();
        runs.map(|run| run["run"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(order(), runs);
    tell(&daemon, &["move", &runs[2], "--before", &runs[0]], 0);
    assert_eq!(order(), [&*runs[2], &*runs[0], &*runs[1]]);
    tell(&daemon, &["move", &runs[1], "--priority", "5"], 0);
    assert_eq!(order(), [&*runs[1], &*runs[2], &*runs[0]]);
    tell(&daemon, &["cancel", &runs[0], "01-a"], 0);
    tell(&daemon, &["cancel", &runs[2]], 0);
    tell(&daemon, &["move", &runs[1], "--not-before", "1h"], 0);
    tell(&daemon, &["resume"], 0);
    // What is cancelled is written down, what may run runs, what is too early waits.
    let detail = daemon.until_ended(&runs[0], Duration::from_secs(60));
    assert_eq!(detail["state"], "ended", "{detail:#}");
    assert_eq!(detail["trials_completed"], 1, "{detail:#}");
    assert_eq!(daemon.until_ended(&runs[2], Duration::from_secs(20))["state"], "cancelled");
    assert_eq!(order(), [&*runs[1]]);
    let why = daemon.get(&format!("/v1/runs/{}/why", runs[1]));
    assert!(why["why"].to_string().contains("not before"), "{why}");
    tell(&daemon, &["drain"], 0);
    let text = tell(&daemon, &["submit", file.to_str().unwrap()], 2);
    assert!(text.contains("draining"), "{text}");
    tell(&daemon, &["move", &runs[1], "--not-before", "none"], 0);
    daemon.until_ended(&runs[1], Duration::from_secs(60));
}

#[test]
fn a_trial_under_way_is_cancelled_and_the_next_one_runs() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("sweep.toml", &two_variants().replace("\"200ms\"", "\"3s\""));
    let daemon = Daemon::start(&sandbox);
    let run = daemon.submit(&file, &json!({}));
    daemon.until_state("phase 2-users");
    let status = daemon.get("/v1/status");
    let variant = status["current"]["trial"]["variant"].as_str().unwrap().to_owned();
    let trial = format!("01-{variant}");
    let text = tell(&daemon, &["cancel", &run, &trial], 0);
    assert!(text.contains("torn down"), "{text}");
    let detail = daemon.until_ended(&run, Duration::from_secs(60));
    assert_eq!(detail["trials_completed"], 1, "{detail:#}");
    let trials = detail["trials"].as_array().unwrap();
    let cancelled = trials.iter().find(|t| t["variant"] == variant.as_str()).unwrap();
    assert_eq!(cancelled["state"], "cancelled");
    assert!(cancelled["text"].as_str().unwrap().contains("cancelled by uid"), "{cancelled}");
}

#[test]
fn what_cannot_end_in_time_is_left_out_and_reported() {
    let sandbox = Sandbox::new();
    let text = two_variants().replace("blocks = 1", "blocks = 50");
    let file = sandbox.write("sweep.toml", &text);
    let daemon = Daemon::start(&sandbox);
    let by = std::time::SystemTime::now() + Duration::from_secs(8);
    let by = humantime::format_rfc3339_seconds(by).to_string();
    let run = daemon.submit(&file, &json!({ "finish_by": by }));
    let detail = daemon.until_ended(&run, Duration::from_secs(60));
    let completed = detail["trials_completed"].as_u64().unwrap();
    assert!((1..100).contains(&completed), "{completed} trials in 8 s");
    // Blocks in order: only the last one that was begun may be half done.
    let trials = detail["trials"].as_array().unwrap();
    let done = trials.iter().take_while(|trial| trial["state"] == "completed").count();
    assert_eq!(done as u64, completed);
    assert!(trials[done..].iter().all(|trial| trial["state"] == "skipped"), "{detail:#}");
    let report = daemon.ask("GET", &format!("/v1/runs/{run}/report"), "").body;
    assert!(report.contains("skipped") && report.contains(&by), "{report}");
}

#[test]
fn a_second_daemon_and_a_broken_sweep_are_refused_with_the_reason() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox);
    let mut second = Daemon::spawn(&sandbox.path().join("daemon"));
    assert!(!second.wait(Duration::from_secs(10)).success());
    assert!(second.log().contains("is kept by another daemon"), "{}", second.log());
    let body = json!({ "sweep": "schema = 1\nblocks = 0\n", "file": "/nowhere/sweep.toml" });
    let answer = daemon.ask("POST", "/v1/runs", &body.to_string());
    assert_eq!(answer.status, 422);
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("/nowhere/sweep.toml:2:") && error.contains("blocks"), "{error}");
    let body = json!({ "sweep": "", "file": "sweep.toml" });
    let answer = daemon.ask("POST", "/v1/runs", &body.to_string());
    assert!(answer.body.contains("no absolute path"), "{answer:?}");
    for path in ["/v1/runs/no-such", "/v1/runs/..%2F..", "/v1/runs/no-such/report", "/v1/nothing"] {
        assert_eq!(daemon.ask("GET", path, "").status, 404, "{path}");
    }
}

#[test]
fn events_are_replayed_from_a_number() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox);
    let before = daemon.get("/v1/status")["last_event"].as_u64().unwrap();
    daemon.post("/v1/queue/pause");
    daemon.post("/v1/queue/resume");
    let replay =
        |after: u64| daemon.ask("GET", &format!("/v1/events?after={after}&once=true"), "").body;
    let all = replay(before);
    let ids: Vec<u64> =
        all.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    assert_eq!(ids, [before + 1, before + 2], "{all}");
    assert_eq!(replay(before + 1).matches("id: ").count(), 1);
    // A follower hears of what happens while it listens.
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = format!("GET /v1/events HTTP/1.1\r\nhost: x\r\nlast-event-id: {before}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    daemon.post("/v1/queue/pause");
    let mut text = String::new();
    let wanted = format!("id: {}\n", before + 3);
    while !text.contains(&wanted) {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).unwrap();
        assert!(count > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    assert!(text.contains(&format!("id: {}\n", before + 1)), "{text}");
}

#[test]
fn the_configuration_is_read_again_and_a_wrong_one_changes_nothing() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox);
    let config = sandbox.path().join("daemon/sweepd.toml");
    let reload = |text: &str, event: &str| {
        fs::write(&config, text).unwrap();
        let before = daemon.get("/v1/status")["last_event"].as_u64().unwrap();
        daemon.signal(libc::SIGHUP);
        eventually(Duration::from_secs(10), event, || {
            let path = format!("/v1/events?after={before}&once=true");
            daemon.ask("GET", &path, "").body.contains(&format!("event: {event}\n")).then_some(())
        });
    };
    reload("schema = 1\n[retention]\nfree_gib = 1048576\n", "reloaded");
    eventually(Duration::from_secs(20), "the new floor is minded", || {
        (daemon.get("/v1/status")["state"] == "no_space").then_some(())
    });
    reload("schema = 1\nwrong = 1\n", "reload_failed");
    assert_eq!(daemon.get("/v1/status")["state"], "no_space");
    reload("schema = 1\n[retention]\nfree_gib = 0\n", "reloaded");
    eventually(Duration::from_secs(20), "there is space again", || {
        (daemon.get("/v1/status")["state"] == "idle").then_some(())
    });
}

#[test]
fn a_user_without_rights_may_look_and_change_nothing() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become a second user");
        return;
    }
    let sandbox = Sandbox::new();
    let home = sandbox.path().join("daemon");
    fs::create_dir_all(&home).unwrap();
    fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let config = "schema = 1\neveryone_reads = true\ngroup = \"daemon\"\n";
    fs::write(home.join("sweepd.toml"), config).unwrap();
    let daemon = Daemon::start_in(&home);
    let mode = fs::metadata(daemon.socket()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o666);
    let file = sandbox.write("sweep.toml", &two_variants());
    daemon.post("/v1/queue/pause");
    let run = daemon.submit(&file, &json!({}));
    let before = daemon.get("/v1/runs");
    for (method, path, body) in [
        ("POST", "/v1/queue/pause".to_owned(), ""),
        ("POST", "/v1/queue/resume".to_owned(), ""),
        ("POST", "/v1/queue/drain".to_owned(), ""),
        ("POST", "/v1/runs".to_owned(), "{}"),
        ("PATCH", format!("/v1/runs/{run}"), "{\"priority\": 9}"),
        ("POST", format!("/v1/runs/{run}/cancel"), ""),
        ("POST", format!("/v1/runs/{run}/pause"), ""),
        ("POST", format!("/v1/runs/{run}/resume"), ""),
        ("POST", format!("/v1/runs/{run}/retry"), ""),
        ("POST", "/v1/debug/stick".to_owned(), ""),
    ] {
        assert_eq!(as_user(65534, 65534, &daemon, method, &path, body), 403, "{method} {path}");
    }
    assert_eq!(as_user(65534, 65534, &daemon, "GET", "/v1/status", ""), 200);
    assert_eq!(daemon.get("/v1/runs"), before);
    // A member of the group may.
    let group = nix::unistd::Group::from_name("daemon").unwrap().unwrap().gid.as_raw();
    let path = format!("/v1/runs/{run}/pause");
    assert_eq!(as_user(65534, group, &daemon, "POST", &path, ""), 200);
    let line = fs::read_to_string(daemon.run_dir(&run).join("control.jsonl")).unwrap();
    assert!(line.lines().last().unwrap().contains("\"uid\":65534"), "{line}");
    drop(daemon);
    // Without `everyone_reads` a stranger cannot even connect.
    fs::write(home.join("sweepd.toml"), "schema = 1\ngroup = \"daemon\"\n").unwrap();
    let daemon = Daemon::start_in(&home);
    let mode = fs::metadata(daemon.socket()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    assert_eq!(as_user(65534, 65534, &daemon, "GET", "/v1/status", ""), 0);
    assert_eq!(as_user(65534, group, &daemon, "GET", "/v1/status", ""), 200);
}

/// The status of a request that another user makes; 0 where they cannot connect.
fn as_user(uid: u32, gid: u32, daemon: &Daemon, method: &str, path: &str, body: &str) -> u16 {
    use std::os::unix::process::CommandExt;
    let program = "import socket, sys\n\
        s = socket.socket(socket.AF_UNIX)\n\
        try:\n    s.connect(sys.argv[1])\nexcept OSError:\n    print(0); sys.exit()\n\
        b = sys.argv[4].encode()\n\
        s.sendall(f'{sys.argv[2]} {sys.argv[3]} HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\
        content-length: {len(b)}\\r\\n\\r\\n'.encode() + b)\n\
        print(s.recv(100).split()[1].decode())\n";
    let output = std::process::Command::new("/usr/bin/python3")
        .args(["-c", program])
        .arg(daemon.socket())
        .args([method, path, body])
        .current_dir("/")
        .uid(uid)
        .gid(gid)
        .output()
        .unwrap();
    said(&output).trim().parse().unwrap_or_else(|_| panic!("{}", said(&output)))
}

#[test]
fn fuzzed_bodies_never_crash_it() {
    let bodies = match std::env::var("SWEEPD_TEST_TIER").as_deref() {
        Ok("full") => 10_000,
        _ => 1_000,
    };
    let sandbox = Sandbox::new();
    let file = sandbox.write("sweep.toml", &two_variants());
    let daemon = Daemon::start(&sandbox);
    daemon.post("/v1/queue/pause");
    let run = daemon.submit(&file, &json!({}));
    let right = json!({ "sweep": two_variants(), "file": file, "priority": 1 }).to_string();
    let paths = [
        ("POST", "/v1/runs".to_owned()),
        ("PATCH", format!("/v1/runs/{run}")),
        ("POST", format!("/v1/runs/{run}/cancel")),
        ("POST", format!("/v1/runs/{run}/retry")),
    ];
    for seed in 0..bodies {
        let random = mixed(seed);
        let mut body = right.clone().into_bytes();
        // Cut, then spoilt in a few places, or random altogether.
        let length = usize::try_from(random % (body.len() as u64 + 1)).unwrap();
        body.truncate(length);
        for n in 0..random % 7 {
            let at = mixed(random ^ n);
            if !body.is_empty() {
                let place = usize::try_from(at % body.len() as u64).unwrap();
                body[place] = u8::try_from((at >> 32) & 0xff).unwrap();
            }
        }
        let (method, path) = &paths[usize::try_from(random >> 40).unwrap() % paths.len()];
        let answer = ask_at(&daemon.socket(), method, path, &body);
        let status = answer.map_or(0, |answer| answer.status);
        assert!((400..500).contains(&status) || status == 200, "seed {seed}: {status}");
    }
    assert_eq!(daemon.get("/v1/status")["pid"], daemon.child.id());
    let big = vec![b' '; 2 << 20];
    let answer = ask_at(&daemon.socket(), "POST", "/v1/runs", &big);
    assert_eq!(answer.map(|answer| answer.status), Some(413));
}

#[test]
fn whoever_is_named_is_told_when_a_run_ends() {
    let sandbox = Sandbox::new();
    let home = sandbox.path().join("daemon");
    fs::create_dir_all(&home).unwrap();
    let told = sandbox.path().join("told");
    let hook = sandbox.write("hook", &format!("#!/bin/sh\ncat > {}\n", told.display()));
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = format!(
        "schema = 1\n[retention]\nfree_gib = 0\n[hooks]\ncommand = [{hook:?}]\n\
         webhook = \"http://127.0.0.1:{port}/told\"\n"
    );
    fs::write(home.join("sweepd.toml"), config).unwrap();
    let daemon = Daemon::start_in(&home);
    let file = sandbox.write("sweep.toml", &two_variants());
    let run = daemon.submit(&file, &json!({}));
    // The first call is turned away: it is made again.
    let mut calls = Vec::new();
    for answer in ["503 Busy", "200 OK"] {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 65536];
        let mut text = String::new();
        while !text.contains("run_ended") {
            let count = stream.read(&mut bytes).unwrap();
            assert!(count > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        calls.push(text);
        let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).unwrap();
    }
    assert!(calls.iter().all(|call| call.contains(&run)), "{calls:?}");
    let outbox = daemon.state().join("outbox");
    eventually(Duration::from_secs(20), "everything is delivered", || {
        (fs::read_dir(&outbox).unwrap().count() == 0).then_some(())
    });
    let message: Value = serde_json::from_slice(&fs::read(&told).unwrap()).unwrap();
    assert_eq!(message["status"]["trials_completed"], 2, "{message:#}");
}

#[test]
fn the_api_on_tcp_asks_for_its_token() {
    let sandbox = Sandbox::new();
    let home = sandbox.path().join("daemon");
    fs::create_dir_all(&home).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let token = sandbox.write("token", "a-token-of-some-length\n");
    let config = format!("schema = 1\n[tcp]\nport = {port}\ntoken_file = {token:?}\n");
    fs::write(home.join("sweepd.toml"), config).unwrap();
    let _daemon = Daemon::start_in(&home);
    let ask = |token: &str| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let head = format!(
            "POST /v1/queue/pause HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Bearer {token}\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(ask("wrong"), "401");
    assert_eq!(ask("a-token-of-some-length"), "200");
}

#[test]
fn the_examples_of_the_readme_work_as_printed() {
    let curl = std::process::Command::new("curl").arg("--version").output();
    if !curl.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no curl on this machine");
        return;
    }
    let readme = fs::read_to_string(crate::harness::repository().join("README.md")).unwrap();
    let examples: Vec<&str> =
        readme.lines().filter(|line| line.contains("curl --unix-socket")).collect();
    assert!(examples.len() >= 5, "{examples:?}");
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox);
    for example in examples {
        let output = std::process::Command::new("sh")
            .args(["-c", &example.replacen("curl", "curl -sS --fail-with-body", 1)])
            .env("SWEEPD_SOCKET", daemon.socket())
            .output()
            .unwrap();
        assert!(output.status.success(), "{example}: {}", said(&output));
        assert!(!output.stdout.is_empty(), "{example}");
    }
}

#[test]
fn completions_and_the_manual_come_from_the_commands_themselves() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = sandbox.command(&["completions", shell]).output().unwrap();
        assert!(output.status.success() && said(&output).contains("submit"), "{shell}");
    }
    let pages = sandbox.path().join("man");
    fs::create_dir(&pages).unwrap();
    let output = sandbox.command(&["man", pages.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(pages.join("sweepd.1").exists() && pages.join("sweepd-submit.1").exists());
}

#[test]
fn a_daemon_with_roots_rights_asks_whose_engines_get() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: this is not root");
        return;
    }
    let sandbox = Sandbox::new();
    let config = sandbox.write("sweepd.toml", "schema = 1\n");
    for text in ["schema = 1\n", "schema = 1\nrun_as = \"root\"\n"] {
        fs::write(&config, text).unwrap();
        let mut command = sandbox.command(&["daemon", "--config", config.to_str().unwrap()]);
        let output = command.arg("--runtime").arg(sandbox.path().join("run")).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("must not run as root"), "{}", said(&output));
    }
}
