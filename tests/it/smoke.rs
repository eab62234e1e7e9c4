//! What is tried before the night: smoke launches, `check --launch`, and the machine's room.

use crate::harness::{SWEEPD, Sandbox, left_of, repository, sweep, variant};
use std::fs;
use std::process::{Command, Output};

/// A variant of an engine whose program does not know one of its flags, and is not asked beforehand.
fn with_a_bad_flag(sandbox: &Sandbox) -> String {
    let file = fs::read_to_string(repository().join("engines/sim.toml")).unwrap();
    let text = file
        .replace("[params.jitter-percent]", "[params.jitterbug]")
        .replace("[help]", "[versions.self]\npattern = '(.+)'");
    sandbox.write("config/sweepd/engines/mine.toml", &text);
    "[[variants]]\nname = \"bad\"\nengine = \"mine\"\nparams = { jitterbug = 1.0 }\n".to_owned()
}

fn smoke_first(text: &str) -> String {
    let text = text.replace("[smoke]\nfirst = false", "[smoke]\nfirst = true");
    text.replace("blocks = 1", "blocks = 2")
}

#[test]
fn a_variant_that_can_never_work_is_told_in_the_first_minutes_and_skipped() {
    let sandbox = Sandbox::new();
    let bad = with_a_bad_flag(&sandbox);
    let text = smoke_first(&sweep(&format!("{bad}{}", variant("good", &[]))));
    let run = sandbox.run(&text).expect_exit(1);
    let smoke = run.trial("00-bad");
    assert_eq!(smoke["failure"]["kind"], "bad_flag", "{smoke:#}");
    assert_eq!(run.trial("00-good")["ending"], "completed");
    for trial in ["01-bad", "02-bad"] {
        let outcome = run.trial(trial);
        assert_eq!(outcome["ending"], "skipped", "{outcome:#}");
        assert!(
            outcome["reason"].as_str().unwrap().contains("in trial 00-bad cannot change"),
            "{outcome:#}"
        );
        assert!(!run.dir.join(format!("trials/{trial}/attempt-1")).exists(), "nothing is launched");
    }
    run.expect_measured("01-good");
    run.expect_measured("02-good");
    let report = run.report();
    let (page_one, _) = report.split_once("## Headline").unwrap();
    assert!(page_one.contains("FAILED BEFORE THE FIRST BLOCK: bad"), "{report}");
    assert!(report.contains("bad (simulated), smoke launch: bad_flag"), "{report}");
    let smoke_at = run.stderr.find("00-bad: engine failed").expect("it is told");
    assert!(
        smoke_at < run.stderr.find("01-good").unwrap(),
        "before the first block:\n{}",
        run.stderr
    );
    // One request of the whole length, in no figure.
    let summary = run.json("summary.json");
    assert_eq!(summary["status"]["trials_planned"], 4, "{summary:#}");
    assert!(summary["phases"].as_array().unwrap().iter().all(|phase| phase["name"] != "smoke"));
    run.expect_nothing_left();
}

#[test]
fn a_failure_that_may_pass_is_told_and_the_trials_are_tried() {
    let sandbox = Sandbox::new();
    let text = smoke_first(&sweep(&variant("flaky", &["exit@request=2"])));
    let run = sandbox.run(&text).expect_exit(1);
    assert_eq!(run.trial("00-flaky")["ending"], "engine_failed");
    assert_eq!(run.trial("01-flaky")["ending"], "engine_failed", "it was launched again");
    run.expect_nothing_left();
}

#[test]
fn a_request_that_does_not_fit_fails_the_smoke_launch() {
    let sandbox = Sandbox::new();
    let text = smoke_first(&sweep(&variant("small", &[])))
        .replace("step-ms = 1.0", "step-ms = 1.0, context = 20");
    let run = sandbox.run(&text).expect_exit(1);
    let smoke = run.trial("00-small");
    assert_eq!(smoke["ending"], "engine_failed", "{smoke:#}");
    assert!(smoke["failure"]["during"].as_str().unwrap().contains("smoke"), "{smoke:#}");
}

fn check_launch(sandbox: &Sandbox, text: &str, more: &[&str]) -> Output {
    let file = sandbox.write("sweep.toml", text);
    let arguments = [&["check", "--launch", file.to_str().unwrap()], more].concat();
    sandbox.command(&arguments).output().unwrap()
}

#[test]
fn check_launch_tells_which_variants_work_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let good = sweep(&format!("{}{}", variant("a", &[]), variant("b", &[])));
    let output = check_launch(&sandbox, &good, &["--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let checked: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let launches = checked["launches"].as_array().unwrap();
    assert_eq!(launches.len(), 2, "{checked:#}");
    assert!(launches.iter().all(|l| l["outcome"]["ending"] == "completed"), "{checked:#}");
    assert!(launches.iter().all(|l| l["took_s"].as_f64().unwrap() > 0.0), "{checked:#}");
    assert!(checked["expected_duration_s"].as_f64() >= checked["least_duration_s"].as_f64());
    assert_eq!(sandbox.only_run(), None, "a check is no run");
    let checks = sandbox.path().join("state/sweepd/checks");
    assert_eq!(fs::read_dir(&checks).unwrap().count(), 0, "what worked leaves no files");

    let bad = with_a_bad_flag(&sandbox);
    let output = check_launch(&sandbox, &sweep(&format!("{bad}{}", variant("good", &[]))), &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("good: works (ready after"), "{said}");
    assert!(said.contains("bad: engine failed") && said.contains("--jitterbug"), "{said}");
    let kept = fs::read_dir(&checks).unwrap().flatten().next().expect("the logs are kept").path();
    assert!(said.contains(kept.to_str().unwrap()), "{said}");
    assert_eq!(left_of(&kept), Vec::<String>::new());
}

#[test]
fn a_machine_without_room_is_told_before_anything_runs() {
    let sandbox = Sandbox::new();
    let text = sweep(&variant("a", &[])).replace("users = 4", "users = 500");
    let file = sandbox.write("sweep.toml", &text);
    for command in ["check", "run"] {
        let output = Command::new("sh")
            .args(["-c", "ulimit -n 200; exec \"$0\" \"$@\"", SWEEPD, command])
            .arg(&file)
            .env("XDG_STATE_HOME", sandbox.path().join("state"))
            .env("XDG_CONFIG_HOME", sandbox.path().join("config"))
            .env("XDG_CACHE_HOME", sandbox.path().join("cache"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("phase 500-users needs 564 open files and the limit is 200"),
            "{said}"
        );
        assert!(said.contains("ulimit -Hn 564"), "{said}");
        assert_eq!(sandbox.only_run(), None, "{command}");
    }
}
