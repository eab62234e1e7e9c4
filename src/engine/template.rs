//! Arguments with slots: `--port={port}`. Pure.

use super::def::{Piece, Slot, Template};
use crate::form::{Wrong, did_you_mean, listed};
use std::path::Path;

/// Ports of an engine's own that may be named: `{port+1}` to `{port+9}`.
const MOST_INTERNAL: u16 = 9;

const SLOTS: [(&str, Slot); 8] = [
    ("program", Slot::Program),
    ("model", Slot::Model),
    ("served_name", Slot::ServedName),
    ("host", Slot::Host),
    ("port", Slot::Port),
    ("gpus", Slot::Gpus),
    ("sweepd", Slot::Sweepd),
    ("python", Slot::Python),
];

/// What the slots of one launch stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots<'a> {
    pub(crate) program: Option<&'a str>,
    pub(crate) model: &'a Path,
    pub(crate) served_name: &'a str,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    /// As the engine's environment variable or flag takes them: `0,1`.
    pub(crate) gpus: Option<&'a str>,
    pub(crate) sweepd: &'a Path,
    /// The interpreter that runs `program`.
    pub(crate) python: Option<&'a str>,
}

/// Completes "cannot build the command line: …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SlotError {
    #[error("nothing says which program `{{program}}` is")]
    NoProgram,
    #[error("no GPU is assigned for `{{gpus}}`")]
    NoGpus,
    #[error("`{{program}}` is no Python script, so there is no `{{python}}`")]
    PythonUnknown,
    #[error("there is no port so far above `{{port}}`")]
    PortTooHigh,
}

impl Template {
    /// `{{` and `}}` are literal braces.
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            let after = &rest[at + 1..];
            if let Some(after) = after.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let (name, after) = after
                .split_once('}')
                .filter(|(name, _)| brace == "{" && !name.contains('{'))
                .ok_or_else(|| lone(brace))?;
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Slot(slot(name)?));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Self(pieces))
    }

    /// How many ports above `{port}` it names.
    pub(crate) fn internal_ports(&self) -> u16 {
        let above = |piece: &Piece| match piece {
            Piece::Slot(Slot::InternalPort(above)) => Some(*above),
            Piece::Slot(_) | Piece::Text(_) => None,
        };
        self.0.iter().filter_map(above).max().unwrap_or(0)
    }

    /// It is this flag, bare or with its value behind `=`.
    pub(crate) fn starts_with_flag(&self, flag: &str) -> bool {
        let Some(Piece::Text(text)) = self.0.first() else { return false };
        text.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    }

    pub(crate) fn uses(&self, slot: Slot) -> bool {
        self.0.contains(&Piece::Slot(slot))
    }

    pub(crate) fn expand(&self, slots: &Slots<'_>) -> Result<String, SlotError> {
        self.0.iter().map(|piece| expand(piece, slots)).collect()
    }
}

fn expand(piece: &Piece, slots: &Slots<'_>) -> Result<String, SlotError> {
    Ok(match piece {
        Piece::Text(text) => text.clone(),
        Piece::Slot(Slot::Program) => slots.program.ok_or(SlotError::NoProgram)?.to_owned(),
        Piece::Slot(Slot::Model) => slots.model.to_string_lossy().into_owned(),
        Piece::Slot(Slot::ServedName) => slots.served_name.to_owned(),
        Piece::Slot(Slot::Host) => slots.host.to_owned(),
        Piece::Slot(Slot::Port) => slots.port.to_string(),
        Piece::Slot(Slot::Gpus) => slots.gpus.ok_or(SlotError::NoGpus)?.to_owned(),
        Piece::Slot(Slot::Sweepd) => slots.sweepd.to_string_lossy().into_owned(),
        Piece::Slot(Slot::Python) => slots.python.ok_or(SlotError::PythonUnknown)?.to_owned(),
        Piece::Slot(Slot::InternalPort(above)) => {
            slots.port.checked_add(*above).ok_or(SlotError::PortTooHigh)?.to_string()
        }
    })
}

fn slot(name: &str) -> Result<Slot, Wrong> {
    if let Some(above) = name.strip_prefix("port+") {
        let above = above.parse().ok().filter(|above| (1..=MOST_INTERNAL).contains(above));
        let help = format!("`{{port+1}}` to `{{port+{MOST_INTERNAL}}}`");
        let wrong = || Wrong::new(format!("unknown slot `{{{name}}}`")).help(help);
        return above.map(Slot::InternalPort).ok_or_else(wrong);
    }
    let found = SLOTS.iter().find(|(known, _)| *known == name);
    found.map(|(_, slot)| *slot).ok_or_else(|| {
        let names = SLOTS.map(|(name, _)| name);
        Wrong::new(format!("unknown slot `{{{name}}}`")).help(format!(
            "{}; a literal brace is written twice",
            did_you_mean(name, &names, "slots:")
        ))
    })
}

fn lone(brace: &str) -> Wrong {
    let names = listed(&SLOTS.map(|(name, _)| name));
    Wrong::new(format!("a lone `{brace}`"))
        .help(format!("a literal brace is written twice: `{brace}{brace}`; slots: {names}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let slots = Slots {
            program: Some("/bin/serve"),
            model: Path::new("/m"),
            served_name: "tiny",
            host: "127.0.0.1",
            port: 8001,
            gpus: Some("0,1"),
            sweepd: Path::new("/bin/sweepd"),
            python: Some("/bin/python"),
        };
        let got = Template::parse(text).map(|template| template.expand(&slots).unwrap());
        assert_eq!(got.as_deref().map_err(|wrong| wrong.message.as_str()), expected, "{text}");
    }

    #[test]
    fn slots_are_filled_and_doubled_braces_are_literal() {
        check("--x", Ok("--x"));
        check("http://{host}:{port}/{served_name}", Ok("http://127.0.0.1:8001/tiny"));
        check("{program}{model}{gpus}{sweepd}", Ok("/bin/serve/m0,1/bin/sweepd"));
        check("{python} {port+1},{port+9}", Ok("/bin/python 8002,8010"));
        check("{port+10}", Err("unknown slot `{port+10}`"));
        check("{port+0}", Err("unknown slot `{port+0}`"));
        check("{{\"a\": {{{port}}}}}", Ok("{\"a\": {8001}}"));
        check("ä{port}ö", Ok("ä8001ö"));
        check("{prot}", Err("unknown slot `{prot}`"));
        check("{}", Err("unknown slot `{}`"));
        check("{port", Err("a lone `{`"));
        check("port}", Err("a lone `}`"));
        check("{po{rt}", Err("a lone `{`"));
    }

    #[test]
    fn a_slot_that_stands_for_nothing_is_an_error() {
        let slots = Slots {
            program: None,
            model: Path::new("/m"),
            served_name: "tiny",
            host: "h",
            port: 1,
            gpus: None,
            sweepd: Path::new("s"),
            python: None,
        };
        let expand = |text| Template::parse(text).unwrap().expand(&slots);
        assert_eq!(expand("{program}"), Err(SlotError::NoProgram));
        assert_eq!(expand("{gpus}"), Err(SlotError::NoGpus));
        assert_eq!(expand("{python}"), Err(SlotError::PythonUnknown));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[{}a-zä]{0,12}") {
            Template::parse(&text).ok();
        }
    }
}
