//! What one event of a stream says, in the common APIs' form or, by `native`, the engine's own.
//!
//! Pure. JSON is parsed until the first text was seen, whenever cheap byte markers say that an
//! event carries more than a token, and for every 64th event as a check; all other events count
//! as one chunk unparsed. It never counts tokens: only the server's `usage` does.
//!
//! Invariant: an event that is handed out unparsed has the braces of an object, a choice, and
//! neither usage, error nor finish reason.

use super::native::Native;
use crate::engine::def::AnswerShape;
use memchr::memmem::Finder;
use serde::Deserialize;
use std::borrow::Cow;

/// Every so many events one is parsed whatever it looks like.
const CHECK_EVERY: u32 = 64;

/// Why an event is none of a completion stream. Each message completes "malformed event: …".
#[derive(Debug, thiserror::Error)]
pub(crate) enum EventError {
    #[error("not the JSON of a stream ({0})")]
    Json(#[from] serde_json::Error),
    #[error("not a JSON object")]
    NotObject,
}

/// What the server counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: Option<u32>,
    pub(crate) completion_tokens: Option<u32>,
    pub(crate) cached_tokens: Option<u32>,
}

/// One event, as far as a record wants to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) has_choice: bool,
    /// Generated text: content, completion text or reasoning.
    pub(crate) has_text: bool,
    /// That text, where it was asked for.
    pub(crate) text: Option<String>,
    pub(crate) finish_reason: Option<String>,
    pub(crate) usage: Option<Usage>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// `[DONE]`.
    Done,
    /// A token's worth of JSON that was not parsed: it has a choice and nothing else of interest.
    Plain,
    Parsed(Facts),
    /// The server's own words.
    Error(String),
}

/// Classifies events. One for all streams: it holds the searchers and no stream's state.
#[derive(Debug)]
pub(crate) enum Classifier {
    Common(Box<Common>),
    Native(Box<Native>),
}

impl Classifier {
    /// `own`: where the engine's own events have what.
    pub(crate) fn new(own: Option<&AnswerShape>) -> Self {
        match own {
            Some(shape) => Self::Native(Box::new(Native::new(shape.clone()))),
            None => Self::Common(Box::new(Common::new())),
        }
    }

    /// `nth` counts the stream's events from 0; `text_seen`: an earlier one had text;
    /// `wants_text`: every event's text is wanted, so none goes unparsed.
    pub(crate) fn classify(
        &self,
        data: &[u8],
        nth: u32,
        text_seen: bool,
        wants_text: bool,
    ) -> Result<Event, EventError> {
        if data.trim_ascii() == b"[DONE]" {
            return Ok(Event::Done);
        }
        let may_skip = !wants_text && text_seen && !nth.is_multiple_of(CHECK_EVERY);
        match self {
            Self::Common(common) if may_skip && common.is_plain(data) => Ok(Event::Plain),
            Self::Native(native) if may_skip && native.is_plain(data) => Ok(Event::Plain),
            Self::Common(_) => parse(data, wants_text),
            Self::Native(native) => native.parse(data),
        }
    }
}

/// Searchers for the form that completions and chat share.
#[derive(Debug)]
pub(crate) struct Common {
    usage: Finder<'static>,
    usage_spaced: Finder<'static>,
    error: Finder<'static>,
    finish: Finder<'static>,
    finish_spaced: Finder<'static>,
    choices: Finder<'static>,
}

impl Common {
    fn new() -> Self {
        Self {
            usage: Finder::new(b"\"usage\":{"),
            usage_spaced: Finder::new(b"\"usage\": {"),
            // Inside a JSON string the quotes would be escaped.
            error: Finder::new(b"\"error\""),
            finish: Finder::new(b"\"finish_reason\":\""),
            finish_spaced: Finder::new(b"\"finish_reason\": \""),
            choices: Finder::new(b"\"choices\""),
        }
    }

    /// `"choices":[{`, with any spaces.
    fn has_choice(&self, data: &[u8]) -> bool {
        self.choices
            .find(data)
            .and_then(|at| data.get(at + self.choices.needle().len()..))
            .and_then(|rest| past_space(rest).strip_prefix(b":"))
            .and_then(|rest| past_space(rest).strip_prefix(b"["))
            .is_some_and(|rest| past_space(rest).starts_with(b"{"))
    }

