//! The report as Markdown, readable also as plain text.

use crate::report::block::Block;
use crate::report::sections::{SECTIONS, Section};
use crate::stats::summary::Summary;

pub(crate) fn markdown(summary: &Summary) -> String {
    let mut out = format!("# Benchmark report: {}\n", escape(summary.sweep.as_str()));
    for Section { title, render } in SECTIONS {
        let blocks = render(summary);
        if blocks.is_empty() {
            continue;
        }
        out.push_str(&format!("\n## {title}\n"));
        for block in &blocks {
            out.push('\n');
            out.push_str(&write(block));
        }
    }
    out
}

fn write(block: &Block) -> String {
    match block {
        Block::Subheading(text) => format!("### {}\n", escape(text)),
        Block::Text(text) => format!("{}\n", escape(text)),
        Block::Notice(text) => format!("**{}**\n", escape(text)),
        Block::List(items) => items.iter().map(|item| format!("- {}\n", escape(item))).collect(),
        Block::Terms(terms) => terms
            .iter()
            .map(|(term, meaning)| format!("- **{}**: {}\n", escape(term), escape(meaning)))
            .collect(),
        Block::Table(table) => table.markdown(escape),
        Block::Code(text) => fenced(text),
    }
}

/// Text that came from a server or a log must not become markup.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Backticks in pairs are how advice names a flag; a lone one would swallow what follows.
    let paired = text.matches('`').count().is_multiple_of(2);
    for c in text.chars() {
        match c {
            '`' if paired => out.push(c),
            '\\' | '|' | '*' | '`' | '[' | ']' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '\n' | '\r' | '\t' => out.push(' '),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The fence is longer than any run of backticks inside.
fn fenced(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let clean: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    format!("{fence}text\n{}\n{fence}\n", clean.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture::run;
    use crate::stats::summary::summarise;

    #[test]
    fn text_from_elsewhere_is_no_markup() {
        assert_eq!(escape("a|b <b>*x*</b>\n`c`"), "a\\|b &lt;b>\\*x\\*&lt;/b> `c`");
        assert_eq!(escape("a ` b"), "a \\` b");
        assert_eq!(fenced("x\n```\ny"), "````text\nx\n```\ny\n````\n");
        assert_eq!(fenced("a\u{1b}[31m"), "```text\na[31m\n```\n");
    }

    #[test]
    fn a_whole_report() {
        insta::assert_snapshot!(markdown(&summarise(&run())));
    }

    #[test]
    fn a_report_before_the_first_trial() {
        let mut data = run();
        data.trials.clear();
        insta::assert_snapshot!(markdown(&summarise(&data)));
    }

    /// A small sample gives a dash and the reason, in every table that shows the percentile.
    #[test]
    fn a_percentile_below_its_floor_is_a_dash_with_its_reason() {
        let mut data = run();
        for phase in data.trials.iter_mut().flat_map(|trial| &mut trial.phases) {
            phase.records.truncate(40);
        }
        let report = markdown(&summarise(&data));
        let (_, rest) = report.split_once("## Headline").unwrap();
        let (headline, _) = rest.split_once("## ").unwrap();
        let row = headline.lines().find(|line| line.contains("sim-a")).unwrap();
        let p99 = row.split('|').map(str::trim).nth(9).unwrap();
        assert_eq!(p99, "–", "{row}");
        assert!(headline.contains("too small a sample; p95 needs 59, p99 needs 299"), "{headline}");
    }

    #[test]
    fn every_table_says_that_it_is_simulated() {
        let report = markdown(&summarise(&run()));
        for line in report.lines().filter(|line| line.starts_with('|') && line.contains("sim-a")) {
            assert!(line.contains("sim-a (simulated)"), "{line}");
        }
    }
}
