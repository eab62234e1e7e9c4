//! Data sets: conversations that people had, as files hold them, to be asked again. Pure.
//!
//! Three forms are told from one another by the keys of an entry: ShareGPT (`conversations` of
//! `from` and `value`), OpenAI chat (`messages` of `role` and `content`), and plain (`prompt`, with
//! `output_tokens` where the length of the answer is known). A file is a JSON array of entries, or
//! JSON lines. It is read from its beginning to its end with one entry in memory (`scan`), and
//! entries are taken from it at random (`pick`) in an order that the seed gives.
//!
//! Invariant: what is not used is counted by its reason, never left out in silence.

pub(crate) mod pick;
pub(crate) mod scan;
pub(crate) mod talk;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What is asked again, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Dataset {
    pub(crate) path: PathBuf,
    /// As the file was when the sweep was read: another size or count is another file.
    pub(crate) bytes: u64,
    pub(crate) entries: u32,
    pub(crate) turns: Turns,
    pub(crate) length: AnswerLength,
    pub(crate) filter: Filter,
    /// The field of an entry that names its class.
    #[serde(default)]
    pub(crate) class_field: Option<String>,
    /// Entries that cannot be used, by what is wrong with them.
    #[serde(default)]
    pub(crate) unusable: LeftOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Turns {
    /// The first message of each conversation.
    First,
    /// All messages one after another, with the engine's own answers between them.
    All,
}

/// How long answers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AnswerLength {
    Fixed(u32),
    /// As many tokens as the answer had that the file holds.
    Recorded,
}

/// Lengths in tokens that are taken; each bound is among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filter {
    /// Of each message that is asked.
    pub(crate) prompt: Bounds,
    /// Of each answer.
    pub(crate) answer: Bounds,
    /// Of all that is said in a conversation, both sides together.
    pub(crate) total_max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    pub(crate) min: u32,
    pub(crate) max: u32,
}

/// Entries that were not used, by the reason.
pub(crate) type LeftOut = BTreeMap<String, u64>;

/// The part of a data set that is one phase's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Of the order in which entries are taken.
    pub(crate) seed: u64,
    /// Where in that order the part begins, and how many entries it has.
    pub(crate) from: u32,
    pub(crate) count: u32,
    /// Entries at its beginning that earlier runs of the same search have used.
    pub(crate) used: u32,
}

impl Part {
    /// All of a set, in the order of this seed.
    pub(crate) const fn whole(entries: u32, seed: u64) -> Self {
        Self { seed, from: 0, count: entries, used: 0 }
    }
}

/// How a phase used its part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartFacts {
    pub(crate) turns: Turns,
    pub(crate) entries: u32,
    /// So many were looked at, from the part's beginning.
    pub(crate) looked_at: u32,
    /// Of these, so many fit.
    pub(crate) fitting: u32,
    /// The others, by the reason.
    pub(crate) left_out: LeftOut,
}

impl Filter {
    /// Why a conversation of these lengths is not used: the tokens of each message and of the answer
    /// that is asked for.
    pub(crate) fn refuses(&self, turns: &[(u32, u32)]) -> Option<&'static str> {
        let mut total = 0_u64;
        for (prompt, answer) in turns.iter().copied() {
            total += u64::from(prompt) + u64::from(answer);
            let why = if prompt < self.prompt.min {
                "its prompt is too short"
            } else if prompt > self.prompt.max {
                "its prompt is too long"
            } else if answer < self.answer.min {
                "its answer is too short"
            } else if answer > self.answer.max {
                "its answer is too long"
            } else {
                continue;
            };
            return Some(why);
        }
        (total > u64::from(self.total_max)).then_some("it is too long as a whole")
    }
}

impl Dataset {
    /// For people.
    pub(crate) fn describe(&self) -> String {
        let name = self.path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let turns = match self.turns {
            Turns::First => "the first message of each",
            Turns::All => "whole conversations, the engine's answers carried on",
        };
        let length = match self.length {
            AnswerLength::Fixed(_) => String::new(),
            AnswerLength::Recorded => ", answers as long as the recorded ones".to_owned(),
        };
        let Filter { prompt, answer, total_max } = &self.filter;
        let left_out = described(&self.unusable);
        let left_out =
            if left_out.is_empty() { left_out } else { format!("; cannot be used: {left_out}") };
        format!(
            "{} entries of {name}: {turns}{length}; taken are prompts of {} to {} tokens, answers of {} to {}, \
             {total_max} in all{left_out}",
            self.entries, prompt.min, prompt.max, answer.min, answer.max
        )
    }
}

/// The commonest reason first.
pub(crate) fn described(left_out: &LeftOut) -> String {
    let mut all: Vec<(&String, &u64)> = left_out.iter().collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let each: Vec<String> = all.iter().map(|(why, count)| format!("{count} ({why})")).collect();
    each.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_held_against_every_bound() {
        let bounds = |min, max| Bounds { min, max };
        let filter = Filter { prompt: bounds(4, 100), answer: bounds(2, 50), total_max: 200 };
        for (turns, want) in [
            (vec![(4, 2)], None),
            (vec![(100, 50)], None),
            (vec![(3, 2)], Some("its prompt is too short")),
            (vec![(101, 2)], Some("its prompt is too long")),
            (vec![(4, 1)], Some("its answer is too short")),
            (vec![(4, 2), (4, 51)], Some("its answer is too long")),
            (vec![(100, 50), (48, 2)], None),
            (vec![(100, 50), (49, 2)], Some("it is too long as a whole")),
        ] {
            assert_eq!(filter.refuses(&turns), want, "{turns:?}");
        }
    }
}
