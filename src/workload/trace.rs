//! Traces of real services: when requests came, and how long prompt and answer were. Pure.
//!
//! Three forms are told from one another by their first line: Mooncake (JSON lines with `timestamp`
//! in ms, `input_length`, `output_length`), Azure (CSV `TIMESTAMP,ContextTokens,GeneratedTokens`) and
//! BurstGPT (CSV with `Timestamp` in s, `Request tokens`, `Response tokens`).
//!
//! Invariant: entries are in the order of their times, the first of them at 0.

use super::dataset::talk::class;
use serde::Deserialize;
use std::time::{Duration, SystemTime};

/// One request of a trace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// From the first one on.
    pub(crate) at_s: f64,
    pub(crate) prompt_tokens: u32,
    pub(crate) output_tokens: u32,
    /// What its class field says.
    pub(crate) class: Option<String>,
}

/// Completes "the trace FILE: …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TraceError {
    #[error("line 1 is of no known form; Mooncake, Azure and BurstGPT traces are")]
    Form,
    #[error("line {line}: {why}")]
    Line { line: usize, why: String },
    #[error("it has no request")]
    Empty,
    #[error("line 1 has no column {name:?}")]
    NoColumn { name: String },
}

#[derive(Deserialize)]
struct Mooncake {
    timestamp: f64,
    input_length: u32,
    output_length: u32,
}

/// Where the columns of a CSV stand, and what its times are.
struct Columns {
    at: usize,
    prompt: usize,
    output: usize,
    dates: bool,
    class: Option<usize>,
}

/// Reads a whole trace. Requests without an answer (they failed then) are left out. `class_field`:
/// the column, or the key, whose text is the class.
pub(crate) fn parse(text: &str, class_field: Option<&str>) -> Result<Vec<Entry>, TraceError> {
    let first = text.lines().next().unwrap_or_default();
    let columns = if first.trim_start().starts_with('{') {
        None
    } else {
        let mut columns = columns(first).ok_or(TraceError::Form)?;
        if let Some(name) = class_field {
            let place = column_names(first).iter().position(|other| *other == name.to_lowercase());
            let missing = || TraceError::NoColumn { name: name.to_owned() };
            columns.class = Some(place.ok_or_else(missing)?);
        }
        Some(columns)
    };
    let skipped = usize::from(columns.is_some());
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate().skip(skipped) {
        if line.trim().is_empty() {
            continue;
        }
        let entry = match &columns {
            None => mooncake(line, class_field),
            Some(columns) => columns.entry(line),
        };
        let entry = entry.map_err(|why| TraceError::Line { line: index + 1, why })?;
        if entry.prompt_tokens > 0 && entry.output_tokens > 0 {
            entries.push(entry);
        }
    }
    // Some traces are ordered by the end of a request.
    entries.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    let began = entries.first().ok_or(TraceError::Empty)?.at_s;
    entries.iter_mut().for_each(|entry| entry.at_s -= began);
    Ok(entries)
}

fn mooncake(line: &str, class_field: Option<&str>) -> Result<Entry, String> {
    let Mooncake { timestamp, input_length, output_length } =
        serde_json::from_str(line).map_err(|error| error.to_string())?;
    let at_s = timestamp / 1e3;
    let class = class_field.and_then(|field| class(line, field));
    Ok(Entry { at_s, prompt_tokens: input_length, output_tokens: output_length, class })
}

fn column_names(head: &str) -> Vec<String> {
    head.trim_start_matches('\u{feff}').split(',').map(|n| n.trim().to_lowercase()).collect()
}

fn columns(head: &str) -> Option<Columns> {
    let names = column_names(head);
    let place = |name: &str| names.iter().position(|other| other == name);
    let at = place("timestamp")?;
    match (place("contexttokens"), place("generatedtokens")) {
        (Some(prompt), Some(output)) => {
            Some(Columns { at, prompt, output, dates: true, class: None })
        }
        _ => Some(Columns {
            at,
            prompt: place("request tokens")?,
            output: place("response tokens")?,
            dates: false,
            class: None,
        }),
    }
}

