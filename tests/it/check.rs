//! `sweepd check` against installed engines: what would fail at night is refused before it.
//!
//! The installed engine is a script that prints the flags of a real version: those of our fixture,
//! and, where the collected help texts are at hand, those too.

use crate::harness::{Sandbox, repository, sim_tokenizer};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

/// An engine that only knows its version and its flags.
fn install(sandbox: &Sandbox, version: &str, help: &Path) -> PathBuf {
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n*--help*) echo asked >> '{}'; exec cat '{}' ;;\n*) echo '{version}' ;;\nesac\n",
        sandbox.path().join("asked").display(),
        help.display(),
    );
    let program = sandbox.write("bin/engine", &script);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

fn model(sandbox: &Sandbox) {
    sandbox.write("model/config.json", "{}");
    sandbox.write("model/tokenizer.json", &fs::read_to_string(sim_tokenizer()).unwrap());
}

/// A sweep of one variant of this engine.
fn sweep(engine: &str, lines: &str) -> String {
    format!(
        "schema = 1\nname = \"seed\"\n[model]\npath = \"model\"\n[engines.{engine}]\nprogram = \"bin/engine\"\n\
         [[variants]]\nname = \"v\"\nengine = \"{engine}\"\n{lines}\n[workload]\nkind = \"random\"\n\
         prompt_tokens = 16\noutput_tokens = 8\n[[phases]]\nusers = 1\nmin_requests = 1\n"
    )
}

fn check(sandbox: &Sandbox, text: &str) -> Output {
    let file = sandbox.write("sweep.toml", text);
    sandbox.command(&["check", file.to_str().unwrap()]).output().unwrap()
}

/// `expected`: what must be said, or nothing when the line is right.
#[track_caller]
fn expect(sandbox: &Sandbox, engine: &str, lines: &str, expected: &[&str]) {
    let output = check(sandbox, &sweep(engine, lines));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(if expected.is_empty() { 0 } else { 2 }),
        "{lines}\n{said}"
    );
    for words in expected {
        assert!(said.contains(words), "{words:?} in\n{said}");
    }
    if !expected.is_empty() {
        assert!(said.contains("sweep.toml:10:"), "the line is named:\n{said}");
    }
    assert_eq!(sandbox.only_run(), None, "nothing is launched");
}

/// The help texts of the real versions: ours, and the collected ones where they are at hand.
#[expect(clippy::print_stderr, reason = "a skipped check is told")]
fn help_texts(engine: &str, version: &str) -> Vec<PathBuf> {
    let ours = repository().join(format!("tests/fixtures/help/{engine}-{version}.txt"));
    let beside = std::env::var_os("SWEEPD_TEST_SHARED").map(PathBuf::from);
    let shared = beside.unwrap_or_else(|| repository().join("../shared"));
    let whole = shared.join(format!("data/help/{engine}-help.txt"));
    if !whole.exists() {
        eprintln!("skipped: {} is not here; the fixture was checked", whole.display());
        return vec![ours];
    }
    vec![ours, whole]
}

#[test]
fn each_bad_flag_of_the_seeds_first_engine_is_refused_with_the_right_spelling() {
    for help in help_texts("sglang", "0.5.23") {
        let sandbox = Sandbox::new();
        model(&sandbox);
        install(&sandbox, "sglang 0.5.23", &help);
        let expect = |lines: &str, expected: &[&str]| expect(&sandbox, "sglang", lines, expected);
        expect(
            "args = [\"--disable-radix-cache\", \"false\"]",
            &[
                "`--disable-radix-cache` takes no value",
                "leave `--disable-radix-cache` out to turn it off",
            ],
        );
        expect(
            "args = [\"--disable-radix-cache=true\"]",
            &["write the bare `--disable-radix-cache`"],
        );
        expect("params = { disable-radix-cache = \"false\" }", &["write it without quotes: false"]);
        let flashinfer =
            ["attention-backend = \"flashinfer\"", "--enable-flashinfer-allreduce-fusion"];
        expect("args = [\"--enable-flashinfer\"]", &flashinfer);
        expect("params = { enable-flashinfer = true }", &flashinfer);
        expect("args = [\"--tp\", \"1\"]", &["write `params` `tp-size`"]);
        // What the engine file does not know is held against the installed program.
        expect(
            "args = [\"--enable-metrics-for-all\"]",
            &["would take it for another flag", "`--enable-metrics-for-all-schedulers`"],
        );
        expect(
            "args = [\"--enable-p2p-check\", \"true\"]",
            &["takes no value, but \"true\" follows it"],
        );
        expect("args = [\"--no-such-flag\", \"1\"]", &["does not know `--no-such-flag`"]);
        expect(
            "args = [\"--hicache-io-backend\", \"disk\"]",
            &["one of direct, kernel, kernel_ascend"],
        );
        expect("params = { mem-fraction-static = 5 }", &["from 0.01 to 0.99"]);
        // The seed's tuning, in the spelling of today.
        expect(
            "params = { tp-size = 1, mem-fraction-static = 0.9, max-running-requests = 128, \
             attention-backend = \"flashinfer\", schedule-policy = \"fcfs\", disable-radix-cache = true, \
             chunked-prefill-size = 8192 }\nargs = [\"--enable-p2p-check\"]",
            &[],
        );
        let asked = fs::read_to_string(sandbox.path().join("asked")).unwrap();
        assert_eq!(asked.lines().count(), 1, "the help is kept for its version");
    }
}

