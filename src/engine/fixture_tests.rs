//! Logs against the rules: `engines/fixtures/ENGINE/KIND.CASE.log`.
//!
//! The folder `common` is judged by the common rules alone; the kind `none` is a log without a
//! failure in it. Every rule has a log in which it holds.

use super::library::Library;
use super::rules::judge;
use super::rules::rule::{LogPhase, LogRules};
use super::rules::scan::{ScanSpec, Scanner};
use super::rules::tests::read_with;
use crate::form::host::FakeHost;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Engine, file name, text of every fixture.
fn fixtures() -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/fixtures");
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let entries = |folder: &Path| -> Vec<_> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let mut found = Vec::new();
    for folder in entries(&root) {
        for file in entries(&folder) {
            found.push((name(&folder), name(&file), fs::read_to_string(&file).unwrap()));
        }
    }
    found
}

fn rules_of(engine: &str) -> LogRules {
    Library::load(Vec::new()).unwrap().log_rules(engine, &FakeHost::default()).unwrap()
}

fn prepared(engine: &str) -> (LogRules, Scanner) {
    let rules = rules_of(engine);
    let scanner = Scanner::new(ScanSpec::new(&rules), LogPhase::Starting);
    (rules, scanner)
}

#[test]
fn every_fixture_log_gets_the_verdict_that_its_name_says() {
    let mut known: BTreeMap<String, (LogRules, Scanner)> = BTreeMap::new();
    let mut wrong = Vec::new();
    let fixtures = fixtures();
    for (engine, name, text) in &fixtures {
        let (rules, scanner) = known.entry(engine.clone()).or_insert_with(|| prepared(engine));
        let judged = judge(&read_with(scanner.clone(), rules, text).0, None);
        let kind = judged.as_ref().map(|judged| serde_json::to_value(judged.kind).unwrap());
        let got = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or("none");
        if name.split('.').next() != Some(got) {
            let why = judged.map_or_else(String::new, |judged| judged.root_cause);
            wrong.push(format!("{engine}/{name}: {got}: {why}"));
        }
    }
    assert!(fixtures.len() >= 100, "only {} fixtures found", fixtures.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_rule_of_a_built_in_engine_has_a_fixture_in_which_it_holds() {
    let common = rules_of("common").failures;
    let mut common_held: BTreeSet<usize> = BTreeSet::new();
    let mut bare = Vec::new();
    let fixtures = fixtures();
    let engines: BTreeSet<&String> = fixtures.iter().map(|(engine, ..)| engine).collect();
    assert!(engines.len() >= 5, "{engines:?}");
    for engine in engines {
        let (rules, scanner) = prepared(engine);
        // An engine's own rules come first.
        let own = rules.failures.len() - common.len();
        let mut held: BTreeSet<usize> = BTreeSet::new();
        for (.., text) in fixtures.iter().filter(|(other, ..)| other == engine) {
            let mut scanner = scanner.clone();
            held.extend(text.lines().flat_map(|line| scanner.read(1, line)).map(|hit| hit.0));
            held.extend(scanner.finish().into_iter().map(|hit| hit.0));
        }
        common_held.extend(held.iter().filter_map(|rule| rule.checked_sub(own)));
        let own = rules.failures.iter().take(own).enumerate();
        let without = own.filter(|(rule, _)| !held.contains(rule));
        bare.extend(without.map(|(_, rule)| format!("{engine}: {}", rule.pattern)));
    }
    let without = common.iter().enumerate().filter(|(rule, _)| !common_held.contains(rule));
    bare.extend(without.map(|(_, rule)| format!("common: {}", rule.pattern)));
    assert!(bare.is_empty(), "no fixture for {bare:#?}");
}
