//! A run that was broken off is finished: no trial is lost, none is counted twice.

use crate::harness::{Run, Sandbox, mixed, sweep, variant, walk};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Kills of one run, and runs: a few in CI, many in the full tier.
fn rounds() -> u64 {
    match std::env::var("SWEEPD_TEST_TIER").as_deref() {
        Ok("full") => 25,
        _ => 3,
    }
}
const KILLS: u64 = 4;

fn two_blocks() -> String {
    sweep(&format!("{}{}", variant("a", &[]), variant("b", &["setsid-child"])))
        .replace("blocks = 1", "blocks = 2")
}

/// Every planned trial completed once, and its records are those of one attempt.
#[track_caller]
fn expect_whole(run: &Run, seed: u64) {
    let summary = run.json("summary.json");
    let status = &summary["status"];
    assert_eq!(status["complete"], true, "seed {seed}: {status:#}");
    assert_eq!(status["trials_completed"], 4, "seed {seed}: {status:#}");
    let mut interrupted = 0;
    for trial in ["01-a", "01-b", "02-a", "02-b"] {
        run.expect_measured(trial);
        let mut endings = BTreeMap::new();
        for attempt in 1..=run.trial(trial)["attempts"].as_u64().unwrap() {
            let outcome = run.json(&format!("trials/{trial}/attempt-{attempt}/outcome.json"));
            let ending = outcome["ending"].as_str().unwrap().to_owned();
            *endings.entry(ending).or_insert(0) += 1;
        }
        assert_eq!(endings.remove("completed"), Some(1), "seed {seed}: {trial}");
        interrupted += u64::from(endings.remove("interrupted").is_some());
        assert!(endings.is_empty(), "seed {seed}: {trial}: {endings:?}");
    }
    assert_eq!(status["trials_interrupted"], interrupted, "seed {seed}");
    for cell in summary["cells"].as_array().unwrap() {
        assert_eq!(cell["trials"].as_array().unwrap().len(), 2, "seed {seed}: one a block");
    }
    run.expect_nothing_left();
}

#[test]
fn a_run_that_is_killed_at_any_instant_is_finished_by_resuming_it() {
    for seed in 0..rounds() {
        let sandbox = Sandbox::new();
        let mut running = sandbox.start(&two_blocks());
        for kill in 0..KILLS {
            // The instant is what is random here; nothing is waited for.
            let after = Duration::from_millis(mixed(seed * KILLS + kill) % 4000);
            let at = Instant::now() + after;
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if running.child.try_wait().unwrap().is_none() {
                running.signal(libc::SIGKILL);
            }
            running.wait(Duration::from_secs(10));
            match sandbox.only_run() {
                Some(dir) if dir.join("plan.json").exists() => running = sandbox.start_resume(),
                // It had not begun; what there is of it is in nobody's way.
                _ => {
                    std::fs::remove_dir_all(sandbox.path().join("state")).ok();
                    running = sandbox.start(&two_blocks());
                }
            }
        }
        running.wait(Duration::from_secs(120));
        let run = sandbox.resume().expect_exit(0);
        assert!(run.stdout.contains("is finished"), "{}", run.stdout);
        expect_whole(&run, seed);
        let torn: Vec<_> = walk(&run.dir)
            .into_iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "tmp"))
            .collect();
        assert!(torn.is_empty(), "seed {seed}: {torn:?}");
    }
}

#[test]
fn a_run_that_was_stopped_with_ctrl_c_is_finished_too() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.start(&two_blocks());
    running.until_it_says("phase 2-users");
    running.signal(libc::SIGINT);
    running.wait(Duration::from_secs(20));
    let run = sandbox.resume().expect_exit(0);
    let summary = run.json("summary.json");
    assert_eq!(summary["status"]["trials_completed"], 4, "{:#}", summary["status"]);
    assert_eq!(summary["status"]["trials_cancelled"], 0);
    run.expect_nothing_left();
}

#[test]
fn a_changed_sweep_is_refused_with_the_difference_and_nothing_is_touched() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.start(&two_blocks());
    running.until_it_says("phase 2-users");
    // In order: after SIGKILL its children may still be writing while the files are counted.
    running.signal(libc::SIGINT);
    running.wait(Duration::from_secs(20));
    let dir = sandbox.only_run().unwrap();
    let before = walk(&dir).len();
    let changed = sandbox.write("sweep.toml", &two_blocks().replace("seed = 7", "seed = 8"));
    let output = sandbox
        .command(&["run", changed.to_str().unwrap(), "--resume", dir.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("-seed = 7") && said.contains("+seed = 8"), "{said}");
    assert_eq!(walk(&dir).len(), before);
    // Its id will do, and so will the frozen file; a relative path still means what it meant.
    let id = dir.file_name().unwrap().to_str().unwrap();
    let output = sandbox.command(&["run", "--resume", id]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_run_that_a_living_sweepd_works_on_is_left_to_it() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.start(&two_blocks());
    running.until_it_says("phase 2-users");
    let second = sandbox.resume().expect_exit(2);
    let pid = running.child.id().to_string();
    assert!(second.stderr.contains("being worked on by process"), "{}", second.stderr);
    assert!(second.stderr.contains(&pid), "{}", second.stderr);
    let status = running.wait(Duration::from_secs(60));
    running.run(status).expect_exit(0);
}

#[test]
fn relative_paths_mean_what_they_meant_at_the_first_start() {
    let sandbox = Sandbox::new();
    let tokenizer = crate::harness::sim_tokenizer();
    std::fs::copy(&tokenizer, sandbox.path().join("words.json")).unwrap();
    let text = two_blocks().replace(tokenizer.to_str().unwrap(), "words.json");
    let mut running = sandbox.start(&text);
    running.until_it_says("phase 2-users");
    running.signal(libc::SIGKILL);
    running.wait(Duration::from_secs(10));
    let run = sandbox.resume().expect_exit(0);
    expect_whole(&run, 0);
}

#[test]
fn an_engine_that_was_replaced_in_between_is_a_visible_mark() {
    let sandbox = Sandbox::new();
    let program = sandbox.path().join("engine-version");
    let says = |version: &str| {
        use std::os::unix::fs::PermissionsExt;
        let script = format!("#!/bin/sh\necho sweepd {version}\n");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    says("1.0.0");
    let engine = crate::harness::repository().join("engines/sim.toml");
    let engine = std::fs::read_to_string(engine).unwrap();
    let asked = "command = [\"{sweepd}\", \"--version\"]";
    assert!(engine.contains(asked), "the test knows how the engine is asked");
    let engine = engine.replace(asked, &format!("command = [{program:?}]"));
    sandbox.write("config/sweepd/engines/sim.toml", &engine);
    let mut running = sandbox.start(&two_blocks());
    running.until_it_says("phase 2-users");
    running.signal(libc::SIGKILL);
    running.wait(Duration::from_secs(10));
    says("2.0.0");
    let run = sandbox.resume().expect_exit(0);
    let report = run.report();
    assert!(report.contains("engine_version_changed"), "{report}");
    assert!(report.contains("1.0.0 until") && report.contains("2.0.0 since"), "{report}");
}
