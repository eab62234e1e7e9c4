//! The value of one key, read as what it should be.
//!
//! Every reader gives `None` both for an absent key and for a wrong value; the wrong value has then
//! been reported.

use super::choice::choose;
use super::fields::{Fields, Form};
use super::spelling::did_you_mean;
use crate::ids::Name;
use serde::Deserialize;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

/// A key of a table, or an item of a list.
#[derive(Clone)]
pub(crate) struct Field<'f> {
    form: &'f Form<'f>,
    /// For messages: `users`, `command[1]`.
    name: String,
    item: Option<&'f Spanned<DeValue<'f>>>,
    /// Of the table, for when the key is absent.
    table_at: usize,
}

/// Why a text is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Completes "`key`: …".
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl<'f> Field<'f> {
    pub(super) fn new(
        form: &'f Form<'f>,
        name: String,
        item: Option<&'f Spanned<DeValue<'f>>>,
        table_at: usize,
    ) -> Self {
        Self { form, name, item, table_at }
    }

    pub(crate) fn is_there(&self) -> bool {
        self.item.is_some()
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self.value(), Some(DeValue::String(_)))
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.value(), Some(DeValue::Array(_)))
    }

    /// Where the value stands, or where its table does.
    pub(crate) fn at(&self) -> usize {
        self.item.map_or(self.table_at, |item| item.span().start)
    }

    pub(crate) fn form(&self) -> &'f Form<'f> {
        self.form
    }

    /// Takes over what was found wrong with the file that this value refers to.
    pub(crate) fn adopt(&self, problems: &super::Problems) {
        self.form.adopt(problems);
    }

    /// Reports a mistake in this value.
    pub(crate) fn problem(&self, message: impl AsRef<str>, help: Option<String>) {
        self.form.problem(self.at(), format!("`{}`: {}", self.name, message.as_ref()), help);
    }

    fn value(&self) -> Option<&'f DeValue<'f>> {
        self.item.map(Spanned::get_ref)
    }

    fn wrong_type(&self, expected: &str, help: Option<String>) {
        if let Some(value) = self.value() {
            self.problem(format!("expected {expected}, found {}", kind_of(value)), help);
        }
    }

    /// A text of at least one character.
    pub(crate) fn text(&self) -> Option<String> {
        let text = self.any_text()?;
        if text.is_empty() {
            self.problem("must not be empty", None);
            return None;
        }
        Some(text)
    }

    /// A text, which may be empty.
    pub(crate) fn any_text(&self) -> Option<String> {
        match self.value()? {
            DeValue::String(text) => Some(text.clone().into_owned()),
            value => {
                let help =
                    plain_value(value).map(|plain| format!("write it in quotes: \"{plain}\""));
                self.wrong_type("text", help);
                None
            }
        }
    }

    /// A text that `parse` makes something of.
    pub(crate) fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        match parse(&self.text()?) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.problem(wrong.message, wrong.help);
                None
            }
        }
    }

    pub(crate) fn name(&self) -> Option<Name> {
        self.parsed(|text| {
            Name::new(text).ok_or_else(|| {
                Wrong::new(format!("{text:?} cannot be a name")).help(
                    "letters, digits, `-`, `_` and `.`, not starting with `.` or `-`, at most 64",
                )
            })
        })
    }

    pub(crate) fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        match self.value()? {
            DeValue::Integer(integer) => {
                let number = whole(integer).filter(|number| range.contains(number));
                if number.is_none() {
                    self.problem(format!("{integer} is out of range"), Some(bounds(&range)));
                }
                number
            }
            value => {
                self.wrong_type("a whole number", unquoted::<i64>(value).or(Some(bounds(&range))));
                None
            }
        }
    }

    /// A whole number from 1 on.
    pub(crate) fn count(&self, most: u32) -> Option<NonZeroU32> {
        let number = self.integer(1..=i64::from(most))?;
        u32::try_from(number).ok().and_then(NonZeroU32::new)
    }

    /// A whole number from 0 on.
    pub(crate) fn count_or_zero(&self, most: u32) -> Option<u32> {
        u32::try_from(self.integer(0..=i64::from(most))?).ok()
    }

    /// A number, with a fraction or without; never infinite.
    pub(crate) fn float(&self, range: RangeInclusive<f64>) -> Option<f64> {
        let number = match self.value()? {
            DeValue::Integer(integer) => integer.to_string().replace('_', "").parse::<f64>().ok(),
            DeValue::Float(float) => float.as_str().replace('_', "").parse::<f64>().ok(),
            value => {
                self.wrong_type("a number", unquoted::<f64>(value).or(Some(float_bounds(&range))));
                return None;
            }
        };
        let inside = number.filter(|number| number.is_finite() && range.contains(number));
        if inside.is_none() {
            self.problem("is out of range", Some(float_bounds(&range)));
        }
        inside
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        match self.value()? {
            DeValue::Boolean(value) => Some(*value),
            value => {
                self.wrong_type("true or false", unquoted::<bool>(value));
                None
            }
        }
    }

    /// A span of time such as "30s" or "15min".
    pub(crate) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let DeValue::String(text) = self.value()? else {
            let help = match self.value() {
                Some(DeValue::Integer(n)) => format!("a number needs its unit: \"{n}s\"?"),
                _ => EXAMPLE.to_owned(),
            };
            self.wrong_type("a span of time", Some(help));
            return None;
        };
        let Ok(span) = humantime::parse_duration(text) else {
            self.problem(format!("{text:?} is no span of time"), Some(EXAMPLE.to_owned()));
            return None;
        };
        if !range.contains(&span) {
            let [least, most] =
                [range.start(), range.end()].map(|d| humantime::format_duration(*d));
            self.problem(
                format!("{text:?} is out of range"),
                Some(format!("from {least} to {most}")),
            );
            return None;
        }
        Some(span)
    }

    /// One of a serde enum's variants, by its name.
    pub(crate) fn choice<T: for<'de> Deserialize<'de>>(&self) -> Option<T> {
        self.parsed(|word| {
            choose(word).map_err(|names| {
                Wrong::new(format!("{word:?} is not a choice"))
                    .help(did_you_mean(word, names, "choices:"))
            })
        })
    }

    /// The items of a list. An absent or wrong list has none.
    pub(crate) fn items(&self) -> Vec<Field<'f>> {
        match self.value() {
            Some(DeValue::Array(items)) => {
                let field = |(index, item): (usize, &'f Spanned<DeValue<'f>>)| {
                    Field::new(self.form, format!("{}[{index}]", self.name), Some(item), self.at())
                };
                items.iter().enumerate().map(field).collect()
            }
            _ => {
                self.wrong_type("a list", None);
                Vec::new()
            }
        }
    }

    /// A list of texts, none of them empty.
    pub(crate) fn texts(&self) -> Option<Vec<String>> {
        self.item?;
        let items = self.items();
        let texts: Vec<String> = items.iter().filter_map(Field::text).collect();
        (self.is_list() && texts.len() == items.len()).then_some(texts)
    }

    pub(crate) fn table(&self) -> Option<Fields<'f>> {
        self.titled(format!("[{}]", self.name))
    }

    /// The tables of `[[name]]`.
    pub(crate) fn tables(&self) -> Vec<Fields<'f>> {
        let title = format!("[[{}]]", self.name);
        if matches!(self.value(), Some(DeValue::Table(_))) {
            self.wrong_type("a list of tables", Some(format!("write {title}")));
            return Vec::new();
        }
        self.items().iter().filter_map(|item| item.titled(title.clone())).collect()
    }

    fn titled(&self, title: String) -> Option<Fields<'f>> {
        match self.value()? {
            DeValue::Table(table) => Some(Fields::new(self.form, title, table, self.at())),
            _ => {
                self.wrong_type("a table", None);
                None
            }
        }
    }

    /// Any value, as JSON. Dates and infinite numbers have no JSON.
    pub(crate) fn json(&self) -> Option<serde_json::Value> {
        let json = to_json(self.value()?);
        if json.is_none() {
            self.problem("has no JSON form", Some("no dates, no infinite numbers".to_owned()));
        }
        json
    }
}

