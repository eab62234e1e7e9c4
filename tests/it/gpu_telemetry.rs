//! Power, energy, heat and neighbours of a phase, from the stand-in's curves to the report.

use crate::harness::{Run, Running, Sandbox, eventually, sweep, variant};
use crate::nvml::{StandIn, now};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Phases of some seconds on one GPU.
fn trial(gpu: &str, duration: &str) -> String {
    let text = format!("{}\n[gpu]\nclean_within = \"3s\"\n{gpu}\n", sweep(&variant("good", &[])));
    text.replace("\"200ms\"", &format!("{duration:?}"))
}

fn card(uuid: &str, lines: &str) -> String {
    format!("{}gpu\nuuid {uuid}\nprocess_engine 9000\n{lines}", now())
}

fn figures(run: &Run, phase: &str) -> Value {
    run.json(&format!("trials/01-good/attempt-1/phases/{phase}/gpu.json"))["gpus"][0].clone()
}

fn marks(run: &Run, code: &str) -> Vec<String> {
    let summary = run.json("summary.json");
    let all = summary["marks"].as_array().unwrap();
    all.iter().filter(|mark| mark["code"] == code).map(ToString::to_string).collect()
}

/// 100 W to 300 W and back within two seconds, again and again: 200 W on average.
const WAVE: &str = "power 0:100 1:300 2:100\npower_period 2\n";

/// The exact energy of that wave between two instants, by its own formula.
fn exact_joules(run: &Run, phase: &str, script: &str) -> f64 {
    let facts = run.json(&format!("trials/01-good/attempt-1/phases/{phase}/facts.json"));
    let anchor = run.attempt("01-good")["anchor"].clone();
    let epoch: f64 =
        script.lines().next().unwrap().strip_prefix("epoch ").unwrap().parse().unwrap();
    let wall = |name: &str| {
        let at = facts[name].as_i64().unwrap() - anchor["mono_ns"].as_i64().unwrap();
        let ns = i128::from(at) + i128::from(anchor["realtime_ns"].as_i64().unwrap());
        ns as f64 / 1e9 - epoch
    };
    let integral = |t: f64| {
        let (turns, rest) = ((t / 2.0).floor(), t % 2.0);
        let up = |x: f64| 100.0 * x + 100.0 * x * x;
        let part = if rest <= 1.0 { up(rest) } else { 400.0 - up(2.0 - rest) };
        turns * 400.0 + part
    };
    integral(wall("ended")) - integral(wall("started"))
}

#[test]
fn energy_by_counter_and_by_power_agree_with_the_known_integral() {
    let sandbox = Sandbox::new();
    let script = card("GPU-energy", WAVE);
    StandIn::new(&sandbox, &script);
    let run = sandbox.run(&trial("price_per_kwh = 0.12\nprice_per_gpu_hour = 0.79", "6s"));
    let run = run.expect_exit(0);
    for phase in ["2-users", "4-users"] {
        let gpu = figures(&run, phase);
        let exact = exact_joules(&run, phase, &script);
        let counted = gpu["energy"]["joules"].as_f64().unwrap();
        let summed = gpu["energy_integrated_j"].as_f64().unwrap();
        eprintln!("{phase}: exact {exact:.1} J, counter {counted:.1} J, power {summed:.1} J");
        assert_eq!(gpu["energy"]["source"], "counter", "{gpu:#}");
        assert_eq!(gpu["energy"]["valid"], true);
        assert_eq!(gpu["power_source"], "instant");
        assert!((counted / exact - 1.0).abs() < 0.01, "{counted} of {exact}");
        assert!((summed / counted - 1.0).abs() < 0.01, "{summed} of {counted}");
    }
    let summary = run.json("summary.json");
    let cell = &summary["cells"][0]["gpu"];
    let tokens = summary["cells"][0]["tokens"]["output"].as_f64().unwrap();
    let joules = cell["energy_j"]["mean"].as_f64().unwrap();
    let each = cell["joules_per_output_token"]["mean"].as_f64().unwrap();
    assert!((joules / tokens / each - 1.0).abs() < 1e-9, "{cell:#}");
    let report = run.report();
    let cost = &summary["cells"][0]["cost_per_million"];
    let by_energy = each * 1e6 / 3.6e6 * 0.12;
    assert!((cost["energy"].as_f64().unwrap() / by_energy - 1.0).abs() < 1e-9, "{cost:#}");
    assert!(cost["gpu_time"].as_f64().unwrap() > 0.0, "{cost:#}");
    assert!(
        report.contains("## GPU and energy") && report.contains("Cost of a million"),
        "{report}"
    );
    assert!(!report.contains("no_gpu_telemetry"));
}

