//! The bytes of a request: HTTP head and JSON body, made before they are needed.
//!
//! Pure. All but the prompt and the length is written once for a phase.

use super::message::LoadPlan;
use crate::engine::def::PromptField;
use crate::engine::request::{Draft, prompt_entry};
use serde_json::{Value, json};

/// What every request of a phase has in common.
#[derive(Clone, Debug)]
pub(crate) struct RequestTemplate {
    /// Up to the number in `Content-Length`.
    head: String,
    draft: Draft,
    /// The body, cut where prompt and length go.
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Prompt,
    Length,
}

/// Stand for prompt and length while the body is written; no request holds such a text.
const PROMPT: &str = "\u{1}sweepd prompt\u{1}";
const LENGTH: &str = "\u{1}sweepd length\u{1}";

impl RequestTemplate {
    pub(crate) fn new(plan: &LoadPlan) -> Result<Self, serde_json::Error> {
        let authorization =
            plan.peer.key.as_ref().map_or_else(String::new, |key| {
                format!("Authorization: Bearer {}\r\n", key.expose())
            });
        let close = if plan.keep_alive_ns == 0 { "Connection: close\r\n" } else { "" };
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: sweepd\r\nAccept: text/event-stream\r\n\
             Content-Type: application/json\r\n{authorization}{close}Content-Length: ",
            plan.request.path, plan.authority
        );
        let draft = plan.request.draft.clone();
        let pieces = pieces(&draft)?;
        Ok(Self { head, draft, pieces })
    }

    /// A request with this prompt. `ids` are its token ids, where the engine wants those.
    pub(crate) fn bytes(
        &self,
        prompt: &str,
        ids: &[u32],
        output_tokens: u32,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let (_, prompt) = prompt_entry(&self.draft.prompt, prompt, ids);
        self.with_prompt(&prompt, output_tokens)
    }

    fn with_prompt(
        &self,
        prompt: &Value,
        output_tokens: u32,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let prompt = serde_json::to_string(prompt)?;
        let tokens = output_tokens.to_string();
        let texts = || {
            self.pieces.iter().map(|piece| match piece {
                Piece::Text(text) => text.as_str(),
                Piece::Prompt => prompt.as_str(),
                Piece::Length => tokens.as_str(),
            })
        };
        let length = texts().map(str::len).sum::<usize>().to_string();
        let mut bytes = Vec::with_capacity(self.head.len() + 16 + prompt.len() * 5 / 4);
        bytes.extend([self.head.as_str(), &length, "\r\n\r\n"].concat().into_bytes());
        texts().for_each(|text| bytes.extend_from_slice(text.as_bytes()));
        Ok(bytes)
    }
}

/// What was said in a conversation so far, both sides in turn.
pub(crate) type History = Vec<(String, String)>;

impl RequestTemplate {
    /// A turn of a conversation with all that came before it: as messages where the endpoint takes
    /// those, else as one text.
    pub(crate) fn carrying_on(
        &self,
        system: Option<&str>,
        history: &History,
        prompt: &str,
        output_tokens: u32,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let value = match &self.draft.prompt {
            PromptField::Messages(_) => {
                let say = |role: &str, text: &str| json!({ "role": role, "content": text });
                let before = history
                    .iter()
                    .flat_map(|(user, engine)| [say("user", user), say("assistant", engine)]);
                let told = system.map(|text| say("system", text)).into_iter();
                told.chain(before).chain([say("user", prompt)]).collect()
            }
            PromptField::Text(_) | PromptField::TokenIds(_) => {
                let before = history.iter().flat_map(|(user, engine)| [user.as_str(), engine]);
                let said = system.into_iter().chain(before).chain([prompt]);
                Value::String(said.collect::<Vec<_>>().join(" "))
            }
        };
        self.with_prompt(&value, output_tokens)
    }
}

fn pieces(draft: &Draft) -> Result<Vec<Piece>, serde_json::Error> {
    let mut body = Value::Object(draft.body.clone());
    let (prompt_field, _) = prompt_entry(&draft.prompt, "", &[]);
    body[prompt_field] = PROMPT.into();
    let length = draft.length_at.iter().fold(&mut body, |place, field| &mut place[field]);
    *length = LENGTH.into();
    let body = serde_json::to_string(&body)?;
    let marks = [(PROMPT, Piece::Prompt), (LENGTH, Piece::Length)];
    let mut pieces = vec![Piece::Text(body)];
    for (mark, piece) in marks {
        let mark = serde_json::to_string(mark)?;
        pieces = pieces.into_iter().flat_map(|whole| cut(whole, &mark, &piece)).collect();
    }
    Ok(pieces)
}

/// A text with the mark in it becomes the text before, the piece, and the text after.
fn cut(whole: Piece, mark: &str, piece: &Piece) -> Vec<Piece> {
    match &whole {
        Piece::Text(text) => match text.split_once(mark) {
            Some((before, after)) => {
                vec![Piece::Text(before.into()), piece.clone(), Piece::Text(after.into())]
            }
            None => vec![whole],
        },
        Piece::Prompt | Piece::Length => vec![whole],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of(prompt: PromptField, body: &Value, length_at: &[&str], text: &str) -> Value {
        let mut plan = super::super::scripted::plan_for(1);
        plan.request.draft.prompt = prompt;
        plan.request.draft.body = body.as_object().unwrap().clone();
        plan.request.draft.length_at = length_at.iter().map(|at| (*at).to_owned()).collect();
        let bytes = RequestTemplate::new(&plan).unwrap().bytes(text, &[4, 5], 77).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"), "{head}");
        let length = format!("Content-Length: {}", body.len());
        assert!(head.lines().any(|line| line == length), "{head}");
        serde_json::from_str(body).unwrap()
    }

    #[test]
    fn prompt_and_length_go_where_the_endpoint_wants_them() {
        let text = "a \"b\"\n\u{e9}";
        let field = || "prompt".to_owned();
        assert_eq!(
            body_of(PromptField::Text(field()), &json!({"model": "m", "max": 1}), &["max"], text),
            json!({"model": "m", "max": 77, "prompt": text})
        );
        assert_eq!(
            body_of(PromptField::Messages("messages".into()), &json!({}), &["max"], text),
            json!({"max": 77, "messages": [{"role": "user", "content": text}]})
        );
        assert_eq!(
            body_of(
                PromptField::TokenIds(field()),
                &json!({"params": {"max": 1, "heat": 0.5}}),
                &["params", "max"],
                text
            ),
            json!({"params": {"max": 77, "heat": 0.5}, "prompt": [4, 5]})
        );
    }
}
