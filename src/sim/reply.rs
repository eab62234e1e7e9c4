//! What an answer looks like: the JSON of responses and of stream events.
//!
//! Pure. A token's event is written when the token is made and never later, and holds exactly
//! one token. The first event of a chat stream has the role and no text and is sent before any
//! token exists: a client that takes it for a token measures a wrong time to the first token.

use super::fault::StreamFault;
use super::request::{Ask, Endpoint};
use super::words::Answer;
use serde_json::{Value, json};

/// What to write next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The text of one event, with its blank line.
    Event(String),
    /// The stream ends as it should.
    End,
    /// The connection is closed with no word.
    Cut,
    /// Nothing more comes, and the connection stays open.
    Silence,
}

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    endpoint: Endpoint,
    ask: Ask,
    id: String,
    created: i64,
    model: String,
    answer: Answer,
    /// Tokens written so far.
    written: u64,
    fault: Option<StreamFault>,
}

impl Reply {
    pub(crate) fn new(
        endpoint: Endpoint,
        ask: Ask,
        (id, created): (u64, i64),
        model: &str,
        fault: Option<StreamFault>,
    ) -> Self {
        let prefix = match endpoint {
            Endpoint::Completions => "cmpl",
            Endpoint::Chat => "chatcmpl",
        };
        Self {
            endpoint,
            id: format!("{prefix}-{id}"),
            created,
            model: model.to_owned(),
            answer: Answer::new(ask.seed),
            ask,
            written: 0,
            fault,
        }
    }

    /// What a stream begins with.
    pub(crate) fn opening(&self) -> Vec<Part> {
        match self.endpoint {
            Endpoint::Completions => Vec::new(),
            Endpoint::Chat => {
                let delta = json!({ "role": "assistant", "content": "" });
                vec![event(&self.chunk(&json!([choice("delta", &delta, None)])))]
            }
        }
    }

    /// What a stream writes for its next token.
    pub(crate) fn token(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        if self.fault == Some(StreamFault::ErrorAtOnce) {
            return failure();
        }
        // Faults come in the middle: some tokens before, none lost by a short answer.
        if self.written == self.ask.output_tokens / 2 {
            match self.fault {
                Some(StreamFault::Cut) => return vec![Part::Cut],
                Some(StreamFault::Stall) => return vec![Part::Silence],
                Some(StreamFault::ErrorEvent) => return failure(),
                Some(StreamFault::Garbage) => {
                    parts.push(Part::Event(format!("data: {{\"id\":\"{}\",\"cho\n\n", self.id)));
                }
                Some(StreamFault::ErrorAtOnce | StreamFault::NoDone) | None => {}
            }
        }
        let text = self.next_text();
        self.written += 1;
        let last = self.written == self.ask.output_tokens;
        let reason = last.then(|| self.ask.finish_reason());
        let choice = match self.endpoint {
            Endpoint::Completions => choice("text", &json!(text), reason),
            Endpoint::Chat => choice("delta", &json!({ "content": text }), reason),
        };
        parts.push(event(&self.chunk(&json!([choice]))));
        if last {
            parts.extend(self.closing());
        }
        parts
    }

    /// The whole answer in one document.
    pub(crate) fn whole(mut self) -> Value {
        let text: String = (0..self.ask.output_tokens)
            .map(|_| {
                let text = self.next_text();
                self.written += 1;
                text
            })
            .collect();
        let reason = Some(self.ask.finish_reason());
        let (object, choice) = match self.endpoint {
            Endpoint::Completions => ("text_completion", choice("text", &json!(text), reason)),
            Endpoint::Chat => {
                let message = json!({ "role": "assistant", "content": text });
                ("chat.completion", choice("message", &message, reason))
            }
        };
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": [choice],
            "usage": self.usage(),
        })
    }

    fn closing(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        if self.ask.include_usage {
            let mut chunk = self.chunk(&json!([]));
            chunk["usage"] = self.usage();
            parts.push(event(&chunk));
        }
        if self.fault != Some(StreamFault::NoDone) {
            parts.push(done());
        }
        parts.push(Part::End);
        parts
    }

    /// A completion goes on from the prompt, so its words start with their space.
    fn next_text(&mut self) -> String {
        let word = self.answer.next_word();
        match self.endpoint {
            Endpoint::Chat if self.written == 0 => word,
            Endpoint::Chat | Endpoint::Completions => format!(" {word}"),
        }
    }

    fn chunk(&self, choices: &Value) -> Value {
        let object = match self.endpoint {
            Endpoint::Completions => "text_completion",
            Endpoint::Chat => "chat.completion.chunk",
        };
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    fn usage(&self) -> Value {
        let (prompt, output) = (self.ask.prompt_tokens, self.written);
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": { "cached_tokens": self.ask.cached_tokens },
        })
    }
}

