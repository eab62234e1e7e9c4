//! What an engine really runs with, read back and set against what was asked. Pure.
//!
//! Engines clamp and fall back in silence. Invariant: a value that no source tells is unknown; it
//! is never taken to be what was asked.

use super::def::{EngineDef, ParamValue};
use super::exposition::{self, Selector};
use crate::run::effective::{Difference, EffectiveConfig};
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What can be read back, by our names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EffectiveName {
    /// The engine's own engine: compiled or not.
    Backend,
    AttentionBackend,
    Dtype,
    Quantization,
    KvCacheDtype,
    /// Room of the KV cache in tokens.
    KvCacheTokens,
    /// Requests that are decoded together at most.
    MaxRunning,
    /// Longest prompt plus output.
    Context,
    PrefixCaching,
    ChunkedPrefill,
    SchedulePolicy,
    TensorParallel,
    Device,
    Model,
}

impl EffectiveName {
    /// The name in files; the same as in JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::AttentionBackend => "attention_backend",
            Self::Dtype => "dtype",
            Self::Quantization => "quantization",
            Self::KvCacheDtype => "kv_cache_dtype",
            Self::KvCacheTokens => "kv_cache_tokens",
            Self::MaxRunning => "max_running",
            Self::Context => "context",
            Self::PrefixCaching => "prefix_caching",
            Self::ChunkedPrefill => "chunked_prefill",
            Self::SchedulePolicy => "schedule_policy",
            Self::TensorParallel => "tensor_parallel",
            Self::Device => "device",
            Self::Model => "model",
        }
    }
}

/// Where one value is read. Sources are tried in this order, the first that tells wins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reader {
    /// JSON pointers into the answers of `endpoints.server_info`.
    pub(crate) info: Vec<String>,
    /// The part of the text there that is the value.
    pub(crate) info_pattern: Option<Regex>,
    /// Pointers into one of these answers whose figures multiply to the value.
    pub(crate) info_product: Vec<String>,
    pub(crate) log: Vec<LogSign>,
    pub(crate) metric: Option<MetricSign>,
    /// The parameter that asks for it.
    pub(crate) asked: Option<String>,
    /// Each of several slots has this parameter's share of what was asked.
    pub(crate) asked_divided_by: Option<String>,
    /// What is expected where the parameter is not set.
    pub(crate) unasked: Option<String>,
    /// Values that leave the choice to the engine.
    pub(crate) open: Vec<String>,
    /// Other words for one thing: as asked -> as read back.
    pub(crate) means: BTreeMap<String, String>,
    /// The source says the opposite: `disable_x`.
    pub(crate) inverted: bool,
}

/// A line of the log that tells a value: its group, the product of several, or the value that
/// goes with it.
#[derive(Clone, Debug)]
pub(crate) struct LogSign {
    pub(crate) pattern: Regex,
    pub(crate) value: Option<String>,
}

/// A series that tells a value: the product of labels, or the figure itself.
#[derive(Clone, Debug)]
pub(crate) struct MetricSign {
    pub(crate) series: Selector,
    pub(crate) labels: Vec<String>,
}

/// What the engine said of itself. A source that could not be had is absent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told<'t> {
    pub(crate) info: &'t [Value],
    pub(crate) log: Option<&'t str>,
    pub(crate) metrics: Option<&'t str>,
}

/// Reads everything back that the engine file has a reader for.
pub(crate) fn read_back(
    engine: &EngineDef,
    params: &BTreeMap<String, ParamValue>,
    told: &Told<'_>,
) -> EffectiveConfig {
    let mut config = EffectiveConfig::default();
    for (name, reader) in &engine.effective {
        let name = name.name().to_owned();
        let Some(raw) = reader.find(told) else {
            config.unknown.push(name);
            continue;
        };
        if let Some(asked) = reader.expected(params)
            && !same(&reader.translated(&asked), &raw)
        {
            let (asked, found) = (reader.shown(&asked), reader.shown(&raw));
            config.differences.push(Difference { name: name.clone(), asked, found });
        }
        config.values.insert(name, reader.shown(&raw));
    }
    config
}

impl Reader {
    /// A source that only repeats that the choice is the engine's tells nothing.
    fn find(&self, told: &Told<'_>) -> Option<String> {
        let closed = |value: &String| !self.open.contains(value);
        let pointed =
            |pointer: &String| told.info.iter().find_map(|answer| self.at(answer, pointer));
        let info = || self.info.iter().filter_map(pointed).find(&closed);
        let product = || told.info.iter().find_map(|answer| self.product_in(answer));
        let log = || self.in_log(told.log?);
        let metric = || self.metric.as_ref()?.read(told.metrics?);
        let sources: [&dyn Fn() -> Option<String>; 4] = [&info, &product, &log, &metric];
        sources.into_iter().filter_map(|source| source()).find(&closed)
    }