#[test]
fn without_a_counter_power_of_the_instant_is_summed() {
    let sandbox = Sandbox::new();
    let script = card("GPU-uncounted", &format!("{WAVE}unset energy\n"));
    StandIn::new(&sandbox, &script);
    let run = sandbox.run(&trial("", "4s")).expect_exit(0);
    for phase in ["2-users", "4-users"] {
        let energy = figures(&run, phase)["energy"].clone();
        assert_eq!(energy["source"], "integrated_power", "{energy:#}");
        assert_eq!(energy["valid"], true, "{energy:#}");
        let (summed, exact) =
            (energy["joules"].as_f64().unwrap(), exact_joules(&run, phase, &script));
        assert!((summed / exact - 1.0).abs() < 0.01, "{summed} of {exact}");
        assert!(energy["largest_gap_ms"].as_f64().unwrap() > 50.0, "{energy:#}");
    }
}

#[test]
fn averaged_power_says_nothing_about_a_short_phase_and_that_is_marked() {
    let sandbox = Sandbox::new();
    let averaged = format!(
        "{WAVE}unset energy\nunset power_instant\nunset power_average\npower_average_s 1\n"
    );
    StandIn::new(&sandbox, &card("GPU-averaged", &averaged));
    let run = sandbox.run(&trial("", "3s")).expect_exit(0);
    let gpu = figures(&run, "2-users");
    assert_eq!(gpu["energy"]["source"], "integrated_power", "{gpu:#}");
    assert_eq!(gpu["energy"]["valid"], false);
    assert_eq!(gpu["power_source"], "usage");
    let marks = marks(&run, "energy_uncertain");
    assert_eq!(marks.len(), 2, "{marks:?}");
    assert!(marks[0].contains("average of the last second"), "{marks:?}");
    // What is not valid is in no table, and not a zero.
    let cell = &run.json("summary.json")["cells"][0]["gpu"];
    assert_eq!(cell["energy_j"], Value::Null, "{cell:#}");
    assert!(cell["power_mean_w"]["mean"].as_f64().unwrap() > 150.0);
}

#[test]
fn a_counter_that_begins_again_is_bridged() {
    let sandbox = Sandbox::new();
    // 200 W: the counter begins again every two seconds.
    StandIn::new(&sandbox, &card("GPU-wrap", &format!("{WAVE}energy_wrap 400000\n")));
    let run = sandbox.run(&trial("", "5s")).expect_exit(0);
    let gpu = figures(&run, "2-users");
    assert_eq!(gpu["energy"]["source"], "counter", "{gpu:#}");
    assert!(gpu["energy"]["note"].as_str().unwrap().contains("began again"), "{gpu:#}");
    let (counted, summed) = (&gpu["energy"]["joules"], &gpu["energy_integrated_j"]);
    let ratio = counted.as_f64().unwrap() / summed.as_f64().unwrap();
    assert!((ratio - 1.0).abs() < 0.01, "{gpu:#}");
    assert!(!marks(&run, "energy_uncertain").is_empty());
}

