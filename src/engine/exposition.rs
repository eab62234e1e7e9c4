//! Prometheus text, as far as an engine file asks for it. Pure.
//!
//! It never interprets a figure. Invariant: a series that is not there, or whose value is no
//! finite number, is absent; it never counts as zero.

use crate::form::Wrong;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What sweepd wants to know of an engine while it works, by its own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MetricName {
    RequestsRunning,
    RequestsWaiting,
    /// 0 to 1.
    KvCacheUsageRatio,
    /// 0 to 1.
    PrefixCacheHitRatio,
    PromptTokensTotal,
    CachedTokensTotal,
    GenerationTokensTotal,
    /// Requests thrown out of the batch for want of KV cache, to be run again.
    RetractionsTotal,
    /// Sum and count of the engine's own TTFT histogram.
    TtftSecondsSum,
    TtftSecondsCount,
}

impl MetricName {
    /// In the order of their columns.
    pub(crate) const ALL: [Self; 10] = [
        Self::RequestsRunning,
        Self::RequestsWaiting,
        Self::KvCacheUsageRatio,
        Self::PrefixCacheHitRatio,
        Self::PromptTokensTotal,
        Self::CachedTokensTotal,
        Self::GenerationTokensTotal,
        Self::RetractionsTotal,
        Self::TtftSecondsSum,
        Self::TtftSecondsCount,
    ];

    /// The name in files; the same as in JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::RequestsRunning => "requests_running",
            Self::RequestsWaiting => "requests_waiting",
            Self::KvCacheUsageRatio => "kv_cache_usage_ratio",
            Self::PrefixCacheHitRatio => "prefix_cache_hit_ratio",
            Self::PromptTokensTotal => "prompt_tokens_total",
            Self::CachedTokensTotal => "cached_tokens_total",
            Self::GenerationTokensTotal => "generation_tokens_total",
            Self::RetractionsTotal => "retractions_total",
            Self::TtftSecondsSum => "ttft_seconds_sum",
            Self::TtftSecondsCount => "ttft_seconds_count",
        }
    }

    /// Several series of one name (ranks, label values) make one figure: counts add up, of shares
    /// the highest counts.
    fn combine(self, values: impl Iterator<Item = f64>) -> Option<f64> {
        match self {
            Self::KvCacheUsageRatio | Self::PrefixCacheHitRatio => values.reduce(f64::max),
            _ => values.reduce(|sum, value| sum + value),
        }
    }
}

/// A series by its name and, where it is said, some of its labels: `x:running{rank="0"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Selector {
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || {
            Wrong::new(format!("{text:?} names no series"))
                .help("such as `engine:running` or `engine:running{rank=\"0\"}`")
        };
        let (name, labels) = split_series(text.trim()).ok_or_else(wrong)?;
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if name.is_empty() || !name.chars().all(valid) {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), labels })
    }

    fn selects(&self, series: &Series) -> bool {
        series.name == self.name
            && self.labels.iter().all(|(label, value)| series.labels.get(label) == Some(value))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.labels.is_empty() {
            return Ok(());
        }
        let pairs: Vec<String> =
            self.labels.iter().map(|(label, value)| format!("{label}={value:?}")).collect();
        write!(f, "{{{}}}", pairs.join(","))
    }
}

