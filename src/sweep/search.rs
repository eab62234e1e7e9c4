//! `search` of a phase: how far a search for saturation goes, and what its levels must keep to.

use super::def::Pattern;
use super::load::MOST_USERS;
use crate::form::Fields;
use crate::run::search::Search;
use crate::run::slo::Slo;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

const MOST_POINTS: usize = 100;
const MOST_RUNS: u32 = 1000;
/// A limit beyond an hour is none.
const LIMIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);

pub(super) fn read(fields: &Fields<'_>) -> (Option<NonZeroU32>, Option<Pattern>) {
    for key in ["users", "rate", "stages"] {
        let field = fields.optional(key);
        if field.is_there() {
            let help = "its levels stand in `search = [200, 300, 500]`".to_owned();
            field.problem("a search finds its load itself", Some(help));
        }
    }
    let points = points(fields);
    let slo = fields.optional("slo").table().map(|fields| {
        let limit = |key| fields.optional(key).duration(LIMIT).map(milliseconds);
        let slo = Slo { ttft_ms: limit("ttft_p99"), tpot_ms: limit("tpot_p99"), e2el_ms: None };
        if slo == Slo::default() && !fields.optional("ttft_p99").is_there() {
            let help = "`ttft_p99 = \"2s\"`, `tpot_p99 = \"100ms\"`, or both".to_owned();
            fields.form().problem(fields.at(), "`slo` has no limit", Some(help));
        }
        slo
    });
    let share = |key, range, usual| {
        let field = fields.optional(key);
        if field.is_there() { field.float(range) } else { Some(usual) }
    };
    let count = |key, usual| {
        let field = fields.optional(key);
        if field.is_there() { field.count(MOST_RUNS).map(NonZeroU32::get) } else { Some(usual) }
    };
    let error_budget = share("error_budget", 0.0..=1.0, 0.01);
    let tolerance = share("tolerance", 0.001..=1.0, 0.05);
    let (repeats, max_runs) = (count("repeats", 2), count("max_runs", 30));
    let most = points.as_ref().and_then(|points| NonZeroU32::new(*points.last()?));
    let search = || {
        Some(Search {
            points: points?,
            slo: slo.unwrap_or_default(),
            error_budget: error_budget?,
            tolerance: tolerance?,
            repeats: repeats?,
            max_runs: max_runs?,
        })
    };
    (most, search().map(Pattern::Search))
}

fn points(fields: &Fields<'_>) -> Option<Vec<u32>> {
    let field = fields.required("search");
    let items = field.items();
    let points: Vec<u32> =
        items.iter().filter_map(|item| item.count(MOST_USERS)).map(NonZeroU32::get).collect();
    if points.is_empty() || points.len() < items.len() {
        if items.is_empty() && field.is_list() {
            field.problem("is an empty list", None);
        }
        return None;
    }
    if points.len() > MOST_POINTS || !points.is_sorted_by(|a, b| a < b) {
        let help = format!("each more than the one before, {MOST_POINTS} at most");
        field.problem("is no ascending list of users", Some(help));
        return None;
    }
    Some(points)
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
