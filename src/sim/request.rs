//! A request's body, checked: what the engine is asked to do.
//!
//! Pure. Fields that a simulated model has no use for (temperature and the like) are accepted
//! and ignored, as unknown ones are. Whatever is refused is refused here, before it is queued.

use super::{cache, words};
use crate::seed::Seed;
use serde::Deserialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Completions,
    Chat,
}

/// What the server can do.
#[derive(Clone, Debug)]
pub(crate) struct Ability {
    pub(crate) model: String,
    pub(crate) seed: Seed,
    pub(crate) context: u64,
    pub(crate) kv_tokens: u64,
    /// Whether it makes answers as long as asked.
    pub(crate) hears_length: bool,
    /// Whether it makes no answer longer than asked.
    pub(crate) hears_bound: bool,
    /// Whether streams tell their token counts where that is asked for.
    pub(crate) tells_usage: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// The same prompt gets the same answer.
    pub(crate) seed: Seed,
    pub(crate) prompt_tokens: u64,
    /// For the prefix cache.
    pub(crate) blocks: Vec<u64>,
    /// Prompt tokens that were found in it; 0 until it was asked.
    pub(crate) cached_tokens: u64,
    pub(crate) max_tokens: u64,
    /// Where the model stops: `1..=max_tokens`.
    pub(crate) output_tokens: u64,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

/// An answer of 4xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 400, kind: "invalid_request_error", code, message: message.into() }
    }
}

#[derive(Debug, Deserialize)]
struct Body {
    model: Option<String>,
    prompt: Option<Prompt>,
    messages: Option<Vec<Message>>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    min_tokens: Option<u64>,
    ignore_eos: Option<bool>,
    n: Option<u64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u64>),
}

#[derive(Debug, Deserialize)]
struct Message {
    content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

#[derive(Debug, Deserialize)]
struct ContentPart {
    text: Option<String>,
}

/// How much longer the answers of an engine are that hears no bound.
const UNHEARD_TOKENS: u64 = 15;

impl Ask {
    pub(crate) fn read(
        endpoint: Endpoint,
        body: &[u8],
        ability: &Ability,
    ) -> Result<Self, Refusal> {
        let body: Body = serde_json::from_slice(body)
            .map_err(|error| Refusal::invalid("invalid_body", format!("bad JSON: {error}")))?;
        if let Some(model) = &body.model
            && *model != ability.model
        {
            return Err(Refusal {
                status: 404,
                kind: "not_found_error",
                code: "model_not_found",
                message: format!("the model {model:?} does not exist"),
            });
        }
        if body.n.unwrap_or(1) != 1 {
            return Err(Refusal::invalid("unsupported", "n must be 1"));
        }
        let prompt = prompt(endpoint, &body)?;
        let prompt_tokens = words::count(&prompt);
        let max_tokens = max_tokens(endpoint, &body, prompt_tokens, ability)?;
        let min_tokens = body.min_tokens.unwrap_or(0);
        if min_tokens > max_tokens {
            let message = format!("min_tokens {min_tokens} is more than max_tokens {max_tokens}");
            return Err(Refusal::invalid("invalid_value", message));
        }
        let max_tokens = max_tokens + if ability.hears_bound { 0 } else { UNHEARD_TOKENS };
        let seed = ability.seed.branch(&prompt);
        let stops_at = if body.ignore_eos.unwrap_or(false) && ability.hears_length {
            max_tokens
        } else {
            let least = if ability.hears_length { min_tokens } else { 0 };
            natural_length(seed, max_tokens).max(least)
        };
        Ok(Self {
            seed,
            prompt_tokens,
            blocks: cache::blocks(&prompt),
            cached_tokens: 0,
            max_tokens,
            output_tokens: stops_at,
            stream: body.stream.unwrap_or(false),
            include_usage: body.stream_options.unwrap_or_default().include_usage.unwrap_or(false)
                && ability.tells_usage,
        })
    }

