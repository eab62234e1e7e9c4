//! The server's API key: from a variable or a file, never from the command line.
//!
//! Invariant: no message holds a key, nor what was given where the name of one was meant.

use crate::cli::input::Refused;
use crate::load::peer::ApiKey;
use clap::Args;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where clients of such servers look without being told.
const USUAL: &str = "OPENAI_API_KEY";
/// No key is longer; a device without end is not read to it.
const MOST: u64 = 64 * 1024;

#[derive(Clone, Debug, Args)]
pub(super) struct KeyArguments {
    /// The variable that holds the server's API key, sent as `Authorization: Bearer`. Without it,
    /// OPENAI_API_KEY if that is set.
    #[arg(long, value_name = "NAME", conflicts_with = "api_key_file")]
    api_key_env: Option<String>,
    /// A file with the API key in it and nothing else.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

/// A key, and where it came from: a variable's name or a file's path.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) key: ApiKey,
    pub(super) from: String,
    /// What the user should know about it.
    pub(super) note: Option<String>,
}

pub(super) fn read(
    arguments: &KeyArguments,
    environment: &BTreeMap<String, String>,
) -> Result<Option<Key>, Refused> {
    if let Some(file) = &arguments.api_key_file {
        return from_file(file).map(Some);
    }
    match &arguments.api_key_env {
        Some(name) => from_variable(name, environment).map(Some),
        None => match environment.get(USUAL).filter(|value| !value.trim().is_empty()) {
            Some(_) => from_variable(USUAL, environment).map(Some),
            None => Ok(None),
        },
    }
}

fn from_variable(name: &str, environment: &BTreeMap<String, String>) -> Result<Key, Refused> {
    // A key given in the place of a name is not said back: the terminal may be logged.
    let refused = |why: String| Refused::Argument { name: "--api-key-env", why };
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        return Err(refused("takes the name of a variable, not the key itself".to_owned()));
    }
    let value = environment.get(name).ok_or_else(|| {
        refused("there is no variable of this name in the environment".to_owned())
    })?;
    let key = ApiKey::new(value).map_err(|why| refused(format!("the value of {name} {why}")))?;
    Ok(Key { key, from: format!("${name}"), note: None })
}

fn from_file(path: &Path) -> Result<Key, Refused> {
    let unreadable = |cause| Refused::Unreadable { file: path.to_owned(), cause };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text).map_err(unreadable)?;
    let why = |error| Refused::Argument {
        name: "--api-key-file",
        why: format!("what {} holds {error}", path.display()),
    };
    let mode = metadata.permissions().mode() & 0o777;
    let shared = metadata.is_file() && mode & 0o077 != 0;
    Ok(Key {
        key: ApiKey::new(&text).map_err(why)?,
        from: path.display().to_string(),
        note: shared.then(|| {
            let path = path.display();
            format!("others may read the key in {path} (mode {mode:03o}): chmod 600 {path}")
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(env: Option<&str>, file: Option<&Path>) -> KeyArguments {
        KeyArguments { api_key_env: env.map(str::to_owned), api_key_file: file.map(Path::to_owned) }
    }

    fn environment() -> BTreeMap<String, String> {
        let pairs = [("MY_KEY", "sk-mine"), ("BAD", "sk x"), ("NONE", " ")];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn a_variable_is_asked_for_by_name() {
        let mut environment = environment();
        let found = |environment: &_, name| read(&asked(name, None), environment);
        assert_eq!(found(&environment, None).unwrap(), None);
        let key = found(&environment, Some("MY_KEY")).unwrap().unwrap();
        assert_eq!((key.key.expose(), key.from.as_str()), ("sk-mine", "$MY_KEY"));
        for (name, why) in [
            ("sk-secret.key", "not the key itself"),
            ("sk_secret", "no variable"),
            ("BAD", "BAD has a byte"),
            ("NONE", "NONE is empty"),
        ] {
            let error = found(&environment, Some(name)).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
        environment.insert(USUAL.to_owned(), String::new());
        assert_eq!(found(&environment, None).unwrap(), None, "emptied: not wanted");
        environment.insert(USUAL.to_owned(), "sk-usual".to_owned());
        assert_eq!(found(&environment, None).unwrap().unwrap().from, "$OPENAI_API_KEY");
        assert_eq!(found(&environment, Some("MY_KEY")).unwrap().unwrap().from, "$MY_KEY");
    }

    #[test]
    fn a_file_that_others_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for (mode, told) in [(0o600, false), (0o640, true), (0o604, true)] {
            std::fs::write(&path, "sk-filed\n").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let key = read(&asked(None, Some(&path)), &environment()).unwrap().unwrap();
            assert_eq!(key.key.expose(), "sk-filed");
            assert_eq!(key.note.is_some(), told, "{mode:o}: {:?}", key.note);
        }
        std::fs::write(&path, "two words").unwrap();
        let error = read(&asked(None, Some(&path)), &environment()).unwrap_err().to_string();
        assert!(error.contains("has a byte") && !error.contains("two"), "{error}");
        let none = read(&asked(None, Some(&dir.path().join("none"))), &environment());
        assert!(matches!(none, Err(Refused::Unreadable { .. })));
        let endless = read(&asked(None, Some(Path::new("/dev/zero"))), &environment());
        assert!(endless.unwrap_err().to_string().contains("longer"));
    }
}
