//! Random prompts of an exact number of tokens, by the model's own tokenizer.
//!
//! A prompt is words joined by single spaces. The words are those of the vocabulary that add one
//! token each; the count is then checked by encoding the whole prompt, and words are added or
//! taken away until it is exact. It reads the tokenizer's file and nothing else.
//!
//! Invariant: a prompt is a function of the tokenizer, the seed, the user and the turn, and its
//! length is never approximate: a prompt that cannot be made exact is an error.

use super::shape::{self, Shape};
use super::tokens::Tokens;
use super::words;
use crate::seed::{Seed, Stream};
use std::path::{Path, PathBuf};

/// Vocabulary entries that are tried at most, spread evenly over the vocabulary.
const MAX_TRIED: usize = 8192;
/// Words that are kept at most: enough for prompts to differ from the first word on.
const MAX_WORDS: usize = 4096;
/// With fewer, prompts would begin alike too often.
const MIN_WORDS: usize = 16;
/// Corrections of one draw, and draws for one prompt.
const MAX_FIXES: u32 = 16;
const MAX_DRAWS: u32 = 16;

/// Why there are no prompts. Each message completes "cannot make prompts: …".
#[derive(Debug, thiserror::Error)]
pub(crate) enum PromptError {
    #[error("cannot read the tokenizer {}: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is no tokenizer: {reason}", .path.display())]
    NoTokenizer { path: PathBuf, reason: String },
    #[error("{} has {found} words that make one token each; at least {MIN_WORDS} are needed", .path.display())]
    TooFewWords { path: PathBuf, found: usize },
    #[error("the tokenizer failed: {0}")]
    Encode(String),
    #[error("token ids and data sets need a tokenizer")]
    NeedsTokenizer,
    #[error("no prompt of exactly {tokens} tokens was found")]
    NotExact { tokens: u32 },
}

/// A prompt and its length both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) text: String,
    /// Tokens of the text alone.
    pub(crate) content_tokens: u32,
    /// With those that the tokenizer puts around a text: what `/v1/completions` counts. Absent
    /// without a tokenizer, when the length is a guess.
    pub(crate) total_tokens: Option<u32>,
}

/// Makes prompts of one length from one tokenizer.
#[derive(Debug)]
pub(crate) struct Prompter {
    tokenizer: Option<Tokens>,
    words: Vec<String>,
    seed: Seed,
    tokens: u32,
    shape: Shape,
}

impl Prompter {
    pub(crate) fn load(path: &Path, tokens: u32, seed: Seed) -> Result<Self, PromptError> {
        let tokenizer = Tokens::load(path)?;
        let words = usable_words(&tokenizer);
        if words.len() < MIN_WORDS {
            return Err(PromptError::TooFewWords { path: path.to_owned(), found: words.len() });
        }
        Ok(Self { tokenizer: Some(tokenizer), words, seed, tokens, shape: Shape::Random })
    }

    /// Without a tokenizer: so many plain words, hoped to be about as many tokens.
    pub(crate) fn of_words(words: u32, seed: Seed) -> Self {
        Self { tokenizer: None, words: words::plain(), seed, tokens: words, shape: Shape::Random }
    }

    pub(crate) fn shaped(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }

    /// Where in its conversation the user's turn stands; absent where there are none.
    pub(crate) fn place(&self, user: u32, turn: u32) -> Option<u32> {
        match self.shape {
            Shape::Conversations { turns } => {
                Some(shape::place(self.seed.nth(user.into()), turn, turns))
            }
            Shape::Random | Shape::Mixed(_) | Shape::Rag { .. } | Shape::Dataset(_) => None,
        }
    }

    /// The prompt of this user's turn.
    pub(crate) fn prompt(&self, user: u32, turn: u32) -> Result<Prompt, PromptError> {
        let tokens = match &self.shape {
            Shape::Mixed(lengths) => lengths.draw(self.seed.nth(user.into()).nth(turn.into())),
            Shape::Random | Shape::Rag { .. } | Shape::Conversations { .. } | Shape::Dataset(_) => {
                self.tokens
            }
        };
        self.prompt_of(user, turn, tokens)
    }

    /// The same of another length.
    pub(crate) fn prompt_of(
        &self,
        user: u32,
        turn: u32,
        tokens: u32,
    ) -> Result<Prompt, PromptError> {
        let seed = self.seed.nth(user.into()).nth(turn.into());
        let mut stream = seed.stream();
        let document = self.document(seed);
        for _ in 0..MAX_DRAWS {
            if let Some(text) = self.draw(tokens, &document, &mut stream)? {
                let total_tokens = match &self.tokenizer {
                    Some(tokenizer) => Some(tokenizer.total(&text)?),
                    None => None,
                };
                return Ok(Prompt { text, content_tokens: tokens, total_tokens });
            }
        }
        Err(PromptError::NotExact { tokens })
    }

