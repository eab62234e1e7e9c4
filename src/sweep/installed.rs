//! A variant's command line, set against what the installed program says that it knows.
//!
//! What is asked and how is an edge's business (`Installed`); what the answer means is decided
//! here. Without an answer nothing is refused, and a note says so.

use super::def::Variant;
use crate::engine::def::EngineDef;
use crate::engine::help::{self, FlagFault, Given, Help};
use crate::engine::launch::{self, Slots};
use crate::form::{Field, listed};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Which program is asked, and in which environment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) engine: &'a EngineDef,
    pub(crate) program: Option<&'a str>,
    pub(crate) python: Option<&'a str>,
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) env_pass: &'a [String],
}

/// The installed programs, as far as they can be asked.
pub(crate) trait Installed {
    /// The flags that it knows; `None` where the engine file has no command for that. The error
    /// completes "its flags could not be checked: …".
    fn help(&self, asked: Asked<'_>) -> Result<Option<Arc<Help>>, String>;
}

/// Nobody is asked: in tests, and where whoever submits has asked before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotAsked;

impl Installed for NotAsked {
    fn help(&self, _asked: Asked<'_>) -> Result<Option<Arc<Help>>, String> {
        Ok(None)
    }
}

/// The variant's fields, where its flags come from.
pub(super) struct Places<'a, 'f> {
    pub(super) engine: &'a Field<'f>,
    pub(super) params: &'a Field<'f>,
    pub(super) args: &'a Field<'f>,
}

/// Reports what the installed program would refuse; a note where it could not be asked.
pub(super) fn check(
    variant: &Variant,
    places: &Places<'_, '_>,
    installed: &dyn Installed,
) -> Option<String> {
    let engine = &variant.engine;
    let asked = Asked {
        engine,
        program: variant.program.as_deref(),
        python: variant.python.as_deref(),
        env: &variant.env,
        env_pass: &variant.env_pass,
    };
    let help = match installed.help(asked) {
        Ok(None) => return None,
        Ok(Some(help)) => help,
        Err(why) => {
            let name = &variant.name;
            return Some(format!(
                "variant `{name}`: the flags of engine `{}` could not be checked: {why}",
                engine.name
            ));
        }
    };
    let abbreviates = engine.help.as_ref().is_some_and(|help| help.abbreviates);
    for given in help::given(&own_arguments(variant)?) {
        if let Some(fault) = help::judge(&help, abbreviates, &given) {
            report(variant, places, &given, &fault);
        }
    }
    None
}

/// The command line without what the help command begins with: that part is the launcher's.
fn own_arguments(variant: &Variant) -> Option<Vec<String>> {
    let engine = &variant.engine;
    let slots = Slots {
        program: variant.program.as_deref(),
        model: &variant.model.path,
        served_name: &variant.model.served_name,
        host: "127.0.0.1",
        port: 1,
        gpus: Some("0"),
        sweepd: Path::new("sweepd"),
        python: Some("python"),
    };
    let launcher = launch::expanded(&engine.help.as_ref()?.command, &slots).ok()?;
    let argv = launch::argv(engine, &variant.params, &variant.args, &slots).ok()?;
    let same = argv.iter().zip(&launcher).take_while(|(a, b)| a == b).count();
    Some(argv.into_iter().skip(same).collect())
}

fn report(variant: &Variant, places: &Places<'_, '_>, given: &Given, fault: &FlagFault) {
    let flag = &given.flag;
    let (message, help) = said(variant, given, fault);
    let param = variant.engine.params.iter().find(|(_, param)| param.is_flag(flag));
    if let Some((name, _)) = param
        && let Some(table) = places.params.table()
    {
        // The table's keys were checked before; this look is only for a place.
        table.ignore_rest();
        if let Some((_, at, field)) = table.each().find(|(key, _, _)| key == name) {
            return field.form().problem(at, message, Some(help));
        }
    }
    let own = if places.args.is_there() { places.args.items() } else { Vec::new() };
    let item = own.iter().find(|item| {
        item.any_text().is_some_and(|text| text == *flag || text.starts_with(&format!("{flag}=")))
    });
    match item {
        Some(item) => item.problem(message, Some(help)),
        None => places.engine.problem(message, Some(help)),
    }
}

/// The fault and its remedy in words.
fn said(variant: &Variant, given: &Given, fault: &FlagFault) -> (String, String) {
    let engine = &variant.engine.name;
    let flag = &given.flag;
    match fault {
        FlagFault::Unknown { nearest } => (
            format!("the installed `{engine}` does not know `{flag}`"),
            match nearest {
                Some(near) => format!("did you mean `{near}`? its `--help` lists them all"),
                None => "its `--help` lists all that it knows; leave this one out".to_owned(),
            },
        ),
        FlagFault::Abbreviates { full } => {
            let full: Vec<&str> = full.iter().map(String::as_str).collect();
            (
                format!(
                    "the installed `{engine}` does not know `{flag}`, but would take it for another flag"
                ),
                format!("that of {}: write it in full, or leave it out", listed(&full)),
            )
        }
        FlagFault::TakesNoValue { value } => (
            format!(
                "`{flag}` of the installed `{engine}` takes no value, but {value:?} follows it"
            ),
            format!("write the bare `{flag}` to turn it on; leave it out to turn it off"),
        ),
        FlagFault::NeedsValue => (
            format!("`{flag}` of the installed `{engine}` needs a value"),
            format!("write `\"{flag}\", \"VALUE\"`"),
        ),
        FlagFault::NotAChoice { value, choices } => (
            format!("`{flag}` of the installed `{engine}` does not take {value:?}"),
            format!("one of {}", choices.join(", ")),
        ),
    }
}
