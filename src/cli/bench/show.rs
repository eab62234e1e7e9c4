//! What `bench` prints, and what it adds to a result file.

use super::plan::{Bench, PromptLength};
use super::under_tls;
use crate::ids::{Name, wire_name};
use crate::report::figures_table;
use crate::stats::cell::Cell;
use crate::stats::data::{PhaseData, PhasePlan};
use crate::stats::goodput::goodput;
use crate::stats::marks::{self, Mark, MarkCode};
use crate::stats::phase::PhaseTrial;
use crate::units::count_f64;
use crate::workload::dataset::described;
use serde_json::{Value, json};
use std::fmt::Write;

pub(super) fn cell(data: &PhaseData, open: Option<String>) -> Cell {
    let plan = PhasePlan {
        name: data.facts.phase.clone(),
        users: data.facts.users,
        min_requests: 0,
        min_duration_s: 0.0,
        open,
    };
    let name = Name::new("server").unwrap_or_else(Name::warmup);
    Cell::of(&name, &plan, 1, vec![PhaseTrial::of(1, 1, data)])
}

fn marks(cell: &Cell) -> Vec<Mark> {
    let all = marks::marks(std::slice::from_ref(cell), &[], &[]);
    // Whose GPU it is, nobody said.
    all.into_iter().filter(|mark| mark.code != MarkCode::NoGpuTelemetry).collect()
}

pub(super) fn result(bench: &Bench, data: &PhaseData, cell: &Cell) -> String {
    let mut text = format!("{}\n\n", requests(cell));
    text.push_str(&figures_table(cell));
    text.push('\n');
    for (name, window) in [("whole phase", &cell.whole), ("steady window", &cell.steady)] {
        let mean = |rate: &Option<crate::stats::interval::OverTrials>| {
            rate.map_or_else(|| "–".to_owned(), |rate| format!("{:.1}", rate.mean))
        };
        let _infallible = writeln!(
            text,
            "{name}: {} s, {} output tok/s, {} tok/s in all, {} requests/s",
            mean(&window.duration_s),
            mean(&window.output_tokens_per_s),
            mean(&window.total_tokens_per_s),
            mean(&window.requests_per_s),
        );
    }
    let _infallible = writeln!(text, "{}", prompt_length(bench, data));
    for line in under_tls::lines(data) {
        let _infallible = writeln!(text, "{line}");
    }
    if let Some(slo) = &bench.slo {
        let good = goodput(slo, &data.facts, &data.records);
        let per_s = good.per_s.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.2}"));
        let (met, sent, limits) = (good.met, good.sent, slo.describe());
        let _infallible =
            writeln!(text, "goodput: {per_s} requests/s, {met} of {sent} within {limits}");
    }
    for error in &cell.requests.errors {
        let said = error.error.as_deref().unwrap_or("no word");
        let _infallible =
            writeln!(text, "failed: {} × {}: {said}", error.count, error.class.name());
    }
    for mark in marks(cell) {
        let _infallible = writeln!(text, "{}: {}", wire_name(&mark.code), mark.detail);
    }
    text
}

fn requests(cell: &Cell) -> String {
    let requests = &cell.requests;
    let classes: Vec<String> = requests
        .failed_by_class
        .iter()
        .map(|(class, count)| format!("{} {count}", class.name()))
        .collect();
    let classes =
        if classes.is_empty() { String::new() } else { format!(" ({})", classes.join(", ")) };
    let (sent, ok, failed) = (requests.sent, requests.ok, requests.failed);
    let who = match &cell.open {
        Some(open) => format!("at {open}, at most {} in flight", cell.users),
        None => format!("by {} users", cell.users),
    };
    format!("{sent} requests {who}: {ok} ok, {failed} failed{classes}")
}

/// The mean of what the server counted, where it did.
fn counted(data: &PhaseData) -> Option<f64> {
    let counts: Vec<u64> = data
        .records
        .iter()
        .filter_map(|record| record.prompt_tokens_reported.map(u64::from))
        .collect();
    (!counts.is_empty()).then(|| count_f64(counts.iter().sum()) / count_f64(counts.len() as u64))
}

fn prompt_length(bench: &Bench, data: &PhaseData) -> String {
    let asked = bench.prompt_tokens;
    let dataset = bench.dataset.as_ref().zip(data.facts.dataset.as_ref());
    let server = counted(data).map_or_else(
        || "the server did not count".to_owned(),
        |mean| format!("the server counted {mean:.1} on average"),
    );
    if let Some((set, part)) = dataset {
        let left_out = described(&part.left_out);
        let left_out = if left_out.is_empty() { "none".to_owned() } else { left_out };
        let (fitting, looked_at) = (part.fitting, part.looked_at);
        return format!(
            "prompts: {}; of {looked_at} looked at {fitting} fit, left out: {left_out}; {server}",
            set.describe()
        );
    }
    match &bench.length {
        PromptLength::Exact { .. } => format!("prompts: exactly {asked} tokens; {server}"),
        PromptLength::Words { tokens_per_word, learnt } => {
            let how = if *learnt {
                format!("words at {tokens_per_word:.3} tokens each, learnt from the server's count")
            } else {
                "one token a word".to_owned()
            };
            format!("prompts: about {asked} tokens, without a tokenizer: {how}; {server}")
        }
    }
}

/// For a result file: what its common fields cannot say.
pub(super) fn facts(bench: &Bench, data: &PhaseData, cell: &Cell) -> Value {
    let classes: serde_json::Map<String, Value> = cell
        .requests
        .failed_by_class
        .iter()
        .map(|(class, count)| (class.name().to_owned(), json!(count)))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "end": data.facts.end,
        "sent": cell.requests.sent,
        "failed_by_class": classes,
        "errors": cell.requests.errors,
        "latency": cell.latency,
        "steady": cell.trials.first().map(|trial| &trial.steady),
        "censoring": cell.censoring,
        "tokens": cell.tokens,
        "client": data.facts.client,
        "marks": marks(cell),
        "prompt_length": prompt_length(bench, data),
        "connections": if bench.keep_alive.is_zero() { "per_request" } else { "reuse" },
        "tls": under_tls::facts(data),
        "api_key_from": bench.key.as_ref().map(|key| &key.from),
        "output_tokens": "by the server; chunks where it did not count",
    })
}
