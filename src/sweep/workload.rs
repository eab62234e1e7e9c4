//! `[workload]` of a sweep file: what is asked of the engine.

use super::dataset;
use super::def::{Endpoint, Workload};
use super::load::MOST_TOKENS;
use super::variants::Surroundings;
use crate::form::{Field, Fields};
use crate::run::slo::Class;
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
    Dataset,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SpreadKind {
    Uniform,
    LogNormal,
    Zipf,
    Empirical,
}

pub(super) fn read(
    fields: &Fields<'_>,
    around: &Surroundings<'_>,
    classes: &[Class],
) -> Option<Workload> {
    let kind = fields.required("kind").choice::<Kind>();
    let endpoint = fields.optional("endpoint");
    let endpoint =
        if endpoint.is_there() { endpoint.choice() } else { Some(Endpoint::Completions) };
    if let Some(Kind::Dataset) = kind {
        return dataset::read(fields, endpoint, around, classes);
    }
    let output_tokens = fields.required("output_tokens").count(MOST_TOKENS);
    let Some(kind) = kind else {
        // Which other keys make sense is not known.
        fields.ignore_unknown();
        fields.required("prompt_tokens").count(MOST_TOKENS);
        return None;
    };
    let (shape, prompt_tokens) = shape(kind, fields, around);
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
fn shape(
    kind: Kind,
    fields: &Fields<'_>,
    around: &Surroundings<'_>,
) -> (Option<Shape>, Option<NonZeroU32>) {
    if let Kind::Mixed = kind {
        let table = fields.required("prompt_tokens").table();
        let lengths = table.and_then(|fields| lengths(&fields, around));
        let longest = lengths.as_ref().and_then(|lengths| NonZeroU32::new(lengths.max));
        return (lengths.map(Shape::Mixed), longest);
    }
    let prompt_tokens = fields.required("prompt_tokens").count(MOST_TOKENS);
    let shape = match kind {
        Kind::Random | Kind::Mixed | Kind::Dataset => Some(Shape::Random),
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

fn lengths(fields: &Fields<'_>, around: &Surroundings<'_>) -> Option<Lengths> {
    let kind = fields.required("distribution").choice::<SpreadKind>();
    if let Some(SpreadKind::Empirical) = kind {
        return empirical(fields, around);
    }
    let [min, max] = ["min", "max"].map(|key| fields.required(key).count(MOST_TOKENS));
    if min.zip(max).is_some_and(|(min, max)| min > max) {
        fields.optional("max").problem("is less than `min`", None);
    }
    let spread = match kind {
        None | Some(SpreadKind::Empirical) => {
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

/// Lengths that were seen: a list of them, or a file with one a line.
fn empirical(fields: &Fields<'_>, around: &Surroundings<'_>) -> Option<Lengths> {
    let (list, file) = (fields.optional("lengths"), fields.optional("file"));
    let lengths = match (list.is_there(), file.is_there()) {
        (true, false) => {
            let items = list.items();
            let found: Vec<u32> = items
                .iter()
                .filter_map(|item| item.count(MOST_TOKENS))
                .map(NonZeroU32::get)
                .collect();
            if items.is_empty() && list.is_list() {
                list.problem("is an empty list", None);
            }
            (found.len() == items.len()).then_some(found)
        }
        (false, true) => lengths_of_file(&file, around),
        (both, _) => {
            let message = if both {
                "`lengths` and `file` are both there"
            } else {
                "neither `lengths` nor `file`"
            };
            let help =
                "`lengths = [32, 64, 64, 2048]`, or a `file` with one number a line".to_owned();
            fields.form().problem(fields.at(), message, Some(help));
            None
        }
    }?;
    let (min, max) = (*lengths.iter().min()?, *lengths.iter().max()?);
    Some(Lengths { min, max, spread: Spread::Empirical { lengths } })
}

/// Wrong lines are told up to this many.
const WRONG_LINES: usize = 20;

fn lengths_of_file(field: &Field<'_>, around: &Surroundings<'_>) -> Option<Vec<u32>> {
    let path = around.data_file(&field.text()?);
    let text = match around.host.read(&path) {
        Ok(text) => text,
        Err(error) => {
            field.problem(format!("cannot read {}: {error}", path.display()), None);
            return None;
        }
    };
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let (mut lengths, mut wrong) = (Vec::new(), 0);
    for (line, number) in lines {
        match line.trim().parse::<u32>().ok().filter(|n| (1..=MOST_TOKENS).contains(n)) {
            Some(length) => lengths.push(length),
            None if wrong < WRONG_LINES => {
                wrong += 1;
                let message = format!("{}, line {number}: {line:?} is no length", path.display());
                field.problem(message, Some(format!("a whole number from 1 to {MOST_TOKENS}")));
            }
            None => wrong += 1,
        }
    }
    if wrong > WRONG_LINES {
        field.problem(format!("{} more lines are no lengths", wrong - WRONG_LINES), None);
    } else if lengths.is_empty() && wrong == 0 {
        field.problem(format!("{} holds no length", path.display()), None);
    }
    (wrong == 0 && !lengths.is_empty()).then_some(lengths)
}