const EXAMPLE: &str = "such as \"30s\", \"15min\" or \"1h 30min\"";

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// How a number or a switch is written, for advice to quote it.
fn plain_value(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        _ => None,
    }
}

/// Advice for a `"5"` that should have been a `5`.
fn unquoted<T: std::str::FromStr>(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) if text.parse::<T>().is_ok() => {
            Some(format!("write it without quotes: {text}"))
        }
        _ => None,
    }
}

fn whole(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn bounds(range: &RangeInclusive<i64>) -> String {
    match (*range.start(), *range.end()) {
        (i64::MIN, i64::MAX) => "any whole number of 64 bits".to_owned(),
        (least, i64::MAX) => format!("{least} or more"),
        (i64::MIN, most) => format!("{most} or less"),
        (least, most) => format!("from {least} to {most}"),
    }
}

fn float_bounds(range: &RangeInclusive<f64>) -> String {
    let [least, most] = [*range.start(), *range.end()];
    match (least == f64::MIN, most == f64::MAX) {
        (true, true) => "any finite number".to_owned(),
        (false, true) => format!("{least} or more"),
        (true, false) => format!("{most} or less"),
        (false, false) => format!("from {least} to {most}"),
    }
}

fn to_json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    use serde_json::Value;
    match value {
        DeValue::String(text) => Some(Value::String(text.clone().into_owned())),
        DeValue::Integer(integer) => whole(integer).map(Value::from),
        DeValue::Float(float) => {
            let number = float.as_str().replace('_', "").parse::<f64>().ok()?;
            serde_json::Number::from_f64(number).map(Value::Number)
        }
        DeValue::Boolean(value) => Some(Value::Bool(*value)),
        DeValue::Datetime(_) => None,
        DeValue::Array(items) => items
            .iter()
            .map(|item| to_json(item.get_ref()))
            .collect::<Option<_>>()
            .map(Value::Array),
        DeValue::Table(table) => json_map(table).map(Value::Object),
    }
}

fn json_map(table: &DeTable<'_>) -> Option<serde_json::Map<String, serde_json::Value>> {
    table
        .iter()
        .map(|(key, value)| Some((key.get_ref().to_string(), to_json(value.get_ref())?)))
        .collect()
}