    fn is_plain(&self, data: &[u8]) -> bool {
        data.starts_with(b"{")
            && data.ends_with(b"}")
            && self.has_choice(data)
            && self.usage.find(data).is_none()
            && self.usage_spaced.find(data).is_none()
            && self.error.find(data).is_none()
            && self.finish.find(data).is_none()
            && self.finish_spaced.find(data).is_none()
    }
}

/// The bytes after any spaces.
pub(super) fn past_space(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii_start()
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<RawChoice<'a>>>,
    #[serde(default)]
    usage: Option<RawUsage>,
    #[serde(borrow, default)]
    error: Option<&'a serde_json::value::RawValue>,
    /// Some servers send `{"object":"error","message":…}` inside a stream.
    #[serde(borrow, default)]
    object: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message: Option<&'a serde_json::value::RawValue>,
}

#[derive(Deserialize)]
struct RawChoice<'a> {
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    delta: Option<RawDelta<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct RawDelta<'a> {
    #[serde(borrow, default)]
    content: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    reasoning_content: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    reasoning: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct RawUsage {
    #[serde(default)]
    prompt_tokens: Option<u32>,
    #[serde(default)]
    completion_tokens: Option<u32>,
    #[serde(default)]
    prompt_tokens_details: Option<RawPromptDetails>,
}

#[derive(Deserialize)]
struct RawPromptDetails {
    #[serde(default)]
    cached_tokens: Option<u32>,
}

/// The content of the first choice: what an answer to it would carry on.
fn text_of(choices: &[RawChoice<'_>]) -> String {
    let Some(choice) = choices.first() else { return String::new() };
    let content = choice.delta.as_ref().and_then(|delta| delta.content.as_ref());
    choice.text.as_ref().or(content).map(|text| text.clone().into_owned()).unwrap_or_default()
}

fn parse(data: &[u8], wants_text: bool) -> Result<Event, EventError> {
    // serde would also read an array as a structure.
    if !past_space(data).starts_with(b"{") {
        return Err(EventError::NotObject);
    }
    let raw: RawEvent<'_> = serde_json::from_slice(data)?;
    if let Some(error) = raw.error {
        return Ok(Event::Error(error_text(error.get())));
    }
    if raw.object.as_deref() == Some("error") {
        let said =
            raw.message.map_or_else(|| "no message".to_owned(), |said| error_text(said.get()));
        return Ok(Event::Error(said));
    }
    let choices = raw.choices.unwrap_or_default();
    let is_text = |text: &Option<Cow<'_, str>>| text.as_ref().is_some_and(|text| !text.is_empty());
    let has_text = choices.iter().any(|choice| {
        is_text(&choice.text)
            || choice.delta.as_ref().is_some_and(|delta| {
                is_text(&delta.content)
                    || is_text(&delta.reasoning_content)
                    || is_text(&delta.reasoning)
            })
    });
    let finish = choices.iter().find_map(|choice| choice.finish_reason.as_ref());
    Ok(Event::Parsed(Facts {
        has_choice: !choices.is_empty(),
        has_text,
        text: wants_text.then(|| text_of(&choices)),
        finish_reason: finish.map(|reason| reason.clone().into_owned()),
        usage: raw.usage.map(|usage| Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.prompt_tokens_details.and_then(|details| details.cached_tokens),
        }),
    }))
}

