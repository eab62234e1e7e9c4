//! A prefix cache: which prompts' beginnings have their keys and values still there.
//!
//! Pure. Prompts are compared in whole blocks of tokens, each by a hash of itself and all before
//! it, as paged engines do. When it is full, the block that was used longest ago goes.
//!
//! Invariant: at least one token of a prompt is left to compute, for it brings the first token of
//! the answer.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Tokens in a block.
pub(crate) const BLOCK: usize = 16;

/// The blocks of a prompt: each stands for itself and all before it.
pub(crate) fn blocks(prompt: &str) -> Vec<u64> {
    let words: Vec<&str> = prompt.split_whitespace().collect();
    let mut hasher = DefaultHasher::new();
    let chained = words.chunks_exact(BLOCK).map(|block| {
        block.hash(&mut hasher);
        hasher.finish()
    });
    chained.collect()
}

#[derive(Debug)]
pub(crate) struct PrefixCache {
    /// Blocks that fit.
    room: usize,
    /// When each was used last.
    used: HashMap<u64, u64>,
    by_time: BTreeMap<u64, u64>,
    clock: u64,
}

impl PrefixCache {
    /// Without room nothing is ever found.
    pub(crate) fn new(room: usize) -> Self {
        Self { room, used: HashMap::new(), by_time: BTreeMap::new(), clock: 0 }
    }

    /// How many tokens of a prompt are there already.
    pub(crate) fn find(&mut self, blocks: &[u64], prompt_tokens: u64) -> u64 {
        let hits = blocks.iter().take_while(|block| self.used.contains_key(block)).count();
        for block in &blocks[..hits] {
            self.touch(*block);
        }
        let tokens = u64::try_from(hits * BLOCK).unwrap_or(0);
        tokens.min(prompt_tokens.saturating_sub(1))
    }

    /// A prompt was computed.
    pub(crate) fn keep(&mut self, blocks: &[u64]) {
        // From the back, so that of one prompt the end goes first: a block is of no use without
        // those before it.
        for block in blocks.iter().take(self.room).rev() {
            self.touch(*block);
        }
        while self.used.len() > self.room {
            let Some((_, oldest)) = self.by_time.pop_first() else { return };
            self.used.remove(&oldest);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.used.clear();
        self.by_time.clear();
    }

    fn touch(&mut self, block: u64) {
        self.clock += 1;
        if let Some(before) = self.used.insert(block, self.clock) {
            self.by_time.remove(&before);
        }
        self.by_time.insert(self.clock, block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `words` distinct words that begin with `name`.
    fn text(name: &str, words: usize) -> String {
        (0..words).map(|n| format!("{name}{n}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_common_beginning_is_found_in_whole_blocks() {
        let mut cache = PrefixCache::new(100);
        let shared = text("a", 40);
        let (one, two) =
            (format!("{shared} {}", text("b", 20)), format!("{shared} {}", text("c", 20)));
        assert_eq!(cache.find(&blocks(&one), 60), 0);
        cache.keep(&blocks(&one));
        assert_eq!(cache.find(&blocks(&two), 60), 32, "two blocks of the 40 shared words");
        assert_eq!(cache.find(&blocks(&one), 60), 48, "three whole blocks of its 60");
        assert_eq!(
            cache.find(&blocks(&text("b", 40)), 40),
            0,
            "the same words elsewhere are others"
        );
        cache.clear();
        assert_eq!(cache.find(&blocks(&one), 60), 0);
    }

    #[test]
    fn one_token_is_always_computed() {
        let mut cache = PrefixCache::new(100);
        let whole = blocks(&text("a", 32));
        cache.keep(&whole);
        assert_eq!(cache.find(&whole, 32), 31);
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut cache = PrefixCache::new(4);
        let [a, b, c] = ["a", "b", "c"].map(|name| blocks(&text(name, 32)));
        cache.keep(&a);
        cache.keep(&b);
        assert_eq!(cache.find(&a, 33), 32);
        cache.keep(&c);
        assert_eq!(cache.find(&b, 33), 0);
        assert_eq!((cache.find(&a, 33), cache.find(&c, 33)), (32, 32));
        assert_eq!(cache.used.len(), cache.by_time.len());
        let mut none = PrefixCache::new(0);
        none.keep(&a);
        assert_eq!(none.find(&a, 33), 0);
    }
}
