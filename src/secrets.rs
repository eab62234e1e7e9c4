//! Secrets: known by the names of the variables and parameters that hold them, never written.
//!
//! Every process learns them once, at its start; whatever it writes to a file goes through
//! `redacted`. A value is only hidden where it is long enough to be a secret and not a number:
//! hiding `1` would ruin a log and protect nothing.

use std::borrow::Cow;
use std::sync::{PoisonError, RwLock};

/// What stands in the place of a secret.
pub(crate) const HIDDEN: &str = "[redacted]";
const SHORTEST: usize = 8;
/// So much of one says something about it; less may be any text.
const TELLING: usize = 4;
/// The last word of a name that says secret: `HF_TOKEN`, `AWS_SECRET_ACCESS_KEY`, `api-key`.
const WORDS: [&str; 10] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "KEY",
    "APIKEY",
    "CREDENTIAL",
    "CREDENTIALS",
    "PAT",
];

/// Longest first, so that a secret that contains another is hidden whole.
static KNOWN: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// Whether what has this name is a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    let upper = name.to_uppercase();
    let last = upper.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    WORDS.contains(&last)
}

/// The values among these that are secrets and can be told from ordinary text.
pub(crate) fn among<'v>(values: impl IntoIterator<Item = (&'v str, &'v str)>) -> Vec<String> {
    let tellable = |value: &str| value.len() >= SHORTEST && value.parse::<f64>().is_err();
    let secret = |(name, value): &(&str, &str)| is_secret(name) && tellable(value);
    values.into_iter().filter(secret).map(|(_, value)| value.to_owned()).collect()
}

/// From now on, these are hidden in all that this process writes.
pub(crate) fn learn(values: impl IntoIterator<Item = String>) {
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    known.extend(values.into_iter().filter(|value| value.len() >= SHORTEST));
    known.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    known.dedup();
}

/// All that were learnt, for a child that writes too.
pub(crate) fn known() -> Vec<String> {
    KNOWN.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The text without secrets.
pub(crate) fn redacted(text: &str) -> Cow<'_, str> {
    hide(text, &KNOWN.read().unwrap_or_else(PoisonError::into_inner))
}

/// The same for a text that may have been cut off: nor does it end in the beginning of one.
pub(crate) fn excerpt(text: &str) -> Cow<'_, str> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    hide_begun(hide(text, &known), &known)
}

/// The same for a file's bytes, which need not be text.
pub(crate) fn redacted_bytes(bytes: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(bytes).map(redacted) {
        Ok(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        Ok(Cow::Borrowed(_)) | Err(_) => Cow::Borrowed(bytes),
    }
}

/// A text that ends in `TELLING` or more of a secret's first bytes ends before them.
fn hide_begun<'t>(text: Cow<'t, str>, secrets: &[String]) -> Cow<'t, str> {
    let begun = |secret: &String| {
        let lengths = TELLING..secret.len();
        lengths.rev().find(|length| secret.get(..*length).is_some_and(|part| text.ends_with(part)))
    };
    match secrets.iter().filter_map(begun).max() {
        Some(length) => {
            Cow::Owned(format!("{}{HIDDEN}", text.get(..text.len() - length).unwrap_or_default()))
        }
        None => text,
    }
}

fn hide<'t>(text: &'t str, secrets: &[String]) -> Cow<'t, str> {
    let mut hidden = Cow::Borrowed(text);
    for secret in secrets {
        if hidden.contains(secret.as_str()) {
            hidden = Cow::Owned(hidden.replace(secret.as_str(), HIDDEN));
        }
        // As it stands inside a JSON string.
        if let Ok(quoted) = serde_json::to_string(secret)
            && let Some(inner) = quoted.get(1..quoted.len() - 1)
            && inner != secret
            && hidden.contains(inner)
        {
            hidden = Cow::Owned(hidden.replace(inner, HIDDEN));
        }
    }
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whether_it_holds_a_secret() {
        for name in [
            "HF_TOKEN",
            "HUGGING_FACE_HUB_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "OPENAI_API_KEY",
            "api-key",
            "PGPASSWORD_SECRET",
            "GOOGLE_APPLICATION_CREDENTIALS",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "TOKENIZERS_PARALLELISM",
            "MAX_PREFILL_TOKEN_NUM",
            "kv-tokens",
            "HF_TOKEN_PATH",
            "KEYBOARD",
            "PATH",
            "LANG",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn numbers_and_short_values_are_not_hidden() {
        let values = [
            ("HF_TOKEN", "hf_abcdefgh"),
            ("MAX_TOKEN", "123456789"),
            ("A_KEY", "short"),
            ("HOME", "/home/somebody"),
        ];
        assert_eq!(among(values), ["hf_abcdefgh"]);
    }

    #[test]
    fn a_secret_is_hidden_plain_and_as_json_and_the_longer_one_first() {
        let secrets = ["abcdefgh-long".to_owned(), "abcdefgh".to_owned(), "quo\"te\\d!".to_owned()];
        let got = hide("x abcdefgh-long y abcdefgh z", &secrets);
        assert_eq!(got, format!("x {HIDDEN} y {HIDDEN} z"));
        let json = serde_json::json!({"a": "quo\"te\\d!"}).to_string();
        assert_eq!(hide(&json, &secrets), format!(r#"{{"a":"{HIDDEN}"}}"#));
        assert!(matches!(hide("nothing", &secrets), Cow::Borrowed(_)));
    }

    #[test]
    fn a_text_that_was_cut_within_a_secret_shows_none_of_it() {
        let secrets = ["sk-0123456789".to_owned(), "0123-other".to_owned()];
        for (text, want) in [
            ("wrong key: sk-012345", "wrong key: [redacted]"),
            ("wrong key: sk-0", "wrong key: [redacted]"),
            ("sk-0123", "[redacted]"),
            // Three letters may be anything.
            ("wrong key: sk-", "wrong key: sk-"),
            ("sk-012345 and on", "sk-012345 and on"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(hide_begun(hide(text, &secrets), &secrets), want);
        }
    }
}
