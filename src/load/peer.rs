//! How a server is reached beyond its address: what crosses to the load process, and nowhere else.
//!
//! Invariant: a key is serialised for the load process's stdin alone, and never shown.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// What is the same for all connections of a phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// Sent with each request, as a bearer token.
    pub(crate) key: Option<ApiKey>,
    /// Absent for plain HTTP.
    pub(crate) tls: Option<TlsPlan>,
}

/// How a server is known under TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TlsPlan {
    /// The host of its URL, which its certificate must be for.
    pub(crate) name: String,
    /// Those who may have issued it; without it, whom the machine trusts.
    pub(crate) ca_file: Option<PathBuf>,
    /// Any certificate will do.
    pub(crate) insecure: bool,
}

/// Whatever prints it prints no key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ApiKey(String);

/// Why a text is no key. It never holds any of that text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("is empty")]
    Empty,
    #[error("is longer than {MAX_KEY} bytes")]
    TooLong,
    #[error("has a byte that no header may have: a space, a line break, or one beyond ASCII")]
    Byte,
}

/// Servers refuse longer heads.
const MAX_KEY: usize = 8 * 1024;

impl ApiKey {
    /// Without the space around it, which an editor or `echo` leaves.
    pub(crate) fn new(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.len() > MAX_KEY {
            return Err(KeyError::TooLong);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyError::Byte);
        }
        Ok(Self(text.to_owned()))
    }

    /// For the head of a request, and to know what must be hidden.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(crate::secrets::HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_fits_in_a_header() {
        assert_eq!(ApiKey::new("  sk-a.b_c/+=\n").unwrap().expose(), "sk-a.b_c/+=");
        for (text, why) in [
            ("", KeyError::Empty),
            (" \n", KeyError::Empty),
            ("a b", KeyError::Byte),
            ("a\r\nX-Evil: b", KeyError::Byte),
            ("schl\u{fc}ssel", KeyError::Byte),
            (&"k".repeat(MAX_KEY + 1), KeyError::TooLong),
        ] {
            assert_eq!(ApiKey::new(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn nothing_that_is_printed_shows_a_key() {
        let key = Some(ApiKey::new("sk-do-not-show").unwrap());
        let peer = Peer { key, ..Peer::default() };
        assert!(!format!("{peer:?} {peer:#?}").contains("show"));
        let told = serde_json::to_string(&peer).unwrap();
        assert_eq!(serde_json::from_str::<Peer>(&told).unwrap(), peer);
    }
}
