//! The engine's metrics as Prometheus text.
//!
//! Pure.

use super::schedule::{Limits, Load};

pub(crate) fn text(model: &str, load: &Load, limits: &Limits, requests: u64) -> String {
    let mut out = String::new();
    let label = model.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let mut add = |name: &str, kind: &str, help: &str, value: String| {
        out += &format!(
            "# HELP sim:{name} {help}\n# TYPE sim:{name} {kind}\n\
             sim:{name}{{model_name=\"{label}\"}} {value}\n"
        );
    };
    add("requests_running", "gauge", "Requests in the batch.", load.running.to_string());
    add("requests_waiting", "gauge", "Requests in the queue.", load.waiting.to_string());
    let usage = load.kv_usage(limits).to_string();
    add("kv_cache_usage_ratio", "gauge", "Share of the KV tokens that is reserved.", usage);
    let prompt = load.prompt_tokens_total.to_string();
    add("prompt_tokens_total", "counter", "Prompt tokens taken in.", prompt);
    let generated = load.generation_tokens_total.to_string();
    add("generation_tokens_total", "counter", "Tokens made.", generated);
    let help = "Generation requests received, refused ones too.";
    add("requests_total", "counter", help, requests.to_string());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_type_and_value() {
        let limits =
            Limits { max_running: 4, kv_tokens: 200, chunked_prefill: None, prefill_first: false };
        let load = Load {
            running: 2,
            waiting: 3,
            kv_used: 50,
            prompt_tokens_total: 11,
            generation_tokens_total: 12,
        };
        let text = text("a\"b", &load, &limits, 7);
        for (name, kind, value) in [
            ("requests_running", "gauge", "2"),
            ("requests_waiting", "gauge", "3"),
            ("kv_cache_usage_ratio", "gauge", "0.25"),
            ("prompt_tokens_total", "counter", "11"),
            ("generation_tokens_total", "counter", "12"),
            ("requests_total", "counter", "7"),
        ] {
            assert!(text.contains(&format!("# TYPE sim:{name} {kind}\n")), "{text}");
            let line = format!("\nsim:{name}{{model_name=\"a\\\"b\"}} {value}\n");
            assert!(text.contains(&line), "{text}");
        }
    }
}
