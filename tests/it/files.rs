//! A run's files: whole, in other people's tools too.

use crate::harness::{Run, Sandbox, repository, sweep, variant, walk};
use std::process::Command;

fn measured(sandbox: &Sandbox) -> Run {
    let text = sweep(&format!("{}{}", variant("a", &[]), variant("b", &["http-500@request=9"])));
    sandbox.run(&text.replace("blocks = 1", "blocks = 2")).expect_exit(0)
}

#[test]
fn requests_open_in_pandas_polars_and_duckdb_with_every_record() {
    let Some(python) = std::env::var_os("SWEEPD_TEST_PYTHON") else {
        eprintln!("skipped: SWEEPD_TEST_PYTHON is not set; scripts/test sets it");
        return;
    };
    let sandbox = Sandbox::new();
    let run = measured(&sandbox);
    let output = Command::new(python)
        .arg(repository().join("tests/python/read_parquet.py"))
        .arg(&run.dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    let totals: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    // Two variants, two blocks, two phases and a warm-up each.
    assert_eq!(totals["files"], 12, "{totals}");
    assert!(totals["rows"].as_u64().unwrap() >= 8 * 12, "{totals}");
    // What the engine said of itself in each phase.
    assert!(totals["sample_files"].as_u64().unwrap() >= 8, "{totals}");
    assert!(totals["sample_values"].as_u64().unwrap() > 0, "{totals}");
}

#[test]
fn a_report_is_made_again_from_the_files_alone() {
    let sandbox = Sandbox::new();
    let run = measured(&sandbox);
    let (before, summary) = (run.report(), run.json("summary.json"));
    for name in ["report.md", "summary.json", "summary.csv"] {
        std::fs::remove_file(run.dir.join(name)).unwrap();
    }
    let status = sandbox.command(&["report", run.dir.to_str().unwrap()]).status().unwrap();
    assert!(status.success());
    assert_eq!(run.report(), before);
    assert_eq!(run.json("summary.json"), summary);
}

#[test]
fn nothing_half_written_is_left_and_simulated_results_say_so() {
    let sandbox = Sandbox::new();
    let run = measured(&sandbox);
    let odd: Vec<_> = walk(&run.dir)
        .into_iter()
        .filter(|path| {
            path.extension()
                .is_some_and(|e| e == "tmp" || e == "frames" || e == "new" || e == "old")
        })
        .collect();
    assert!(odd.is_empty(), "{odd:?}");
    assert!(run.report().to_lowercase().contains("simulated"));
    assert!(run.stdout.to_lowercase().contains("simulated"), "{}", run.stdout);
    assert_eq!(run.trial("02-a")["simulated"], true);
}
