//! Names of things, checked once: each is safe as a folder name.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A name a user gives to a sweep, a variant, a phase or an engine.
///
/// ASCII letters, digits, `-`, `_` and `.`, not starting with a dot, at most 64 long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Name(String);

impl Name {
    /// `None` when the text cannot be a name.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty()
            && text.len() <= 64
            && !text.starts_with(['.', '-'])
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        fits.then(|| Self(text.to_owned()))
    }

    /// The warm-up's name; no name of a user's starts with a dot.
    pub(crate) fn warmup() -> Self {
        Self(".warmup".to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One run: the sweep's name and the time it began, as a folder name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RunId(pub(crate) String);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The name that a value has in files.
pub(crate) fn wire_name(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// One folder's name, and nothing that leads elsewhere.
pub(crate) fn is_folder_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// `2026-11-25T19:00:00.000Z` as part of a folder's name: `20261125-190000`.
pub(crate) fn folder_stamp(wall_time: &str) -> String {
    let seconds = wall_time.split('.').next().unwrap_or_default().chars();
    let kept = seconds.filter(|c| c.is_ascii_digit() || *c == 'T');
    kept.map(|c| if c == 'T' { '-' } else { c }).collect()
}

/// One variant in one block. Blocks count from 1; block 0 is that of smoke launches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct TrialId {
    pub(crate) block: u32,
    pub(crate) variant: Name,
}

impl fmt::Display for TrialId {
    /// Also the trial's folder name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}-{}", self.block, self.variant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_name_holds_the_time_in_utc() {
        assert_eq!(folder_stamp("2026-11-25T19:00:01.234Z"), "20261125-190001");
        assert!(is_folder_name("night-20261125-190001"));
        for bad in ["", "..", ".x", "a/b", "a\0", "ä"] {
            assert!(!is_folder_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_name_is_a_safe_folder_name() {
        for good in ["a", "engine-fcfs", "A40_2.1"] {
            assert!(Name::new(good).is_some(), "{good}");
        }
        for bad in ["", ".", "..", ".a", "-a", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(Name::new(bad).is_none(), "{bad}");
        }
    }
}
