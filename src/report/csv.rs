//! The summary as one flat table (RFC 4180), for pandas and spreadsheets.
//!
//! One row for every variant and phase over all trials (`scope` is `all_trials`), and one for each
//! of its trials (`trial`). Units are in the column names; what is absent is an empty field.

use crate::ids::wire_name;
use crate::physics::roofline::Against;
use crate::run::record::RequestOutcome;
use crate::stats::cell::{Cell, Throughput};
use crate::stats::cost::Cost;
use crate::stats::gpu::{GpuOverTrials, GpuTrial};
use crate::stats::interval::OverTrials;
use crate::stats::metric::{Censoring, Distributions, Metric};
use crate::stats::phase::{Client, PhaseTrial, Requests, Tokens};
use crate::stats::summary::Summary;
use crate::stats::window::Window;

pub(crate) fn csv(summary: &Summary) -> String {
    let mut out = String::new();
    for cell in &summary.cells {
        let rows = std::iter::once(over_trials(summary, cell))
            .chain(cell.trials.iter().map(|trial| one_trial(summary, cell, trial)));
        for row in rows {
            if out.is_empty() {
                line(&mut out, row.0.iter().map(|(name, _)| name));
            }
            line(&mut out, row.0.iter().map(|(_, value)| value));
        }
    }
    out
}

/// Names and values together, so that they cannot fall out of step.
#[derive(Default)]
struct Row(Vec<(String, String)>);

impl Row {
    fn text(&mut self, name: &str, value: impl ToString) {
        self.0.push((name.to_owned(), value.to_string()));
    }

    fn number<T: ToString>(&mut self, name: &str, value: Option<T>) {
        self.text(name, value.map_or_else(String::new, |value| value.to_string()));
    }
}

fn over_trials(summary: &Summary, cell: &Cell) -> Row {
    let mut row = identity(summary, cell, "all_trials");
    row.number("block", None::<u32>);
    row.text("phase_end", "");
    row.text("measured", cell.trials_measured > 0);
    throughput(&mut row, "steady", &cell.steady);
    throughput(&mut row, "whole", &cell.whole);
    latency(&mut row, &cell.latency);
    row.number("ttft_jitter_ms", cell.ttft_jitter_ms);
    row.number("output_tokens_per_chunk", cell.output_tokens_per_chunk);
    counts(&mut row, &cell.requests, &cell.tokens, cell.censoring, &cell.client);
    let mut of_cell = summary.against_hardware.iter();
    let of_cell = of_cell.find(|against| cell.is(&against.variant, &against.phase));
    hardware(&mut row, of_cell.map(|cell| &cell.against));
    gpu(&mut row, cell.gpu.as_ref().map(GpuOverTrials::means).as_ref());
    cost(&mut row, cell.cost_per_million);
    row
}

fn one_trial(summary: &Summary, cell: &Cell, trial: &PhaseTrial) -> Row {
    let mut row = identity(summary, cell, "trial");
    row.number("block", Some(trial.block));
    row.text("phase_end", wire_name(&trial.end));
    row.text("measured", trial.measured);
    throughput(&mut row, "steady", &of_one(trial.steady.as_ref()));
    throughput(&mut row, "whole", &of_one(trial.whole.as_ref()));
    latency(&mut row, &trial.latency);
    let ttft = trial.latency.get(&Metric::Ttft);
    let jitter = ttft.and_then(|ttft| ttft.p99.map(|p99| p99 - ttft.mean));
    row.number("ttft_jitter_ms", jitter);
    row.number("output_tokens_per_chunk", trial.tokens.per_chunk());
    counts(&mut row, &trial.requests, &trial.tokens, trial.censoring, &trial.client);
    hardware(&mut row, None);
    gpu(&mut row, trial.gpu.as_ref());
    cost(&mut row, None);
    row
}

