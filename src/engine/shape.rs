//! The words in which requests and answers are described, for the engine file and the load process.
//!
//! Pure, and alone: the fuzz target takes this file without the rest of the crate.

use serde::{Deserialize, Serialize};

/// What kind of endpoint requests go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Endpoint {
    Completions,
    Chat,
    /// The engine's own, described by `[request.generate]`.
    Generate,
}

impl Endpoint {
    pub(crate) const ALL: [Self; 3] = [Self::Completions, Self::Chat, Self::Generate];

    /// The key in `[endpoints]`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Completions => "completions",
            Self::Chat => "chat",
            Self::Generate => "generate",
        }
    }
}

/// The field that takes the prompt, and in what form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PromptField {
    Text(String),
    TokenIds(String),
    /// A list of messages with role and content.
    Messages(String),
}

/// Where an event of the engine's own stream has what: JSON pointers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AnswerShape {
    pub(crate) text: String,
    /// Each event has the whole text so far, not only what is new.
    pub(crate) cumulative: bool,
    /// Null or missing until the last event; a text, or an object with a `type`.
    pub(crate) finish_reason: String,
    pub(crate) prompt_tokens: Option<String>,
    pub(crate) output_tokens: Option<String>,
    pub(crate) cached_tokens: Option<String>,
}
