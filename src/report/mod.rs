//! From a summary to something to read: Markdown, JSON, CSV, and the headline for a terminal. Pure.
//!
//! Never computes a figure: everything shown is in the summary. Invariant: what is absent prints
//! as a dash, with the reason near, and never as zero.

mod block;
mod csv;
mod figure;
mod markdown;
pub(crate) mod saved;
mod sections;
mod table;

use crate::run::calibration::Calibration;
use crate::stats::cell::Cell;
use crate::stats::metric::Metric;
use crate::stats::quantile::Distribution;
use crate::stats::summary::Summary;

/// `report.md`.
pub(crate) fn markdown(summary: &Summary) -> String {
    markdown::markdown(summary)
}

/// `summary.csv`.
pub(crate) fn csv(summary: &Summary) -> String {
    csv::csv(summary)
}

/// `summary.json`.
pub(crate) fn json(summary: &Summary) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(summary).map(|text| text + "\n")
}

/// The table that a run ends with in a terminal.
pub(crate) fn headline_table(summary: &Summary) -> String {
    let mut text = String::new();
    if !summary.cells.is_empty() {
        text = sections::headline::table(summary).aligned() + sections::headline::CAPTION + "\n";
    }
    if !summary.searches.is_empty() {
        text.push_str(&sections::saturation::table(summary).aligned());
    }
    text
}

/// What the load generator adds, for a terminal.
pub(crate) fn calibration_table(calibration: &Calibration) -> String {
    sections::client::calibration(calibration).aligned()
}

/// One cell's latencies, a metric a line, for a terminal.
pub(crate) fn figures_table(cell: &Cell) -> String {
    let titles = ["ms", "n", "mean", "p50", "p90", "p95", "p99", "max"];
    let mut table = table::Table::new(titles);
    for metric in [Metric::Ttft, Metric::Tpot, Metric::Itl, Metric::E2el] {
        let sample = cell.latency.get(&metric);
        let figure = |pick: fn(&Distribution) -> Option<f64>| sample.and_then(pick).into();
        table.row(vec![
            metric.title().into(),
            sample.map_or(0, |sample| sample.n).into(),
            figure(|s| Some(s.mean)),
            figure(|s| s.p50),
            figure(|s| s.p90),
            figure(|s| s.p95),
            figure(|s| s.p99),
            figure(|s| Some(s.max)),
        ]);
    }
    table.aligned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture::run;
    use crate::stats::summary::summarise;

    #[test]
    fn the_headline_stands_alone_in_a_terminal() {
        insta::assert_snapshot!(headline_table(&summarise(&run())));
    }

    #[test]
    fn json_has_no_number_for_what_is_absent() {
        let text = json(&summarise(&run())).unwrap();
        assert!(text.ends_with("}\n"));
        for word in ["NaN", "inf", "Infinity"] {
            assert!(!text.contains(&format!(": {word}")), "{word}");
        }
    }
}
