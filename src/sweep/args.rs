//! `args = […]` of a variant: flags as one would type them.
//!
//! A flag that the engine file knows becomes the parameter that it is, so that its type and its
//! bounds hold and what really ran can be set against it. The others are kept as they are; whether
//! the installed program knows them is asked elsewhere (`installed`).

use crate::engine::def::{EngineDef, Param, ParamKind, ParamValue};
use crate::form::Field;
use std::collections::BTreeMap;

/// One flag with the values behind it, and where they stand.
struct Typed<'f> {
    flag: String,
    field: Field<'f>,
    values: Vec<String>,
}

/// Reads the list. What the engine file knows goes into `values`; the rest is returned.
pub(super) fn read(
    engine: &EngineDef,
    field: &Field<'_>,
    values: &mut BTreeMap<String, ParamValue>,
) -> Vec<String> {
    let mut unknown = Vec::new();
    for typed in typed(field) {
        let known = engine.params.iter().find(|(_, param)| param.is_flag(&typed.flag));
        if let Some((name, param)) = known {
            take(name, param, &typed, values);
        } else if let Some((message, help)) = refused(engine, &typed) {
            typed.field.problem(message, Some(help));
        } else {
            unknown.push(typed.flag);
            unknown.extend(typed.values);
        }
    }
    unknown
}

fn typed<'f>(field: &Field<'f>) -> Vec<Typed<'f>> {
    let mut all: Vec<Typed<'f>> = Vec::new();
    if !field.is_there() {
        return all;
    }
    for item in field.items() {
        let Some(text) = item.text() else { continue };
        let is_number = text.parse::<f64>().is_ok();
        if text.starts_with('-') && text.len() > 1 && !is_number {
            if text.contains(char::is_whitespace) && !text.contains('=') {
                let parts: Vec<String> =
                    text.split_whitespace().map(|p| format!("{p:?}")).collect();
                let help = format!("each word for itself: {}", parts.join(", "));
                item.problem("is several words in one", Some(help));
                continue;
            }
            let (flag, value) = match text.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), vec![value.to_owned()]),
                None => (text, Vec::new()),
            };
            all.push(Typed { flag, field: item, values: value });
        } else if let Some(last) = all.last_mut() {
            last.values.push(text);
        } else {
            let help = "a list of flags and their values: `args = [\"--flag\", \"value\"]`";
            item.problem(format!("{text:?} follows no flag"), Some(help.to_owned()));
        }
    }
    all
}

/// A flag that is never right here: what sweepd writes itself, or a name of another time.
fn refused(engine: &EngineDef, typed: &Typed<'_>) -> Option<(String, String)> {
    let flag = &typed.flag;
    if engine.launch.command.iter().any(|item| item.starts_with_flag(flag)) {
        let help = "it is part of the engine file's launch command".to_owned();
        return Some((format!("`{flag}` is set by sweepd itself"), help));
    }
    let outdated = engine.outdated.get(flag.strip_prefix("--")?)?;
    let instead = outdated.instead.as_ref().map(|instead| format!("write `params` `{instead}`"));
    let help: Vec<String> = instead.into_iter().chain(outdated.why.clone()).collect();
    let message = format!("engine `{}` has no flag `{flag}` any more", engine.name);
    Some((message, help.join(": ")))
}

fn take(name: &str, param: &Param, typed: &Typed<'_>, values: &mut BTreeMap<String, ParamValue>) {
    if values.contains_key(name) {
        let help = "keep one of the two".to_owned();
        typed.field.problem(format!("`{}` is in `params` too, or twice", typed.flag), Some(help));
        return;
    }
    match value(param, typed) {
        Ok(value) => {
            values.insert(name.to_owned(), value);
        }
        Err((message, help)) => typed.field.problem(message, Some(help)),
    }
}

fn value(param: &Param, typed: &Typed<'_>) -> Result<ParamValue, (String, String)> {
    let flag = &typed.flag;
    match (&param.kind, typed.values.as_slice()) {
        (ParamKind::Switch { off }, []) => Ok(ParamValue::Switch(off.as_ref() != Some(flag))),
        (ParamKind::Switch { off }, [value, ..]) => {
            let leave = match off {
                Some(off) => format!("`{off}` turns it off"),
                None => format!("leave `{flag}` out to turn it off"),
            };
            Err((
                format!("`{flag}` takes no value, but {value:?} follows it"),
                format!("write the bare `{flag}` to turn it on; {leave}"),
            ))
        }
        (_, []) => Err((format!("`{flag}` needs a value"), wanted(&param.kind))),
        (kind, [one]) => single(flag, kind, one),
        (kind, several) => match param.list {
            crate::engine::def::ListStyle::None => Err((
                format!("`{flag}` takes one value, but {} follow it", several.len()),
                wanted(kind),
            )),
            _ => several
                .iter()
                .map(|one| single(flag, kind, one))
                .collect::<Result<_, _>>()
                .map(ParamValue::List),
        },
    }
}

fn single(flag: &str, kind: &ParamKind, text: &str) -> Result<ParamValue, (String, String)> {
    let value = match kind {
        ParamKind::Integer { min, max } => text
            .parse::<i64>()
            .ok()
            .filter(|n| min.is_none_or(|min| *n >= min) && max.is_none_or(|max| *n <= max))
            .map(ParamValue::Integer),
        ParamKind::Float { min, max } => text
            .parse::<f64>()
            .ok()
            .filter(|n| n.is_finite())
            .filter(|n| min.is_none_or(|min| *n >= min) && max.is_none_or(|max| *n <= max))
            .map(ParamValue::Float),
        ParamKind::Text => Some(ParamValue::Text(text.to_owned())),
        ParamKind::Choice(choices) => {
            choices.iter().any(|c| c == text).then(|| ParamValue::Text(text.to_owned()))
        }
        ParamKind::Switch { .. } => None,
    };
    value.ok_or_else(|| (format!("`{flag}` does not take {text:?}"), wanted(kind)))
}

/// What a parameter of this kind takes, in words.
fn wanted(kind: &ParamKind) -> String {
    let bounds = |min: Option<String>, max: Option<String>| match (min, max) {
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
        (Some(min), None) => format!(" of {min} or more"),
        (None, Some(max)) => format!(" of {max} or less"),
        (None, None) => String::new(),
    };
    match kind {
        ParamKind::Integer { min, max } => {
            let text = |bound: &Option<i64>| bound.map(|bound| bound.to_string());
            format!("a whole number{}", bounds(text(min), text(max)))
        }
        ParamKind::Float { min, max } => {
            let text = |bound: &Option<f64>| bound.map(|bound| bound.to_string());
            format!("a number{}", bounds(text(min), text(max)))
        }
        ParamKind::Text => "a text".to_owned(),
        ParamKind::Choice(choices) => format!("one of {}", choices.join(", ")),
        ParamKind::Switch { .. } => "nothing".to_owned(),
    }
}
