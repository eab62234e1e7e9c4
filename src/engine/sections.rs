//! The sections of an engine file, one function each.

use super::common::{one_or_more, regex, variable_name, variable_names};
use super::def::{
    Endpoint, Endpoints, Launch, ListStyle, Metrics, Param, ParamKind, Ready, RequestShape,
    Selector, Slot, Stop, Template, VersionProbe,
};
use super::native::{self, Shared};
use super::request::{OWN_FIELDS, sampling_names};
use crate::form::{Field, Fields, Wrong, choose, did_you_mean, listed};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// No wait is unbounded, and none is zero.
const WAIT: RangeInclusive<Duration> = SECOND..=Duration::from_secs(7 * 24 * 3600);

pub(super) fn version(fields: &Fields<'_>) -> Option<VersionProbe> {
    let command = templates(&fields.required("command"));
    for item in fields.optional("command").items() {
        item.parsed(known_before_launch);
    }
    let pattern = fields.required("pattern").parsed(|text| {
        let pattern = regex(text)?;
        match pattern.captures_len() {
            0 | 1 => {
                Err(Wrong::new("has no group for the version").help("such as `version: (\\S+)`"))
            }
            _ => Ok(pattern),
        }
    });
    Some(VersionProbe { command: command?, pattern: pattern? })
}

/// The version is asked for when nothing runs yet.
pub(super) fn known_before_launch(text: &str) -> Result<(), Wrong> {
    let Ok(template) = Template::parse(text) else { return Ok(()) };
    for (slot, name) in [
        (Slot::Model, "model"),
        (Slot::ServedName, "served_name"),
        (Slot::Host, "host"),
        (Slot::Port, "port"),
        (Slot::Gpus, "gpus"),
    ] {
        if template.uses(slot) {
            return Err(Wrong::new(format!("`{{{name}}}` means nothing here"))
                .help("slots: `program`, `python`, `sweepd`"));
        }
    }
    Ok(())
}

pub(super) fn launch(fields: &Fields<'_>) -> Option<Launch> {
    let command = templates(&fields.required("command"));
    let mut env = BTreeMap::new();
    if let Some(table) = fields.optional("env").table() {
        for (name, at, field) in table.each() {
            match variable_name(name) {
                Ok(name) => env.extend(field.parsed(Template::parse).map(|value| (name, value))),
                Err(wrong) => table.form().problem(at, wrong.message, wrong.help),
            }
        }
    }
    let env_pass = variable_names(&fields.optional("env_pass"));
    Some(Launch { command: command?, env, env_pass })
}

pub(super) fn templates(field: &Field<'_>) -> Option<Vec<Template>> {
    let items = field.items();
    if field.is_list() && items.is_empty() {
        field.problem("is an empty list", None);
    }
    let templates: Vec<Template> =
        items.iter().filter_map(|item| item.parsed(Template::parse)).collect();
    (!items.is_empty() && templates.len() == items.len()).then_some(templates)
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ParamType {
    Integer,
    Float,
    Text,
    Choice,
    Switch,
}

pub(super) fn params(fields: &Fields<'_>) -> BTreeMap<String, Param> {
    let mut params = BTreeMap::new();
    for (name, at, field) in fields.each() {
        let fits = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !name.is_empty()
            && !name.starts_with('-');
        if !fits {
            let help =
                "small letters, digits and `-`, like a flag without its dashes: `max-running`";
            let message = format!("`{name}` cannot be a parameter's name");
            fields.form().problem(at, message, Some(help.to_owned()));
        }
        let param = field.table().and_then(|fields| param(name, &fields));
        params.extend(param.map(|param| (name.to_owned(), param)));
    }
    params
}

fn param(name: &str, fields: &Fields<'_>) -> Option<Param> {
    let own = fields.optional("flag");
    let flag = if own.is_there() { own.parsed(flag) } else { Some(format!("--{name}")) };
    let about = fields.optional("about").text();
    let Some(kind) = fields.required("type").choice::<ParamType>() else {
        // Which other keys make sense is not known.
        fields.ignore_unknown();
        return None;
    };
    let kind = param_kind(kind, fields);
    let list = match kind {
        Some(ParamKind::Switch { .. }) => ListStyle::None,
        _ => fields.optional("list").choice().unwrap_or_default(),
    };
    Some(Param { flag: flag?, kind: kind?, list, about })
}

fn flag(text: &str) -> Result<String, Wrong> {
    match text.starts_with('-') && !text.contains(char::is_whitespace) {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(format!("{text:?} is no flag")).help("such as `--max-running`")),
    }
}

fn param_kind(kind: ParamType, fields: &Fields<'_>) -> Option<ParamKind> {
    Some(match kind {
        ParamType::Integer => {
            let any = i64::MIN..=i64::MAX;
            let [min, max] = ["min", "max"].map(|key| fields.optional(key).integer(any.clone()));
            check_order(min, max, fields);
            ParamKind::Integer { min, max }
        }
        ParamType::Float => {
            let any = f64::MIN..=f64::MAX;
            let [min, max] = ["min", "max"].map(|key| fields.optional(key).float(any.clone()));
            check_order(min, max, fields);
            ParamKind::Float { min, max }
        }
        ParamType::Text => ParamKind::Text,
        ParamType::Choice => {
            let field = fields.required("choices");
            let choices = field.texts()?;
            if choices.is_empty() {
                field.problem("is an empty list", None);
            }
            ParamKind::Choice(choices)
        }
        ParamType::Switch => ParamKind::Switch { off: fields.optional("off").parsed(flag) },
    })
}

