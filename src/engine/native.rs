//! `[request.generate]` of an engine file: the engine's own endpoint, as data.
//!
//! Invariant: what is not said here is as in `[request]`, and nothing is guessed beyond that.

use super::def::{AnswerShape, GenerateShape, PromptField};
use super::sections::{json_fields, sampling};
use crate::form::{Field, Fields, Wrong};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What `[request]` says for all endpoints.
pub(super) struct Shared<'a> {
    pub(super) max_tokens: &'a str,
    pub(super) force_length: &'a Map<String, Value>,
    pub(super) sampling: &'a BTreeMap<String, String>,
}

pub(super) fn generate(fields: &Fields<'_>, shared: &Shared<'_>) -> Option<GenerateShape> {
    let prompt = prompt_field(fields);
    let params = fields.optional("params").text();
    let max_tokens = fields.optional("max_tokens").text();
    let forced = fields.optional("force_length");
    let force_length =
        if forced.is_there() { json_fields(&forced) } else { shared.force_length.clone() };
    let extra = json_fields(&fields.optional("extra"));
    let own_sampling = fields.optional("sampling").table().map(|fields| sampling(&fields));
    let answer = fields.required("answer").table().and_then(|fields| answer(&fields));
    Some(GenerateShape {
        prompt: prompt?,
        params,
        max_tokens: max_tokens.unwrap_or_else(|| shared.max_tokens.to_owned()),
        force_length,
        extra,
        sampling: own_sampling.unwrap_or_else(|| shared.sampling.clone()),
        answer: answer?,
    })
}

/// The prompt goes as text or as token ids, never both.
fn prompt_field(fields: &Fields<'_>) -> Option<PromptField> {
    let [text, ids] = ["prompt", "token_ids"].map(|key| fields.optional(key));
    match (text.is_there(), ids.is_there()) {
        (true, false) => text.text().map(PromptField::Text),
        (false, true) => ids.text().map(PromptField::TokenIds),
        (true, true) => {
            ids.problem("the prompt goes as text or as token ids, not as both", None);
            None
        }
        (false, false) => {
            let message = "neither `prompt` nor `token_ids` in [generate]";
            let help = "the field for the prompt's text, or the one for its token ids".to_owned();
            fields.form().absence(fields.at(), message, Some(help));
            None
        }
    }
}

fn answer(fields: &Fields<'_>) -> Option<AnswerShape> {
    let optional = |key| pointer(&fields.optional(key));
    let [prompt_tokens, output_tokens, cached_tokens] =
        ["prompt_tokens", "output_tokens", "cached_tokens"].map(optional);
    let cumulative = fields.optional("cumulative").boolean();
    let text = pointer(&fields.required("text"));
    let finish_reason = pointer(&fields.required("finish_reason"));
    Some(AnswerShape {
        text: text?,
        cumulative: cumulative.unwrap_or(false),
        finish_reason: finish_reason?,
        prompt_tokens,
        output_tokens,
        cached_tokens,
    })
}

/// A JSON pointer to a member of objects: `/meta_info/prompt_tokens`.
fn pointer(field: &Field<'_>) -> Option<String> {
    field.parsed(|text| {
        let fits = text.len() > 1 && text.starts_with('/') && !text.ends_with('/');
        if fits {
            Ok(text.to_owned())
        } else {
            Err(Wrong::new(format!("{text:?} is no JSON pointer")).help("such as `/meta_info/id`"))
        }
    })
}
