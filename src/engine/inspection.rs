//! The sections of an engine file about the installed program: what it is called today, which
//! flags it knows, on what it stands, and what it says of itself. One function each.

use super::common::{one_or_more, regex};
use super::def::{HelpProbe, Outdated, Param, VersionProbe};
use super::effective::{EffectiveName, LogSign, MetricSign, Reader};
use super::exposition::Selector;
use super::sections;
use crate::form::{Field, Fields, Wrong, choose, did_you_mean, listed};
use regex::Regex;
use std::collections::BTreeMap;

/// `[versions.NAME]`: more versions than the engine's own.
pub(super) fn versions(fields: &Fields<'_>) -> BTreeMap<String, VersionProbe> {
    let probes = fields.each().filter_map(|(name, _, field)| {
        Some((name.to_owned(), sections::version(&field.table()?)?))
    });
    probes.collect()
}

/// `[help]`
pub(super) fn help(fields: &Fields<'_>) -> Option<HelpProbe> {
    let field = fields.required("command");
    let command = sections::templates(&field);
    for item in field.items() {
        item.parsed(sections::known_before_launch);
    }
    let abbreviates = fields.optional("abbreviates").boolean().unwrap_or(false);
    Some(HelpProbe { command: command?, abbreviates })
}

/// `[model] files`
pub(super) fn model_files(fields: &Fields<'_>) -> Vec<String> {
    fields.optional("files").texts().unwrap_or_default()
}

/// `[outdated.NAME]`: a sweep that still writes it is told what to write today.
pub(super) fn outdated(
    fields: &Fields<'_>,
    params: &BTreeMap<String, Param>,
) -> BTreeMap<String, Outdated> {
    let mut all = BTreeMap::new();
    for (name, at, field) in fields.each() {
        if params.contains_key(name) {
            let message = format!("`{name}` is a parameter of this file");
            fields.form().problem(at, message, None);
        }
        let Some(table) = field.table() else { continue };
        let instead = param_name(&table.optional("instead"), params);
        let why = table.optional("why").text();
        if !table.optional("instead").is_there() && !table.optional("why").is_there() {
            let help = "`instead`, a parameter of this file, or `why`, a sentence".to_owned();
            fields.form().problem(at, format!("says nothing about `{name}`"), Some(help));
        }
        all.insert(name.to_owned(), Outdated { instead, why });
    }
    all
}

/// A text that names a parameter of the same file.
fn param_name(field: &Field<'_>, params: &BTreeMap<String, Param>) -> Option<String> {
    field.parsed(|text| match params.contains_key(text) {
        true => Ok(text.to_owned()),
        false => {
            let known: Vec<&str> = params.keys().map(String::as_str).collect();
            Err(Wrong::new(format!("{text:?} is no parameter of this file")).help(did_you_mean(
                text,
                &known,
                "its parameters:",
            )))
        }
    })
}

/// `[effective.NAME]`
pub(super) fn effective(
    fields: &Fields<'_>,
    params: &BTreeMap<String, Param>,
    has_info: bool,
) -> BTreeMap<EffectiveName, Reader> {
    let mut readers = BTreeMap::new();
    for (key, at, field) in fields.each() {
        let name = match choose::<EffectiveName>(key) {
            Ok(name) => name,
            Err(known) => {
                let message = format!("`{key}` is nothing that is read back");
                let help = did_you_mean(key, known, "what can be:");
                fields.form().problem(at, message, Some(help));
                continue;
            }
        };
        readers.extend(field.table().map(|table| (name, reader(&table, params, has_info))));
    }
    readers
}

fn reader(fields: &Fields<'_>, params: &BTreeMap<String, Param>, has_info: bool) -> Reader {
    let (info, info_product) = (fields.optional("info"), fields.optional("info_product"));
    for pointers in [&info, &info_product] {
        if pointers.is_there() && !has_info {
            let help = "[endpoints] server_info = \"/…\"".to_owned();
            pointers.problem("nothing says where to ask", Some(help));
        }
    }
    let log = fields.optional("log");
    let metric = fields.optional("metric");
    if ![&info, &info_product, &log, &metric].into_iter().any(Field::is_there) {
        let sources = listed(&["info", "info_product", "log", "metric"]);
        fields.form().problem(fields.at(), "has no source", Some(format!("one of {sources}")));
    }
    let texts = |key| fields.optional(key).texts().unwrap_or_default();
    Reader {
        info: one_or_more(&info, pointer),
        info_product: one_or_more(&info_product, pointer),
        info_pattern: fields.optional("info_pattern").parsed(regex),
        log: match log.is_there() {
            true => log.tables().iter().filter_map(log_sign).collect(),
            false => Vec::new(),
        },
        metric: metric.table().and_then(|fields| metric_sign(&fields)),
        asked: param_name(&fields.optional("asked"), params),
        asked_divided_by: param_name(&fields.optional("asked_divided_by"), params),
        unasked: fields.optional("unasked").text(),
        open: texts("open"),
        means: means(&fields.optional("means")),
        inverted: fields.optional("inverted").boolean().unwrap_or(false),
    }
}

/// RFC 6901.
fn pointer(text: &str) -> Result<String, Wrong> {
    match text.starts_with('/') {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(format!("{text:?} is no JSON pointer")).help("such as `/a/0/b`")),
    }
}

fn log_sign(fields: &Fields<'_>) -> Option<LogSign> {
    let field = fields.required("pattern");
    let pattern: Option<Regex> = field.parsed(regex);
    let value = fields.optional("value");
    if !value.is_there() && pattern.as_ref().is_some_and(|pattern| pattern.captures_len() < 2) {
        field.problem("has no group for the value", Some("or give a `value`".to_owned()));
    }
    Some(LogSign { pattern: pattern?, value: value.text() })
}

fn metric_sign(fields: &Fields<'_>) -> Option<MetricSign> {
    let series = fields.required("series").parsed(Selector::parse);
    let labels = fields.optional("labels").texts().unwrap_or_default();
    Some(MetricSign { series: series?, labels })
}

fn means(field: &Field<'_>) -> BTreeMap<String, String> {
    let Some(table) = field.table() else { return BTreeMap::new() };
    table.each().filter_map(|(word, _, field)| Some((word.to_owned(), field.text()?))).collect()
}
