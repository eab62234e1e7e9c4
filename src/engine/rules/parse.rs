//! The parts of an engine file that speak of its log and its end: `[[failure]]`, `[[mark]]`,
//! `[[harmless]]` and `[[exit]]`.

use super::rule::{ExitRule, FailureRule, LogRules, Mark, RuleRole, Versions};
use crate::engine::common::not_a_regex;
use crate::engine::sections::signal;
use crate::form::{Fields, Wrong};
use crate::run::outcome::ExitStatus;
use regex::bytes::{Regex, RegexBuilder};

pub(in crate::engine) fn log_rules(fields: &Fields<'_>) -> LogRules {
    let tables = |key| fields.optional(key).tables();
    LogRules {
        failures: tables("failure").iter().filter_map(failure).collect(),
        marks: tables("mark").iter().filter_map(mark).collect(),
        harmless: tables("harmless").iter().filter_map(harmless).collect(),
        exits: tables("exit").iter().filter_map(exit).collect(),
    }
}

fn failure(fields: &Fields<'_>) -> Option<FailureRule> {
    let kind = fields.required("kind").choice();
    let pattern = fields.required("pattern").parsed(line_pattern);
    let role = fields.optional("role").choice();
    let phases = fields.optional("phases").items();
    let frame = fields.optional("frame").parsed(line_pattern);
    let exclusive = fields.optional("exclusive").boolean().unwrap_or(false);
    let versions = fields.optional("versions").parsed(versions);
    let advice = fields.optional("advice").text();
    let origin = fields.optional("origin").text();
    let retries = fields.optional("retries").integer(0..=10).and_then(|n| u32::try_from(n).ok());
    let one_sample = fields.optional("one_sample").boolean().unwrap_or(false);
    Some(FailureRule {
        pattern: pattern?,
        kind: kind?,
        role: role.unwrap_or(RuleRole::Root),
        phases: phases.iter().filter_map(|phase| phase.choice()).collect(),
        frame,
        exclusive,
        versions,
        advice,
        retries,
        origin,
        one_sample,
    })
}

fn mark(fields: &Fields<'_>) -> Option<Mark> {
    let pattern = fields.required("pattern").parsed(line_pattern);
    let phase = fields.required("phase").choice();
    let alive = fields.optional("alive").boolean().unwrap_or(false);
    fields.optional("origin").text();
    Some(Mark { pattern: pattern?, phase: phase?, alive })
}

fn harmless(fields: &Fields<'_>) -> Option<Regex> {
    fields.optional("origin").text();
    fields.required("pattern").parsed(line_pattern)
}

fn exit(fields: &Fields<'_>) -> Option<ExitRule> {
    let code = fields.optional("code").integer(0..=255);
    let by_signal = fields.optional("signal").parsed(signal);
    if code.is_some() == by_signal.is_some() {
        let message = "an `[[exit]]` has either `code` or `signal`";
        fields.form().absence(fields.at(), message, None);
    }
    let code = code.and_then(|code| i32::try_from(code).ok()).map(ExitStatus::Code);
    let before_ready = fields.optional("before_ready").boolean().unwrap_or(false);
    let kind = fields.required("kind").choice();
    let advice = fields.optional("advice").text();
    let origin = fields.optional("origin").text();
    let status = code.or(by_signal.map(ExitStatus::Signal))?;
    Some(ExitRule { status, before_ready, kind: kind?, advice, origin })
}

/// A pattern for single lines of a log: of bytes, as the scanner matches them.
fn line_pattern(text: &str) -> Result<Regex, Wrong> {
    let pattern = RegexBuilder::new(text).unicode(false).build();
    let pattern = pattern.map_err(|error| not_a_regex(text, &error))?;
    if pattern.is_match(b"") {
        return Err(Wrong::new(format!("{text:?} matches every line")));
    }
    Ok(pattern)
}

fn versions(text: &str) -> Result<Versions, Wrong> {
    Versions::parse(text).ok_or_else(|| {
        Wrong::new(format!("{text:?} is no range of versions")).help("such as \">=0.5, <0.9\"")
    })
}