/// Of the whole phase and all GPUs of the trial.
fn gpu(row: &mut Row, gpu: Option<&GpuTrial>) {
    row.number("gpus", gpu.map(|gpu| gpu.gpus));
    type Figure = fn(&GpuTrial) -> Option<f64>;
    let numbers: [(&str, Figure); 8] = [
        ("energy_j", |gpu| gpu.energy_j),
        ("energy_j_per_output_token", |gpu| gpu.joules_per_output_token),
        ("output_tokens_per_j", |gpu| gpu.output_tokens_per_joule),
        ("gpu_power_mean_w", |gpu| gpu.power_mean_w),
        ("gpu_power_of_tdp", |gpu| gpu.power_of_tdp),
        ("gpu_utilisation_mean_percent", |gpu| gpu.utilisation_mean_percent),
        ("gpu_sm_clock_mean_mhz", |gpu| gpu.sm_clock_mean_mhz),
        ("gpu_throttled_share", |gpu| gpu.throttled_share),
    ];
    for (name, value) in numbers {
        row.number(name, gpu.and_then(value));
    }
    row.number("gpu_memory_used_max_bytes", gpu.and_then(|gpu| gpu.memory_used_max_bytes));
    row.number("gpu_temperature_max_c", gpu.and_then(|gpu| gpu.temperature_max_c));
    row.number("gpu_headroom_c", gpu.and_then(|gpu| gpu.headroom_c));
}

/// Of a million output tokens, in the sweep's currency.
fn cost(row: &mut Row, cost: Option<Cost>) {
    row.number("cost_per_million_by_gpu_time", cost.and_then(|cost| cost.gpu_time));
    row.number("cost_per_million_by_energy", cost.and_then(|cost| cost.energy));
}

/// Figures of a cell: a trial has none of its own.
fn hardware(row: &mut Row, against: Option<&Against>) {
    row.number("mfu", against.map(|against| against.mfu));
    row.number("mfu_prefill", against.map(|against| against.mfu_prefill));
    row.number("mbu_least", against.map(|against| against.mbu_least));
    row.number("mbu_most", against.and_then(|against| against.mbu_most));
    row.number("roofline_tokens_per_s", against.map(|against| against.roofline_tokens_per_s));
    row.number("roofline_share", against.map(|against| against.roofline_share));
}

fn identity(summary: &Summary, cell: &Cell, scope: &str) -> Row {
    let mut row = Row::default();
    let variant = summary.variant(&cell.variant).map(|variant| &variant.facts);
    row.text("run", &summary.run);
    row.text("sweep", &summary.sweep);
    row.text("variant", &cell.variant);
    row.number("engine", variant.map(|variant| &variant.engine));
    row.number("engine_version", variant.and_then(|variant| variant.engine_version.as_ref()));
    row.number("simulated", variant.map(|variant| variant.simulated));
    row.text("phase", &cell.phase);
    row.number("users", cell.open.is_none().then_some(cell.users));
    row.number("open_loop", cell.open.as_ref());
    row.text("most_in_flight", cell.users);
    row.text("scope", scope);
    row.text("trials_planned", cell.trials_planned);
    row.text("trials_measured", cell.trials_measured);
    row
}

fn of_one(window: Option<&Window>) -> Throughput {
    let one = |value: Option<f64>| value.and_then(|value| OverTrials::of(&[value]));
    Throughput {
        duration_s: one(window.map(|window| window.duration_s)),
        output_tokens_per_s: one(window.and_then(|window| window.output_tokens_per_s)),
        total_tokens_per_s: one(window.and_then(|window| window.total_tokens_per_s)),
        requests_per_s: one(window.map(|window| window.requests_per_s)),
    }
}

fn throughput(row: &mut Row, window: &str, rates: &Throughput) {
    let columns = [
        ("duration_s", rates.duration_s),
        ("output_tokens_per_s", rates.output_tokens_per_s),
        ("total_tokens_per_s", rates.total_tokens_per_s),
        ("requests_per_s", rates.requests_per_s),
    ];
    for (name, rate) in columns {
        row.number(&format!("{window}_{name}"), rate.map(|rate| rate.mean));
        if name != "duration_s" {
            let ci = rate.and_then(|rate| rate.ci95);
            row.number(&format!("{window}_ci95_lower_{name}"), ci.map(|ci| ci.lower));
            row.number(&format!("{window}_ci95_upper_{name}"), ci.map(|ci| ci.upper));
        }
    }
}

