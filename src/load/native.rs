//! Events of an engine's own stream, read by the JSON pointers of its file.
//!
//! Pure. Most events are not parsed: a cumulative stream repeats its whole text in each of them.
//!
//! Invariant: an event that counts as plain has the braces of an object, no error, and names its
//! finish reason as null.

use super::event::{Event, EventError, Facts, Usage, error_text, past_space};
use crate::engine::def::AnswerShape;
use memchr::memmem::Finder;
use serde_json::Value;

/// Reads the events of one phase.
#[derive(Debug)]
pub(crate) struct Native {
    shape: AnswerShape,
    error: Finder<'static>,
    /// The last key on the way to the finish reason, with its quotes.
    finish: Finder<'static>,
}

impl Native {
    pub(crate) fn new(shape: AnswerShape) -> Self {
        let key = shape.finish_reason.rsplit('/').next().unwrap_or_default();
        // As in a pointer, so in its key.
        let key = key.replace("~1", "/").replace("~0", "~");
        let finish = Finder::new(format!("\"{key}\"").as_bytes()).into_owned();
        // Inside a JSON string the quotes would be escaped.
        Self { shape, error: Finder::new(b"\"error\""), finish }
    }

    pub(crate) fn is_plain(&self, data: &[u8]) -> bool {
        data.starts_with(b"{")
            && data.ends_with(b"}")
            && self.finish_is_null(data)
            && self.error.find(data).is_none()
    }

    fn finish_is_null(&self, data: &[u8]) -> bool {
        let mut found = false;
        for at in self.finish.find_iter(data) {
            let rest = data.get(at + self.finish.needle().len()..).unwrap_or_default();
            let value = past_space(rest).strip_prefix(b":").map(past_space);
            if !value.is_some_and(|value| value.starts_with(b"null")) {
                return false;
            }
            found = true;
        }
        found
    }

    pub(crate) fn parse(&self, data: &[u8]) -> Result<Event, EventError> {
        if !past_space(data).starts_with(b"{") {
            return Err(EventError::NotObject);
        }
        let json: Value = serde_json::from_slice(data)?;
        if let Some(error) = json.get("error").filter(|error| !error.is_null()) {
            return Ok(Event::Error(error_text(&error.to_string())));
        }
        if json["object"] == "error" {
            return Ok(Event::Error(error_text(&json["message"].to_string())));
        }
        let shape = &self.shape;
        let text = json.pointer(&shape.text).and_then(Value::as_str);
        Ok(Event::Parsed(Facts {
            has_choice: text.is_some(),
            has_text: text.is_some_and(|text| !text.is_empty()),
            text: None,
            finish_reason: json.pointer(&shape.finish_reason).and_then(reason),
            usage: self.usage(&json),
        }))
    }

    fn usage(&self, json: &Value) -> Option<Usage> {
        let count = |at: &Option<String>| {
            let value = at.as_ref().and_then(|at| json.pointer(at))?;
            value.as_u64().and_then(|count| u32::try_from(count).ok())
        };
        let usage = Usage {
            prompt_tokens: count(&self.shape.prompt_tokens),
            completion_tokens: count(&self.shape.output_tokens),
            cached_tokens: count(&self.shape.cached_tokens),
        };
        (usage != Usage::default()).then_some(usage)
    }
}

/// A text, the `type` of an object, or whatever else it is as JSON.
fn reason(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Object(object) => {
            let kind = object.get("type").and_then(Value::as_str);
            Some(kind.map_or_else(|| value.to_string(), str::to_owned))
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => Some(value.to_string()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn shape(cumulative: bool) -> AnswerShape {
        let at = |text: &str| Some(text.to_owned());
        AnswerShape {
            text: "/text".to_owned(),
            cumulative,
            finish_reason: "/meta_info/finish_reason".to_owned(),
            prompt_tokens: at("/meta_info/prompt_tokens"),
            output_tokens: at("/meta_info/completion_tokens"),
            cached_tokens: at("/meta_info/cached_tokens"),
        }
    }

    #[test]
    fn what_an_event_says() {
        let native = Native::new(shape(true));
        let parse = |data: &str| native.parse(data.as_bytes()).unwrap();
        let first = r#"{"text":"a","meta_info":{"finish_reason":null,"prompt_tokens":9,"completion_tokens":1}}"#;
        let usage =
            Usage { prompt_tokens: Some(9), completion_tokens: Some(1), cached_tokens: None };
        let facts =
            Facts { has_choice: true, has_text: true, usage: Some(usage), ..Facts::default() };
        assert_eq!(parse(first), Event::Parsed(facts.clone()));
        let last = r#"{"text":"","meta_info":{"finish_reason":{"type":"length","length":1},"prompt_tokens":9,"completion_tokens":1}}"#;
        let finish_reason = Some("length".to_owned());
        assert_eq!(parse(last), Event::Parsed(Facts { has_text: false, finish_reason, ..facts }));
        let none = Facts::default();
        assert_eq!(parse(r#"{"ping":1}"#), Event::Parsed(none));
        let broken = Event::Error("full".to_owned());
        assert_eq!(parse(r#"{"error":{"message":"full","code":503}}"#), broken);
        assert_eq!(parse(r#"{"object":"error","message":"full"}"#), broken);
        for garbage in ["", "[]", "{", "x"] {
            assert!(native.parse(garbage.as_bytes()).is_err(), "{garbage}");
        }
    }

    #[test]
    fn only_events_without_news_go_unparsed() {
        let native = Native::new(shape(false));
        for (data, plain) in [
            (r#"{"text":"a","meta_info":{"finish_reason":null}}"#, true),
            (r#"{"text": "a", "meta_info": {"finish_reason" : null}}"#, true),
            (r#"{"text":"\"finish_reason\":1","meta_info":{"finish_reason":null}}"#, true),
            (r#"{"text":"a","meta_info":{"finish_reason":"stop"}}"#, false),
            (r#"{"text":"a","meta_info":{"finish_reason":{"type":"length"}}}"#, false),
            (r#"{"text":"a"}"#, false),
            (r#"{"error":{"finish_reason":null}}"#, false),
            (r#"{"text":"a","meta_info":{"finish_reason":null}"#, true),
            (r#"{"text":"a","meta_info":{"finish_reason":null"#, false),
        ] {
            assert_eq!(native.is_plain(data.as_bytes()), plain, "{data}");
        }
    }
}