fn check_order<T: PartialOrd>(min: Option<T>, max: Option<T>, fields: &Fields<'_>) {
    if min.zip(max).is_some_and(|(min, max)| min > max) {
        fields.optional("max").problem("is less than `min`", None);
    }
}

pub(super) fn ready(fields: &Fields<'_>) -> Option<Ready> {
    let path = fields.required("path").parsed(path);
    let within = fields.optional("within").duration(WAIT).unwrap_or(900 * SECOND);
    Some(Ready { path: path?, within })
}

/// The path of an address: `/v1/models`.
pub(super) fn path(text: &str) -> Result<String, Wrong> {
    if !text.starts_with('/') {
        return Err(Wrong::new(format!("{text:?} does not begin with `/`")));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Wrong::new(format!("{text:?} has a character that no address may have")));
    }
    Ok(text.to_owned())
}

pub(super) fn endpoints(fields: &Fields<'_>) -> Option<Endpoints> {
    let [completions, chat, generate, models, reset_cache] =
        ["completions", "chat", "generate", "models", "reset_cache"]
            .map(|key| fields.optional(key).parsed(path));
    let server_info = one_or_more(&fields.optional("server_info"), path);
    let keys = Endpoint::ALL.map(Endpoint::name);
    if !keys.iter().any(|key| fields.optional(key).is_there()) {
        let message = "none of `completions`, `chat` and `generate` in [endpoints]";
        fields.form().absence(fields.at(), message, None);
    }
    Some(Endpoints { completions, chat, generate, models, server_info, reset_cache })
}

pub(super) fn request(fields: &Fields<'_>) -> Option<RequestShape> {
    let max_tokens = fields.optional("max_tokens").text();
    let max_tokens = max_tokens.unwrap_or_else(|| "max_tokens".to_owned());
    let force_length = json_fields(&fields.optional("force_length"));
    let extra = json_fields(&fields.optional("extra"));
    let sampling = fields.required("sampling").table().map(|fields| sampling(&fields))?;
    let given = fields.optional("generate");
    let shared =
        Shared { max_tokens: &max_tokens, force_length: &force_length, sampling: &sampling };
    let generate = match given.table() {
        Some(fields) => Some(native::generate(&fields, &shared)?),
        None if given.is_there() => return None,
        None => None,
    };
    Some(RequestShape {
        max_tokens,
        force_length,
        extra,
        sampling,
        generate,
        done_marker: fields.optional("done_marker").boolean().unwrap_or(true),
        keep_alive: fields
            .optional("keep_alive")
            .duration(Duration::ZERO..=3600 * SECOND)
            .unwrap_or(5 * SECOND),
    })
}

pub(super) fn json_fields(field: &Field<'_>) -> serde_json::Map<String, serde_json::Value> {
    let mut map = serde_json::Map::new();
    let Some(fields) = field.table() else { return map };
    for (key, at, field) in fields.each() {
        if OWN_FIELDS.contains(&key) {
            let message = format!("`{key}` is a field that sweepd writes itself");
            fields.form().problem(at, message, Some(format!("its own: {}", listed(&OWN_FIELDS))));
        }
        map.extend(field.json().map(|value| (key.to_owned(), value)));
    }
    map
}

/// Temperature must be there: what is not sent explicitly is left to the engine's mood.
pub(super) fn sampling(fields: &Fields<'_>) -> BTreeMap<String, String> {
    let names = sampling_names();
    let mut map = BTreeMap::new();
    for (key, at, field) in fields.each() {
        if !names.contains(&key) {
            let help = did_you_mean(key, &names, "sampling parameters:");
            let message = format!("`{key}` is no sampling parameter");
            fields.form().problem(at, message, Some(help));
        }
        map.extend(field.text().map(|field| (key.to_owned(), field)));
    }
    fields.required("temperature");
    map
}

/// An engine file without `[stop]` gets SIGTERM.
pub(super) fn stop(fields: Option<&Fields<'_>>) -> Stop {
    let signal = fields.and_then(|fields| fields.optional("signal").parsed(signal));
    let grace = fields.and_then(|fields| fields.optional("grace").duration(WAIT));
    Stop { signal: signal.unwrap_or(libc::SIGTERM), grace: grace.unwrap_or(30 * SECOND) }
}

pub(super) fn signal(text: &str) -> Result<i32, Wrong> {
    const SIGNALS: [(&str, i32); 7] = [
        ("TERM", libc::SIGTERM),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("HUP", libc::SIGHUP),
        ("USR1", libc::SIGUSR1),
        ("USR2", libc::SIGUSR2),
        ("KILL", libc::SIGKILL),
    ];
    let bare = text.strip_prefix("SIG").unwrap_or(text);
    let found = SIGNALS.iter().find(|(name, _)| *name == bare);
    found.map(|(_, number)| *number).ok_or_else(|| {
        let names = SIGNALS.map(|(name, _)| name);
        Wrong::new(format!("{text:?} is not a signal")).help(did_you_mean(bare, &names, "signals:"))
    })
}

pub(super) fn metrics(fields: &Fields<'_>) -> Option<Metrics> {
    let path = fields.required("path").parsed(path);
    let mut names = BTreeMap::new();
    if let Some(table) = fields.optional("names").table() {
        for (key, at, field) in table.each() {
            let selector = field.parsed(Selector::parse);
            match choose(key) {
                Ok(name) => names.extend(selector.map(|selector| (name, selector))),
                Err(known) => {
                    let message = format!("`{key}` is no name of a metric");
                    table.form().problem(at, message, Some(did_you_mean(key, known, "metrics:")));
                }
            }
        }
    }
    Some(Metrics { path: path?, names })
}