#[test]
fn each_bad_flag_of_the_seeds_second_engine_is_refused_with_the_right_spelling() {
    for help in help_texts("lmdeploy", "0.18.0") {
        let sandbox = Sandbox::new();
        model(&sandbox);
        install(&sandbox, "0.18.0", &help);
        let expect = |lines: &str, expected: &[&str]| expect(&sandbox, "lmdeploy", lines, expected);
        expect(
            "args = [\"--enable-prefix-caching\", \"false\"]",
            &["`--enable-prefix-caching` takes no value", "leave `--enable-prefix-caching` out"],
        );
        expect("params = { cache-max-entry-count = 5.0 }", &["from 0.01 to 0.99"]);
        expect("args = [\"--enable-metrics\"]", &["metrics are on by default"]);
        expect("args = [\"--ssl\", \"yes\"]", &["takes no value, but \"yes\" follows it"]);
        expect(
            "params = { tp = 1, cache-max-entry-count = 0.9, max-batch-size = 128, session-len = 8192 }",
            &[],
        );
    }
}

#[test]
fn a_new_version_of_the_program_is_asked_again() {
    let sandbox = Sandbox::new();
    model(&sandbox);
    let old = sandbox.write(
        "old.txt",
        "  --port N\n  --server-name S\n  --server-port N\n  --model-name N\n  --old-way\n",
    );
    install(&sandbox, "0.18.0", &old);
    expect(&sandbox, "lmdeploy", "args = [\"--old-way\"]", &[]);
    let new = sandbox
        .write("new.txt", "  --server-name S\n  --server-port N\n  --model-name N\n  --new-way\n");
    install(&sandbox, "0.19.0", &new);
    expect(&sandbox, "lmdeploy", "args = [\"--old-way\"]", &["does not know `--old-way`"]);
}

#[test]
fn a_program_that_cannot_print_its_flags_is_noted_and_refused_nothing() {
    let sandbox = Sandbox::new();
    model(&sandbox);
    let program = install(&sandbox, "0.18.0", Path::new("/nowhere"));
    assert!(program.exists());
    let output = check(&sandbox, &sweep("lmdeploy", "args = [\"--whatever\"]"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("variant `v`: the flags of engine `lmdeploy` could not be checked"),
        "{said}"
    );
}

#[test]
fn a_hub_name_and_an_empty_folder_are_no_models() {
    let sandbox = Sandbox::new();
    model(&sandbox);
    install(&sandbox, "0.18.0", &repository().join("tests/fixtures/help/lmdeploy-0.18.0.txt"));
    let text = sweep("lmdeploy", "");
    let said = |text: &str| String::from_utf8_lossy(&check(&sandbox, text).stderr).into_owned();
    let hub = said(&text.replace("path = \"model\"", "path = \"meta-llama/Llama-3-8b\""));
    assert!(
        hub.contains("meta-llama/Llama-3-8b is not there") && hub.contains("downloads nothing"),
        "{hub}"
    );
    sandbox.write("empty/tokenizer.json", "{}");
    let empty = said(&text.replace("path = \"model\"", "path = \"empty\""));
    assert!(empty.contains("empty/config.json"), "{empty}");
}

#[test]
fn ten_mistakes_of_every_layer_are_told_at_once() {
    let sandbox = Sandbox::new();
    model(&sandbox);
    install(&sandbox, "sglang 0.5.23", &repository().join("tests/fixtures/help/sglang-0.5.23.txt"));
    sandbox.write("bin/docker", "#!/bin/sh\n");
    let docker = sandbox.path().join("bin/docker");
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
    let text = r#"schema = 1
name = "ten"
sead = 42
[model]
path = "model"
[engines.sglang]
program = "bin/engine"
[engines.vllm]
program = "bin/docker"
[[variants]]
name = "a"
engine = "sglang"
params = { mem-fraction = 0.9, tp = 2 }
args = ["--disable-radix-cache", "false", "--enable-p2p-chek"]
[[variants]]
name = "b"
engine = "vllm"
[[variants]]
name = "c"
engine = "sglang"
params = { schedule-policy = "fifo" }
[workload]
kind = "random"
prompt_tokens = 16
output_tokens = -1
[sampling]
temprature = 0.5
[[phases]]
users = 10
min_requests = 300
min_duration = "30 parsecs"
"#;
    let output = check(&sandbox, text);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    for (line, words) in [
        (3, "unknown key `sead`"),
        (13, "no parameter `mem-fraction`"),
        (13, "no longer has `tp`"),
        (14, "`--disable-radix-cache` takes no value"),
        (14, "does not know `--enable-p2p-chek`"),
        (17, "`docker` would put the engine outside"),
        (21, "\"fifo\" is not a choice"),
        (25, "-1 is out of range"),
        (27, "`temprature` is no sampling parameter"),
        (31, "\"30 parsecs\" is no span of time"),
    ] {
        let there =
            said.lines().any(|l| l.contains(&format!("sweep.toml:{line}:")) && l.contains(words));
        assert!(there, "line {line}: {words}\n{said}");
    }
    assert!(said.contains("\n10 problems"), "{said}");
    assert_eq!(said.matches("  help: ").count(), 10, "each has its remedy:\n{said}");
    assert_eq!(sandbox.only_run(), None);
}
