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
    assert!(score.of >= 100, "only {} rows", score.of);
    assert!(
        score.false_alarms.is_empty(),
        "failures seen in healthy logs: {:?}",
        score.false_alarms
    );
    assert!(score.share() >= 93.0, "{:.1} % right", score.share());
}
