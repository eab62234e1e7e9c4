//! What the driver tells beside the samples: which card it is, who held its memory, what it lost.

use crate::harness::{Run, Sandbox, repository, sim_tokenizer, sweep, variant};
use crate::nvml::{StandIn, now};
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

fn trial(gpu: &str, variants: &str) -> String {
    format!("{}\n[gpu]\nclean_within = \"3s\"\n{gpu}\n", sweep(variants))
}

fn card(uuid: &str, lines: &str) -> String {
    format!("{}gpu\nuuid {uuid}\nprocess_engine 9000\n{lines}", now())
}

/// The same sweep with a model whose files tell its shape.
fn with_a_model(sandbox: &Sandbox, text: &str) -> String {
    let config = fs::read_to_string(repository().join("examples/llama-8b/config.json")).unwrap();
    let config = sandbox.write("model/config.json", &config);
    fs::copy(sim_tokenizer(), config.with_file_name("tokenizer.json")).unwrap();
    let tokenizer = sim_tokenizer();
    let path = format!("path = {:?}", tokenizer.to_str().unwrap());
    text.replacen(&path, &format!("path = {:?}", config.parent().unwrap()), 1)
}

fn hardware_of(run: &Run) -> Value {
    run.json("summary.json")["variants"][0]["machine"]["hardware"].clone()
}

#[test]
fn the_card_that_the_driver_names_stands_in_for_hardware() {
    let sandbox = Sandbox::new();
    StandIn::new(&sandbox, &card("GPU-named", ""));
    let text = with_a_model(&sandbox, &trial("", &variant("good", &[])));
    let run = sandbox.run(&text).expect_exit(0);
    let hardware = hardware_of(&run);
    assert_eq!(hardware["gpu"]["name"], "A40", "{hardware:#}");
    assert_eq!(hardware["count"], 1);
    let report = run.report();
    assert!(report.contains("1 x NVIDIA A40, driver 550.54.15"), "{report}");
    assert!(report.contains("A40, 149.7 TFLOPS FP16 dense and 696 GB/s"), "{report}");
    let against = run.json("summary.json")["against_hardware"][0].clone();
    for figure in ["mfu", "mfu_prefill", "mfu_decode", "mbu_least"] {
        assert!(against[figure].as_f64().unwrap() > 0.0, "{figure} in {against:#}");
    }
}

/// The simulated engine, whose word for too little memory is understood as one about its weights.
fn short_of_memory(sandbox: &Sandbox) -> String {
    let file = fs::read_to_string(repository().join("engines/sim.toml")).unwrap();
    let rule = "[[failure]]\nkind = \"gpu_oom_weights\"\npattern = 'CUDA out of memory'\nadvice = \"Less.\"\n";
    sandbox.write("config/sweepd/engines/mine.toml", &format!("{file}\n{rule}"));
    variant("bad", &["oom@start"]).replace("\"sim\"", "\"mine\"")
}

#[test]
fn too_little_memory_beside_a_stranger_is_the_strangers_doing() {
    let sandbox = Sandbox::new();
    let mut stranger = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    StandIn::new(&sandbox, &card("GPU-crowded", &format!("process {} 30000\n", stranger.id())));
    let text = trial("foreign = \"taint\"", &short_of_memory(&sandbox));
    let run = sandbox.run(&text).expect_exit(1);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let failure = run.trial("01-bad")["failure"].clone();
    assert_eq!(failure["kind"], "gpu_busy_or_leaked", "{failure:#}");
    let summary = failure["summary"].as_str().unwrap();
    assert!(summary.contains("held 29.3 GiB of its GPUs"), "{summary}");
}

#[test]
fn too_little_memory_on_a_gpu_of_its_own_is_the_engines_doing() {
    let sandbox = Sandbox::new();
    StandIn::new(&sandbox, &card("GPU-alone", "mem_used_mib 300\n"));
    let run = sandbox.run(&trial("", &short_of_memory(&sandbox))).expect_exit(1);
    let failure = run.trial("01-bad")["failure"].clone();
    assert_eq!(failure["kind"], "gpu_oom_weights", "{failure:#}");
}

#[test]
fn memory_that_must_be_remapped_first_keeps_a_trial_from_beginning() {
    let sandbox = Sandbox::new();
    StandIn::new(&sandbox, &card("GPU-worn", "remap_pending 1\n"));
    let run = sandbox.run(&trial("", &variant("good", &[]))).expect_exit(1);
    let reason = run.trial("01-good")["reason"].to_string();
    assert!(reason.contains("GPU-worn") && reason.contains("remapped"), "{reason}");
    let shown = sandbox.command(&["gpu", "--json"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["gpus"][0]["ecc"]["remapping_pending"], true, "{shown:#}");
}

#[test]
fn an_error_of_the_card_marks_its_phase_and_the_card() {
    let sandbox = Sandbox::new();
    let standin = StandIn::new(&sandbox, &card("GPU-xid", ""));
    let text = trial("", &variant("good", &[])).replace("\"200ms\"", "\"3s\"");
    let mut running = sandbox.start(&text);
    running.until_it_says("phase 4-users");
    standin.script(&card("GPU-xid", "xid 1 63\n"));
    let status = running.wait(Duration::from_secs(60));
    let run = running.run(status);
    assert_eq!(run.trial("01-good")["ending"], "completed");
    let teardown = run.attempt("01-good")["teardown"].clone();
    assert_eq!(teardown["verdict"], "gpu_not_released", "{teardown:#}");
    assert!(teardown["detail"].as_str().unwrap().contains("XID 63"), "{teardown:#}");
    let told = run.json("trials/01-good/attempt-1/gpu.json")["xids"].clone();
    assert_eq!(told[0]["code"], 63, "{told:#}");
    let shown = sandbox.command(&["gpu"]).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("quarantined"));
}

#[test]
fn as_many_gpus_are_owned_as_the_hardware_counts() {
    let sandbox = Sandbox::new();
    let two = format!("{}gpu\nuuid GPU-b\nprocess_engine 9000\n", card("GPU-a", ""));
    StandIn::new(&sandbox, &two);
    let two = format!("{}hardware = {{ count = 2 }}\n", variant("good", &[]).trim_end());
    let two = two.replace("}hardware", "}\nhardware");
    let text = format!("{}\n[hardware]\ngpu = \"A40\"\n", trial("", &two));
    let run = sandbox.run(&text).expect_exit(0);
    let manifest = run.json("trials/01-good/attempt-1/manifest.json");
    assert_eq!(manifest["env"]["CUDA_VISIBLE_DEVICES"], "GPU-a,GPU-b", "{manifest:#}");
    let gpu = run.json("trials/01-good/attempt-1/gpu.json");
    assert_eq!(gpu["placement"], "verified", "{gpu:#}");
}

#[test]
fn exclusive_mode_is_refused_at_check_for_an_engine_of_several_contexts() {
    let sandbox = Sandbox::new();
    StandIn::new(&sandbox, &card("GPU-shared", ""));
    let file = fs::read_to_string(repository().join("engines/sim.toml")).unwrap();
    let file = format!("{file}\n[gpu]\nseveral_contexts = true\n");
    sandbox.write("config/sweepd/engines/mine.toml", &file);
    let mine = variant("good", &[]).replace("\"sim\"", "\"mine\"");
    let file = sandbox.write("sweep.toml", &trial("exclusive = true", &mine));
    let output = sandbox.command(&["check", file.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("several CUDA contexts") && said.contains("`exclusive`"), "{said}");
}