fn latency(row: &mut Row, latency: &Distributions) {
    for metric in Metric::ALL {
        let sample = latency.get(&metric);
        let (stem, unit) = (metric.stem(), metric.unit());
        row.number(&format!("{stem}_n"), sample.map(|sample| sample.n));
        row.number(&format!("{stem}_cv"), sample.and_then(|sample| sample.cv));
        let figures = [
            ("mean", sample.map(|sample| sample.mean)),
            ("std", sample.and_then(|sample| sample.sd)),
            ("min", sample.map(|sample| sample.min)),
            ("p50", sample.and_then(|sample| sample.p50)),
            ("p90", sample.and_then(|sample| sample.p90)),
            ("p95", sample.and_then(|sample| sample.p95)),
            ("p99", sample.and_then(|sample| sample.p99)),
            ("max", sample.map(|sample| sample.max)),
        ];
        for (name, value) in figures {
            row.number(&format!("{name}_{stem}_{unit}"), value);
        }
    }
}

fn counts(
    row: &mut Row,
    requests: &Requests,
    tokens: &Tokens,
    censoring: Censoring,
    client: &Client,
) {
    row.text("requests_sent", requests.sent);
    row.text("requests_ok", requests.ok);
    row.text("requests_failed", requests.failed);
    for class in RequestOutcome::ALL.into_iter().filter(|class| *class != RequestOutcome::Ok) {
        let count = requests.failed_by_class.get(&class).copied().unwrap_or(0);
        row.text(&format!("requests_{}", class.name()), count);
    }
    row.text("requests_lost", requests.lost);
    row.text("prompt_tokens", tokens.prompt);
    row.text("output_tokens", tokens.output);
    row.number("cached_prompt_tokens", tokens.cached);
    row.text("requests_usage_missing", tokens.usage_missing);
    row.text("requests_prompt_mismatch", tokens.prompt_mismatched);
    row.text("requests_output_short", tokens.output_short);
    row.number("censored_first_text_share", censoring.first_text_share());
    row.number("censored_gap_share", censoring.gap_share());
    row.text("client_cpu_s", client.cpu_s);
    row.text("client_max_turn_gap_ms", client.max_turn_gap_ms);
    row.text("client_max_rss_bytes", client.max_rss_bytes);
    row.text("client_clock_steps", client.clock_steps);
}

fn line<'a>(out: &mut String, fields: impl Iterator<Item = &'a String>) {
    let quoted: Vec<String> = fields.map(|field| quote(field)).collect();
    out.push_str(&quoted.join(","));
    out.push_str("\r\n");
}

fn quote(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture::run;
    use crate::stats::summary::summarise;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        let cases = [("a", "a"), ("a,b", "\"a,b\""), ("a\"b", "\"a\"\"b\""), ("a\nb", "\"a\nb\"")];
        for (field, expected) in cases {
            assert_eq!(quote(field), expected);
        }
    }

    #[test]
    fn every_row_has_every_column_once() {
        let got = csv(&summarise(&run()));
        let lines: Vec<Vec<&str>> = got.lines().map(|line| line.split(',').collect()).collect();
        // Four cells, each with its two trials, and the header.
        assert_eq!(lines.len(), 13);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()));
        let mut names = lines[0].clone();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), lines[0].len());
    }

    #[test]
    fn columns_hold_what_they_say() {
        let summary = summarise(&run());
        let got = csv(&summary);
        let mut lines = got.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let header = lines.next().unwrap();
        let first = lines.next().unwrap();
        let field = |name: &str| first[header.iter().position(|title| *title == name).unwrap()];
        let cell = &summary.cells[0];
        assert_eq!((field("variant"), field("scope"), field("block")), ("sim-a", "all_trials", ""));
        let p95 = cell.latency[&Metric::Ttft].p95.unwrap();
        assert_eq!(field("p95_ttft_ms"), p95.to_string());
        assert_eq!(field("requests_sent"), cell.requests.sent.to_string());
        assert_eq!(field("ttft_lower_bound_n"), "");
    }
}
