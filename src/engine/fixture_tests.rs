//! Real logs against the rules: `engines/fixtures/ENGINE/KIND.CASE.log`.
//!
//! The folder `common` is judged by the common rules alone; the kind `none` is a log without a
//! failure in it.

use super::library::Library;
use super::rules::judge;
use super::rules::tests::read;
use crate::form::host::FakeHost;
use std::fs;
use std::path::Path;

fn verdict(library: &Library, engine: &str, log: &str) -> String {
    let rules = match engine {
        "common" => library.common().log.clone(),
        _ => library.find(engine, &[], &FakeHost::default()).unwrap().log,
    };
    let matcher = read(&rules, log);
    let kind = judge(&matcher, None).map(|judged| serde_json::to_value(judged.kind).unwrap());
    kind.map_or("none".to_owned(), |kind| kind.as_str().unwrap().to_owned())
}

#[test]
fn every_fixture_log_gets_the_verdict_that_its_name_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/fixtures");
    let library = Library::load(Vec::new()).unwrap();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for folder in fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()) {
        let engine = folder.file_name().unwrap().to_str().unwrap().to_owned();
        for file in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let expected = name.split('.').next().unwrap();
            let got = verdict(&library, &engine, &fs::read_to_string(&file).unwrap());
            seen += 1;
            if got != expected {
                wrong.push(format!("{engine}/{name}: {got}"));
            }
        }
    }
    assert!(seen >= 10, "only {seen} fixtures found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
