//! `sweepd gpu`: each state of driver and GPU is told as what it is; what is absent is null.

use crate::harness::Sandbox;
use crate::nvml::StandIn;
use serde_json::Value;

fn inventory(standin: &StandIn<'_>, code: i32) -> Value {
    let output = standin.sandbox.command(&["gpu", "--json"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_whole_inventory_of_a_gpu_is_shown() {
    let sandbox = Sandbox::new();
    let me = std::process::id();
    let script = format!("epoch 0\ngpu\nuuid GPU-a\nprocess {me} 2048\nthrottle 4\nmem_temp 61\n");
    let standin = StandIn::new(&sandbox, &script);
    let got = inventory(&standin, 0);
    assert_eq!(got["state"], "ok");
    assert_eq!(got["driver_version"], "550.54.15");
    assert_eq!(got["cuda_version"], "12.4");
    let gpu = &got["gpus"][0];
    for (pointer, value) in [
        ("/uuid", Value::from("GPU-a")),
        ("/name", "NVIDIA A40".into()),
        ("/compute_capability", "8.6".into()),
        ("/pci/bus_id", "00000000:3B:00.0".into()),
        ("/pci/link_width", 16.into()),
        ("/memory/used_bytes", (2048_u64 << 20).into()),
        ("/power/limit_w", 300.0.into()),
        ("/power/limit_default_w", 300.0.into()),
        ("/clocks/sm/now", 1740.into()),
        ("/clocks/memory/application", 7251.into()),
        ("/temperature/gpu_c", 35.into()),
        ("/temperature/memory_c", 61.into()),
        ("/temperature/slowdown_c", 95.into()),
        ("/temperature/shutdown_c", 98.into()),
        ("/ecc/enabled", true.into()),
        ("/ecc/uncorrected", 0.into()),
        ("/persistence", false.into()),
        ("/compute_mode", "default".into()),
        ("/mig/enabled", false.into()),
        ("/throttle_reasons", vec!["sw_power_cap"].into()),
        ("/processes/0/pid", me.into()),
        ("/processes/0/kind", "compute".into()),
        ("/nvlinks", Value::Null),
        ("/lease", Value::Null),
    ] {
        assert_eq!(gpu.pointer(pointer), Some(&value), "{pointer} in {gpu:#}");
    }
    let command = gpu["processes"][0]["command"].as_str().unwrap();
    assert!(command.contains("it-"), "{command}");
    assert!(gpu["processes"][0]["user"].is_string());
    let shown = standin.sandbox.command(&["gpu"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("NVIDIA A40") && shown.contains("sw_power_cap"), "{shown}");
}

#[test]
fn a_driver_that_offers_next_to_nothing_gives_nulls_and_no_zeros() {
    let sandbox = Sandbox::new();
    let standin = StandIn::minimal(&sandbox, "gpu\nuuid GPU-old\n");
    let got = inventory(&standin, 0);
    let gpu = got["gpus"][0].as_object().unwrap();
    assert_eq!(gpu["uuid"], "GPU-old");
    fn numbers(value: &Value) -> usize {
        match value {
            Value::Number(_) => 1,
            Value::Object(map) => map.values().map(numbers).sum(),
            Value::Array(list) => list.iter().map(numbers).sum(),
            Value::Null | Value::Bool(_) | Value::String(_) => 0,
        }
    }
    let counted = gpu.iter().filter(|(key, _)| *key != "index");
    assert_eq!(counted.map(|(_, value)| numbers(value)).sum::<usize>(), 0, "{gpu:#?}");
}

#[test]
fn what_one_gpu_does_not_support_is_null_and_the_rest_is_there() {
    let sandbox = Sandbox::new();
    let script = "gpu\nunset ecc\nunset power\nunset temp\nerr nvmlDeviceGetName 999\n";
    let standin = StandIn::new(&sandbox, script);
    let got = inventory(&standin, 0);
    let gpu = &got["gpus"][0];
    for absent in ["/ecc/enabled", "/power/usage_w", "/temperature/gpu_c", "/name"] {
        assert_eq!(gpu.pointer(absent), Some(&Value::Null), "{absent}");
    }
    assert_eq!(gpu["memory"]["total_bytes"], 46068_u64 << 20);
}

#[test]
fn each_reason_for_having_no_gpu_is_its_own_state() {
    let cases = [
        ("init 9\n", "no_driver"),
        ("init 18\n", "version_mismatch"),
        ("init 4\n", "no_permission"),
        ("init 12\n", "no_library"),
        ("init 999\n", "other"),
    ];
    for (script, state) in cases {
        let sandbox = Sandbox::new();
        let got = inventory(&StandIn::new(&sandbox, script), 1);
        assert_eq!(got["state"], state, "{script}");
        assert!(got["advice"].is_string());
        assert_eq!(got["gpus"], Value::Array(Vec::new()));
    }
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["gpu", "--json"]);
    let output = command.env("SWEEPD_NVML_LIBRARY", "/nowhere/libnvidia-ml.so.1").output().unwrap();
    let got: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), got["state"].as_str()), (Some(1), Some("no_library")));
    assert!(got["detail"].as_str().unwrap().contains("/nowhere/"), "{got:#}");
}

#[test]
fn a_lost_gpu_is_told_and_its_neighbour_is_shown() {
    let sandbox = Sandbox::new();
    let standin = StandIn::new(&sandbox, "gpu\nerr all 15\ngpu\nuuid GPU-well\n");
    let got = inventory(&standin, 1);
    assert_eq!(got["gpus"][0]["error"]["kind"], "gpu_lost", "{got:#}");
    assert_eq!(got["gpus"][1]["uuid"], "GPU-well");
    assert_eq!(got["gpus"][1]["error"], Value::Null);
}

#[test]
fn a_driver_call_that_hangs_is_reported_and_waited_for_no_longer() {
    let sandbox = Sandbox::new();
    let standin = StandIn::new(&sandbox, "delay nvmlDeviceGetMemoryInfo_v2 60000\ngpu\n");
    let began = std::time::Instant::now();
    let got = inventory(&standin, 1);
    assert_eq!(got["state"], "stuck", "{got:#}");
    assert!(got["detail"].as_str().unwrap().contains("helper pid"), "{got:#}");
    assert!(began.elapsed() < std::time::Duration::from_secs(40), "{:?}", began.elapsed());
}