impl Columns {
    fn entry(&self, line: &str) -> Result<Entry, String> {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let field = |place: usize| {
            fields.get(place).copied().ok_or_else(|| format!("it has {} columns", fields.len()))
        };
        let count = |place: usize| {
            let text = field(place)?;
            text.parse::<u32>().map_err(|_| format!("{text:?} is no number of tokens"))
        };
        let at = field(self.at)?;
        let at_s = if self.dates { date_s(at) } else { at.parse().ok() };
        Ok(Entry {
            at_s: at_s
                .filter(|at: &f64| at.is_finite())
                .ok_or_else(|| format!("{at:?} is no time"))?,
            prompt_tokens: count(self.prompt)?,
            output_tokens: count(self.output)?,
            class: match self.class {
                Some(place) => Some(field(place)?.to_owned()),
                None => None,
            },
        })
    }
}

/// Seconds since 1970, of `2023-11-16 18:15:46.6805900`.
fn date_s(text: &str) -> Option<f64> {
    let text = text.strip_suffix("+00:00").unwrap_or(text);
    let at = humantime::parse_rfc3339_weak(text).ok()?;
    at.duration_since(SystemTime::UNIX_EPOCH).ok().as_ref().map(Duration::as_secs_f64)
}

/// Nanoseconds from the start to each request, so many times as fast.
pub(crate) fn offsets(entries: &[Entry], speed_up: f64) -> Vec<u64> {
    let span = |entry: &Entry| Duration::try_from_secs_f64(entry.at_s / speed_up);
    let ns = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    entries.iter().map(|entry| ns(span(entry).unwrap_or(Duration::MAX))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[(f64, u32, u32)]) {
        let got = parse(text, None).unwrap();
        assert_eq!(got.len(), want.len());
        for (entry, (at, prompt, output)) in got.iter().zip(want) {
            assert!((entry.at_s - at).abs() < 1e-6, "{entry:?}");
            assert_eq!((entry.prompt_tokens, entry.output_tokens), (*prompt, *output));
        }
    }

    #[test]
    fn each_form_is_known_by_its_first_line() {
        check(
            "{\"timestamp\": 27482, \"input_length\": 6955, \"output_length\": 52, \"hash_ids\": [46, 47]}\n\
             {\"timestamp\": 30535, \"input_length\": 6472, \"output_length\": 26, \"hash_ids\": []}\n",
            &[(0.0, 6955, 52), (3.053, 6472, 26)],
        );
        check(
            "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n\
             2023-11-16 18:15:50.9951690,396,109\r\n",
            &[(0.0, 374, 44), (4.314_579, 396, 109)],
        );
        check(
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n",
            &[(0.0, 2162, 5)],
        );
        // One failed, and they are ordered by something else.
        check(
            "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
             118,GPT-4,10,2,12,API log\n5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,API log\n",
            &[(0.0, 472, 18), (113.0, 10, 2)],
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, want) in [
            ("", "of no known form"),
            ("a,b,c\n1,2,3\n", "of no known form"),
            ("Timestamp,Request tokens,Response tokens\n1,2\n", "line 2: it has 2 columns"),
            ("Timestamp,Request tokens,Response tokens\nx,2,3\n", "line 2: \"x\" is no time"),
            ("Timestamp,Request tokens,Response tokens\n1,-2,3\n", "is no number of tokens"),
            ("{\"timestamp\": 1}\n", "line 1: missing field `input_length`"),
            ("Timestamp,Request tokens,Response tokens\n1,2,0\n", "it has no request"),
        ] {
            let error = parse(text, None).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn a_column_or_a_key_names_the_class() {
        let said = |text: &str, field| -> Vec<Option<String>> {
            parse(text, Some(field)).unwrap().into_iter().map(|entry| entry.class).collect()
        };
        let csv = "Timestamp,Request tokens,Response tokens,Log Type\n1,2,3,API log\n2,2,3,Chat\n";
        assert_eq!(said(csv, "log type"), [Some("API log".to_owned()), Some("Chat".to_owned())]);
        let json = "{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 3, \"tier\": 1}\n\
                    {\"timestamp\": 2, \"input_length\": 2, \"output_length\": 3}\n";
        assert_eq!(said(json, "tier"), [Some("1".to_owned()), None]);
        let error = parse(csv, Some("tier")).unwrap_err().to_string();
        assert_eq!(error, "line 1 has no column \"tier\"");
    }

    #[test]
    fn a_trace_may_be_played_faster() {
        let text = "Timestamp,Request tokens,Response tokens\n10,1,1\n14,1,1\n";
        assert_eq!(offsets(&parse(text, None).unwrap(), 2.0), [0, 2_000_000_000]);
    }
}