    fn at(&self, answer: &Value, pointer: &str) -> Option<String> {
        let text = plain(answer.pointer(pointer)?)?;
        match &self.info_pattern {
            None => Some(text),
            Some(pattern) => Some(pattern.captures(&text)?.get(1)?.as_str().to_owned()),
        }
    }

    fn product_in(&self, answer: &Value) -> Option<String> {
        let factor = |pointer: &String| plain(answer.pointer(pointer)?);
        product(&self.info_product.iter().map(factor).collect::<Option<Vec<_>>>()?)
    }

    /// The last line that tells counts: an engine may try first and fall back later.
    fn in_log(&self, log: &str) -> Option<String> {
        log.lines().rev().find_map(|line| self.log.iter().find_map(|sign| sign.read(line)))
    }

    /// What should be found, where the sweep or the engine file says.
    fn expected(&self, params: &BTreeMap<String, ParamValue>) -> Option<String> {
        let asked = self.asked.as_ref().and_then(|param| params.get(param));
        let text = match asked {
            Some(value) => self.share_of(value, params),
            None => self.unasked.clone()?,
        };
        (!self.open.contains(&text)).then_some(text)
    }

    fn share_of(&self, value: &ParamValue, params: &BTreeMap<String, ParamValue>) -> String {
        let divisor = self.asked_divided_by.as_ref().and_then(|param| params.get(param));
        match (value, divisor) {
            (ParamValue::Integer(value), Some(ParamValue::Integer(parts))) if *parts > 0 => {
                (value / parts).to_string()
            }
            _ => value.to_string(),
        }
    }

    fn translated(&self, asked: &str) -> String {
        self.means.get(asked).cloned().unwrap_or_else(|| asked.to_owned())
    }

    fn shown(&self, raw: &str) -> String {
        match (self.inverted, raw) {
            (true, "true") => "false".to_owned(),
            (true, "false") => "true".to_owned(),
            _ => raw.to_owned(),
        }
    }
}

impl LogSign {
    fn read(&self, line: &str) -> Option<String> {
        let found = self.pattern.captures(line)?;
        let groups = found.iter().skip(1).flatten().map(|group| group.as_str().to_owned());
        self.value.clone().or_else(|| product(&groups.collect::<Vec<_>>()))
    }
}

impl MetricSign {
    fn read(&self, text: &str) -> Option<String> {
        let series = exposition::find(text, &self.series)?;
        if self.labels.is_empty() {
            return Some(series.value.to_string());
        }
        let values = self.labels.iter().map(|label| series.labels.get(label).cloned());
        product(&values.collect::<Option<Vec<_>>>()?)
    }
}

/// One value as it is; several are numbers and multiply.
fn product(values: &[String]) -> Option<String> {
    match values {
        [one] => Some(one.clone()),
        several => {
            let numbers = several.iter().map(|text| text.parse::<u64>().ok());
            let product = numbers.reduce(|a, b| a?.checked_mul(b?));
            product.flatten().map(|product| product.to_string())
        }
    }
}

/// A plain value as text. Null is unknown; PyTorch writes its types as `torch.float16`.
fn plain(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(text.strip_prefix("torch.").map_or(text.clone(), str::to_owned))
}

