//! The body of a request to an engine: every field but the prompt. Pure.

use super::def::{EngineDef, RequestShape};
use crate::form::did_you_mean;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

/// A sampling parameter by our name, and what its value may be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SamplingParam {
    pub(crate) name: &'static str,
    pub(crate) range: RangeInclusive<f64>,
    pub(crate) is_whole: bool,
}

const fn param(name: &'static str, least: f64, most: f64, is_whole: bool) -> SamplingParam {
    SamplingParam { name, range: least..=most, is_whole }
}

/// All that a sweep may ask for. An engine file maps those that its engine knows.
pub(crate) const SAMPLING: [SamplingParam; 8] = [
    param("temperature", 0.0, 10.0, false),
    param("top_p", 0.0, 1.0, false),
    // -1 and 0 mean "all" to one engine or another.
    param("top_k", -1.0, 1_000_000.0, true),
    param("min_p", 0.0, 1.0, false),
    param("repetition_penalty", 0.0, 10.0, false),
    param("presence_penalty", -2.0, 2.0, false),
    param("frequency_penalty", -2.0, 2.0, false),
    param("seed", 0.0, 4_294_967_295.0, true),
];

/// The names of `SAMPLING`.
pub(crate) fn sampling_names() -> [&'static str; SAMPLING.len()] {
    SAMPLING.map(|param| param.name)
}

/// Fields that sweepd writes itself; an engine file may not set them otherwise.
pub(crate) const OWN_FIELDS: [&str; 5] =
    ["model", "prompt", "messages", "stream", "stream_options"];

/// Completes "cannot write a request: …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("engine `{engine}` has no field for the sampling parameter `{parameter}`")]
pub(crate) struct NoSamplingField {
    pub(crate) engine: String,
    pub(crate) parameter: String,
    /// What it has.
    pub(crate) help: String,
}

/// Every field but the prompt or the messages.
pub(crate) fn body(
    engine: &EngineDef,
    served_name: &str,
    sampling: &BTreeMap<String, f64>,
    output_tokens: NonZeroU32,
) -> Result<Map<String, Value>, NoSamplingField> {
    let shape = &engine.request;
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(served_name));
    body.insert("stream".to_owned(), json!(true));
    body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
    body.insert(shape.max_tokens.clone(), json!(output_tokens));
    body.extend(shape.extra.clone());
    body.extend(shape.force_length.clone());
    for (parameter, value) in sampling {
        let field = sampling_field(engine, parameter)?;
        body.insert(field.to_owned(), number(parameter, *value));
    }
    Ok(body)
}

/// The engine's field for one of our sampling parameters.
pub(crate) fn sampling_field<'e>(
    engine: &'e EngineDef,
    parameter: &str,
) -> Result<&'e str, NoSamplingField> {
    let RequestShape { sampling, .. } = &engine.request;
    sampling.get(parameter).map(String::as_str).ok_or_else(|| NoSamplingField {
        engine: engine.name.to_string(),
        parameter: parameter.to_owned(),
        help: did_you_mean(
            parameter,
            &sampling.keys().map(String::as_str).collect::<Vec<_>>(),
            "its file maps:",
        ),
    })
}

/// Servers in C++ or with strict schemas refuse `40.0` where they want `40`.
fn number(parameter: &str, value: f64) -> Value {
    let whole = SAMPLING.iter().any(|param| param.name == parameter && param.is_whole);
    let digits = format!("{value:.0}");
    match digits.parse::<i64>() {
        Ok(digits) if whole => json!(digits),
        _ => json!(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::parse::tests::{MINIMAL, engine};

    #[track_caller]
    fn check(request: &str, sampling: &[(&str, f64)], expected: Result<Value, &str>) {
        let engine = engine(&format!("{MINIMAL}\n{request}"));
        let sampling = sampling.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let got = body(&engine, "tiny", &sampling, NonZeroU32::new(256).unwrap());
        let got = got.map(Value::Object).map_err(|error| error.to_string());
        assert_eq!(got, expected.map_err(str::to_owned));
    }

    #[test]
    fn the_body_has_every_field_but_the_prompt() {
        check(
            "",
            &[("temperature", 0.0)],
            Ok(json!({
                "model": "tiny", "stream": true, "stream_options": { "include_usage": true },
                "max_tokens": 256, "temperature": 0.0,
            })),
        );
        check(
            "top_k = 'k'\nseed = 'random_seed'\n[request.extra]\ncache_prompt = false\n\
             [request.force_length]\nignore_eos = true\nmin_tokens = 3",
            &[("temperature", 0.5), ("top_k", 40.0), ("seed", 4_294_967_295.0)],
            Ok(json!({
                "model": "tiny", "stream": true, "stream_options": { "include_usage": true },
                "max_tokens": 256, "temperature": 0.5, "k": 40, "random_seed": 4_294_967_295_u32,
                "cache_prompt": false, "ignore_eos": true, "min_tokens": 3,
            })),
        );
    }

    #[test]
    fn what_the_engine_does_not_know_is_not_dropped_in_silence() {
        check(
            "",
            &[("min_p", 0.1)],
            Err("engine `made-up` has no field for the sampling parameter `min_p`"),
        );
    }
}
