//! Trials that own GPUs, on the stand-in: had alone, clean, set, watched and given back.

use crate::daemon::Daemon;
use crate::harness::{Run, Running, Sandbox, eventually, sweep, variant};
use crate::nvml::{StandIn, now};
use serde_json::Value;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// One GPU, on which a pinned engine shows up by itself.
fn one(uuid: &str) -> String {
    format!("{}gpu\nuuid {uuid}\nmem_used_mib 300\nprocess_engine 9000\npower 200\n", now())
}

fn trials(gpu: &str, variants: &str) -> String {
    format!("{}\n[gpu]\nclean_within = \"3s\"\n{gpu}\n", sweep(variants))
}

fn good() -> String {
    variant("good", &[])
}

/// A good variant whose phases last so long that something can happen in them.
fn long(name: &str) -> String {
    variant(name, &[])
}

fn lasting(gpu: &str, variants: &str) -> String {
    trials(gpu, variants).replace("\"200ms\"", "\"4s\"")
}

fn gpu_json(run: &Run, trial: &str) -> Value {
    run.json(&format!("trials/{trial}/attempt-1/gpu.json"))
}

fn timeline(run: &Run, trial: &str) -> String {
    run.attempt(trial)["timeline"].to_string()
}

/// A process of nobody's trial.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Self(Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_trial_owns_its_gpu_and_gives_it_back() {
    let sandbox = Sandbox::new();
    StandIn::new(&sandbox, &format!("{}gpu\nuuid GPU-1other\n", one("GPU-1own")));
    let run = sandbox.run(&trials("devices = ['GPU-1own']", &good())).expect_exit(0);
    run.expect_measured("01-good");
    let gpu = gpu_json(&run, "01-good");
    assert_eq!(gpu["placement"], "verified", "{gpu:#}");
    assert_eq!(gpu["gpus"][0]["uuid"], "GPU-1own");
    assert_eq!(gpu["foreign"], Value::Array(vec![]));
    assert_eq!(gpu["not_released"], Value::Null);
    let manifest = run.json("trials/01-good/attempt-1/manifest.json");
    assert_eq!(manifest["env"]["CUDA_VISIBLE_DEVICES"], "GPU-1own", "{manifest:#}");
    assert_eq!(manifest["env"]["CUDA_DEVICE_ORDER"], "PCI_BUS_ID");
    run.expect_nothing_left();
}

#[test]
fn an_engine_that_wants_indices_is_pinned_by_them() {
    let sandbox = Sandbox::new();
    StandIn::new(&sandbox, &format!("gpu\nuuid GPU-2first\n{}", one("GPU-2own")));
    let file = std::fs::read_to_string(crate::harness::repository().join("engines/sim.toml"));
    let file = format!("{}\n[gpu]\npin = \"index\"\n", file.unwrap());
    sandbox.write("config/sweepd/engines/mine.toml", &file);
    let mine = good().replace("\"sim\"", "\"mine\"");
    let run = sandbox.run(&trials("devices = [1]", &mine)).expect_exit(0);
    let manifest = run.json("trials/01-good/attempt-1/manifest.json");
    assert_eq!(manifest["env"]["CUDA_VISIBLE_DEVICES"], "1", "{manifest:#}");
    assert_eq!(gpu_json(&run, "01-good")["placement"], "verified");
}

#[test]
fn an_engine_on_another_gpu_than_its_own_fails() {
    let sandbox = Sandbox::new();
    let script = one("GPU-3own").replace("process_engine 9000\n", "");
    // Whatever the variable says, the driver shows this engine's processes on the other GPU.
    let script = format!("{script}gpu\nuuid GPU-3other\nengine_of GPU-3own\nprocess_engine 9000\n");
    StandIn::new(&sandbox, &script);
    let run = sandbox.run(&lasting("devices = ['GPU-3own']", &long("bad"))).expect_exit(1);
    let outcome = run.trial("01-bad");
    assert_eq!(outcome["failure"]["kind"], "bad_config", "{outcome:#}");
    assert!(outcome["failure"].to_string().contains("GPU-3other"), "{outcome:#}");
    assert_eq!(gpu_json(&run, "01-bad")["placement"], "elsewhere");
}