fn choice(field: &str, content: &Value, finish_reason: Option<&str>) -> Value {
    json!({ "index": 0, field: content, "finish_reason": finish_reason })
}

/// The end of a stream whose engine failed.
fn failure() -> Vec<Part> {
    let message = "the simulated engine failed on purpose";
    let error = error(500, "internal_server_error", "simulated_fault", message);
    vec![event(&error), done(), Part::End]
}

fn event(data: &Value) -> Part {
    Part::Event(format!("data: {data}\n\n"))
}

fn done() -> Part {
    Part::Event("data: [DONE]\n\n".to_owned())
}

/// An error as the API shows it.
pub(crate) fn error(status: u16, kind: &str, code: &str, message: &str) -> Value {
    json!({ "error": {
        "message": message,
        "type": kind,
        "param": null,
        "code": code,
        "status": status,
    } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn reply(endpoint: Endpoint, output_tokens: u64, fault: Option<StreamFault>) -> Reply {
        let ask = Ask {
            seed: Seed::new(1),
            prompt_tokens: 3,
            blocks: Vec::new(),
            cached_tokens: 0,
            max_tokens: 4,
            output_tokens,
            stream: true,
            include_usage: true,
        };
        Reply::new(endpoint, ask, (7, 1000), "sim", fault)
    }

    /// The whole stream, one line a part, the text of tokens made plain.
    fn play(mut reply: Reply) -> Vec<String> {
        let mut parts = reply.opening();
        while !parts.iter().any(|part| matches!(part, Part::End | Part::Cut)) {
            parts.extend(reply.token());
        }
        parts.iter().map(describe).collect()
    }

    fn describe(part: &Part) -> String {
        let Part::Event(text) = part else { return format!("{part:?}") };
        let data = text.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap();
        let Ok(json) = serde_json::from_str::<Value>(data) else { return data.to_owned() };
        if json.get("error").is_some() {
            return "error".to_owned();
        }
        if let Some(usage) = json.get("usage") {
            assert_eq!(json["choices"], json!([]));
            return format!("usage {}+{}", usage["prompt_tokens"], usage["completion_tokens"]);
        }
        let choice = &json["choices"][0];
        let text = choice.get("text").or(choice["delta"].get("content")).unwrap();
        let kind = match choice["delta"].get("role") {
            Some(_) => "role",
            None => "token",
        };
        assert_eq!(text == "", kind == "role");
        match choice["finish_reason"].as_str() {
            Some(reason) => format!("{kind} {reason}"),
            None => kind.to_owned(),
        }
    }

    #[track_caller]
    fn check(endpoint: Endpoint, tokens: u64, fault: Option<StreamFault>, parts: &[&str]) {
        assert_eq!(play(reply(endpoint, tokens, fault)), parts);
    }

    #[test]
    fn a_stream_has_an_event_a_token() {
        check(
            Endpoint::Completions,
            4,
            None,
            &["token", "token", "token", "token length", "usage 3+4", "[DONE]", "End"],
        );
        check(
            Endpoint::Chat,
            2,
            None,
            &["role", "token", "token stop", "usage 3+2", "[DONE]", "End"],
        );
    }

    #[test]
    fn faults_come_in_the_middle() {
        let check = |fault, parts: &[&str]| check(Endpoint::Completions, 2, Some(fault), parts);
        check(StreamFault::Cut, &["token", "Cut"]);
        check(StreamFault::ErrorEvent, &["token", "error", "[DONE]", "End"]);
        check(StreamFault::ErrorAtOnce, &["error", "[DONE]", "End"]);
        check(StreamFault::NoDone, &["token", "token stop", "usage 3+2", "End"]);
        check(
            StreamFault::Garbage,
            &["token", r#"{"id":"cmpl-7","cho"#, "token stop", "usage 3+2", "[DONE]", "End"],
        );
    }

    #[test]
    fn a_whole_answer_has_the_words_of_its_stream() {
        let mut streamed = reply(Endpoint::Completions, 3, None);
        let words: String = (0..3).map(|_| streamed.next_text()).collect();
        let whole = reply(Endpoint::Completions, 3, None).whole();
        assert_eq!(whole["choices"][0]["text"], words);
        assert_eq!(whole["usage"]["total_tokens"], 6);
        let chat = reply(Endpoint::Chat, 3, None).whole();
        assert_eq!(chat["choices"][0]["message"]["content"], words.trim_start());
    }
}