    /// What a server would make of the text: the ids of all its tokens, special ones included.
    pub(crate) fn token_ids(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        self.tokenizer.as_ref().ok_or(PromptError::NeedsTokenizer)?.ids(text)
    }

    /// One draw, corrected until it is exact; `None` if it cannot be.
    fn draw(
        &self,
        tokens: u32,
        document: &[&str],
        stream: &mut Stream,
    ) -> Result<Option<String>, PromptError> {
        let wanted = usize::try_from(tokens).unwrap_or(usize::MAX);
        let mut words: Vec<&str> = document.iter().copied().take(wanted).collect();
        words.extend((words.len()..wanted).map(|_| self.word(stream)));
        for _ in 0..MAX_FIXES {
            let text = words.join(" ");
            let Some(tokenizer) = &self.tokenizer else { return Ok(Some(text)) };
            let counted = tokenizer.content(&text)?;
            let counted = usize::try_from(counted).unwrap_or(usize::MAX);
            if counted == wanted {
                return Ok(Some(text));
            }
            if counted > wanted {
                let left = words.len().saturating_sub(counted - wanted);
                if left == 0 {
                    return Ok(None);
                }
                words.truncate(left);
            } else {
                words.extend((counted..wanted).map(|_| self.word(stream)));
            }
        }
        Ok(None)
    }

    /// Which document this user's turn begins with, and how many tokens of it; absent where prompts
    /// have none.
    pub(crate) fn document_of(&self, user: u32, turn: u32) -> Option<(u64, u32)> {
        self.document_at(self.seed.nth(user.into()).nth(turn.into()))
    }

    /// A word is a token, so the share of words is that of tokens.
    fn document_at(&self, seed: Seed) -> Option<(u64, u32)> {
        let Shape::Rag { shared, documents } = self.shape else { return None };
        let pool = usize::try_from(documents).unwrap_or(1);
        let picked = seed.branch("document").stream().below(pool);
        let words = (f64::from(self.tokens) * shared).round();
        Some((u64::try_from(picked).unwrap_or(0), format!("{words:.0}").parse().unwrap_or(0)))
    }

    /// The words that a prompt begins with, drawn for the document that the seed picks.
    fn document(&self, seed: Seed) -> Vec<&str> {
        let Some((number, words)) = self.document_at(seed) else { return Vec::new() };
        let mut stream = self.seed.branch("documents").nth(number).stream();
        (0..words).map(|_| self.word(&mut stream)).collect()
    }

    fn word(&self, stream: &mut Stream) -> &str {
        self.words.get(stream.below(self.words.len())).map_or("", String::as_str)
    }
}

/// The words of the vocabulary that add exactly one token between two other words.
fn usable_words(tokens: &Tokens) -> Vec<String> {
    let mut vocabulary: Vec<(u32, String)> = tokens
        .tokenizer()
        .get_vocab(false)
        .into_iter()
        .filter_map(|(token, id)| Some((id, plain_word(&token)?)))
        .collect();
    // By id, so that a map's order does not matter; the ids order common words first.
    vocabulary.sort_unstable();
    let stride = vocabulary.len().div_ceil(MAX_TRIED).max(1);
    let tried = || vocabulary.iter().step_by(stride).map(|(_, word)| word.as_str());
    let tokens = |text: &str| tokens.content(text).ok();
    let Some((anchor, alone)) = tried().find_map(|word| {
        let one = tokens(&format!("{word} {word}"))?;
        let two = tokens(&format!("{word} {word} {word}"))?;
        (two == one + 1).then_some((word, one))
    }) else {
        return Vec::new();
    };
    let mut words: Vec<String> = tried()
        .filter(|word| tokens(&format!("{anchor} {word} {anchor}")) == Some(alone + 1))
        .map(str::to_owned)
        .collect();
    let keep = words.len().div_ceil(MAX_WORDS).max(1);
    words = words.into_iter().step_by(keep).collect();
    // `Ġfoo` and `foo` are two tokens and one word.
    let mut seen = std::collections::HashSet::new();
    words.retain(|word| seen.insert(word.clone()));
    words
}

/// A vocabulary entry as a word of two to twelve ASCII letters, without its mark of a space.
fn plain_word(token: &str) -> Option<String> {
    let word = token.trim_start_matches(['\u{120}', '\u{2581}']);
    let fits = (2..=12).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphabetic());
    fits.then(|| word.to_owned())
}

#[cfg(test)]
#[path = "prompts_tests.rs"]
pub(crate) mod tests;
