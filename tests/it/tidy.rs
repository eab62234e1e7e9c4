//! Rules of the house that a compiler does not know.

use crate::harness::{repository, walk};
use std::fs;
use std::path::{Path, PathBuf};

fn sources() -> Vec<(PathBuf, String)> {
    let rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    walk(&repository().join("src"))
        .into_iter()
        .filter(rust)
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(repository()).unwrap().to_owned(), text)
        })
        .collect()
}

#[test]
fn every_module_says_what_it_does() {
    let silent: Vec<_> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|s| s.0).collect();
    assert!(silent.is_empty(), "no module docs in {silent:?}");
}

#[test]
fn no_file_is_longer_than_five_hundred_lines() {
    let long: Vec<_> =
        sources().into_iter().filter(|(_, text)| text.lines().count() > 500).map(|s| s.0).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn no_engine_is_named_in_the_source() {
    let names: Vec<String> = fs::read_dir(repository().join("engines"))
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            entry.file_name().into_string().ok()?.strip_suffix(".toml").map(Into::into)
        })
        .filter(|name| name != "common" && name != "sim")
        .chain(["sglang", "lmdeploy", "vllm", "llama"].map(String::from))
        .collect();
    assert!(names.len() >= 4);
    // The simulated engine is one itself; the other is only tests, a list of logs by engine.
    let may_name = [Path::new("src/sim"), Path::new("src/engine/rules/score_tests.rs")];
    let may_not = |path: &Path| !may_name.iter().any(|may| path.starts_with(may));
    for (path, text) in sources().iter().filter(|(path, _)| may_not(path)) {
        let text = text.to_lowercase();
        for name in &names {
            // A name in the fields of a well-known result format is no dependence.
            assert!(!text.contains(name.as_str()), "{name} in {}", path.display());
        }
    }
}

#[test]
fn deep_layers_never_call_up() {
    // Each layer, and what it may not know of.
    let above: [(&str, &[&str]); 8] = [
        (
            "run",
            &["stats", "report", "store", "daemon", "cli", "load", "supervise", "sample", "gpu"],
        ),
        (
            "engine",
            &["sweep", "stats", "report", "store", "daemon", "cli", "load", "supervise", "gpu"],
        ),
        (
            "sweep",
            &["stats", "report", "store", "daemon", "cli", "load", "supervise", "sample", "gpu"],
        ),
        ("stats", &["report", "store", "daemon", "cli", "load", "supervise", "sample", "gpu"]),
        ("report", &["store", "daemon", "cli", "load", "supervise", "sample", "gpu"]),
        ("load", &["store", "daemon", "cli", "supervise", "sample", "stats", "report", "gpu"]),
        ("gpu", &["store", "daemon", "cli", "load", "supervise", "sample", "stats", "report"]),
        ("supervise", &["store", "daemon", "cli", "load", "sample", "stats", "report", "gpu"]),
    ];
    for (path, text) in sources() {
        for (layer, unknown) in above {
            if !path.starts_with(format!("src/{layer}")) {
                continue;
            }
            for other in unknown {
                let call = format!("crate::{other}::");
                assert!(!text.contains(&call), "{call} in {}", path.display());
            }
        }
    }
}
