//! The flags that an installed program says it knows, and a command line set against them. Pure.
//!
//! A program's `--help` is read as people read it: a line that begins with a dash names a flag, its
//! other names and what it takes. Invariant: a text from which no flag can be read judges nothing.

use crate::form::nearest;

/// Lines of options are indented at most so far; what is further in describes them.
const MOST_INDENT: usize = 12;

/// One option with all its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HelpOption {
    pub(crate) names: Vec<String>,
    pub(crate) takes: Takes,
    /// The only values that it takes, where the help lists them.
    pub(crate) choices: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// It is there or it is not.
    Nothing,
    /// A value may be left out.
    Maybe,
    One,
    Several,
}

/// All options that a help text names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Help {
    pub(crate) options: Vec<HelpOption>,
}

impl Help {
    pub(crate) fn parse(text: &str) -> Self {
        Self { options: text.lines().filter_map(option).collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.options.is_empty()
    }

    fn find(&self, flag: &str) -> Option<&HelpOption> {
        self.options.iter().find(|option| option.names.iter().any(|name| name == flag))
    }

    /// Every flag that begins so.
    fn beginning(&self, flag: &str) -> Vec<&str> {
        let names = self.options.iter().flat_map(|option| &option.names);
        names.map(String::as_str).filter(|name| name.starts_with(flag)).collect()
    }

    fn nearest(&self, flag: &str) -> Option<String> {
        let long = self.options.iter().flat_map(|option| &option.names);
        let names = long.filter_map(|name| name.strip_prefix("--"));
        nearest(flag.trim_start_matches('-'), names).map(|name| format!("--{name}"))
    }
}

/// A line such as `  -f, --flag NAME   what it does`.
fn option(line: &str) -> Option<HelpOption> {
    let trimmed = line.trim_start();
    if line.len() - trimmed.len() > MOST_INDENT || !trimmed.starts_with('-') {
        return None;
    }
    let mut option = HelpOption { names: Vec::new(), takes: Takes::Nothing, choices: Vec::new() };
    for part in split_names(invocation(trimmed)) {
        let end = part.find(|c: char| c.is_whitespace() || matches!(c, '=' | '[' | '<'));
        let (name, value) = part.split_at(end.unwrap_or(part.len()));
        if !is_flag(name) {
            // After the names there may be words; before any name the line is prose.
            break;
        }
        option.names.push(name.to_owned());
        let value = value.trim_start_matches('=').trim();
        if !value.is_empty() {
            option.takes = takes(value);
            option.choices = choices(value);
        }
    }
    (!option.names.is_empty()).then_some(option)
}

/// What stands before the description, which two spaces set apart. Two spaces after a comma only
/// line the names up.
fn invocation(line: &str) -> &str {
    let mut from = 0;
    while let Some(at) = line[from..].find("  ").map(|at| from + at) {
        if !line[..at].ends_with(',') {
            return &line[..at];
        }
        from = at + line[at..].find(|c: char| c != ' ').unwrap_or(line.len() - at);
    }
    line
}

/// At commas outside of braces and brackets.
fn split_names(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' | '[' | '<' | '(' => depth += 1,
            '}' | ']' | '>' | ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

fn is_flag(text: &str) -> bool {
    let bare = text.trim_start_matches('-');
    let dashes = text.len() - bare.len();
    (1..=2).contains(&dashes)
        && bare.starts_with(|c: char| c.is_ascii_alphabetic())
        && bare.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn takes(value: &str) -> Takes {
    if value.contains("...") {
        Takes::Several
    } else if value.starts_with('[') {
        Takes::Maybe
    } else {
        Takes::One
    }
}

/// `{a,b,c}`
fn choices(value: &str) -> Vec<String> {
    let inside = value.strip_prefix('{').and_then(|rest| rest.split('}').next());
    inside.map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default()
}

/// What is wrong with a flag, as the installed program sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FlagFault {
    Unknown {
        nearest: Option<String>,
    },
    /// It would be taken for these, or refused as one of several.
    Abbreviates {
        full: Vec<String>,
    },
    TakesNoValue {
        value: String,
    },
    NeedsValue,
    NotAChoice {
        value: String,
        choices: Vec<String>,
    },
}

/// One flag of a command line with what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) flag: String,
    pub(crate) values: Vec<String>,
    /// The value is joined to the flag by `=`.
    pub(crate) joined: bool,
}

/// Flags and what follows each. What comes before the first flag belongs to none. A number with a
/// minus is a value.
pub(crate) fn given(arguments: &[String]) -> Vec<Given> {
    let mut all: Vec<Given> = Vec::new();
    for argument in arguments {
        let is_number = argument.parse::<f64>().is_ok();
        if argument.starts_with('-') && argument.len() > 1 && !is_number {
            let (flag, value) = match argument.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (argument.as_str(), None),
            };
            all.push(Given {
                flag: flag.to_owned(),
                values: value.map(str::to_owned).into_iter().collect(),
                joined: value.is_some(),
            });
        } else if let Some(last) = all.last_mut() {
            last.values.push(argument.clone());
        }
    }
    all
}

/// What the installed program would hold against this flag.
pub(crate) fn judge(help: &Help, abbreviates: bool, given: &Given) -> Option<FlagFault> {
    let Some(option) = help.find(&given.flag) else {
        let full = match abbreviates && given.flag.starts_with("--") {
            true => help.beginning(&given.flag),
            false => Vec::new(),
        };
        return Some(match full.is_empty() {
            true => FlagFault::Unknown { nearest: help.nearest(&given.flag) },
            false => FlagFault::Abbreviates { full: full.into_iter().map(str::to_owned).collect() },
        });
    };
    match (option.takes, given.values.as_slice()) {
        (Takes::Nothing, [value, ..]) => Some(FlagFault::TakesNoValue { value: value.clone() }),
        (Takes::One | Takes::Several, []) => Some(FlagFault::NeedsValue),
        (_, values) => values
            .iter()
            .find(|value| !option.choices.is_empty() && !option.choices.contains(value))
            .map(|value| FlagFault::NotAChoice {
                value: value.clone(),
                choices: option.choices.clone(),
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As argparse, clap and a C++ program write it.
    const HELP: &str = "\
usage: serve [-h] [--tp-size N] [--no-cache]

  Serves a model.

options:
  -h, --help            show this help message and exit
  --tp-size TP_SIZE, --tensor-parallel-size TP_SIZE
                        GPUs. See also
                        --no-cache, which is something else.
  --no-cache            Do without.
  --policy {fcfs,lpm}   The order.
  --sizes SIZES [SIZES ...]
  --enable-flash-fusion
                        (Deprecated)
  --graphs, --no-graphs
  --reasoning-parser {a-b,c}
      --max-running <N>   Requests
  -t,    --threads N                      threads
-ub,   --ubatch-size N                  physical batch
  --keys [KEYS ...]     keys
  --level [LEVEL]
";

    fn help() -> Help {
        Help::parse(HELP)
    }

    #[test]
    fn options_are_read_in_every_style() {
        let shown: Vec<String> = help()
            .options
            .iter()
            .map(|option| format!("{} {:?}", option.names.join(" "), option.takes))
            .collect();
        assert_eq!(
            shown,
            [
                "-h --help Nothing",
                "--tp-size --tensor-parallel-size One",
                "--no-cache Nothing",
                "--policy One",
                "--sizes Several",
                "--enable-flash-fusion Nothing",
                "--graphs --no-graphs Nothing",
                "--reasoning-parser One",
                "--max-running One",
                "-t --threads One",
                "-ub --ubatch-size One",
                "--keys Several",
                "--level Maybe",
            ]
        );
        assert_eq!(help().find("--policy").unwrap().choices, ["fcfs", "lpm"]);
        assert_eq!(help().find("--reasoning-parser").unwrap().choices, ["a-b", "c"]);
    }

    #[track_caller]
    fn check(line: &str, expected: Option<FlagFault>) {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let found = given(&arguments).iter().find_map(|given| judge(&help(), true, given));
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn a_right_line_has_no_fault() {
        for line in [
            "serve /m --tp-size 2 --no-cache",
            "--tensor-parallel-size=2",
            "--policy lpm --sizes 1 2 4",
            "--graphs --no-graphs -t 4 -ub 8",
            "--level --level 2",
            "--tp-size -1",
        ] {
            check(line, None);
        }
    }

    #[test]
    fn faults_are_told_apart() {
        let value = |text: &str| text.to_owned();
        check("--no-cache false", Some(FlagFault::TakesNoValue { value: value("false") }));
        check("--no-cache=true", Some(FlagFault::TakesNoValue { value: value("true") }));
        check("--tp-size --no-cache", Some(FlagFault::NeedsValue));
        check(
            "--policy fifo",
            Some(FlagFault::NotAChoice {
                value: value("fifo"),
                choices: vec![value("fcfs"), value("lpm")],
            }),
        );
        check(
            "--enable-flash",
            Some(FlagFault::Abbreviates { full: vec![value("--enable-flash-fusion")] }),
        );
        check("--tp 2", Some(FlagFault::Abbreviates { full: vec![value("--tp-size")] }));
        check("--polcy lpm", Some(FlagFault::Unknown { nearest: Some(value("--policy")) }));
        check("--no-such-thing", Some(FlagFault::Unknown { nearest: None }));
    }

    #[test]
    fn without_abbreviations_a_beginning_is_unknown() {
        let given = Given { flag: "--tp".into(), values: vec!["2".into()], joined: false };
        assert_eq!(judge(&help(), false, &given), Some(FlagFault::Unknown { nearest: None }));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-a{}\\[\\]<>=, \n.é]{0,60}") {
            Help::parse(&text);
        }
    }
}