#[test]
fn a_foreign_process_is_waited_for() {
    let sandbox = Sandbox::new();
    let stranger = Stranger::new();
    let busy = format!("{}process {} 4000\n", one("GPU-4a"), stranger.pid());
    let standin = StandIn::new(&sandbox, &busy);
    let mut running = sandbox.start(&trials("wait = \"60s\"", &good()));
    running.until_it_says(&format!("pid {}", stranger.pid()));
    standin.script(&one("GPU-4a"));
    let status = running.wait(Duration::from_secs(60));
    let run = running.run(status).expect_exit(0);
    run.expect_measured("01-good");
    assert!(timeline(&run, "01-good").contains("sleep 600"), "{}", timeline(&run, "01-good"));
}

#[test]
fn a_foreign_process_is_refused_where_the_sweep_says_so() {
    let sandbox = Sandbox::new();
    let stranger = Stranger::new();
    StandIn::new(&sandbox, &format!("{}process {} 4000\n", one("GPU-5a"), stranger.pid()));
    let run = sandbox.run(&trials("foreign = \"refuse\"", &good())).expect_exit(1);
    let outcome = run.trial("01-good");
    assert_eq!(outcome["ending"], "broken", "{outcome:#}");
    let reason = outcome["reason"].as_str().unwrap();
    assert!(reason.contains(&format!("pid {}", stranger.pid())), "{reason}");
    assert!(reason.contains("sleep 600"), "{reason}");
}

#[test]
fn a_foreign_process_during_a_trial_is_told_with_pid_and_time() {
    let sandbox = Sandbox::new();
    let standin = StandIn::new(&sandbox, &one("GPU-6a"));
    let mut running = sandbox.start(&lasting("", &long("good")));
    running.until_it_says("phase 4-users");
    let stranger = Stranger::new();
    standin.script(&format!("{}process {} 4000\n", one("GPU-6a"), stranger.pid()));
    let status = running.wait(Duration::from_secs(60));
    let run = running.run(status).expect_exit(0);
    let gpu = gpu_json(&run, "01-good");
    assert_eq!(gpu["foreign"][0]["pid"], stranger.pid(), "{gpu:#}");
    assert_eq!(gpu["foreign"][0]["command"], "sleep");
    let words = format!("a foreign process is on GPU-6a: pid {}", stranger.pid());
    assert!(timeline(&run, "01-good").contains(&words), "{}", timeline(&run, "01-good"));
    assert_eq!(run.attempt("01-good")["teardown"]["verdict"], "clean");
}

#[test]
fn memory_that_does_not_come_back_quarantines_the_gpu() {
    let sandbox = Sandbox::new();
    let standin = StandIn::new(&sandbox, &one("GPU-7a"));
    let both = format!("{}{}", good(), variant("next", &[]));
    let text = trials("max_start_memory_mib = 1000", &both).replace("seed = 7", "seed = 8");
    let mut running = sandbox.start(&text);
    running.until_it_says("phase 4-users");
    standin.script(&one("GPU-7a").replace("mem_used_mib 300", "mem_used_mib 7300"));
    let status = running.wait(Duration::from_secs(60));
    let run = running.run(status).expect_exit(1);
    let [first, second] = if run.trial("01-good")["ending"] == "completed" {
        ["01-good", "01-next"]
    } else {
        ["01-next", "01-good"]
    };
    let teardown = &run.attempt(first)["teardown"];
    assert_eq!(teardown["verdict"], "gpu_not_released", "{teardown:#}");
    assert!(teardown["detail"].as_str().unwrap().contains("7300 MiB"), "{teardown:#}");
    let reason = run.trial(second)["reason"].to_string();
    assert!(reason.contains("quarantined") && reason.contains("7300 MiB"), "{reason}");
    let shown = sandbox.command(&["gpu"]).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("quarantined"));
    // Once it is clean again, nobody has to lift anything.
    standin.script(&one("GPU-7a"));
    let later = Sandbox::new();
    standin.serve(&later);
    later.set("SWEEPD_RUNTIME_DIR", sandbox.path().join("runtime"));
    let run = later.run(&trials("", &good())).expect_exit(0);
    assert!(timeline(&run, "01-good").contains("its quarantine is lifted"));
    let shown = sandbox.command(&["gpu"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("quarantined"));
}

