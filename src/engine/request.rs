//! The body of a request to an engine: every field but the prompt, and where the prompt goes. Pure.

use super::def::{AnswerShape, Endpoint, PromptField, RequestShape};
use crate::form::did_you_mean;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

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

/// A request but for its prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Draft {
    pub(crate) body: Map<String, Value>,
    pub(crate) prompt: PromptField,
    /// The way to the field that bounds the output length.
    pub(crate) length_at: Vec<String>,
    /// How the engine's own stream is read; `None`: as the two common APIs have it.
    pub(crate) answer: Option<AnswerShape>,
}

/// Completes "cannot write a request: …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("engine `{engine}` has no field for the sampling parameter `{parameter}`")]
pub(crate) struct NoSamplingField {
    pub(crate) engine: String,
    pub(crate) parameter: String,
    /// What it has.
    pub(crate) help: String,
}

/// How requests are written to a server of which nothing is known: as its peers take them.
pub(crate) fn common_shape() -> RequestShape {
    let names = ["temperature", "top_p", "presence_penalty", "frequency_penalty", "seed"];
    let mut force_length = Map::new();
    force_length.insert("ignore_eos".to_owned(), json!(true));
    RequestShape {
        max_tokens: "max_tokens".to_owned(),
        force_length,
        extra: Map::new(),
        sampling: names.map(|name| (name.to_owned(), name.to_owned())).into(),
        done_marker: true,
        keep_alive: Duration::from_secs(5),
        generate: None,
    }
}

/// A streamed request to this endpoint of the engine.
pub(crate) fn draft(
    engine: &str,
    shape: &RequestShape,
    endpoint: Endpoint,
    served_name: &str,
    sampling: &BTreeMap<String, f64>,
    output_tokens: NonZeroU32,
) -> Result<Draft, NoSamplingField> {
    let mut values = Map::new();
    for (parameter, value) in sampling {
        let field = sampling_field(engine, shape, endpoint, parameter)?;
        values.insert(field.to_owned(), number(parameter, *value));
    }
    let mut body = Map::new();
    body.insert("stream".to_owned(), json!(true));
    let own = shape.generate.as_ref().filter(|_| endpoint == Endpoint::Generate);
    let Some(shape) = own else {
        body.insert("model".to_owned(), json!(served_name));
        body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
        body.insert(shape.max_tokens.clone(), json!(output_tokens));
        body.extend(shape.extra.clone());
        body.extend(shape.force_length.clone());
        body.extend(values);
        let prompt = match endpoint {
            Endpoint::Chat => PromptField::Messages("messages".to_owned()),
            Endpoint::Completions | Endpoint::Generate => PromptField::Text("prompt".to_owned()),
        };
        return Ok(Draft { body, prompt, length_at: vec![shape.max_tokens.clone()], answer: None });
    };
    let mut params = Map::new();
    params.insert(shape.max_tokens.clone(), json!(output_tokens));
    params.extend(shape.force_length.clone());
    params.extend(values);
    let mut length_at = vec![shape.max_tokens.clone()];
    body.extend(shape.extra.clone());
    match &shape.params {
        Some(field) => {
            body.insert(field.clone(), Value::Object(params));
            length_at.insert(0, field.clone());
        }
        None => body.extend(params),
    }
    let (prompt, answer) = (shape.prompt.clone(), Some(shape.answer.clone()));
    Ok(Draft { body, prompt, length_at, answer })
}

/// The field of a prompt and its value. `ids` is what a tokenizer makes of `text`.
pub(crate) fn prompt_entry(field: &PromptField, text: &str, ids: &[u32]) -> (String, Value) {
    match field {
        PromptField::Text(field) => (field.clone(), json!(text)),
        PromptField::TokenIds(field) => (field.clone(), json!(ids)),
        PromptField::Messages(field) => {
            (field.clone(), json!([{ "role": "user", "content": text }]))
        }
    }
}

