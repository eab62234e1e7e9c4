//! From a summary to something to read: Markdown, JSON, CSV, and the headline for a terminal. Pure.
//!
//! Never computes a figure: everything shown is in the summary. Invariant: what is absent prints
//! as a dash, with the reason near, and never as zero.

mod block;
mod csv;
mod figure;
mod markdown;
mod sections;
mod table;

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
    let mut text = sections::headline::table(summary).aligned();
    text.push_str(sections::headline::CAPTION);
    text.push('\n');
    text
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
