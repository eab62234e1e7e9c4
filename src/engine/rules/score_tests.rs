//! The built-in rules against labelled real logs of other people, where these are at hand.
//!
//! The logs are not part of this repository: `failure-logs/dev.jsonl` below the folder that
//! `SWEEPD_TEST_SHARED` names, or below `../shared/data`. The engine files are read from the disk, so
//! that a rule can be tried without a build.

use super::scan::{ScanSpec, Scanner};
use super::tests::read_with;
use super::*;
use crate::engine::common::Common;
use crate::engine::def::EngineSource;
use crate::engine::parse::parse;
use crate::engine::rules::rule::{LogPhase, LogRules};
use crate::ids::Name;
use crate::run::outcome::ExitStatus;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder with other people's logs.
pub(in crate::engine) fn shared() -> Option<PathBuf> {
    let named = std::env::var_os("SWEEPD_TEST_SHARED").map(PathBuf::from);
    let shared = named.unwrap_or_else(|| repository().join("../shared")).join("data");
    shared.is_dir().then_some(shared)
}

/// The rules of every engine file, by the name without dashes.
pub(in crate::engine) fn all_rules() -> BTreeMap<String, LogRules> {
    let folder = repository().join("engines");
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    let common_file = folder.join("common.toml");
    let common = Common::parse(&common_file, &text(&common_file)).unwrap();
    let mut rules = BTreeMap::new();
    for file in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        let Some(name) = file.file_name().and_then(|name| name.to_str()?.strip_suffix(".toml"))
        else {
            continue;
        };
        if name != "common" {
            let source = EngineSource::File(file.clone());
            let engine = parse(Name::new(name).unwrap(), source, &text(&file), &common);
            let engine = engine.unwrap_or_else(|problems| panic!("{problems}"));
            rules.insert(name.replace('-', ""), engine.log);
        }
    }
    rules.insert("common".to_owned(), common.log);
    rules
}

fn status(row: &Value) -> Option<ExitStatus> {
    let number = |key| row["exit"][key].as_i64().and_then(|number| i32::try_from(number).ok());
    number("code").map(ExitStatus::Code).or(number("signal").map(ExitStatus::Signal))
}

fn phase(row: &Value) -> Option<LogPhase> {
    match row["phase"].as_str() {
        Some("load") => Some(LogPhase::Serving),
        Some("teardown") => Some(LogPhase::Stopping),
        Some("startup") => Some(LogPhase::Starting),
        _ => None,
    }
}

fn name_of(judged: Option<&Judgement>) -> String {
    let kind = judged.map(|judged| serde_json::to_value(judged.kind).unwrap());
    kind.and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_else(|| "none".to_owned())
}

#[derive(Default)]
struct Score {
    right: usize,
    of: usize,
    false_alarms: Vec<String>,
    /// Label, verdict -> how often.
    confusion: BTreeMap<(String, String), usize>,
    by_confidence: BTreeMap<String, (usize, usize)>,
    wrong: Vec<String>,
}