    pub(crate) fn finish_reason(&self) -> &'static str {
        if self.output_tokens == self.max_tokens { "length" } else { "stop" }
    }
}

/// Where the model would stop of its own accord: evenly spread over `1..=max_tokens`.
fn natural_length(seed: Seed, max_tokens: u64) -> u64 {
    let bound = usize::try_from(max_tokens).unwrap_or(usize::MAX);
    let drawn = seed.branch("length").stream().below(bound);
    u64::try_from(drawn).map_or(max_tokens, |drawn| drawn + 1)
}

fn prompt(endpoint: Endpoint, body: &Body) -> Result<String, Refusal> {
    let text = match endpoint {
        Endpoint::Completions => match &body.prompt {
            None => return Err(Refusal::invalid("missing_field", "prompt is missing")),
            Some(Prompt::Text(text)) => text.clone(),
            Some(Prompt::Texts(texts)) if texts.len() == 1 => texts.concat(),
            Some(Prompt::Texts(texts)) => {
                let message = format!("one prompt a request, not {}", texts.len());
                return Err(Refusal::invalid("unsupported", message));
            }
            Some(Prompt::Tokens(ids)) => {
                ids.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
            }
        },
        Endpoint::Chat => match &body.messages {
            None => return Err(Refusal::invalid("missing_field", "messages is missing")),
            Some(messages) => messages.iter().map(Message::text).collect::<Vec<_>>().join("\n"),
        },
    };
    if words::count(&text) == 0 {
        return Err(Refusal::invalid("empty_prompt", "the prompt has no tokens"));
    }
    Ok(text)
}

impl Message {
    fn text(&self) -> String {
        match &self.content {
            None => String::new(),
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => {
                parts.iter().filter_map(|part| part.text.as_deref()).collect::<Vec<_>>().join(" ")
            }
        }
    }
}

