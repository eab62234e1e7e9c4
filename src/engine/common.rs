//! What is true of many engines: failure rules and the environment that any program needs.

use super::rules::parse::log_rules;
use super::rules::rule::LogRules;
use crate::form::{self, Field, Problems, Wrong};
use regex::Regex;
use std::path::Path;

/// `engines/common.toml`, checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Common {
    pub(crate) log: LogRules,
    pub(crate) env_pass: Vec<String>,
}

/// The newest schema of engine files.
pub(super) const SCHEMA: i64 = 1;

impl Common {
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Self, Problems> {
        form::read(file, text, |_, fields| {
            fields.schema_is_known(SCHEMA).then_some(())?;
            let env_pass = variable_names(&fields.optional("env_pass"));
            let log = log_rules(fields);
            Some(Self { log, env_pass })
        })
    }
}

pub(super) fn regex(text: &str) -> Result<Regex, Wrong> {
    Regex::new(text).map_err(|error| not_a_regex(text, &error))
}

pub(super) fn not_a_regex(text: &str, error: &regex::Error) -> Wrong {
    // The message's other lines draw the pattern; its last one says what is wrong.
    let message = error.to_string();
    let reason = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
    Wrong::new(format!("{text:?} is no regular expression: {reason}"))
}

/// A text, or a list of them.
pub(super) fn one_or_more<T>(field: &Field<'_>, parse: fn(&str) -> Result<T, Wrong>) -> Vec<T> {
    match (field.is_there(), field.is_list()) {
        (false, _) => Vec::new(),
        (true, true) => field.items().iter().filter_map(|item| item.parsed(parse)).collect(),
        (true, false) => field.parsed(parse).into_iter().collect(),
    }
}

/// A list of environment variables' names.
pub(crate) fn variable_names(field: &Field<'_>) -> Vec<String> {
    let items = field.items();
    items.iter().filter_map(|item| item.parsed(variable_name)).collect()
}

pub(crate) fn variable_name(text: &str) -> Result<String, Wrong> {
    let fits = !text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if fits && !text.is_empty() {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{text:?} cannot be an environment variable"))
        .help("letters, digits and `_`, not starting with a digit"))
}
