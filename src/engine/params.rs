//! A sweep's values for an engine's parameters: checked, then written as flags. Pure.
//!
//! `params = { … }` are parameters by their names; `args = […]` are flags as one would type them.
//! Where the engine file knows such a flag, it is read as the parameter that it is.

use super::def::{EngineDef, ListStyle, Param, ParamKind, ParamValue};
use crate::form::{Field, Fields, did_you_mean, nearest};
use std::collections::BTreeMap;

type Params = BTreeMap<String, Param>;
type Values = BTreeMap<String, ParamValue>;

/// Reads `params = { … }` of a variant. Mistakes are reported to the form.
pub(crate) fn check(engine: &EngineDef, fields: &Fields<'_>) -> Values {
    let mut values = BTreeMap::new();
    for (key, at, field) in fields.each() {
        match engine.params.get(key) {
            Some(param) => {
                values.extend(value(param, &field).map(|value| (key.to_owned(), value)));
            }
            None => {
                let (message, help) = no_such(engine, key);
                fields.form().problem(at, message, Some(help));
            }
        }
    }
    values
}

/// What to say of a parameter that the engine file does not have.
fn no_such(engine: &EngineDef, key: &str) -> (String, String) {
    let name = &engine.name;
    if let Some(outdated) = engine.outdated.get(key) {
        let instead = outdated.instead.as_ref().map(|instead| format!("write `{instead}`"));
        let help: Vec<String> = instead.into_iter().chain(outdated.why.clone()).collect();
        return (format!("engine `{name}` no longer has `{key}`"), help.join(": "));
    }
    let flag = format!("--{key}");
    if engine.launch.command.iter().any(|item| item.starts_with_flag(&flag)) {
        let message = format!("`{key}` is set by sweepd itself");
        return (message, "it is part of the engine file's launch command".to_owned());
    }
    let known: Vec<&str> = engine.params.keys().map(String::as_str).collect();
    let help = match nearest(key, known.iter().copied()) {
        Some(_) => did_you_mean(key, &known, "its parameters:"),
        None => format!(
            "a flag that the engine file does not know goes into `args = [\"--{key}\", …]`; {}",
            did_you_mean(key, &known, "its parameters:")
        ),
    };
    (format!("engine `{name}` has no parameter `{key}`"), help)
}

fn value(param: &Param, field: &Field<'_>) -> Option<ParamValue> {
    if param.list == ListStyle::None || !field.is_list() {
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
        ParamKind::Switch { .. } => field.boolean().map(ParamValue::Switch),
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
pub(crate) fn flags(params: &Params, values: &Values) -> Vec<String> {
    let known = values.iter().filter_map(|(key, value)| Some((params.get(key)?, value)));
    known.flat_map(|(param, value)| flag_items(param, value)).collect()
}

fn flag_items(param: &Param, value: &ParamValue) -> Vec<String> {
    let flag = || param.flag.clone();
    match value {
        ParamValue::Switch(true) => vec![flag()],
        ParamValue::Switch(false) => match &param.kind {
            ParamKind::Switch { off: Some(off) } => vec![off.clone()],
            _ => Vec::new(),
        },
        ParamValue::List(values) if param.list == ListStyle::Spread => {
            std::iter::once(flag()).chain(values.iter().map(ParamValue::to_string)).collect()
        }
        ParamValue::List(values) => {
            values.iter().flat_map(|value| flag_items(param, value)).collect()
        }
        ParamValue::Integer(_) | ParamValue::Float(_) | ParamValue::Text(_) => {
            vec![flag(), value.to_string()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::parse::tests::{MINIMAL, engine};
    use crate::form;
    use std::path::Path;

    fn sample() -> EngineDef {
        engine(&format!(
            "{MINIMAL}\n[params]\nmax-running = {{ type = 'integer', min = 1 }}\n\
             step-ms = {{ type = 'float', max = 9.5 }}\nfault = {{ type = 'text', list = 'repeat' }}\n\
             sizes = {{ type = 'integer', list = 'spread' }}\n\
             policy = {{ type = 'choice', choices = ['fcfs', 'lpm'] }}\n\
             no-cache = {{ type = 'switch' }}\n\
             graphs = {{ type = 'switch', off = '--no-graphs' }}\n\
             [outdated]\ntp = {{ instead = 'max-running' }}\nold = {{ why = 'it does so anyway' }}\n"
        ))
    }

    /// `expected`: the flags, or `message | help` of each problem.
    #[track_caller]
    fn check(text: &str, expected: Result<&str, &[&str]>) {
        let got = form::read(Path::new("s.toml"), text, |_, fields| {
            let engine = sample();
            Some(flags(&engine.params, &super::check(&engine, fields)).join(" "))
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
        check("sizes = [1, 2]", Ok("--sizes 1 2"));
        check("graphs = true", Ok("--graphs"));
        check("graphs = false", Ok("--no-graphs"));
    }

    #[test]
    fn mistakes_are_told() {
        check(
            "max_running = 8",
            Err(&[
                "engine `made-up` has no parameter `max_running` | did you mean `max-running`? \
                 its parameters: `fault`, `graphs`, `max-running`, `no-cache`, `policy`, `sizes`, `step-ms`",
            ]),
        );
        check(
            "port = 1",
            Err(&[
                "`port` is set by sweepd itself | it is part of the engine file's launch command",
            ]),
        );
        check("tp = 2", Err(&["engine `made-up` no longer has `tp` | write `max-running`"]));
        check("old = 2", Err(&["engine `made-up` no longer has `old` | it does so anyway"]));
        check(
            "speculate = 2",
            Err(&[
                "engine `made-up` has no parameter `speculate` | a flag that the engine file does not know goes \
                 into `args = [\"--speculate\", …]`; its parameters: `fault`, `graphs`, `max-running`, \
                 `no-cache`, `policy`, `sizes`, `step-ms`",
            ]),
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
