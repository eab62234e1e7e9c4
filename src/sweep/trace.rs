//! `trace` of a phase: requests at the times and of the lengths that a service once saw.

use super::classes;
use super::def::Pattern;
use super::load::{MOST_REQUESTS, MOST_TOKENS};
use super::pattern::in_flight;
use super::variants::Surroundings;
use crate::form::{Field, Fields};
use crate::run::slo::Class;
use crate::workload::schedule::OpenLoop;
use crate::workload::trace;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

/// Unknown classes are told up to this many.
const MOST_UNKNOWN: usize = 20;
const MOST_SPEED: f64 = 1_000_000.0;

pub(super) fn read(
    fields: &Fields<'_>,
    around: &Surroundings<'_>,
    most: Duration,
    classes: &[Class],
) -> (Option<NonZeroU32>, Option<Pattern>) {
    for key in ["users", "rate", "stages", "arrivals", "min_requests", "min_duration"] {
        let field = fields.optional(key);
        if field.is_there() {
            let help = "`trace_requests` takes its first so many, `speed_up` plays it faster";
            field.problem("a trace says itself what comes when", Some(help.to_owned()));
        }
    }
    let class_field = classes::field_of(fields, classes);
    let field = fields.required("trace");
    let entries = field.text().and_then(|text| {
        let path = around.data_file(&text);
        let read = around.host.read(&path).map_err(|error| error.to_string());
        match read.and_then(|text| {
            trace::parse(&text, class_field.as_deref()).map_err(|error| error.to_string())
        }) {
            Ok(entries) => Some(entries),
            Err(why) => {
                field.problem(format!("the trace {}: {why}", path.display()), None);
                None
            }
        }
    });
    let speed_up = fields.optional("speed_up");
    let speed_up = if speed_up.is_there() { speed_up.float(0.001..=MOST_SPEED) } else { Some(1.0) };
    let first = fields.optional("trace_requests");
    let first =
        if first.is_there() { first.count(MOST_REQUESTS) } else { NonZeroU32::new(MOST_REQUESTS) };
    let users = in_flight(fields);
    let trace = entries.zip(speed_up).zip(first).map(|((mut entries, speed_up), first)| {
        entries.truncate(usize::try_from(first.get()).unwrap_or(usize::MAX));
        let lengths = entries
            .iter()
            .map(|entry| [entry.prompt_tokens, entry.output_tokens].map(|n| n.min(MOST_TOKENS)))
            .collect();
        let classes = match class_field {
            Some(_) => named(&entries, classes, &fields.optional("class_field")),
            None => Vec::new(),
        };
        OpenLoop::Trace { offsets: trace::offsets(&entries, speed_up), lengths, classes }
    });
    if let Some(span) = trace.as_ref().map(OpenLoop::expected).filter(|span| *span > most) {
        let span = humantime::format_duration(Duration::from_secs(span.as_secs()));
        let help = "`trace_requests`, `speed_up`, or a longer `phase` in [deadlines]".to_owned();
        field.problem(format!("lasts {span}, longer than a phase may"), Some(help));
    }
    (users, trace.map(Pattern::Open))
}

/// The class of each request, by its place; where shares are drawn, what names none is drawn.
fn named(entries: &[trace::Entry], classes: &[Class], field: &Field<'_>) -> Vec<Option<u32>> {
    let mut unknown: BTreeMap<&str, u64> = BTreeMap::new();
    let place = |entry: &trace::Entry| {
        let said = entry.class.as_deref()?;
        classes.iter().position(|class| class.value == said)
    };
    let mut found = Vec::with_capacity(entries.len());
    for entry in entries {
        let class = place(entry);
        if class.is_none() {
            *unknown.entry(entry.class.as_deref().unwrap_or("")).or_default() += 1;
        }
        found.push(class.and_then(|class| u32::try_from(class).ok()));
    }
    let drawn = classes.iter().all(|class| class.share.is_some());
    for (said, count) in unknown.iter().take(MOST_UNKNOWN).filter(|_| !drawn) {
        let known: Vec<&str> = classes.iter().map(|class| class.value.as_str()).collect();
        let help =
            format!("[[classes]] has {}; with a `share` each these are drawn", known.join(", "));
        field.problem(format!("{count} requests are of class {said:?}"), Some(help));
    }
    found
}