#[test]
fn a_gpu_lost_in_mid_trial_fails_the_trial_and_says_why() {
    let sandbox = Sandbox::new();
    let standin = StandIn::new(&sandbox, &one("GPU-8a"));
    let mut running = sandbox.start(&lasting("", &long("bad")));
    running.until_it_says("phase 4-users");
    standin.script(&format!("{}xid 1 79\nerr all 15\n", one("GPU-8a")));
    let status = running.wait(Duration::from_secs(60));
    let run = running.run(status).expect_exit(1);
    let outcome = run.trial("01-bad");
    assert_eq!(outcome["failure"]["kind"], "xid_or_hw_fault", "{outcome:#}");
    assert_eq!(outcome["failure"]["during"], "phase 4-users");
    assert!(outcome["failure"].to_string().contains("GPU-8a"), "{outcome:#}");
    assert_eq!(run.attempt("01-bad")["teardown"]["verdict"], "gpu_not_released");
    run.expect_nothing_left();
}

#[test]
fn a_driver_call_that_hangs_for_a_minute_costs_samples_and_nothing_else() {
    let sandbox = Sandbox::new();
    let standin = StandIn::new(&sandbox, &one("GPU-9a"));
    let text = trials("", &long("good")).replace("\"200ms\"", "\"8s\"");
    let mut running = sandbox.start(&text);
    running.until_it_says("phase 2-users");
    let began = std::time::Instant::now();
    standin.script(&format!("{}delay nvmlDeviceGetTemperature 60000\n", one("GPU-9a")));
    running.until_it_says("phase 4-users");
    standin.script(&one("GPU-9a"));
    let status = running.wait(Duration::from_secs(60));
    assert!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());
    let run = running.run(status).expect_exit(0);
    run.expect_measured("01-good");
    let gpu = gpu_json(&run, "01-good");
    let why = gpu["gaps"][0]["why"].as_str().unwrap();
    assert!(why.contains("does not return") && why.contains("helper pid"), "{gpu:#}");
    run.expect_nothing_left();
}

#[test]
fn settings_are_made_read_back_and_put_back() {
    let sandbox = Sandbox::new();
    let standin = StandIn::new(&sandbox, &one("GPU-10a"));
    let settings =
        "lock_clocks_mhz = 1410\npower_limit_w = 250\npersistence = true\nexclusive = true";
    let run = sandbox.run(&trials(settings, &good())).expect_exit(0);
    run.expect_measured("01-good");
    assert_eq!(
        standin.changes(),
        [
            "GPU-10a persistence 1",
            "GPU-10a compute_mode 3",
            "GPU-10a power_limit_w 250",
            "GPU-10a locked_gpu 1410 1410",
            "GPU-10a locked_gpu none",
            "GPU-10a power_limit_w 300",
            "GPU-10a compute_mode 0",
            "GPU-10a persistence 0",
        ]
    );
    let gpu = gpu_json(&run, "01-good");
    assert_eq!(gpu["gpus"][0]["power_limit_w"], 250.0, "{gpu:#}");
    assert_eq!(gpu["settings"].as_array().unwrap().len(), 4);
    assert_eq!(std::fs::read_dir(sandbox.path().join("runtime/intents")).unwrap().count(), 0);
}

