//! The example sweeps: each is sound, as far as that can be told without its model and its engine.

use crate::harness::{Sandbox, repository, sim_tokenizer};
use crate::nvml::StandIn;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use toml::{Table, Value};

fn examples() -> Vec<PathBuf> {
    let entries = fs::read_dir(repository().join("examples")).unwrap().flatten();
    let files = entries.map(|entry| entry.path());
    let mut files: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

fn table(name: &str) -> Table {
    fs::read_to_string(repository().join("examples").join(name)).unwrap().parse().unwrap()
}

/// A machine that has what an example names: its model's folder, and programs of those names.
fn machine_for(text: &str) -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    let config = fs::read_to_string(repository().join("examples/llama-8b/config.json")).unwrap();
    for (name, text) in
        [("config.json", config), ("tokenizer.json", fs::read_to_string(sim_tokenizer()).unwrap())]
    {
        sandbox.write(&format!("models/{name}"), &text);
    }
    for program in ["python3", "lmdeploy", "vllm"] {
        let path = sandbox.write(&format!("bin/{program}"), "#!/bin/sh\nexit 1\n");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let models = sandbox.path().join("models");
    let text: String = text
        .lines()
        .map(|line| match line.strip_prefix("path = \"/models/") {
            Some(_) => format!("path = {models:?}\n"),
            None => format!("{line}\n"),
        })
        .collect();
    (sandbox, text)
}

#[test]
fn every_example_is_sound() {
    let mut checked = 0;
    for file in examples() {
        // scripts/demo sets up what it names, puts it beside that and runs it.
        if file.ends_with("demo.toml") {
            continue;
        }
        let own = fs::read_to_string(&file).unwrap();
        let (sandbox, mut text) = machine_for(&own);
        // GPUs are asked for; what needs root to be set is left out where the tests are not root's.
        StandIn::new(&sandbox, "gpu\ngpu\nuuid GPU-second\n");
        if !nix::unistd::geteuid().is_root() {
            let kept = |line: &&str| !line.starts_with("persistence") && !line.starts_with("lock_");
            text = text.lines().filter(kept).map(|line| format!("{line}\n")).collect();
        }
        // Paths that are the example's own stay where they are.
        let path = match text == own {
            true => file.clone(),
            false => sandbox.write("sweep.toml", &text),
        };
        let output = sandbox
            .command(&["check", path.to_str().unwrap()])
            .env("PATH", sandbox.path().join("bin"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", file.display());
        checked += 1;
    }
    assert!(checked >= 8, "{checked} examples");
}

/// What is left of a sweep when its model, its engines and their parameters are taken away.
fn experiment(name: &str, without: &[&str]) -> Table {
    let mut sweep = table(name);
    for key in ["name", "model", "engines"].iter().chain(without) {
        sweep.remove(*key);
    }
    for variant in sweep["variants"].as_array_mut().unwrap() {
        let variant = variant.as_table_mut().unwrap();
        variant.remove("engine").unwrap();
        variant.remove("params").unwrap();
    }
    sweep
}

#[test]
fn the_simulated_experiment_is_the_real_one() {
    assert_eq!(experiment("seed-a40.toml", &[]), experiment("seed-a40-sim.toml", &[]));
    let other = ["phases", "blocks"];
    assert_eq!(experiment("seed-a40.toml", &other), experiment("seed-a40-literal.toml", &other));
    for variant in table("seed-a40-sim.toml")["variants"].as_array().unwrap() {
        let engine = variant["engine"].as_str().unwrap();
        assert_eq!(engine, format!("sim-a40-{}", variant["name"].as_str().unwrap()));
    }
}

/// The sample sizes that the literal example promises to have, and the sound one to exceed.
#[test]
fn the_experiment_has_the_sizes_that_it_was_reported_with() {
    let phases = |name: &str, key: &str| -> Vec<Option<i64>> {
        let sweep = table(name);
        let phases = sweep["phases"].as_array().unwrap().iter();
        phases.map(|phase| phase.get(key).and_then(Value::as_integer)).collect()
    };
    let users = [Some(10), Some(50), Some(100)];
    for name in ["seed-a40.toml", "seed-a40-literal.toml"] {
        assert_eq!(phases(name, "users"), users);
        let sweep = table(name);
        assert_eq!(sweep["warmup"]["requests"].as_integer(), Some(20));
        assert_eq!(sweep["workload"]["prompt_tokens"].as_integer(), Some(128));
        assert_eq!(sweep["workload"]["output_tokens"].as_integer(), Some(256));
    }
    assert_eq!(phases("seed-a40.toml", "min_requests"), [Some(300), Some(500), Some(1000)]);
    let five_each = users.map(|users| users.map(|users| 5 * users));
    assert_eq!(phases("seed-a40-literal.toml", "min_requests"), five_each);
}
