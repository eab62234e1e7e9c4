//! The proof that an engine serves: its endpoint answers, and a real token comes back.
//!
//! Every call has its own timeout inside the state's deadline. What was answered last is kept in
//! words: when a deadline strikes, that is what the reader wants to know.

use crate::engine::def::AnswerShape;
use crate::engine::request::{Draft, prompt_entry};
use serde_json::Value;
use std::time::Duration;

const CALL: Duration = Duration::from_secs(5);

/// Where and how to ask.
#[derive(Clone, Debug)]
pub(crate) struct ProbeTarget {
    pub(crate) base: String,
    pub(crate) ready_path: String,
    pub(crate) models_path: Option<String>,
    pub(crate) served_name: String,
    pub(crate) generate_path: String,
    /// A request but for the prompt, for one token and not streamed.
    pub(crate) draft: Draft,
}

/// The client for one attempt: no proxy, no redirects, no pooled connection kept.
pub(crate) fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .connect_timeout(CALL)
        .build()
}

/// `Ok` when the endpoint answers 200; else what it did instead.
pub(crate) async fn answers(client: &reqwest::Client, target: &ProbeTarget) -> Result<(), String> {
    let url = format!("{}{}", target.base, target.ready_path);
    let response = client.get(&url).timeout(CALL).send().await.map_err(|e| call_error(&e))?;
    let status = response.status();
    if status == reqwest::StatusCode::OK {
        return Ok(());
    }
    let body = response.text().await.unwrap_or_default();
    Err(format!("{} answered {status}{}", target.ready_path, quoted(&body)))
}

/// `Ok` when the right model generated exactly the token that it was asked for.
pub(crate) async fn generates(
    client: &reqwest::Client,
    target: &ProbeTarget,
    within: Duration,
) -> Result<(), String> {
    if let Some(path) = &target.models_path {
        let models = get_json(client, &format!("{}{path}", target.base)).await?;
        check_models(&models, &target.served_name)?;
    }
    let mut body = target.draft.body.clone();
    // Small ids are in every vocabulary.
    body.extend([prompt_entry(&target.draft.prompt, "Hello", &[1, 2, 3])]);
    let url = format!("{}{}", target.base, target.generate_path);
    let response =
        client.post(&url).timeout(within).json(&body).send().await.map_err(|e| call_error(&e))?;
    let status = response.status();
    let text = response.text().await.map_err(|e| call_error(&e))?;
    if status != reqwest::StatusCode::OK {
        return Err(format!("{} answered {status}{}", target.generate_path, quoted(&text)));
    }
    let answer: Value = serde_json::from_str(&text)
        .map_err(|_| format!("{} did not answer JSON{}", target.generate_path, quoted(&text)))?;
    check_generation(&answer, target.draft.answer.as_ref())
}

async fn get_json(client: &reqwest::Client, url: &str) -> Result<Value, String> {
    let response = client.get(url).timeout(CALL).send().await.map_err(|e| call_error(&e))?;
    let status = response.status();
    let text = response.text().await.map_err(|e| call_error(&e))?;
    if status != reqwest::StatusCode::OK {
        return Err(format!("{url} answered {status}{}", quoted(&text)));
    }
    serde_json::from_str(&text).map_err(|_| format!("{url} did not answer JSON{}", quoted(&text)))
}

/// The list of models must name the one that was asked for.
fn check_models(models: &Value, served_name: &str) -> Result<(), String> {
    let ids: Vec<&str> = models["data"]
        .as_array()
        .map(|list| list.iter().filter_map(|model| model["id"].as_str()).collect())
        .unwrap_or_default();
    if ids.contains(&served_name) {
        return Ok(());
    }
    Err(format!("the server offers the models {ids:?}, not `{served_name}`"))
}

/// The one token that was asked for, by the server's own count; some text where it does not count.
fn check_generation(answer: &Value, own: Option<&AnswerShape>) -> Result<(), String> {
    let tokens = match own {
        Some(own) => own.output_tokens.as_ref().and_then(|at| answer.pointer(at)),
        None => answer.pointer("/usage/completion_tokens"),
    };
    if let Some(tokens) = tokens.and_then(Value::as_u64) {
        return match tokens {
            1 => Ok(()),
            0 => Err("it generated no token".into()),
            more => Err(format!(
                "it was asked for one token and counts {more}: it does not hear how long an answer shall be"
            )),
        };
    }
    let choice = &answer["choices"][0];
    let text = match own {
        Some(own) => answer.pointer(&own.text).and_then(Value::as_str),
        None => choice["text"].as_str().or_else(|| choice["message"]["content"].as_str()),
    };
    match text {
        Some(text) if !text.is_empty() => Ok(()),
        _ => Err(format!("the answer holds no generated text{}", quoted(&answer.to_string()))),
    }
}

fn call_error(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    if error.is_connect() {
        return "nobody accepts connections".into();
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// The beginning of a body, for a message.
fn quoted(body: &str) -> String {
    let start: String = body.chars().take(200).collect();
    let start = start.trim();
    if start.is_empty() { String::new() } else { format!(": {start}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_generation_counts_by_usage_and_else_by_text() {
        let own = AnswerShape {
            text: "/text".into(),
            cumulative: true,
            finish_reason: "/meta/finish_reason".into(),
            prompt_tokens: None,
            output_tokens: Some("/meta/tokens".into()),
            cached_tokens: None,
        };
        for (answer, own, good) in [
            (json!({"usage": {"completion_tokens": 1}}), None, true),
            (json!({"usage": {"completion_tokens": 0}}), None, false),
            (json!({"usage": {"completion_tokens": 2}}), None, false),
            (json!({"choices": [{"text": "a"}]}), None, true),
            (json!({"choices": [{"message": {"content": "a"}}]}), None, true),
            (json!({"choices": [{"text": ""}]}), None, false),
            (json!({}), None, false),
            (json!({"meta": {"tokens": 1}}), Some(&own), true),
            (json!({"meta": {"tokens": 16}}), Some(&own), false),
            (json!({"text": "a"}), Some(&own), true),
            (json!({"text": "", "usage": {"completion_tokens": 1}}), Some(&own), false),
        ] {
            assert_eq!(check_generation(&answer, own).is_ok(), good, "{answer}");
        }
    }

    #[test]
    fn another_model_is_named_in_the_refusal() {
        let models = json!({"data": [{"id": "a"}]});
        assert!(check_models(&models, "a").is_ok());
        let message = check_models(&models, "b").unwrap_err();
        assert!(message.contains("\"a\"") && message.contains("`b`"), "{message}");
    }
}