#[test]
fn settings_that_are_not_permitted_or_not_obeyed_are_told_and_undone() {
    for (fault, word) in [
        ("err nvmlDeviceSetGpuLockedClocks 4\n", "needs root"),
        ("power_limit_ignored 1\n", "the card has 300 W"),
    ] {
        let sandbox = Sandbox::new();
        let standin = StandIn::new(&sandbox, &format!("{}{fault}", one("GPU-11a")));
        let settings = "lock_clocks_mhz = 1410\npower_limit_w = 250";
        let run = sandbox.run(&trials(settings, &good())).expect_exit(1);
        let reason = run.trial("01-good")["reason"].to_string();
        assert!(reason.contains(word), "{reason}");
        let last = standin.changes().pop().unwrap();
        assert_eq!(last, "GPU-11a power_limit_w 300");
    }
}

#[test]
fn clocks_that_a_killed_sweepd_left_locked_are_unlocked_at_the_next_start() {
    let sandbox = Sandbox::new();
    let standin = StandIn::new(&sandbox, &one("GPU-12a"));
    let mut running = sandbox.start(&lasting("lock_clocks_mhz = 1410", &long("good")));
    running.until_it_says("phase 2-users");
    let leased = |sandbox: &Sandbox| {
        let shown = sandbox.command(&["gpu", "--json"]).output().unwrap();
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        shown["gpus"][0]["lease"].clone()
    };
    assert_eq!(leased(&sandbox)["trial"], "01-good");
    running.signal(9);
    running.wait(Duration::from_secs(10));
    assert_eq!(standin.changes(), ["GPU-12a locked_gpu 1410 1410"]);
    // The guard ends the engine, and with it the lease.
    eventually(Duration::from_secs(20), "the lease ends", || {
        leased(&sandbox).is_null().then_some(())
    });
    let dir = sandbox.only_run().unwrap();
    let next = sandbox.command(&["run", "--resume", dir.to_str().unwrap()]).output().unwrap();
    assert!(next.status.success(), "{}", String::from_utf8_lossy(&next.stderr));
    let said = String::from_utf8_lossy(&next.stderr).into_owned();
    assert!(said.contains("put back"), "{said}");
    let changes = standin.changes();
    assert_eq!(changes[1], "GPU-12a locked_gpu none", "{changes:?}");
    assert_eq!(changes.last().unwrap(), "GPU-12a locked_gpu none");
}

#[test]
fn clocks_that_a_killed_sweepd_left_locked_are_unlocked_when_a_daemon_starts() {
    let sandbox = Sandbox::new();
    let standin = StandIn::new(&sandbox, &one("GPU-14a"));
    let mut running = sandbox.start(&lasting("lock_clocks_mhz = 1410", &long("good")));
    running.until_it_says("phase 2-users");
    running.signal(9);
    running.wait(Duration::from_secs(10));
    assert_eq!(standin.changes(), ["GPU-14a locked_gpu 1410 1410"]);
    let home = sandbox.path().join("daemon");
    fs::create_dir_all(&home).unwrap();
    let mut command = sandbox.command(&["daemon", "--engines-as-root"]);
    command.arg("--state").arg(home.join("state")).arg("--runtime").arg(home.join("run"));
    let daemon = Daemon::spawn_command(&home, command);
    daemon.until_ready();
    assert_eq!(standin.changes(), ["GPU-14a locked_gpu 1410 1410", "GPU-14a locked_gpu none"]);
}

#[test]
fn settings_are_put_back_on_sigterm() {
    let sandbox = Sandbox::new();
    let standin = StandIn::new(&sandbox, &one("GPU-13a"));
    let mut running = sandbox.start(&lasting("power_limit_w = 250", &long("good")));
    running.until_it_says("phase 2-users");
    running.signal(15);
    running.wait(Duration::from_secs(30));
    assert_eq!(standin.changes(), ["GPU-13a power_limit_w 250", "GPU-13a power_limit_w 300"]);
}

