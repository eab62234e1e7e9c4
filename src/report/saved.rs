//! One measurement in the fields that result files of serving benchmarks are known by.
//!
//! Pure. The names and their meaning are the common ones: latencies of whole requests alone, from
//! sending to the chunk; numpy's percentiles; the population's standard deviation; TPOT only where
//! there are two tokens. Percentiles have no sample floor here, as readers of such files expect.
//! What has no sample is null.

use crate::run::phase::PhaseFacts;
use crate::run::record::{RequestOutcome, RequestRecord};
use crate::run::slo::Slo;
use crate::stats::goodput::goodput;
use crate::stats::pool::Plain;
use crate::stats::request::{RequestMetrics, gaps, text_chunks};
use crate::units::{MonoNs, count_f64, ns_to_ms};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What the records do not say themselves.
#[derive(Clone, Debug)]
pub(crate) struct SavedSetup<'a> {
    /// `20261125-190001`.
    pub(crate) date: String,
    pub(crate) backend: &'a str,
    pub(crate) model: &'a str,
    pub(crate) tokenizer: Option<String>,
    /// How many requests were asked for; absent where time was.
    pub(crate) requests: Option<u32>,
    /// Requests per second; absent in a closed loop, which has no rate of its own.
    pub(crate) rate: Option<f64>,
    pub(crate) burstiness: f64,
    pub(crate) users: Option<u32>,
    /// What goodput is counted by.
    pub(crate) slo: Option<Slo>,
    /// What the common fields have no place for.
    pub(crate) more: Value,
}

/// The file's content. `detailed` adds lists with one entry a request.
pub(crate) fn saved(
    setup: &SavedSetup<'_>,
    facts: &PhaseFacts,
    records: &[RequestRecord],
    detailed: bool,
) -> Value {
    let mut fields = head(setup, records);
    let whole: Vec<&RequestRecord> =
        records.iter().filter(|record| record.outcome == RequestOutcome::Ok).collect();
    fields.extend(totals(facts, records, &whole));
    let good = setup.slo.and_then(|slo| goodput(&slo, facts, records).per_s);
    fields.insert("request_goodput".to_owned(), json!(good));
    for (name, values) in latencies(&whole) {
        fields.extend(figures(name, values));
    }
    if detailed {
        fields.extend(details(facts, records));
    }
    fields.insert("sweepd".to_owned(), setup.more.clone());
    Value::Object(fields)
}

fn head(setup: &SavedSetup<'_>, records: &[RequestRecord]) -> Map<String, Value> {
    let fields = json!({
        "date": setup.date,
        "endpoint_type": setup.backend,
        "backend": setup.backend,
        "label": null,
        "model_id": setup.model,
        "tokenizer_id": setup.tokenizer,
        "num_prompts": setup.requests.map_or(records.len() as u64, u64::from),
        "request_rate": setup.rate.map_or_else(|| json!("inf"), |rate| json!(rate)),
        "burstiness": setup.burstiness,
        "max_concurrency": setup.users,
    });
    fields.as_object().cloned().unwrap_or_default()
}

/// Chunks stand for tokens only where the server did not count.
fn output_tokens(record: &RequestRecord) -> u64 {
    let chunks = || u64::try_from(text_chunks(record).len()).unwrap_or(u64::MAX);
    record.output_tokens_reported.map_or_else(chunks, u64::from)
}

fn input_tokens(record: &RequestRecord) -> u64 {
    record.prompt_tokens_reported.unwrap_or(record.prompt_tokens_asked).into()
}

fn totals(
    facts: &PhaseFacts,
    records: &[RequestRecord],
    whole: &[&RequestRecord],
) -> Map<String, Value> {
    let duration_s = facts.ended.since(facts.started).as_secs_f64();
    let per_second = |amount: u64| (duration_s > 0.0).then(|| count_f64(amount) / duration_s);
    let completed = whole.len() as u64;
    let input: u64 = whole.iter().map(|record| input_tokens(record)).sum();
    let output: u64 = whole.iter().map(|record| output_tokens(record)).sum();
    let fields = json!({
        "duration": duration_s,
        "completed": completed,
        "failed": records.len() as u64 - completed,
        "total_input_tokens": input,
        "total_output_tokens": output,
        "request_throughput": per_second(completed),
        "output_throughput": per_second(output),
        "total_token_throughput": per_second(input + output),
        "max_output_tokens_per_s": most_in_a_second(whole),
        "max_concurrent_requests": most_at_once(whole),
        "rtfx": 0.0,
    });
    fields.as_object().cloned().unwrap_or_default()
}

/// Chunks in the fullest second, seconds counted from the first request.
fn most_in_a_second(whole: &[&RequestRecord]) -> Option<f64> {
    let first = whole.iter().filter_map(|record| record.sent).min()?;
    let mut seconds: BTreeMap<i64, u64> = BTreeMap::new();
    for chunk in whole.iter().flat_map(|record| text_chunks(record)) {
        *seconds.entry(chunk.at.since_ns(first) / 1_000_000_000).or_default() += 1;
    }
    seconds.into_values().max().map(count_f64)
}

fn most_at_once(whole: &[&RequestRecord]) -> u64 {
    let mut edges: Vec<(MonoNs, i64)> = Vec::new();
    for record in whole {
        if let Some(sent) = record.sent {
            let last = record.chunks.last().map_or(record.end, |chunk| chunk.at);
            edges.extend([(sent, 1), (last, -1)]);
        }
    }
    // At one instant the ends come first.
    edges.sort_unstable();
    let mut open = 0_i64;
    let most = edges.iter().map(|(_, step)| {
        open += step;
        open
    });
    u64::try_from(most.max().unwrap_or(0)).unwrap_or(0)
}

