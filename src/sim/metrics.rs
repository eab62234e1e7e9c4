//! The engine's metrics as Prometheus text.
//!
//! Pure.

use super::schedule::{Limits, Load};
use crate::units::count_f64;
use std::time::Duration;

/// Upper bounds of the buckets, in seconds.
const BOUNDS: [f64; 10] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Times, counted into buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Histogram {
    /// Of each bucket alone; beyond the last bound they count in `count` only.
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum_s: f64,
}

impl Histogram {
    pub(crate) fn add(&mut self, span: Duration) {
        let seconds = span.as_secs_f64();
        self.count += 1;
        self.sum_s += seconds;
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket] += 1;
        }
    }

    fn text(&self, name: &str, label: &str) -> String {
        let mut out = String::new();
        let mut below = 0;
        for (bound, count) in BOUNDS.iter().zip(self.buckets) {
            below += count;
            out += &format!("sim:{name}_bucket{{{label},le=\"{bound}\"}} {below}\n");
        }
        out += &format!("sim:{name}_bucket{{{label},le=\"+Inf\"}} {}\n", self.count);
        out + &format!(
            "sim:{name}_sum{{{label}}} {}\nsim:{name}_count{{{label}}} {}\n",
            self.sum_s, self.count
        )
    }
}

pub(crate) fn text(
    model: &str,
    load: &Load,
    limits: &Limits,
    ttft: &Histogram,
    requests: u64,
) -> String {
    let mut out = String::new();
    let model = model.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let label = format!("model_name=\"{model}\"");
    let mut add = |name: &str, kind: &str, help: &str, value: String| {
        out += &format!(
            "# HELP sim:{name} {help}\n# TYPE sim:{name} {kind}\nsim:{name}{{{label}}} {value}\n"
        );
    };
    add("requests_running", "gauge", "Requests in the batch.", load.running.to_string());
    add("requests_waiting", "gauge", "Requests in the queue.", load.waiting.to_string());
    let usage = load.kv_usage(limits).to_string();
    add("kv_cache_usage_ratio", "gauge", "Share of the KV tokens that is reserved.", usage);
    let prompt = load.prompt_tokens_total.to_string();
    add("prompt_tokens_total", "counter", "Prompt tokens taken in, cached ones too.", prompt);
    let cached = load.cached_tokens_total.to_string();
    add("cached_tokens_total", "counter", "Of these, found in the prefix cache.", cached);
    if load.prompt_tokens_total > 0 {
        let ratio = count_f64(load.cached_tokens_total) / count_f64(load.prompt_tokens_total);
        let help = "Share of all prompt tokens that was found in the prefix cache.";
        add("prefix_cache_hit_ratio", "gauge", help, ratio.to_string());
    }
    let generated = load.generation_tokens_total.to_string();
    add("generation_tokens_total", "counter", "Tokens made.", generated);
    // Whole answers are reserved before a request runs, so that none is ever driven out.
    add("retractions_total", "counter", "Requests driven out of the batch.", "0".to_owned());
    let help = "Generation requests received, refused ones too.";
    add("requests_total", "counter", help, requests.to_string());
    let name = "time_to_first_token_seconds";
    out += &format!("# HELP sim:{name} From a request's arrival to its first token.\n");
    out += &format!("# TYPE sim:{name} histogram\n");
    out + &ttft.text(name, &label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { max_running: 4, kv_tokens: 200, chunked_prefill: None, prefill_first: false }
    }

    #[test]
    fn every_metric_has_its_type_and_value() {
        let load = Load {
            running: 2,
            waiting: 3,
            kv_used: 50,
            prompt_tokens_total: 20,
            cached_tokens_total: 5,
            generation_tokens_total: 12,
        };
        let text = text("a\"b", &load, &limits(), &Histogram::default(), 7);
        for (name, kind, value) in [
            ("requests_running", "gauge", "2"),
            ("requests_waiting", "gauge", "3"),
            ("kv_cache_usage_ratio", "gauge", "0.25"),
            ("prompt_tokens_total", "counter", "20"),
            ("cached_tokens_total", "counter", "5"),
            ("prefix_cache_hit_ratio", "gauge", "0.25"),
            ("generation_tokens_total", "counter", "12"),
            ("retractions_total", "counter", "0"),
            ("requests_total", "counter", "7"),
        ] {
            assert!(text.contains(&format!("# TYPE sim:{name} {kind}\n")), "{text}");
            let line = format!("\nsim:{name}{{model_name=\"a\\\"b\"}} {value}\n");
            assert!(text.contains(&line), "{text}");
        }
    }

    #[test]
    fn a_ratio_of_nothing_is_absent() {
        let text = text("m", &Load::default(), &limits(), &Histogram::default(), 0);
        assert!(!text.contains("hit_ratio") && !text.contains("NaN"), "{text}");
    }

    #[test]
    fn buckets_add_up() {
        let mut ttft = Histogram::default();
        for ms in [1, 5, 6, 400, 60_000] {
            ttft.add(Duration::from_millis(ms));
        }
        let text = ttft.text("x", "a=\"b\"");
        for line in [
            "sim:x_bucket{a=\"b\",le=\"0.005\"} 2\n",
            "sim:x_bucket{a=\"b\",le=\"0.02\"} 3\n",
            "sim:x_bucket{a=\"b\",le=\"10\"} 4\n",
            "sim:x_bucket{a=\"b\",le=\"+Inf\"} 5\n",
            "sim:x_sum{a=\"b\"} 60.412\n",
            "sim:x_count{a=\"b\"} 5\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
