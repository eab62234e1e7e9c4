//! Engines are data: a file adds one, and its name is only its file's.

use crate::harness::{Sandbox, repository, sweep, variant};
use std::fs;

fn sim_file() -> String {
    fs::read_to_string(repository().join("engines/sim.toml")).unwrap()
}

#[test]
fn a_file_in_the_users_folder_adds_an_engine() {
    let sandbox = Sandbox::new();
    let text = sim_file().replace(
        "[params.step-us-per-request]",
        "[params.microseconds-per-user]\nflag = \"--step-us-per-request\"",
    );
    assert_ne!(text, sim_file(), "the file has the parameter that is renamed here");
    sandbox.write("config/sweepd/engines/mine.toml", &text);
    let mine = "[[variants]]\nname = \"mine\"\nengine = \"mine\"\n\
                params = { step-ms = 1.0, microseconds-per-user = 10.0 }\n";
    let run = sandbox.run(&sweep(mine)).expect_exit(0);
    run.expect_measured("01-mine");
    let manifest = run.json("trials/01-mine/attempt-1/manifest.json");
    assert!(manifest["engine_file"].as_str().unwrap().ends_with("engines/mine.toml"));
}

#[test]
fn a_flag_that_the_engine_does_not_know_is_named_as_such() {
    let sandbox = Sandbox::new();
    let text = sim_file().replace("[params.jitter-percent]", "[params.jitterbug]");
    assert_ne!(text, sim_file(), "the file has the parameter that is renamed here");
    // The program is not asked beforehand.
    let text = text.replace("[help]", "[versions.self]\npattern = '(.+)'");
    sandbox.write("config/sweepd/engines/mine.toml", &text);
    let mine = "[[variants]]\nname = \"mine\"\nengine = \"mine\"\nparams = { jitterbug = 1.0 }\n";
    let run = sandbox.run(&sweep(mine)).expect_exit(1);
    let outcome = run.trial("01-mine");
    assert_eq!(outcome["failure"]["kind"], "bad_flag", "{outcome:#}");
    assert!(outcome["failure"].to_string().contains("--jitterbug"), "{outcome:#}");
}

#[test]
fn a_sweep_brings_an_engine_of_its_own() {
    let sandbox = Sandbox::new();
    sandbox.write("mine.toml", &sim_file());
    let text = sweep(&variant("a", &[])).replace("engine = \"sim\"", "engine = \"brought\"")
        + "[engines.brought]\nfile = \"mine.toml\"\n";
    let run = sandbox.run(&text).expect_exit(0);
    run.expect_measured("01-a");
}

#[test]
fn renaming_an_engines_file_changes_nothing_but_its_name() {
    let manifest = |name: &str| {
        let sandbox = Sandbox::new();
        sandbox.write(&format!("config/sweepd/engines/{name}.toml"), &sim_file());
        let text = sweep(&variant("a", &[])).replace("\"sim\"", &format!("\"{name}\""));
        let text = text.replace(&format!("served_name = \"{name}\""), "served_name = \"sim\"");
        let run = sandbox.run(&text).expect_exit(0);
        run.expect_measured("01-a");
        let mut manifest = run.json("trials/01-a/attempt-1/manifest.json");
        assert_eq!(manifest["engine"], name);
        // What differs from run to run in any case.
        for field in ["engine", "engine_file", "run", "port", "marker", "cwd", "anchor", "env"] {
            manifest.as_object_mut().unwrap().remove(field);
        }
        manifest["containment"].as_object_mut().unwrap().remove("groups");
        let argv = manifest["argv"].as_array_mut().unwrap();
        let port = argv.iter().position(|argument| argument == "--port").unwrap();
        argv[port + 1] = "PORT".into();
        manifest
    };
    assert_eq!(manifest("zebra"), manifest("quagga"));
}
