//! A sweep's values for an engine's parameters: checked, then written as flags. Pure.

use super::def::{Param, ParamKind, ParamValue};
use crate::form::{Field, Fields, did_you_mean};
use std::collections::BTreeMap;

type Params = BTreeMap<String, Param>;

/// Reads `params = { … }` of a variant. Mistakes are reported to the form.
pub(crate) fn check(
    params: &Params,
    engine: &str,
    fields: &Fields<'_>,
) -> BTreeMap<String, ParamValue> {
    let mut values = BTreeMap::new();
    for (key, at, field) in fields.each() {
        match params.get(key) {
            Some(param) => {
                values.extend(value(param, &field).map(|value| (key.to_owned(), value)));
            }
            None => {
                let known: Vec<&str> = params.keys().map(String::as_str).collect();
                let message = format!("engine `{engine}` has no parameter `{key}`");
                let help = did_you_mean(key, &known, "its parameters:");
                fields.form().problem(at, message, Some(help));
            }
        }
    }
    values
}

fn value(param: &Param, field: &Field<'_>) -> Option<ParamValue> {
    if !(param.list && field.is_list()) {
        return single(&param.kind, field);
    }
    let items = field.items();
    let values: Vec<ParamValue> =
        items.iter().filter_map(|item| single(&param.kind, item)).collect();
    (values.len() == items.len()).then_some(ParamValue::List(values))
}

fn single(kind: &ParamKind, field: &Field<'_>) -> Option<ParamValue> {
    match kind {
        ParamKind::Integer { min, max } => field
            .integer(min.unwrap_or(i64::MIN)..=max.unwrap_or(i64::MAX))
            .map(ParamValue::Integer),
        ParamKind::Float { min, max } => {
            field.float(min.unwrap_or(f64::MIN)..=max.unwrap_or(f64::MAX)).map(ParamValue::Float)
        }
        ParamKind::Text => field.text().map(ParamValue::Text),
        ParamKind::Choice(choices) => choice(choices, field),
        ParamKind::Switch => field.boolean().map(ParamValue::Switch),
    }
}

fn choice(choices: &[String], field: &Field<'_>) -> Option<ParamValue> {
    let word = field.text()?;
    if choices.contains(&word) {
        return Some(ParamValue::Text(word));
    }
    let known: Vec<&str> = choices.iter().map(String::as_str).collect();
    field.problem(
        format!("{word:?} is not a choice"),
        Some(did_you_mean(&word, &known, "choices:")),
    );
    None
}

/// The flags for `values`: a switch is the bare flag or nothing, all others are flag and value.
pub(crate) fn flags(params: &Params, values: &BTreeMap<String, ParamValue>) -> Vec<String> {
    let known = values.iter().filter_map(|(key, value)| Some((&params.get(key)?.flag, value)));
    known.flat_map(|(flag, value)| flag_items(flag, value)).collect()
}

fn flag_items(flag: &str, value: &ParamValue) -> Vec<String> {
    match value {
        ParamValue::Switch(true) => vec![flag.to_owned()],
        ParamValue::Switch(false) => Vec::new(),
        ParamValue::List(values) => {
            values.iter().flat_map(|value| flag_items(flag, value)).collect()
        }
        ParamValue::Integer(_) | ParamValue::Float(_) | ParamValue::Text(_) => {
            vec![flag.to_owned(), value.to_string()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form;
    use std::path::Path;

    fn params() -> Params {
        let param = |name: &str, kind, list| {
            let flag = format!("--{name}");
            (name.to_owned(), Param { flag, kind, list, about: None })
        };
        BTreeMap::from([
            param("max-running", ParamKind::Integer { min: Some(1), max: None }, false),
            param("step-ms", ParamKind::Float { min: None, max: Some(9.5) }, false),
            param("fault", ParamKind::Text, true),
            param("policy", ParamKind::Choice(vec!["fcfs".into(), "lpm".into()]), false),
            param("no-cache", ParamKind::Switch, false),
        ])
    }

    /// `expected`: the flags, or `message | help` of each problem.
    #[track_caller]
    fn check(text: &str, expected: Result<&str, &[&str]>) {
        let got = form::read(Path::new("s.toml"), text, |_, fields| {
            Some(flags(&params(), &super::check(&params(), "e", fields)).join(" "))
        });
        let got = got.map_err(|problems| {
            let shown = |problem: &form::Problem| {
                let help = problem.help.as_deref().map(|help| format!(" | {help}"));
                format!("{}{}", problem.message, help.unwrap_or_default())
            };
            problems.list().iter().map(shown).collect::<Vec<_>>()
        });
        let expected = expected
            .map(str::to_owned)
            .map_err(|all| all.iter().map(|p| (*p).to_owned()).collect());
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn values_become_flags() {
        check("", Ok(""));
        check("max-running = 8\nstep-ms = 2.5", Ok("--max-running 8 --step-ms 2.5"));
        check("step-ms = 2", Ok("--step-ms 2"));
        check("no-cache = true", Ok("--no-cache"));
        check("no-cache = false", Ok(""));
        check("policy = 'lpm'", Ok("--policy lpm"));
        check("fault = 'a'", Ok("--fault a"));
        check("fault = ['a', 'b']", Ok("--fault a --fault b"));
    }

    #[test]
    fn mistakes_are_told() {
        check(
            "max_running = 8",
            Err(&["engine `e` has no parameter `max_running` | did you mean `max-running`? \
                   its parameters: `fault`, `max-running`, `no-cache`, `policy`, `step-ms`"]),
        );
        check("max-running = 0", Err(&["`max-running`: 0 is out of range | 1 or more"]));
        check("step-ms = 10", Err(&["`step-ms`: is out of range | 9.5 or less"]));
        check(
            "no-cache = 'true'",
            Err(&[
                "`no-cache`: expected true or false, found text | write it without quotes: true",
            ]),
        );
        check(
            "max-running = [1, 2]",
            Err(&["`max-running`: expected a whole number, found a list | 1 or more"]),
        );
        check(
            "policy = 'lmp'",
            Err(&[
                "`policy`: \"lmp\" is not a choice | did you mean `lpm`? choices: `fcfs`, `lpm`",
            ]),
        );
        check(
            "fault = ['a', 1]",
            Err(&["`fault[1]`: expected text, found a whole number | write it in quotes: \"1\""]),
        );
    }
}
