//! Counts tokens by a model's own tokenizer. It reads the tokenizer's file and nothing else.
//!
//! Invariant: a count is of the whole text, never cut or padded, whatever the file asks for.

use super::prompts::PromptError;
use std::path::Path;
use tokenizers::Tokenizer;

/// A tokenizer that counts.
#[derive(Debug)]
pub(crate) struct Tokens(Tokenizer);

impl Tokens {
    pub(crate) fn load(path: &Path) -> Result<Self, PromptError> {
        let json = std::fs::read(path)
            .map_err(|source| PromptError::Read { path: path.to_owned(), source })?;
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| {
            PromptError::NoTokenizer { path: path.to_owned(), reason: error.to_string() }
        })?;
        // A file may ask for both; either would falsify a count.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| PromptError::Encode(error.to_string()))?;
        Ok(Self(tokenizer))
    }

    /// Tokens of the text alone.
    pub(crate) fn content(&self, text: &str) -> Result<u32, PromptError> {
        self.count(text, false)
    }

    /// With those that the tokenizer puts around a text.
    pub(crate) fn total(&self, text: &str) -> Result<u32, PromptError> {
        self.count(text, true)
    }

    /// What a server would make of the text: the ids of all its tokens, special ones included.
    pub(crate) fn ids(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        let encoding = self.0.encode_fast(text, true);
        Ok(encoding.map_err(|error| PromptError::Encode(error.to_string()))?.get_ids().to_vec())
    }

    pub(super) fn tokenizer(&self) -> &Tokenizer {
        &self.0
    }

    fn count(&self, text: &str, with_special: bool) -> Result<u32, PromptError> {
        let encoding = self
            .0
            .encode_fast(text, with_special)
            .map_err(|error| PromptError::Encode(error.to_string()))?;
        u32::try_from(encoding.len()).map_err(|error| PromptError::Encode(error.to_string()))
    }
}