/// `{"message": …}` or a plain string as text; anything else as its JSON.
pub(super) fn error_text(error: &str) -> String {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Said {
        Text(String),
        Message { message: String },
    }
    match serde_json::from_str(error) {
        Ok(Said::Text(text) | Said::Message { message: text }) => text,
        Err(_) => error.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(data: &str, want: &Event) {
        let got = Classifier::new(None).classify(data.as_bytes(), 0, false, false).unwrap();
        assert_eq!(&got, want, "{data}");
    }

    fn facts(has_choice: bool, has_text: bool) -> Facts {
        Facts { has_choice, has_text, ..Facts::default() }
    }

    #[test]
    fn what_has_text() {
        for (data, want) in [
            (r#"{"choices":[{"text":" a","finish_reason":null}],"usage":null}"#, (true, true)),
            (r#"{"choices":[{"text":""}]}"#, (true, false)),
            (r#"{"choices":[{"delta":{"role":"assistant","content":null}}]}"#, (true, false)),
            (r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#, (true, false)),
            (r#"{"choices":[{"delta":{"content":"\n"}}]}"#, (true, true)),
            (r#"{"choices":[{"delta":{"reasoning_content":"h"}}]}"#, (true, true)),
            (r#"{"choices":[{"delta":{"reasoning":"h","content":""}}]}"#, (true, true)),
            (r#"{"choices":[]}"#, (false, false)),
            (r#"{"object":"ping"}"#, (false, false)),
        ] {
            check(data, &Event::Parsed(facts(want.0, want.1)));
        }
    }

    #[test]
    fn usage_and_finish_reason() {
        check(
            r#"{"choices":[{"text":"","finish_reason":"length"}],"usage":{"prompt_tokens":11,"completion_tokens":16,"prompt_tokens_details":{"cached_tokens":6}}}"#,
            &Event::Parsed(Facts {
                finish_reason: Some("length".to_owned()),
                usage: Some(Usage {
                    prompt_tokens: Some(11),
                    completion_tokens: Some(16),
                    cached_tokens: Some(6),
                }),
                ..facts(true, false)
            }),
        );
        // Absent is not zero.
        check(
            r#"{"choices":[],"usage":{"prompt_tokens":11,"prompt_tokens_details":null}}"#,
            &Event::Parsed(Facts {
                usage: Some(Usage { prompt_tokens: Some(11), ..Usage::default() }),
                ..facts(false, false)
            }),
        );
    }

    #[test]
    fn errors_in_the_servers_words() {
        let error = |text: &str| Event::Error(text.to_owned());
        check(r#"{"error":{"message":"out of slots","code":500}}"#, &error("out of slots"));
        check(r#"{"error":"busy"}"#, &error("busy"));
        check(r#"{"error":{"code":500}}"#, &error(r#"{"code":500}"#));
        check(r#"{"object":"error","message":"too long"}"#, &error("too long"));
        check(r#"{"error":null,"choices":[]}"#, &Event::Parsed(facts(false, false)));
    }

    #[test]
    fn done_is_not_json() {
        check("[DONE]", &Event::Done);
        check(" [DONE] ", &Event::Done);
    }

    #[test]
    fn garbage_is_refused() {
        let classifier = Classifier::new(None);
        for data in ["", "x", "[]", "{", "{\"choices\":7}", "{\"choices\":[1]}"] {
            assert!(classifier.classify(data.as_bytes(), 1, true, false).is_err(), "{data}");
            assert!(classifier.classify(data.as_bytes(), 0, false, false).is_err(), "{data}");
        }
        assert!(
            classifier.classify(b"{\"choices\":[{\"text\":\"\xff\"}]}", 0, false, false).is_err()
        );
    }

    #[test]
    fn only_plain_tokens_go_unparsed() {
        let classifier = Classifier::new(None);
        let plain = |data: &str, nth, text_seen| {
            classifier.classify(data.as_bytes(), nth, text_seen, false).unwrap() == Event::Plain
        };
        let token = r#"{"choices":[{"text":"a \"error\" b","finish_reason":null}],"usage":null}"#;
        assert!(plain(token, 1, true));
        assert!(!plain(token, 1, false), "until text was seen everything is parsed");
        assert!(!plain(token, 64, true), "every 64th is checked");
        for data in [
            r#"{"choices":[{"text":"a","finish_reason":"stop"}]}"#,
            r#"{"choices":[{"text":"a","finish_reason": "stop"}]}"#,
            r#"{"choices":[],"usage":{}}"#,
            r#"{"choices":[],"usage": {"prompt_tokens":1}}"#,
            r#"{"error":{"message":"x"},"choices":[]}"#,
            r#"{"object":"ping"}"#,
            r#"{"choices": [ ]}"#,
        ] {
            assert!(!plain(data, 1, true), "{data}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(data: Vec<u8>, nth: u32, seen: bool) {
            drop(Classifier::new(None).classify(&data, nth, seen, false));
        }
    }
}