/// Two sweeps in one sandbox share their runtime folder and not their runs.
fn start_two<'s>(sandboxes: [&'s Sandbox; 2], texts: [String; 2]) -> [Running<'s>; 2] {
    let runtime = sandboxes[0].path().join("runtime");
    sandboxes[1].set("SWEEPD_RUNTIME_DIR", runtime);
    let [first, second] = texts;
    [sandboxes[0].start(&first), sandboxes[1].start(&second)]
}

#[test]
fn two_sweeps_that_want_one_gpu_have_it_one_after_the_other() {
    let (one_sandbox, two_sandbox) = (Sandbox::new(), Sandbox::new());
    let standin = StandIn::new(&one_sandbox, &one("GPU-14a"));
    standin.serve(&two_sandbox);
    let text = || lasting("wait = \"120s\"", &long("good"));
    let [mut first, mut second] = start_two([&one_sandbox, &two_sandbox], [text(), text()]);
    let statuses = [&mut first, &mut second].map(|run| run.wait(Duration::from_secs(90)));
    let runs = [first.run(statuses[0]).expect_exit(0), second.run(statuses[1]).expect_exit(0)];
    let waited =
        runs.iter().filter(|run| timeline(run, "01-good").contains("is leased by run it-"));
    assert_eq!(waited.count(), 1, "one of them waits for the other");
    for run in &runs {
        run.expect_measured("01-good");
        assert_eq!(gpu_json(run, "01-good")["foreign"], Value::Array(vec![]));
    }
}

#[test]
fn leases_of_two_gpus_that_cross_lock_nobody_out() {
    let (one_sandbox, two_sandbox) = (Sandbox::new(), Sandbox::new());
    let two = format!("{}{}", one("GPU-x"), one("GPU-y").replacen(&now(), "", 1));
    let standin = StandIn::new(&one_sandbox, &two);
    standin.serve(&two_sandbox);
    let text = |devices: &str| trials(&format!("wait = \"120s\"\ndevices = {devices}"), &good());
    let texts = [text("['GPU-x', 'GPU-y']"), text("['GPU-y', 'GPU-x']")];
    let [mut first, mut second] = start_two([&one_sandbox, &two_sandbox], texts);
    let statuses = [&mut first, &mut second].map(|run| run.wait(Duration::from_secs(90)));
    for run in [first.run(statuses[0]), second.run(statuses[1])] {
        let run = run.expect_exit(0);
        let gpu = gpu_json(&run, "01-good");
        assert_eq!(gpu["placement"], "verified", "{gpu:#}");
        assert_eq!(gpu["gpus"].as_array().unwrap().len(), 2);
        let manifest = run.json("trials/01-good/attempt-1/manifest.json");
        assert_eq!(manifest["env"]["CUDA_VISIBLE_DEVICES"], "GPU-x,GPU-y");
    }
}

#[test]
fn a_gpu_that_is_asked_for_and_not_there_is_no_zero_and_no_run() {
    let sandbox = Sandbox::new();
    sandbox.set("SWEEPD_NVML_LIBRARY", "/nowhere/libnvidia-ml.so.1");
    let run = sandbox.run(&trials("", &good())).expect_exit(1);
    let reason = run.trial("01-good")["reason"].to_string();
    assert!(reason.contains("cannot be loaded") && reason.contains("/nowhere/"), "{reason}");
}

#[test]
fn what_the_gpu_would_refuse_is_said_at_check() {
    let sandbox = Sandbox::new();
    StandIn::new(&sandbox, &one("GPU-check"));
    let text = trials("power_limit_w = 900\ndevices = ['GPU-gone']", &good());
    let file = sandbox.write("sweep.toml", &text);
    let output = sandbox.command(&["check", file.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("100 to 300 W"), "{said}");
    assert!(said.contains("no GPU GPU-gone here") && said.contains("GPU-check"), "{said}");
}
