//! A line of a log without what loggers, runners and terminals put around it. Pure.
//!
//! Rules are written for what the program itself said, so `^KeyError: ` holds whether the line came
//! from a shell, a rank of many, a container's log or sweepd's own file.

use regex::bytes::{Regex, RegexBuilder};
use std::borrow::Cow;
use std::sync::LazyLock;

/// Prefixes that may stand before a message, in any number and order.
static PREFIX: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let time = r"\d{1,2}:\d\d:\d\d(?:[.,]\d+)?";
    let date = r"(?:\d{4}[-/])?\d\d[-/]\d\d";
    let level = r"(?:TRACE|DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)";
    let prefixes = [
        // sweepd's own log files.
        r"\[ *\d+\.\d+ (?:out|err)\] ".to_owned(),
        r"\[?[\w./-]+\.(?:py|cc|cpp|cu|h):\d+\] ?".to_owned(),
        format!(r"{date} {time} - [\w.]+ - {level} - (?:[\w./-]+:\d+ - )?"),
        format!(r"{date} {time} \| {level} \| \w+ \| ?"),
        // Containers and collectors: a level, a time, both.
        format!(r"(?:{level} )?{date}[T ]{time}Z? "),
        format!(r"{level} {time} [\w./-]+:\d+\] "),
        // Seconds since the start and a letter for the level.
        r"\d+\.\d\d\.\d{3}\.\d{3} [DIWE] ".to_owned(),
        // A logger's time with a rank behind it.
        format!(r"\[{date}[ T]{time}[^\]]{{0,60}}\] ?(?:{level}:? )?"),
        // Ranks and workers.
        r"\([^()]{0,120}pid=\d+[^()]{0,60}\) ?".to_owned(),
        r"\[(?:rank|gpu|gpu_id|default|default_)=?\d+\]:? ?".to_owned(),
        r"\(\w+\) ".to_owned(),
        r"[\w-]{1,40} +\| ".to_owned(),
        r"\s+".to_owned(),
    ];
    RegexBuilder::new(&format!("^(?:{})+", prefixes.join("|"))).unicode(false).build().ok()
});

/// The message of a line.
pub(crate) fn message(line: &str) -> Cow<'_, str> {
    match without_escapes(line) {
        Cow::Borrowed(line) => Cow::Borrowed(without_prefix(line)),
        Cow::Owned(line) => Cow::Owned(without_prefix(&line).to_owned()),
    }
}

/// Whether the line is set in by so much as the source text below a frame of a traceback is.
pub(super) fn is_indented(line: &str, message: &str) -> bool {
    let before = line.trim_end().len().saturating_sub(message.len());
    line.get(..before).is_some_and(|before| before.ends_with("    "))
}

fn without_prefix(line: &str) -> &str {
    // Most lines begin with what no prefix begins with, so that the search ends at once.
    let end = PREFIX
        .as_ref()
        .and_then(|prefix| prefix.find(line.as_bytes()))
        .map_or(0, |found| found.end());
    line.get(end..).unwrap_or(line).trim_end()
}

/// Without the colours and cursor movements of a terminal.
pub(crate) fn without_escapes(line: &str) -> Cow<'_, str> {
    if !line.contains('\x1b') {
        return Cow::Borrowed(line);
    }
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '\x1b' {
            plain.push(character);
            continue;
        }
        if characters.next_if_eq(&'[').is_some() {
            // Parameters, then one letter that ends the sequence.
            for parameter in characters.by_ref() {
                if ('\x40'..='\x7e').contains(&parameter) {
                    break;
                }
            }
        } else {
            characters.next();
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_a_message_is_taken_away() {
        for line in [
            "KeyError: 'x'",
            "  KeyError: 'x'  ",
            "\x1b[36m(RayWorker pid=4139, ip=128.1.219.180)\x1b[0m KeyError: 'x'",
            "(Worker pid=4) ERROR 07-03 14:43:50 worker_base.py:148] KeyError: 'x'",
            "(EngineCore_DP0 pid=2225) ERROR 09-24 19:58:12 [core.py:864] KeyError: 'x'",
            "ERROR 04-16 10:35:25 [core.py:387] KeyError: 'x'",
            "[rank0]: KeyError: 'x'",
            "[2025-02-25 05:36:52 TP4] KeyError: 'x'",
            "[2025-02-25 05:36:52] KeyError: 'x'",
            "[gpu=3] KeyError: 'x'",
            "ERROR 2025-04-05T00:01:19.209514570Z [2025-04-05 00:01:19 TP0] KeyError: 'x'",
            "2025-04-05T00:01:19.209514570Z KeyError: 'x'",
            "2026-02-09 13:59:17,123 - server - ERROR - base.py:55 - KeyError: 'x'",
            "2024-02-08 09:56:23 | ERROR | stderr | KeyError: 'x'",
            "[    12.345 err] KeyError: 'x'",
            "[     1.000 out] [2025-02-25 05:36:52 DP1 TP4 EP4] KeyError: 'x'",
            "server-1  | KeyError: 'x'",
        ] {
            assert_eq!(message(line), "KeyError: 'x'", "{line}");
        }
    }

    #[test]
    fn what_is_no_prefix_stays() {
        for line in [
            "error: x",
            "[TM][FATAL] x",
            "main: error: x",
            "INFO:     Started",
            "12 is not 13",
            "(x",
        ] {
            assert_eq!(message(line), line);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "\\PC{0,40}", escapes in "[\x1b\\[;0-9mK ]{0,12}") {
            message(&format!("{escapes}{line}"));
            message(&format!("{line}{escapes}"));
        }
    }
}
