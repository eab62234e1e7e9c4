//! `trace` of a phase: requests at the times and of the lengths that a service once saw.

use super::def::Pattern;
use super::load::{MOST_REQUESTS, MOST_TOKENS};
use super::pattern::in_flight;
use super::variants::Surroundings;
use crate::form::Fields;
use crate::workload::schedule::OpenLoop;
use crate::workload::trace;
use std::num::NonZeroU32;
use std::time::Duration;

const MOST_SPEED: f64 = 1_000_000.0;

pub(super) fn read(
    fields: &Fields<'_>,
    around: &Surroundings<'_>,
    most: Duration,
) -> (Option<NonZeroU32>, Option<Pattern>) {
    for key in ["users", "rate", "stages", "arrivals", "min_requests", "min_duration"] {
        let field = fields.optional(key);
        if field.is_there() {
            let help = "`trace_requests` takes its first so many, `speed_up` plays it faster";
            field.problem("a trace says itself what comes when", Some(help.to_owned()));
        }
    }
    let field = fields.required("trace");
    let entries = field.text().and_then(|text| {
        let path = around.path(&text);
        let read = around.host.read(&path).map_err(|error| error.to_string());
        match read.and_then(|text| trace::parse(&text).map_err(|error| error.to_string())) {
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
        OpenLoop::Trace { offsets: trace::offsets(&entries, speed_up), lengths }
    });
    if let Some(span) = trace.as_ref().map(OpenLoop::expected).filter(|span| *span > most) {
        let span = humantime::format_duration(Duration::from_secs(span.as_secs()));
        let help = "`trace_requests`, `speed_up`, or a longer `phase` in [deadlines]".to_owned();
        field.problem(format!("lasts {span}, longer than a phase may"), Some(help));
    }
    (users, trace.map(Pattern::Open))
}