impl Serialize for Selector {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One line of an exposition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// The series of `text` whose names are among `wanted`; lines that are none are passed over.
pub(crate) fn series(text: &str, wanted: &[&str]) -> Vec<Series> {
    let is_wanted = |line: &&str| {
        let end = line.find(|c: char| c == '{' || c.is_whitespace()).unwrap_or(line.len());
        wanted.contains(&&line[..end])
    };
    text.lines().map(str::trim).filter(is_wanted).filter_map(one).collect()
}

/// The figures that `names` asks for; what is not there is missing.
pub(crate) fn figures(
    text: &str,
    names: &BTreeMap<MetricName, Selector>,
) -> BTreeMap<MetricName, f64> {
    let wanted: Vec<&str> = names.values().map(|selector| selector.name.as_str()).collect();
    let all = series(text, &wanted);
    let figure = |(name, selector): (&MetricName, &Selector)| {
        let values = all.iter().filter(|series| selector.selects(series)).map(|s| s.value);
        Some((*name, name.combine(values)?))
    };
    names.iter().filter_map(figure).collect()
}

/// The first series that the selector takes.
pub(crate) fn find(text: &str, selector: &Selector) -> Option<Series> {
    series(text, &[&selector.name]).into_iter().find(|series| selector.selects(series))
}

/// `name{label="value"} 1.5 [timestamp]`
fn one(line: &str) -> Option<Series> {
    let end = match line.find('{') {
        Some(open) => open + end_of_labels(&line[open..])?,
        None => line.find(char::is_whitespace)?,
    };
    let (name, labels) = split_series(line.get(..end)?)?;
    let value: f64 = line.get(end..)?.split_whitespace().next()?.parse().ok()?;
    value.is_finite().then(|| Series { name: name.to_owned(), labels, value })
}

/// Bytes up to and with the closing brace; braces inside quotes do not count.
fn end_of_labels(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn split_series(text: &str) -> Option<(&str, BTreeMap<String, String>)> {
    let Some((name, rest)) = text.split_once('{') else {
        return Some((text, BTreeMap::new()));
    };
    let mut rest = rest.strip_suffix('}')?;
    let mut labels = BTreeMap::new();
    while !rest.trim().is_empty() {
        let (label, after) = rest.split_once("=\"")?;
        let label = label.trim_start_matches(',').trim();
        let (value, after) = unquote(after)?;
        labels.insert(label.to_owned(), value);
        rest = after;
    }
    Some((name, labels))
}

/// A label's value after its opening quote, and what follows the closing one.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP x:running Requests.\n# TYPE x:running gauge\n\
x:running{rank=\"0\",model=\"a }b\\\"c\"} 2.0\nx:running{rank=\"1\"} 3\nx:usage{rank=\"0\"} 0.25 1795565458000\n\
x:usage{rank=\"1\"} 0.5\nx:bad NaN\nx:plain_sum 1e-3\nx:running_not 9\nbroken{\n";

    fn names(pairs: &[(MetricName, &str)]) -> BTreeMap<MetricName, Selector> {
        pairs.iter().map(|(name, text)| (*name, Selector::parse(text).unwrap())).collect()
    }

    #[test]
    fn counts_add_up_and_of_shares_the_highest_counts() {
        let names = names(&[
            (MetricName::RequestsRunning, "x:running"),
            (MetricName::RequestsWaiting, "x:running{rank=\"1\"}"),
            (MetricName::KvCacheUsageRatio, "x:usage"),
            (MetricName::TtftSecondsSum, "x:plain_sum"),
        ]);
        let expected = BTreeMap::from([
            (MetricName::RequestsRunning, 5.0),
            (MetricName::RequestsWaiting, 3.0),
            (MetricName::KvCacheUsageRatio, 0.5),
            (MetricName::TtftSecondsSum, 0.001),
        ]);
        assert_eq!(figures(TEXT, &names), expected);
    }

    #[test]
    fn what_is_not_there_is_absent() {
        let names = names(&[
            (MetricName::RequestsRunning, "x:running{rank=\"7\"}"),
            (MetricName::RequestsWaiting, "x:bad"),
            (MetricName::RetractionsTotal, "broken"),
        ]);
        assert_eq!(figures(TEXT, &names), BTreeMap::new());
    }

    #[test]
    fn labels_are_read_with_their_escapes() {
        let found = find(TEXT, &Selector::parse("x:running").unwrap()).unwrap();
        assert_eq!(found.labels["model"], "a }b\"c");
    }

    #[test]
    fn what_names_no_series_is_refused() {
        for text in ["a b", "{a=\"b\"}", "a{b}", "a{b=\"c\""] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
        let selector = Selector::parse("a:b{c=\"d\"}").unwrap();
        assert_eq!(selector.to_string(), "a:b{c=\"d\"}");
    }

    #[test]
    fn names_in_files_are_those_of_json() {
        for name in MetricName::ALL {
            assert_eq!(serde_json::to_value(name).unwrap(), name.name());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-c{}=\"\\\\ ,0-9\n]{0,40}") {
            drop(series(&text, &["a", "b", "c"]));
            drop(Selector::parse(&text));
        }
    }
}