#[test]
fn a_card_that_gets_too_hot_in_the_second_phase_is_marked_there_and_only_there() {
    let sandbox = Sandbox::new();
    let standin = StandIn::new(&sandbox, &card("GPU-hot", "throttle_at_c 83\ntemp 60\n"));
    let mut running = sandbox.start(&trial("", "3s"));
    running.until_it_says("phase 4-users");
    standin.script(&card("GPU-hot", "throttle_at_c 83\ntemp 91\n"));
    let status = running.wait(Duration::from_secs(60));
    let run = running.run(status).expect_exit(0);
    let marks = marks(&run, "throttled");
    assert_eq!(marks.len(), 1, "{marks:?}");
    assert!(marks[0].contains("4-users") && marks[0].contains("sw_thermal_slowdown"), "{marks:?}");
    let (cool, hot) = (figures(&run, "2-users"), figures(&run, "4-users"));
    assert_eq!(cool["throttled_share"], 0.0);
    assert!(hot["throttled_share"].as_f64().unwrap() > 0.5, "{hot:#}");
    assert_eq!(hot["temperature_max_c"], 91);
    assert!(hot["sm_clock_min_mhz"].as_u64().unwrap() < 900, "{hot:#}");
    let cells = run.json("summary.json")["cells"].clone();
    // The stand-in's card lowers its clocks above 88 C, before its slowdown threshold of 95.
    assert_eq!(cells[1]["gpu"]["headroom_c"], -3, "{cells:#}");
}

/// The engine stands still while this lives, so that the phase under way cannot end.
struct Held(i32);

impl Held {
    /// The engine that a guard has started.
    fn engine_of(running: &Running<'_>) -> Self {
        let guard = running.guard();
        let engine = eventually(Duration::from_secs(10), "the engine runs", || {
            let children = format!("/proc/{guard}/task/{guard}/children");
            fs::read_to_string(children).ok()?.split_whitespace().next()?.parse().ok()
        });
        let held = Self(engine);
        held.signal(Signal::SIGSTOP);
        held
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0), signal).unwrap();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.signal(Signal::SIGCONT);
    }
}

#[test]
fn a_foreign_process_taints_the_phases_that_it_was_there_for() {
    let sandbox = Sandbox::new();
    let standin = StandIn::new(&sandbox, &card("GPU-tainted", ""));
    let text = trial("", "1s")
        .replace("fault = []", "log-requests = true")
        .replace("request = \"10s\"", "request = \"100s\"")
        .replace("phase = \"30s\"", "phase = \"100s\"")
        .replace("stall = \"2s\"", "stall = \"100s\"");
    let mut running = sandbox.start(&text);
    running.until_it_says("phase 4-users");
    // The first phase is over; the next request that the engine logs is the second one's.
    let log = sandbox.only_run().unwrap().join("trials/01-good/attempt-1/engine.log");
    let requests = || fs::read_to_string(&log).unwrap().matches(" request ").count();
    let before = requests();
    eventually(Duration::from_secs(60), "the second phase has begun", || {
        (requests() > before).then_some(())
    });
    let held = Held::engine_of(&running);
    let mut stranger = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    standin.script(&card("GPU-tainted", &format!("process {} 4000\n", stranger.id())));
    running.until_it_says(&format!("a foreign process is on GPU-tainted: pid {}", stranger.id()));
    drop(held);
    let status = running.wait(Duration::from_secs(100));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let run = running.run(status).expect_exit(0);
    let marks = marks(&run, "tainted");
    assert_eq!(marks.len(), 1, "{marks:?}");
    assert!(marks[0].contains(&format!("pid {}", stranger.id())), "{marks:?}");
    assert!(marks[0].contains("4-users") && marks[0].contains("from second"), "{marks:?}");
    // On page one, before any figure.
    let report = run.report();
    let page_one = &report[..report.find("## GPU and energy").unwrap()];
    assert!(page_one.contains("tainted"), "{page_one}");
    assert!(page_one.contains(&format!("pid {}", stranger.id())), "{page_one}");
}

