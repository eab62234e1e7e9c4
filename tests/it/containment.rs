//! What holds an engine: its groups, its rights, its secrets, and what it leaves behind.
//!
//! Where the machine lacks a means, the test says what was skipped.

use crate::harness::{Run, SWEEPD, Sandbox, eventually, repository, sweep, walk};
use crate::nvml::{StandIn, now};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SECRET: &str = "hf_PlantedSecretOfTheTest42";

/// An engine whose program is a script that ends by becoming the simulated engine.
fn shelled(sandbox: &Sandbox, script: &str) {
    let program = sandbox.write("engine", &format!("#!/bin/sh\n{script}\nexec \"$@\"\n"));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let sim = fs::read_to_string(repository().join("engines/sim.toml")).unwrap();
    let words = "\"{sweepd}\", \"sim\", \"--host\"";
    let text = sim.replacen(words, &format!("\"{}\", {words}", program.display()), 1);
    assert_ne!(sim, text, "engines/sim.toml has another command");
    sandbox.write("config/sweepd/engines/shelled.toml", &text);
}

fn variant(extra: &str) -> String {
    format!(
        "[[variants]]\nname = \"one\"\nengine = \"shelled\"\nparams = {{ step-ms = 1.0 }}\n{extra}\n"
    )
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[track_caller]
fn expect_nowhere(run: &Run, secret: &str) {
    for path in walk(&run.dir) {
        let bytes = fs::read(&path).unwrap();
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{} holds the secret", path.display());
    }
}

#[test]
fn a_planted_secret_is_in_no_file_of_the_run() {
    let sandbox = Sandbox::new();
    let say = r#"echo "token is $HF_TOKEN"; echo "{\"token\": \"$HF_TOKEN\"}" >&2"#;
    shelled(&sandbox, say);
    let file = sandbox.write("sweep.toml", &sweep(&variant("env_pass = [\"HF_TOKEN\"]")));
    let mut command = sandbox.command(&["run", file.to_str().unwrap()]);
    let output = command.env("HF_TOKEN", SECRET).output().unwrap();
    let run = sandbox.ended(output).expect_exit(0);
    run.expect_measured("01-one");
    let log = run.log("01-one");
    assert!(log.contains("token is [redacted]"), "the engine did not get it: {log}");
    let manifest = run.json("trials/01-one/attempt-1/manifest.json");
    assert_eq!(manifest["env"]["HF_TOKEN"], "[redacted]", "{manifest:#}");
    expect_nowhere(&run, SECRET);
    run.expect_nothing_left();
}

#[test]
fn a_secret_in_a_sweep_file_is_refused() {
    let sandbox = Sandbox::new();
    shelled(&sandbox, "true");
    let text = sweep(&variant(&format!("env = {{ HF_TOKEN = \"{SECRET}\" }}")));
    let file = sandbox.write("sweep.toml", &text);
    let output = sandbox.command(&["check", file.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("env_pass = [\"HF_TOKEN\"]"), "{said}");
}

#[test]
fn an_engine_over_its_memory_is_the_kernels_work_and_is_called_so() {
    let sandbox = Sandbox::new();
    // `tail` keeps a line without an end in memory.
    shelled(&sandbox, "exec tail /dev/zero");
    let text = format!("{}\n[containment]\nmemory_max = \"64MiB\"\n", sweep(&variant("")));
    let run = sandbox.run(&text).expect_exit(1);
    let outcome = run.trial("01-one");
    if outcome["reason"].as_str().is_some_and(|reason| reason.contains("cannot be held")) {
        eprintln!("skipped: {}", outcome["reason"]);
        return;
    }
    let failure = &outcome["failure"];
    assert_eq!(failure["kind"], "host_oom", "{outcome:#}");
    let attempt = run.attempt("01-one");
    assert!(attempt["kernel"]["oom_kills"].as_u64().unwrap() >= 1, "{attempt:#}");
    assert_eq!(attempt["teardown"]["verdict"], "clean", "{attempt:#}");
    expect_groups_gone(&run);
    run.expect_nothing_left();
}

#[track_caller]
fn expect_groups_gone(run: &Run) {
    let manifest = run.json("trials/01-one/attempt-1/manifest.json");
    for group in manifest["containment"]["groups"].as_object().unwrap().values() {
        let Some(path) = group.as_str() else { continue };
        assert!(!Path::new(path).exists(), "{path} is left");
    }
}

#[test]
fn the_manifest_says_what_holds_the_engine_and_the_groups_go_with_it() {
    let sandbox = Sandbox::new();
    shelled(
        &sandbox,
        "setsid sleep 600 & cat /proc/self/cgroup; grep -E '^(Seccomp|NoNew)' /proc/self/status; ulimit -c",
    );
    let run = sandbox.run(&sweep(&variant(""))).expect_exit(0);
    run.expect_measured("01-one");
    let manifest = run.json("trials/01-one/attempt-1/manifest.json");
    let held = &manifest["containment"];
    let means: Vec<_> =
        held["means"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
    assert!(means.starts_with(&["session", "subreaper", "marker"]), "{held:#}");
    match held["groups"]["unified"].as_str() {
        Some(group) => {
            assert_eq!(
                (&held["kill"], &held["populated"]),
                (&true.into(), &true.into()),
                "{held:#}"
            );
            let name = group.rsplit('/').next().unwrap();
            // The shell's child was in it before it said its first word.
            assert!(run.log("01-one").contains(name), "{}", run.log("01-one"));
        }
        None => {
            assert!(held["without"].as_str().is_some_and(|why| !why.is_empty()), "{held:#}");
            eprintln!("skipped: no control group of the unified hierarchy: {}", held["without"]);
        }
    }
    expect_groups_gone(&run);
    run.expect_nothing_left();
}

#[test]
fn an_engine_runs_with_another_users_rights() {
    if !is_root() {
        eprintln!("skipped: only root can hand out another user's rights");
        return;
    }
    let sandbox = Sandbox::new();
    // The user must be able to reach the executable.
    fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let sweepd = sandbox.path().join("sweepd");
    fs::hard_link(SWEEPD, &sweepd).or_else(|_| fs::copy(SWEEPD, &sweepd).map(drop)).unwrap();
    shelled(&sandbox, "echo user=$(id -un) groups=$(id -G) home=$HOME; echo anew > /dev/stderr");
    let text = format!("{}\n[containment]\nrun_as = \"nobody\"\n", sweep(&variant("")));
    let mut running = sandbox.start_with(&sweepd, &text);
    let status = running.wait(Duration::from_secs(120));
    let run = running.run(status).expect_exit(0);
    run.expect_measured("01-one");
    let log = run.log("01-one");
    assert!(log.contains("user=nobody groups=65534 home=/nonexistent"), "{log}");
    assert!(log.contains("anew"), "{log}");
    run.expect_nothing_left();
}

#[test]
fn shared_memory_goes_if_it_is_provably_the_engines_and_is_listed_else() {
    let sandbox = Sandbox::new();
    let me = std::process::id();
    let unproven = PathBuf::from(format!("/dev/shm/sweepd-it-unproven-{me}x"));
    let semaphore = format!("sem.sweepd-it-{me}x");
    // What a worker that was killed leaves; Python's semaphores are mapped under another name.
    let worker = format!(
        "import _multiprocessing, time\n\
         kept = _multiprocessing.SemLock(1, 1, 1, '/{}', False)\ntime.sleep(600)",
        semaphore.trim_start_matches("sem.")
    );
    let script = format!(
        "echo 12345 > /dev/shm/sweepd-it-$$-{me}x-proven\n\
         python3 -I -c \"{worker}\" </dev/null >/dev/null 2>&1 &\n\
         while ! [ -e /dev/shm/{semaphore} ] || ! [ -e {} ]; do sleep 0.01; done",
        unproven.display()
    );
    shelled(&sandbox, &script);
    let mut running = sandbox.start(&sweep(&variant("")));
    // A stranger's, made while the engine runs.
    eventually(Duration::from_secs(60), "the engine's semaphore", || {
        Path::new("/dev/shm").join(&semaphore).exists().then_some(())
    });
    fs::write(&unproven, "1").unwrap();
    let status = running.wait(Duration::from_secs(120));
    let run = running.run(status);
    let is_left = unproven.exists();
    fs::remove_file(&unproven).ok();
    let run = run.expect_exit(0);
    let teardown = &run.attempt("01-one")["teardown"];
    let names = |which: &str| -> Vec<String> {
        let list = teardown["shared_memory"][which].as_array().unwrap();
        list.iter().map(|segment| segment["name"].as_str().unwrap().to_owned()).collect()
    };
    let removed = names("removed");
    let proven = removed.iter().find(|name| name.ends_with("-proven")).expect("removed");
    assert!(!Path::new("/dev/shm").join(proven).exists());
    assert!(removed.contains(&semaphore), "{teardown:#}");
    let unproven = unproven.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(names("left").contains(&unproven) && is_left, "{teardown:#}");
}

/// A group of the older freezer: what is frozen in it, SIGKILL does not end.
struct Freezer(PathBuf);

impl Freezer {
    fn new() -> Option<Self> {
        let path =
            PathBuf::from(format!("/sys/fs/cgroup/freezer/sweepd-it-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        path.join("freezer.state").exists().then_some(Self(path))
    }

    fn freeze(&self, pid: i32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
        fs::write(self.0.join("freezer.state"), "FROZEN").unwrap();
        let state = || fs::read_to_string(self.0.join("freezer.state")).ok();
        let frozen = || state().is_some_and(|state| state.trim() == "FROZEN").then_some(());
        eventually(Duration::from_secs(10), "it is frozen", frozen);
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        fs::write(self.0.join("freezer.state"), "THAWED").ok();
        let gone = || fs::remove_dir(&self.0).is_ok().then_some(());
        eventually(Duration::from_secs(20), "the frozen process dies when it thaws", gone);
    }
}

#[test]
fn what_sigkill_does_not_end_is_called_unkillable_and_the_sweep_goes_on() {
    let Some(freezer) = Freezer::new() else {
        eprintln!("skipped: no freezer group can be made here");
        return;
    };
    let sandbox = Sandbox::new();
    shelled(&sandbox, "true");
    // The driver shows nothing of it; a GPU is not free for that.
    StandIn::new(&sandbox, &format!("{}gpu\nuuid GPU-frozen\nmem_used_mib 300\n", now()));
    let text = format!("{}{}[gpu]\n", variant(""), crate::harness::variant("two", &[]));
    let text = sweep(&text).replace("verify = \"5s\"", "verify = \"2s\"");
    // Long enough to be caught in it.
    let text = text.replace("min_duration = \"200ms\"", "min_duration = \"3s\"");
    let mut running = sandbox.start(&text);
    running.until_it_says("phase 2-users");
    let guard = running.guard();
    let frozen = eventually(Duration::from_secs(10), "the engine runs", || {
        let children = fs::read_to_string(format!("/proc/{guard}/task/{guard}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    });
    freezer.freeze(frozen);
    let status = running.wait(Duration::from_secs(120));
    let run = running.run(status).expect_exit(1);
    // Whichever variant was caught, the other one is measured.
    let (caught, other) = match run.attempt("01-one")["teardown"]["verdict"].as_str() {
        Some("unkillable") => ("01-one", "01-two"),
        _ => ("01-two", "01-one"),
    };
    let teardown = &run.attempt(caught)["teardown"];
    assert_eq!(teardown["verdict"], "unkillable", "{teardown:#}");
    let left = &teardown["left"][0];
    assert_eq!(left["pid"], frozen, "{teardown:#}");
    assert!(left["status"].as_array().is_some_and(|lines| !lines.is_empty()), "{teardown:#}");
    assert_eq!(run.trial(other)["ending"], "completed", "{:#}", run.trial(other));
    let gpu = run.json(&format!("trials/{caught}/attempt-1/gpu.json"));
    let why = format!("SIGKILL did not end pid {frozen}");
    assert!(gpu["not_released"].as_str().is_some_and(|text| text.contains(&why)), "{gpu:#}");
    let timeline = run.attempt(caught)["timeline"].to_string();
    assert!(timeline.contains("GPU-frozen is quarantined"), "{timeline}");
    drop(freezer);
    let gone = || (!Path::new(&format!("/proc/{frozen}")).exists()).then_some(());
    eventually(Duration::from_secs(20), "the frozen process is gone", gone);
}
