//! Engine and client on their own CPUs, as the kernel itself tells it.

use crate::harness::{Sandbox, eventually, marked_pids, sweep, variant};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// The CPUs on which this test may run.
pub(crate) fn own() -> Vec<u32> {
    let listed = allowed("self").unwrap();
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<u32>().unwrap()..=last.parse().unwrap()
    };
    listed.split(',').flat_map(range).collect()
}

/// Where the process may run, as the kernel writes it.
pub(crate) fn allowed(pid: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    Some(list.trim().to_owned())
}

/// The load processes below a `sweepd run`, and where each of their threads may run.
fn clients(sweepd: u32) -> Vec<String> {
    let is_child = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        parent == Some(&sweepd.to_string()) && line.split(|b| *b == 0).nth(1) == Some(b"__load")
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().into_string().ok());
    let threads = |pid: String| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        tasks.filter_map(move |task| allowed(&format!("{pid}/task/{}", task.file_name().to_str()?)))
    };
    pids.filter(|pid| is_child(pid)).flat_map(threads).collect()
}

#[test]
fn engine_and_client_stay_on_their_cpus() {
    let cpus = own();
    let [Some(first), Some(last)] = [cpus.first(), cpus.last()].map(|cpu| cpu.copied()) else {
        panic!("{cpus:?}");
    };
    let sandbox = Sandbox::new();
    let section = match first == last {
        // With one CPU they share it.
        true => format!("[cpus]\ntrial = '{first}'\n"),
        false => format!("[cpus]\nengine = '{last}'\nclient = '{first}'\n"),
    };
    let text = sweep(&variant("good", &[])).replace("\"200ms\"", "\"3s\"");
    let mut running = sandbox.start(&format!("{text}\n{section}"));
    running.until_it_says("phase 2-users");
    let manifest = sandbox.only_run().unwrap().join("trials/01-good/attempt-1/manifest.json");
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    assert_eq!(manifest["cpus"]["engine"], last.to_string(), "{manifest:#}");
    assert_eq!(manifest["cpus"]["client"], first.to_string());
    let engine = marked_pids(manifest["marker"].as_str().unwrap());
    let engine: Vec<_> = engine.iter().filter_map(|pid| allowed(&pid.to_string())).collect();
    assert!(
        !engine.is_empty() && engine.iter().all(|list| *list == last.to_string()),
        "{engine:?}"
    );
    let sweepd = running.child.id();
    let client = eventually(Duration::from_secs(10), "a load process runs", || {
        Some(clients(sweepd)).filter(|threads| threads.len() > 1)
    });
    assert!(client.iter().all(|list| *list == first.to_string()), "{client:?}");
    // Neither sweepd nor the guard is bound.
    for pid in [i32::try_from(sweepd).unwrap(), running.guard()] {
        assert_eq!(allowed(&pid.to_string()), allowed("self"));
    }
    let status = running.wait(Duration::from_secs(60));
    let run = running.run(status).expect_exit(0);
    run.expect_measured("01-good");
    let said = match first == last {
        true => format!("engine and client together {first}"),
        false => format!("engine {last}, client {first}"),
    };
    assert!(run.report().contains(&said), "{}", run.report());
}

#[test]
fn without_the_section_nothing_is_bound_and_the_files_say_so() {
    let sandbox = Sandbox::new();
    let run = sandbox.run(&sweep(&variant("good", &[]))).expect_exit(0);
    let manifest = run.json("trials/01-good/attempt-1/manifest.json");
    assert_eq!(manifest["cpus"], Value::Null, "{manifest:#}");
    assert!(manifest.as_object().unwrap().contains_key("cpus"));
    assert!(run.report().contains("nothing was bound to any"), "{}", run.report());
}

#[test]
fn cpus_that_are_not_there_are_refused_at_check() {
    let sandbox = Sandbox::new();
    let text = format!("{}\n[cpus]\nengine = '1000-1001'\n", sweep(&variant("good", &[])));
    let file = sandbox.write("sweep.toml", &text);
    let output = sandbox.command(&["check", file.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("this machine has no CPU 1000-1001"), "{said}");
    assert!(said.contains("help: it has CPUs "), "{said}");
}

/// The kernel's refusal ends the phase with its reason.
#[test]
fn a_client_that_cannot_be_bound_says_so() {
    let mut child = Sandbox::new()
        .command(&["__load", "--cpus=1023"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let reason = said["reason"].as_str().unwrap();
    assert_eq!((said["event"].as_str(), output.status.code()), (Some("broken"), Some(1)));
    assert!(reason.starts_with("the load generator cannot be bound to CPUs 1023"), "{reason}");
}

/// A CPU that was there at `check` and is gone at the launch: the guard is told to use one that no
/// kernel has.
#[test]
fn an_engine_that_cannot_be_bound_is_not_launched() {
    let reason = launch_on(Path::new("/bin/true"), "1023");
    assert!(reason.contains("cannot start /bin/true: it cannot be bound to CPUs 1023"), "{reason}");
}

/// What a guard says that is to launch this program on these CPUs.
fn launch_on(program: &Path, cpus: &str) -> String {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    let sandbox = Sandbox::new();
    let spec = serde_json::json!({
        "marker": "it/cpus", "argv": [program], "env": [], "cwd": sandbox.path(),
        "groups": { "unified": null, "memory_v1": null }, "run_as": null, "cpus": cpus,
        "secrets": [], "log": sandbox.path().join("engine.log"), "log_head_bytes": 1024,
        "log_tail_bytes": 1024, "scan": { "rules": [], "marks": [], "harmless": [] }, "stop_signal": 15, "grace_ms": 1000,
        "kill_ms": 1000,
    });
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut command = sandbox.command(&["__guard"]);
    let mut guard = command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).spawn().unwrap();
    drop(command);
    // The greeting that carries descriptors, here none.
    ours.write_all(b"k").unwrap();
    ours.write_all(format!("{spec}\n").as_bytes()).unwrap();
    let mut said = String::new();
    ours.read_to_string(&mut said).unwrap();
    guard.wait().unwrap();
    said
}