fn max_tokens(
    endpoint: Endpoint,
    body: &Body,
    prompt_tokens: u64,
    ability: &Ability,
) -> Result<u64, Refusal> {
    let room = ability.context.min(ability.kv_tokens).saturating_sub(prompt_tokens);
    let asked = body.max_completion_tokens.or(body.max_tokens);
    let max_tokens = match (asked, endpoint) {
        (Some(asked), _) => asked,
        (None, Endpoint::Completions) => 16, // what the API documents
        (None, Endpoint::Chat) => room.max(1),
    };
    if max_tokens == 0 {
        return Err(Refusal::invalid("invalid_value", "max_tokens must be at least 1"));
    }
    let needed = prompt_tokens.saturating_add(max_tokens);
    if needed > ability.context {
        let message = format!(
            "the context is {} tokens, but {prompt_tokens} in the prompt and {max_tokens} of \
             output were asked for",
            ability.context
        );
        return Err(Refusal::invalid("context_length_exceeded", message));
    }
    if needed > ability.kv_tokens {
        let message =
            format!("the KV cache holds {} tokens, {needed} were asked for", ability.kv_tokens);
        return Err(Refusal::invalid("kv_cache_exceeded", message));
    }
    Ok(max_tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(endpoint: Endpoint, body: &str) -> Result<Ask, Refusal> {
        let model = "sim".to_owned();
        let (context, kv_tokens) = (100, 90);
        let seed = Seed::new(1);
        let ability = Ability {
            model,
            seed,
            context,
            kv_tokens,
            hears_length: true,
            hears_bound: true,
            tells_usage: true,
        };
        Ask::read(endpoint, body.as_bytes(), &ability)
    }

    /// `(prompt, max, output)` tokens.
    #[track_caller]
    fn check(endpoint: Endpoint, body: &str, tokens: (u64, u64, u64)) {
        let ask = read(endpoint, body).unwrap();
        assert_eq!((ask.prompt_tokens, ask.max_tokens, ask.output_tokens), tokens, "{body}");
    }

    #[track_caller]
    fn refuse(body: &str, status: u16, code: &str) {
        let refusal = read(Endpoint::Completions, body).unwrap_err();
        assert_eq!((refusal.status, refusal.code), (status, code), "{body}: {}", refusal.message);
    }

    #[test]
    fn prompts_are_counted_in_words() {
        use Endpoint::{Chat, Completions};
        let forced = r#""max_tokens":5,"ignore_eos":true"#;
        for (endpoint, prompt, tokens) in [
            (Completions, r#""prompt":" a b\nc ""#, 3),
            (Completions, r#""prompt":["a b"]"#, 2),
            (Completions, r#""prompt":[7,8,9,10]"#, 4),
            (Chat, r#""messages":[{"role":"user","content":"a b"},{"content":"c"}]"#, 3),
            (Chat, r#""messages":[{"content":[{"type":"text","text":"a b"}]}]"#, 2),
        ] {
            check(endpoint, &format!("{{{prompt},{forced}}}"), (tokens, 5, 5));
        }
    }

    #[test]
    fn the_model_stops_by_itself_unless_it_is_forced() {
        let lengths: Vec<u64> = (0..50)
            .map(|n| format!(r#"{{"prompt":"p{n}","max_tokens":20}}"#))
            .map(|body| read(Endpoint::Completions, &body).unwrap().output_tokens)
            .collect();
        assert!(lengths.iter().all(|n| (1..=20).contains(n)), "{lengths:?}");
        assert!(lengths.iter().filter(|n| **n < 20).count() > 40, "{lengths:?}");
        let at_least = r#"{"prompt":"p","max_tokens":20,"min_tokens":20}"#;
        check(Endpoint::Completions, at_least, (1, 20, 20));
    }

    #[test]
    fn lengths_have_the_defaults_of_the_api() {
        let body = r#"{"prompt":"a","ignore_eos":true}"#;
        check(Endpoint::Completions, body, (1, 16, 16));
        let body = r#"{"messages":[{"content":"a b"}],"ignore_eos":true}"#;
        check(Endpoint::Chat, body, (2, 88, 88));
        let body = r#"{"messages":[{"content":"a"}],"max_completion_tokens":3,"min_tokens":3}"#;
        check(Endpoint::Chat, body, (1, 3, 3));
    }

    #[test]
    fn mistakes_are_refused() {
        refuse("{", 400, "invalid_body");
        refuse(r#"{"prompt":7}"#, 400, "invalid_body");
        refuse(r#"{"prompt":"a","max_tokens":-1}"#, 400, "invalid_body");
        refuse(r#"{"messages":[]}"#, 400, "missing_field");
        refuse(r#"{"prompt":" "}"#, 400, "empty_prompt");
        refuse(r#"{"prompt":"a","max_tokens":0}"#, 400, "invalid_value");
        refuse(r#"{"prompt":"a","max_tokens":2,"min_tokens":3}"#, 400, "invalid_value");
        refuse(r#"{"prompt":["a","b"]}"#, 400, "unsupported");
        refuse(r#"{"prompt":"a","n":2}"#, 400, "unsupported");
        refuse(r#"{"prompt":"a","max_tokens":100}"#, 400, "context_length_exceeded");
        refuse(r#"{"prompt":"a","max_tokens":90}"#, 400, "kv_cache_exceeded");
        refuse(r#"{"prompt":"a","model":"other"}"#, 404, "model_not_found");
    }

    #[test]
    fn only_a_full_answer_ends_by_its_length() {
        let reason = |extra: &str| {
            let body = format!(r#"{{"prompt":"a","max_tokens":50{extra}}}"#);
            read(Endpoint::Completions, &body).unwrap().finish_reason()
        };
        assert_eq!(reason(r#","ignore_eos":true"#), "length");
        assert_eq!(reason(""), "stop");
    }
}