fn latencies(whole: &[&RequestRecord]) -> [(&'static str, Vec<f64>); 4] {
    let metrics: Vec<RequestMetrics> =
        whole.iter().filter_map(|record| RequestMetrics::of(record)).collect();
    let each = |pick: fn(&RequestMetrics) -> Option<f64>| metrics.iter().filter_map(pick).collect();
    [
        ("ttft", each(|metrics| metrics.ttft_ms)),
        ("tpot", each(|metrics| metrics.tpot_ms)),
        ("itl", whole.iter().flat_map(|record| gaps(record)).map(|gap| gap.ms).collect()),
        ("e2el", each(|metrics| metrics.e2el_ms)),
    ]
}

fn figures(name: &str, mut values: Vec<f64>) -> Vec<(String, Value)> {
    let plain = Plain::of(&mut values);
    let figure = |pick: &dyn Fn(&Plain) -> f64| json!(plain.as_ref().map(pick));
    let mut fields = vec![
        (format!("mean_{name}_ms"), figure(&|plain| plain.mean)),
        (format!("median_{name}_ms"), figure(&|plain| plain.median)),
        (format!("std_{name}_ms"), figure(&|plain| plain.sd)),
    ];
    let values = plain.map_or([None; 4], |plain| plain.percentiles.map(Some));
    let percentiles = [50, 90, 95, 99].iter().zip(values);
    fields.extend(percentiles.map(|(p, value)| (format!("p{p}_{name}_ms"), json!(value))));
    fields
}

/// One entry a request, in the order of sending; times in seconds.
fn details(facts: &PhaseFacts, records: &[RequestRecord]) -> Map<String, Value> {
    let mut records: Vec<&RequestRecord> = records.iter().collect();
    records.sort_by_key(|record| record.index);
    let each = |pick: &dyn Fn(&RequestRecord) -> Value| -> Value {
        records.iter().map(|record| pick(record)).collect()
    };
    let whole = |record: &RequestRecord| record.outcome == RequestOutcome::Ok;
    let seconds = |ns: i64| json!(ns_to_ms(ns) / 1e3);
    let fields = json!({
        "input_lens": each(&|record| json!(input_tokens(record))),
        "output_lens": each(&|record| json!(if whole(record) { output_tokens(record) } else { 0 })),
        "ttfts": each(&|record| {
            json!(RequestMetrics::of(record).and_then(|m| m.ttft_ms).map(|ms| ms / 1e3))
        }),
        "itls": each(&|record| gaps(record).map(|gap| json!(gap.ms / 1e3)).collect()),
        "start_times": each(&|record| {
            record.sent.map_or(Value::Null, |sent| seconds(sent.since_ns(facts.started)))
        }),
        "errors": each(&|record| {
            let said = record.error.as_deref().unwrap_or_default();
            json!(if whole(record) { String::new() } else { format!("{}: {said}", record.outcome.name()) })
        }),
    });
    fields.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture::{facts, failed, ms, record};

    fn worked(detailed: bool) -> Value {
        let facts = facts("2-users", 2, [0, 100, 900, 2000]);
        let mut records = vec![
            record(0, ms(0), &[100, 200, 300], 3),
            record(1, ms(50), &[250, 350, 1450], 3),
            failed(2, ms(500), RequestOutcome::HttpError, "busy"),
        ];
        records[1].output_tokens_reported = None;
        let setup = SavedSetup {
            date: "20261125-190001".to_owned(),
            backend: "openai",
            model: "m",
            tokenizer: None,
            requests: Some(3),
            rate: None,
            burstiness: 1.0,
            users: Some(2),
            slo: Some(Slo { ttft_ms: Some(150.0), ..Slo::default() }),
            more: json!({}),
        };
        saved(&setup, &facts, &records, detailed)
    }

    #[test]
    fn a_file_worked_by_hand() {
        let got = worked(true);
        for (key, want) in [
            ("completed", json!(2)),
            ("failed", json!(1)),
            ("num_prompts", json!(3)),
            ("request_rate", json!("inf")),
            ("duration", json!(2.0)),
            ("total_input_tokens", json!(20)),
            ("total_output_tokens", json!(6)),
            ("output_throughput", json!(3.0)),
            ("total_token_throughput", json!(13.0)),
            ("mean_ttft_ms", json!(150.0)),
            ("median_ttft_ms", json!(150.0)),
            ("std_ttft_ms", json!(50.0)),
            ("p99_ttft_ms", json!(199.0)),
            ("mean_tpot_ms", json!(100.0)),
            ("mean_itl_ms", json!(350.0)),
            ("max_output_tokens_per_s", json!(5.0)),
            // One of the two whole requests, in two seconds.
            ("request_goodput", json!(0.5)),
            ("max_concurrent_requests", json!(2)),
            ("output_lens", json!([3, 3, 0])),
            ("ttfts", json!([0.1, 0.2, null])),
            ("errors", json!(["", "", "http_error: busy"])),
        ] {
            assert_eq!(got[key], want, "{key}");
        }
    }

    #[test]
    fn what_has_no_sample_is_null() {
        let facts = facts("1-user", 1, [0, 0, 0, 0]);
        let setup = SavedSetup {
            date: String::new(),
            backend: "openai",
            model: "m",
            tokenizer: None,
            requests: None,
            rate: Some(2.5),
            burstiness: 0.5,
            users: None,
            slo: None,
            more: Value::Null,
        };
        let got = saved(&setup, &facts, &[], false);
        for key in [
            "p99_ttft_ms",
            "mean_itl_ms",
            "output_throughput",
            "max_concurrency",
            "request_goodput",
        ] {
            assert_eq!(got[key], Value::Null, "{key}");
        }
        assert_eq!((&got["completed"], &got["request_rate"]), (&json!(0), &json!(2.5)));
    }
}