/// Numbers are compared as numbers, words without regard to case.
fn same(asked: &str, found: &str) -> bool {
    match (asked.parse::<f64>(), found.parse::<f64>()) {
        (Ok(asked), Ok(found)) => (asked - found).abs() <= 1e-9 * asked.abs().max(1.0),
        _ => asked.eq_ignore_ascii_case(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::parse::tests::{MINIMAL, engine};
    use serde_json::json;

    /// `expected`: values, then `name: asked -> found` of each difference, then unknown names.
    #[track_caller]
    fn check(readers: &str, params: &[(&str, ParamValue)], expected: [&[&str]; 3]) {
        let text = format!("{MINIMAL}\n{readers}").replace(
            "completions = \"/v1/completions\"",
            "completions = \"/v1/completions\"\nserver_info = \"/info\"",
        );
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let told = Told {
            info: &[
                json!({
                    "max": 128, "dtype": "torch.float16", "off": true, "none": null,
                    "deep": [{"kv": 4096}],
                }),
                json!({ "size": 16, "blocks": 10, "state": "Eager engine is up" }),
            ],
            log: Some(
                "start\nbackend compiled\nfall back to eager\nroom for 512 tokens\n8 blocks of 64\n",
            ),
            metrics: Some("x:blocks{count=\"100\",size=\"16\"} 1\nx:limit 7\n"),
        };
        let got = read_back(&engine(&text), &params.collect(), &told);
        let values: Vec<String> =
            got.values.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let differences: Vec<String> = got
            .differences
            .iter()
            .map(|d| format!("{}: {} -> {}", d.name, d.asked, d.found))
            .collect();
        let expected =
            expected.map(|list| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!([values, differences, got.unknown], expected, "{readers}");
    }

    const PARAMS: &str = "[params]\nmax = { type = 'integer' }\nslots = { type = 'integer' }\n\
        dtype = { type = 'text' }\nno-cache = { type = 'switch' }\nbackend = { type = 'text' }\n";

    #[test]
    fn each_source_tells() {
        check(
            "[effective]\nmax_running = { info = '/max' }",
            &[],
            [&["max_running=128"], &[], &[]],
        );
        check(
            "[effective]\nkv_cache_tokens = { info = ['/none', '/deep/0/kv'] }",
            &[],
            [&["kv_cache_tokens=4096"], &[], &[]],
        );
        check(
            "[effective]\nkv_cache_tokens = { log = [{ pattern = 'room for (\\d+)' }] }",
            &[],
            [&["kv_cache_tokens=512"], &[], &[]],
        );
        check(
            "[effective]\nkv_cache_tokens = { log = [{ pattern = '(\\d+) blocks of (\\d+)' }] }",
            &[],
            [&["kv_cache_tokens=512"], &[], &[]],
        );
        check(
            "[effective]\nbackend = { info = '/state', info_pattern = '^(\\w+) engine' }",
            &[],
            [&["backend=Eager"], &[], &[]],
        );
        check(
            "[effective]\nkv_cache_tokens = { info_product = ['/blocks', '/size'] }",
            &[],
            [&["kv_cache_tokens=160"], &[], &[]],
        );
        check(
            "[effective]\nkv_cache_tokens = { info_product = ['/blocks', '/max'] }",
            &[],
            [&[], &[], &["kv_cache_tokens"]],
        );
        check(
            "[effective]\nkv_cache_tokens = { metric = { series = 'x:blocks', labels = ['count', 'size'] } }\n\
             max_running = { metric = { series = 'x:limit' } }",
            &[],
            [&["kv_cache_tokens=1600", "max_running=7"], &[], &[]],
        );
        check("[effective]\ncontext = { info = '/none' }", &[], [&[], &[], &["context"]]);
    }

    #[test]
    fn what_differs_from_what_was_asked_is_told() {
        let integer = |value| ParamValue::Integer(value);
        let text = |value: &str| ParamValue::Text(value.to_owned());
        let max = format!("{PARAMS}[effective]\nmax_running = {{ info = '/max', asked = 'max' }}");
        check(&max, &[("max", integer(128))], [&["max_running=128"], &[], &[]]);
        check(&max, &[], [&["max_running=128"], &[], &[]]);
        check(
            &max,
            &[("max", integer(256))],
            [&["max_running=128"], &["max_running: 256 -> 128"], &[]],
        );
        let shared = max.replace("asked = 'max'", "asked = 'max', asked_divided_by = 'slots'");
        let values = [("max", integer(512)), ("slots", integer(4))];
        check(&shared, &values, [&["max_running=128"], &[], &[]]);
        let dtype = format!(
            "{PARAMS}[effective]\ndtype = {{ info = '/dtype', asked = 'dtype', open = ['auto'], \
             means = {{ half = 'float16' }} }}"
        );
        check(&dtype, &[("dtype", text("half"))], [&["dtype=float16"], &[], &[]]);
        check(&dtype, &[("dtype", text("auto"))], [&["dtype=float16"], &[], &[]]);
        let echo = dtype.replace("open = ['auto']", "open = ['auto', 'float16']");
        check(&echo, &[("dtype", text("auto"))], [&[], &[], &["dtype"]]);
        check(
            &dtype,
            &[("dtype", text("bfloat16"))],
            [&["dtype=float16"], &["dtype: bfloat16 -> float16"], &[]],
        );
    }

    #[test]
    fn a_fallback_is_seen_without_being_asked_about() {
        let backend = format!(
            "{PARAMS}[effective]\nbackend = {{ log = [{{ pattern = 'fall back to (\\w+)' }}, \
             {{ pattern = 'backend compiled', value = 'compiled' }}], asked = 'backend', unasked = 'compiled' }}"
        );
        check(&backend, &[], [&["backend=eager"], &["backend: compiled -> eager"], &[]]);
    }

    #[test]
    fn a_flag_that_turns_off_is_shown_as_what_is_on() {
        let cache = format!(
            "{PARAMS}[effective]\nprefix_caching = {{ info = '/off', asked = 'no-cache', inverted = true }}"
        );
        let switch = |value| [("no-cache", ParamValue::Switch(value))];
        check(&cache, &switch(true), [&["prefix_caching=false"], &[], &[]]);
        check(
            &cache,
            &switch(false),
            [&["prefix_caching=false"], &["prefix_caching: true -> false"], &[]],
        );
    }

    #[test]
    fn numbers_and_words_are_compared_as_such() {
        assert!(same("0.90", "0.9") && same("FP16", "fp16"));
        assert!(!same("0.9", "0.8") && !same("1", "true"));
    }
}