#[test]
fn telemetry_is_ten_rows_a_second_with_the_phase_marked() {
    let sandbox = Sandbox::new();
    StandIn::new(&sandbox, &card("GPU-rows", WAVE));
    let run = sandbox.run(&trial("", "4s")).expect_exit(0);
    let gpu = figures(&run, "2-users");
    let samples = gpu["samples"].as_u64().unwrap();
    let facts = run.json("trials/01-good/attempt-1/phases/2-users/facts.json");
    let seconds = (facts["ended"].as_f64().unwrap() - facts["started"].as_f64().unwrap()) / 1e9;
    let expected = seconds * 10.0;
    // A busy machine makes ticks late, and a late tick is skipped: never more, rarely fewer.
    assert!(samples as f64 > expected * 0.7 && samples as f64 <= expected + 2.0, "{gpu:#}");
    let folder = run.dir.join("trials/01-good/attempt-1/phases/2-users");
    assert!(folder.join("telemetry.parquet").exists() && folder.join("host.parquet").exists());
    let host = run.json("trials/01-good/attempt-1/phases/2-users/host.json");
    assert!(host["client_cores"].as_f64().unwrap() < 1.0, "{host:#}");
    assert!(host["memory_available_min_bytes"].as_u64().unwrap() > 0);
    let Some(python) = std::env::var_os("SWEEPD_TEST_PYTHON") else {
        eprintln!("SWEEPD_TEST_PYTHON is not set: telemetry.parquet was not read with pandas");
        return;
    };
    let program = "import pandas, sys; t = pandas.read_parquet(sys.argv[1]); \
                   print(int(t.in_phase.sum()), t.power_instant_mw.notna().all())";
    let output =
        Command::new(python).args(["-c", program]).arg(folder.join("telemetry.parquet")).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        said.trim(),
        format!("{samples} True"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Everything that the report says under this title.
fn section(report: &str, title: &str) -> String {
    let (_, after) = report.split_once(&format!("## {title}\n")).unwrap();
    after.split("\n## ").next().unwrap().trim().to_owned()
}

/// Without NVIDIA's library: nothing of a GPU is known, and nothing is called zero.
fn expect_no_gpu(run: &Run) {
    let report = run.report();
    assert_eq!(section(&report, "GPU and energy"), "no GPU telemetry", "{report}");
    assert!(report.contains("no_gpu_telemetry"), "{report}");
    assert!(!report.contains("J / output token"), "{report}");
    let summary = run.json("summary.json");
    for cell in summary["cells"].as_array().unwrap() {
        assert_eq!(cell["gpu"], Value::Null, "{cell:#}");
        assert_eq!(cell["cost_per_million"], Value::Null, "{cell:#}");
        for trial in cell["trials"].as_array().unwrap() {
            assert_eq!(trial["gpu"], Value::Null, "{trial:#}");
        }
    }
    let csv = fs::read_to_string(run.dir.join("summary.csv")).unwrap();
    let (names, rows) = csv.split_once('\n').unwrap();
    for (place, name) in names.split(',').enumerate() {
        let of_gpus =
            name == "gpus" || ["gpu_", "energy_", "cost_"].iter().any(|p| name.starts_with(p));
        for row in rows.lines().filter(|_| of_gpus) {
            assert_eq!(row.split(',').nth(place), Some(""), "{name} in {row}");
        }
    }
    assert!(names.contains("energy_j,"), "{names}");
}

#[test]
fn without_a_gpu_the_report_says_so_and_shows_no_zero() {
    let sandbox = Sandbox::new();
    sandbox.set("SWEEPD_NVML_LIBRARY", "/nowhere/libnvidia-ml.so.1");
    expect_no_gpu(&sandbox.run(&sweep(&variant("good", &[]))).expect_exit(0));
}

#[test]
fn an_engine_for_gpus_runs_without_one_too_and_the_timeline_says_why() {
    let sandbox = Sandbox::new();
    sandbox.set("SWEEPD_NVML_LIBRARY", "/nowhere/libnvidia-ml.so.1");
    let file = fs::read_to_string(crate::harness::repository().join("engines/sim.toml")).unwrap();
    let file = format!("{file}\n[gpu]\npin = \"uuid\"\n");
    sandbox.write("config/sweepd/engines/mine.toml", &file);
    let text = sweep(&variant("good", &[]).replace("\"sim\"", "\"mine\""));
    let run = sandbox.run(&text).expect_exit(0);
    expect_no_gpu(&run);
    let timeline = run.attempt("01-good")["timeline"].to_string();
    assert!(timeline.contains("no GPU telemetry") && timeline.contains("/nowhere/"), "{timeline}");
}