impl Score {
    fn take(&mut self, row: &Value, judged: Option<&Judgement>) {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let got = name_of(judged);
        let accepted: BTreeSet<&str> =
            row["accepted"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let right = accepted.contains(got.as_str());
        self.of += 1;
        self.right += usize::from(right);
        *self.confusion.entry((text("label"), got.clone())).or_default() += 1;
        let confidence = judged.map_or("none".to_owned(), |j| format!("{:?}", j.confidence));
        let (sure, all) = self.by_confidence.entry(confidence).or_default();
        *sure += usize::from(right);
        *all += 1;
        if accepted.len() == 1 && accepted.contains("none") && got != "none" {
            self.false_alarms.push(text("id"));
        }
        if !right {
            let why = judged.map_or("", |judged| judged.root_cause.as_str());
            let why: String = why.chars().take(160).collect();
            self.wrong.push(format!("{}: {got}, not {accepted:?}: {why}", text("id")));
        }
    }

    fn share(&self) -> f64 {
        100.0 * self.right as f64 / self.of.max(1) as f64
    }

    fn print(&self) {
        println!("label -> verdict: rows");
        for ((label, got), count) in &self.confusion {
            let mark = if label == got { ' ' } else { '*' };
            println!("{mark} {label:30} -> {got:30} {count:3}");
        }
        for (confidence, (right, all)) in &self.by_confidence {
            println!("confidence {confidence}: {right} of {all} right");
        }
        for wrong in &self.wrong {
            println!("wrong: {wrong}");
        }
        println!("{} of {} right: {:.1} %", self.right, self.of, self.share());
    }
}

/// Rules that rest on one log alone say nothing of how they hold for others.
fn print_one_sample(rules: &BTreeMap<String, LogRules>) {
    let mut patterns: Vec<&str> = Vec::new();
    for rule in rules.values().flat_map(|rules| &rules.failures).filter(|rule| rule.one_sample) {
        if !patterns.contains(&rule.pattern.as_str()) {
            patterns.push(rule.pattern.as_str());
            let origin = rule.origin.as_deref().unwrap_or_default();
            println!("rests on one log alone: {} ({origin})", rule.pattern);
        }
    }
}

/// What real engines wrote on this project's own machines, and what it means: a part of the file's
/// name, then the kind.
const OWN_RUNS: [(&str, &str); 36] = [
    ("sglang/b-no-gpu", "no_gpu"),
    ("sglang/b2-no-gpu", "no_gpu"),
    ("sglang/b3-", "dependency_import_error"),
    ("sglang/b5-", "none"),
    ("sglang/c-bad-model-path", "model_not_found"),
    ("sglang/d-unknown-flag", "bad_flag"),
    ("sglang/d2-", "none"),
    ("sglang/d3-", "bad_flag"),
    ("sglang/d5-", "none"),
    ("sglang/e-port", "port_in_use"),
    ("sglang/e2-port", "port_in_use"),
    ("sglang/f1-", "gpu_oom_kv_cache"),
    ("sglang/f2-", "host_oom"),
    ("sglang/f4-", "bad_config"),
    ("sglang/h-kill9", "none"),
    ("sglang/j-unsupported", "unsupported_model_or_arch"),
    ("sglang/k-corrupt", "unsupported_model_or_arch"),
    ("sglang/k2-missing", "model_not_found"),
    ("sglang/k3-missing", "tokenizer_or_template_error"),
    ("lmdeploy/success-start", "none"),
    ("lmdeploy/bad-model-path", "model_not_found"),
    ("lmdeploy/cache-0.0001", "gpu_oom_kv_cache"),
    ("lmdeploy/cache-5.0", "bad_config"),
    ("lmdeploy/device-cpu", "bad_flag"),
    ("lmdeploy/nogpu-pytorch", "no_gpu"),
    ("lmdeploy/port-in-use-3", "port_in_use"),
    ("lmdeploy/truncated", "unsupported_model_or_arch"),
    ("lmdeploy/turbomind-native", "cuda_driver_mismatch"),
    ("lmdeploy/unknown-model-type", "none"),
    ("lmdeploy/unsupported-arch", "unsupported_model_or_arch"),
    ("vllm/vllm-cpu-port", "port_in_use"),
    ("vllm/vllm-cpu-unknown-flag", "bad_flag"),
    ("vllm/vllm-cpu-sigterm", "none"),
    ("llama-cpp/llama-server-built-sigterm", "none"),
    (
        "llama-cpp/xllamacpp-",
        "none|bad_flag|model_not_found|unsupported_model_or_arch|host_oom|port_in_use",
    ),
    ("llama-cpp/llama-server-oom", "host_oom"),
];

/// The recorder's own lines begin with `#`, its prefixes with `+`.
fn as_written(text: &str) -> String {
    let line = |line: &str| {
        let bare = line.strip_prefix('+').and_then(|rest| rest.split_once("| "));
        bare.map_or(line, |(_, line)| line).to_owned()
    };
    let lines: Vec<String> = text.lines().filter(|l| !l.starts_with('#')).map(line).collect();
    lines.join("\n")
}

#[test]
fn runs_of_real_engines_are_told_apart_and_healthy_ones_alarm_nobody() {
    let Some(folder) = shared().map(|shared| shared.join("engine-logs")).filter(|f| f.is_dir())
    else {
        println!("skipped: no logs of real engines at hand");
        return;
    };
    let rules = all_rules();
    let mut scanners: BTreeMap<&str, Scanner> = BTreeMap::new();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (run, expected) in OWN_RUNS {
        let (engine, beginning) = run.split_once('/').unwrap();
        let bare = engine.replace('-', "");
        let files = fs::read_dir(folder.join(engine)).unwrap().map(|entry| entry.unwrap().path());
        let named = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning))
        };
        for file in files.filter(named) {
            let scanner = scanners
                .entry(engine)
                .or_insert_with(|| Scanner::new(ScanSpec::new(&rules[&bare]), LogPhase::Starting));
            let text = fs::read(&file).unwrap();
            let text = as_written(&String::from_utf8_lossy(&text));
            let judged = judge(&read_with(scanner.clone(), &rules[&bare], &text).0, None);
            let got = name_of(judged.as_ref());
            seen += 1;
            if !expected.split('|').any(|kind| kind == got) {
                let why = judged.map_or_else(String::new, |judged| judged.root_cause);
                wrong.push(format!("{}: {got}, not {expected}: {why}", file.display()));
            }
        }
    }
    assert!(seen >= OWN_RUNS.len(), "only {seen} logs found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn real_logs_get_the_cause_that_readers_found() {
    let Some(file) = shared().map(|shared| shared.join("failure-logs/dev.jsonl")) else {
        println!("skipped: no labelled logs at hand");
        return;
    };
    let Ok(text) = fs::read_to_string(&file) else {
        println!("skipped: {} is not there", file.display());
        return;
    };
    let rules = all_rules();
    let mut scanners: BTreeMap<(String, LogPhase), Scanner> = BTreeMap::new();
    let mut score = Score::default();
    for row in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let engine = row["engine"].as_str().unwrap();
        let rules = rules.get(engine).unwrap_or(&rules["common"]);
        let phase = phase(&row);
        let least = phase.unwrap_or_default();
        let scanner = scanners.entry((engine.to_owned(), least));
        let scanner = scanner.or_insert_with(|| Scanner::new(ScanSpec::new(rules), least));
        let (log, scanner) = read_with(scanner.clone(), rules, row["log"].as_str().unwrap());
        let symptom = symptom_of(status(&row), phase, &scanner);
        score.take(&row, judge(&log, symptom.as_ref()).as_ref());
    }
    score.print();
    print_one_sample(&rules);
    assert!(score.of >= 100, "only {} rows", score.of);
    assert!(
        score.false_alarms.is_empty(),
        "failures seen in healthy logs: {:?}",
        score.false_alarms
    );
    assert!(score.share() >= 93.0, "{:.1} % right", score.share());
}
