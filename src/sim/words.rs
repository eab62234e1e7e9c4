//! The words that the simulated engine reads and writes: one word is one token.
//!
//! Pure. The list is made by a rule (consonant, vowel, consonant, vowel), so it needs no file;
//! `examples/sim-tokenizer.json` is written from the same rule for load generators that count
//! tokens with a tokenizer.
//!
//! Invariant: words are distinct and contain no white space, so that counting words and
//! counting tokens are the same thing.

use crate::seed::{Seed, Stream};

const FIRST: [char; 8] = ['b', 'd', 'f', 'g', 'k', 'm', 'p', 't'];
const SECOND: [char; 8] = ['h', 'j', 'l', 'n', 'r', 's', 'v', 'z'];
const VOWELS: [char; 4] = ['a', 'i', 'o', 'u'];

/// How many words there are.
pub(crate) const WORDS: usize = FIRST.len() * VOWELS.len() * SECOND.len() * VOWELS.len();

/// The word number `index % WORDS`, in alphabetical order.
pub(crate) fn word(index: usize) -> String {
    let syllables = SECOND.len() * VOWELS.len();
    let (head, tail) = (index / syllables, index % syllables);
    [
        FIRST[head / VOWELS.len() % FIRST.len()],
        VOWELS[head % VOWELS.len()],
        SECOND[tail / VOWELS.len()],
        VOWELS[tail % VOWELS.len()],
    ]
    .iter()
    .collect()
}

/// How many tokens a text has.
pub(crate) fn count(text: &str) -> u64 {
    text.split_whitespace().fold(0, |words, _| words + 1)
}

/// An endless answer: the same seed gives the same words.
#[derive(Clone, Debug)]
pub(crate) struct Answer(Stream);

impl Answer {
    pub(crate) fn new(seed: Seed) -> Self {
        Self(seed.branch("answer").stream())
    }

    pub(crate) fn next_word(&mut self) -> String {
        word(self.0.below(WORDS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, Value, json};
    use std::path::Path;
    use tokenizers::Tokenizer;

    /// The tokenizer that counts as this engine counts. Number 0 is the unknown word.
    fn tokenizer_json() -> Value {
        let words = std::iter::once("<unk>".to_owned()).chain((0..WORDS).map(word));
        let vocab: Map<_, _> = words.enumerate().map(|(id, word)| (word, json!(id))).collect();
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [],
            "normalizer": null,
            "pre_tokenizer": { "type": "WhitespaceSplit" },
            "post_processor": null,
            "decoder": null,
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" },
        })
    }

    fn path() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/sim-tokenizer.json")
    }

    /// `SWEEPD_BLESS=1 cargo test` writes the file anew.
    #[test]
    fn the_tokenizer_file_follows_the_rule() {
        if std::env::var_os("SWEEPD_BLESS").is_some() {
            let text = serde_json::to_string_pretty(&tokenizer_json()).unwrap();
            std::fs::write(path(), text + "\n").unwrap();
        }
        let found = std::fs::read(path()).unwrap();
        let found: Value = serde_json::from_slice(&found).unwrap();
        assert!(found == tokenizer_json(), "{} differs from the rule", path().display());
    }

    #[test]
    fn words_are_distinct_and_in_order() {
        let words: Vec<String> = (0..WORDS).map(word).collect();
        assert_eq!(words.len(), 1024);
        assert!(words.is_sorted_by(|a, b| a < b), "a word comes twice or out of order");
        assert_eq!((words[0].as_str(), words[1023].as_str()), ("baha", "tuzu"));
    }

    #[test]
    fn the_tokenizer_counts_as_the_engine_does() {
        let tokenizer = Tokenizer::from_file(path()).unwrap();
        let mut answer = Answer::new(Seed::new(3));
        for length in [1_u32, 2, 100, 2000] {
            let words: Vec<String> = (0..length).map(|_| answer.next_word()).collect();
            let text = words.join(" ");
            let encoding = tokenizer.encode(text.as_str(), true).unwrap();
            assert_eq!(encoding.len(), length as usize);
            assert_eq!(count(&text), u64::from(length));
            assert!(!encoding.get_ids().contains(&0), "an answer has a word outside the list");
            assert_eq!(tokenizer.decode(encoding.get_ids(), true).unwrap(), text);
        }
    }

    #[test]
    fn an_answer_repeats_with_its_seed() {
        let text = |seed| {
            let mut answer = Answer::new(Seed::new(seed));
            (0..20).map(|_| answer.next_word()).collect::<Vec<_>>()
        };
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
    }
}