/// The engine's field for one of our sampling parameters.
pub(crate) fn sampling_field<'e>(
    engine: &str,
    shape: &'e RequestShape,
    endpoint: Endpoint,
    parameter: &str,
) -> Result<&'e str, NoSamplingField> {
    let sampling = match (&shape.generate, endpoint) {
        (Some(own), Endpoint::Generate) => &own.sampling,
        _ => &shape.sampling,
    };
    sampling.get(parameter).map(String::as_str).ok_or_else(|| NoSamplingField {
        engine: engine.to_owned(),
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
    use crate::engine::def::EngineDef;
    use crate::engine::parse::tests::{MINIMAL, engine};

    fn draft_of(
        engine: &EngineDef,
        endpoint: Endpoint,
        sampling: &[(&str, f64)],
    ) -> Result<Draft, NoSamplingField> {
        let sampling = sampling.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let tokens = NonZeroU32::new(256).unwrap();
        draft(engine.name.as_str(), &engine.request, endpoint, "tiny", &sampling, tokens)
    }

    #[track_caller]
    fn check(request: &str, sampling: &[(&str, f64)], expected: Result<Value, &str>) {
        let engine = engine(&format!("{MINIMAL}\n{request}"));
        let got = draft_of(&engine, Endpoint::Completions, sampling);
        let got = got.map(|draft| Value::Object(draft.body)).map_err(|error| error.to_string());
        assert_eq!(got, expected.map_err(str::to_owned));
    }

    /// MINIMAL with an endpoint of the engine's own.
    fn native(generate: &str) -> EngineDef {
        let text = MINIMAL.replace("[endpoints]", "[endpoints]\ngenerate = '/generate'");
        engine(&format!(
            "{text}top_k = 'top_k'\n[request.force_length]\nignore_eos = true\n\
             [request.extra]\ncache = false\n[request.generate]\n{generate}\n\
             [request.generate.answer]\ntext = '/text'\ncumulative = true\n\
             finish_reason = '/meta/finish'"
        ))
    }

    #[test]
    fn an_endpoint_of_its_own_takes_its_own_shape() {
        let nested = native("prompt = 'text'\nparams = 'sampling_params'\nmax_tokens = 'max_new'");
        let got =
            draft_of(&nested, Endpoint::Generate, &[("temperature", 0.0), ("top_k", 5.0)]).unwrap();
        let params = json!({ "max_new": 256, "ignore_eos": true, "temperature": 0.0, "top_k": 5 });
        assert_eq!(Value::Object(got.body), json!({ "stream": true, "sampling_params": params }));
        assert_eq!(got.length_at, ["sampling_params", "max_new"]);
        assert_eq!(got.prompt, PromptField::Text("text".to_owned()));
        assert!(got.answer.unwrap().cumulative);

        let flat = native(
            "token_ids = 'input_ids'\nextra = { x = 1 }\nforce_length = {}\n\
             sampling = { temperature = 'heat' }",
        );
        let got = draft_of(&flat, Endpoint::Generate, &[("temperature", 0.0)]).unwrap();
        let want = json!({ "stream": true, "max_tokens": 256, "heat": 0.0, "x": 1 });
        assert_eq!(Value::Object(got.body), want);
        assert_eq!(got.length_at, ["max_tokens"]);
        let entry = prompt_entry(&got.prompt, "a b", &[7, 8]);
        assert_eq!(entry, ("input_ids".to_owned(), json!([7, 8])));
        assert!(draft_of(&flat, Endpoint::Generate, &[("top_k", 5.0)]).is_err());
        // The other endpoints are as they were.
        let common = draft_of(&flat, Endpoint::Completions, &[("top_k", 5.0)]).unwrap();
        assert_eq!((&common.body["top_k"], &common.body["cache"]), (&json!(5), &json!(false)));
        assert_eq!(common.answer, None);
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
