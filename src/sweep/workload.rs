//! `[workload]` of a sweep file: what is asked of the engine.

use super::def::{Endpoint, Workload};
use super::load::MOST_TOKENS;
use crate::form::Fields;
use crate::workload::shape::{Lengths, Shape, Spread};
use serde::Deserialize;
use std::num::NonZeroU32;

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Random,
    Mixed,
    Rag,
    Conversations,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SpreadKind {
    Uniform,
    LogNormal,
    Zipf,
}

pub(super) fn read(fields: &Fields<'_>) -> Option<Workload> {
    let kind = fields.required("kind").choice::<Kind>();
    let endpoint = fields.optional("endpoint");
    let endpoint =
        if endpoint.is_there() { endpoint.choice() } else { Some(Endpoint::Completions) };
    let output_tokens = fields.required("output_tokens").count(MOST_TOKENS);
    let Some(kind) = kind else {
        // Which other keys make sense is not known.
        fields.ignore_unknown();
        fields.required("prompt_tokens").count(MOST_TOKENS);
        return None;
    };
    let (shape, prompt_tokens) = shape(kind, fields);
    if let (Kind::Conversations, Some(Endpoint::Generate)) = (kind, endpoint) {
        let help = "`chat` carries messages, `completions` one text".to_owned();
        let field = fields.optional("endpoint");
        field.problem("conversations need `chat` or `completions`", Some(help));
    }
    Some(Workload {
        endpoint: endpoint?,
        shape: shape?,
        prompt_tokens: prompt_tokens?,
        output_tokens: output_tokens?,
    })
}

/// The kind's own keys, and the longest prompt.
fn shape(kind: Kind, fields: &Fields<'_>) -> (Option<Shape>, Option<NonZeroU32>) {
    if let Kind::Mixed = kind {
        let lengths = fields.required("prompt_tokens").table().and_then(|fields| lengths(&fields));
        let longest = lengths.and_then(|lengths| NonZeroU32::new(lengths.max));
        return (lengths.map(Shape::Mixed), longest);
    }
    let prompt_tokens = fields.required("prompt_tokens").count(MOST_TOKENS);
    let shape = match kind {
        Kind::Random | Kind::Mixed => Some(Shape::Random),
        Kind::Rag => {
            let shared = fields.required("shared").float(0.01..=0.99);
            let documents = fields.required("documents").count(1_000_000);
            shared
                .zip(documents)
                .map(|(shared, documents)| Shape::Rag { shared, documents: documents.get() })
        }
        Kind::Conversations => {
            let turns = fields.required("turns").float(1.0..=1000.0);
            turns.map(|turns| Shape::Conversations { turns })
        }
    };
    (shape, prompt_tokens)
}

fn lengths(fields: &Fields<'_>) -> Option<Lengths> {
    let [min, max] = ["min", "max"].map(|key| fields.required(key).count(MOST_TOKENS));
    if min.zip(max).is_some_and(|(min, max)| min > max) {
        fields.optional("max").problem("is less than `min`", None);
    }
    let spread = match fields.required("distribution").choice::<SpreadKind>() {
        None => {
            fields.ignore_unknown();
            None
        }
        Some(SpreadKind::Uniform) => Some(Spread::Uniform),
        Some(SpreadKind::LogNormal) => {
            let median = fields.required("median").float(1.0..=f64::from(MOST_TOKENS));
            let sigma = fields.required("sigma").float(0.0..=10.0);
            median.zip(sigma).map(|(median, sigma)| Spread::LogNormal { median, sigma })
        }
        Some(SpreadKind::Zipf) => {
            let exponent = fields.required("exponent").float(0.1..=10.0);
            exponent.map(|exponent| Spread::Zipf { exponent })
        }
    };
    let (min, max) = (min?.get(), max?.get());
    (min <= max).then_some(Lengths { min, max, spread: spread? })
}
