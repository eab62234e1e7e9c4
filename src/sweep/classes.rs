//! `[[classes]]` of a sweep file: kinds of requests, each with limits of its own.
//!
//! Invariant: every request of every phase has a class, or the sweep has none.

use super::def::{Pattern, Phase, Workload};
use crate::form::{Field, Fields};
use crate::run::slo::{Class, Slo};
use crate::workload::schedule::OpenLoop;
use crate::workload::shape::Shape;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A limit beyond a day is none.
const LIMIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);
/// How far shares may miss 1: they are written by people.
const ROUNDING: f64 = 1e-6;

pub(super) fn read(fields: &Fields<'_>) -> Vec<Class> {
    let field = fields.optional("classes");
    let tables = field.tables();
    if field.is_list() && tables.is_empty() {
        field.problem("is an empty list", None);
    }
    let mut classes: Vec<Class> = Vec::new();
    for table in &tables {
        let Some(class) = class(table) else { continue };
        if classes.iter().any(|other| other.name == class.name) {
            table.optional("name").problem("another class has this name", None);
        } else if classes.iter().any(|other| other.value == class.value) {
            table.optional("value").problem("another class is named by this value", None);
        }
        classes.push(class);
    }
    if classes.len() == tables.len() {
        check_shares(&classes, &field);
    }
    classes
}

fn class(fields: &Fields<'_>) -> Option<Class> {
    let name = fields.required("name").name();
    let share = fields.optional("share");
    let is_shared = share.is_there();
    let share = share.float(f64::MIN_POSITIVE..=1.0);
    let value = fields.optional("value");
    let value =
        if value.is_there() { value.text() } else { name.as_ref().map(ToString::to_string) };
    let slo = fields.required("slo").table().map(|fields| slo(&fields));
    if is_shared && share.is_none() {
        return None;
    }
    Some(Class { name: name?, share, value: value?, slo: slo? })
}

fn slo(fields: &Fields<'_>) -> Slo {
    let limit = |key| {
        let span = fields.optional(key).duration(LIMIT);
        span.map(|span| span.as_secs_f64() * 1e3)
    };
    let slo = Slo { ttft_ms: limit("ttft"), tpot_ms: limit("tpot"), e2el_ms: limit("e2el") };
    let keys = ["ttft", "tpot", "e2el"];
    if !keys.iter().any(|key| fields.optional(key).is_there()) {
        let help =
            "`ttft = \"500ms\"`, `tpot = \"50ms\"`, `e2el = \"10s\"`, or some of them".to_owned();
        fields.form().problem(fields.at(), "`slo` has no limit", Some(help));
    }
    slo
}

fn check_shares(classes: &[Class], field: &Field<'_>) {
    let shares: Vec<f64> = classes.iter().filter_map(|class| class.share).collect();
    if shares.is_empty() {
        return;
    }
    if shares.len() < classes.len() {
        let help = "without any, a field of the data set or the trace names each request's class";
        field.problem("some classes have a `share` and some have none", Some(help.to_owned()));
        return;
    }
    let sum: f64 = shares.iter().sum();
    if (sum - 1.0).abs() > ROUNDING {
        field.problem(
            format!("the shares add up to {sum}"),
            Some("they must add up to 1".to_owned()),
        );
    }
}

/// What names no class, and what has no classes to name.
pub(super) fn check(
    classes: &[Class],
    workload: Option<&Workload>,
    phases: &[Phase],
    field: &Field<'_>,
) {
    if classes.is_empty() || classes.iter().any(|class| class.share.is_some()) {
        return;
    }
    let by_workload = workload.is_none_or(|workload| match &workload.shape {
        Shape::Dataset(set) => set.class_field.is_some(),
        _ => false,
    });
    let named = |phase: &Phase| match &phase.pattern {
        Pattern::Open(OpenLoop::Trace { classes, .. }) => by_workload || !classes.is_empty(),
        Pattern::Open(_) | Pattern::Closed { .. } | Pattern::Search(_) => by_workload,
    };
    for phase in phases.iter().filter(|phase| !named(phase)) {
        let help =
            "give every class a `share`, or the data set or trace a `class_field`".to_owned();
        let message = format!("nothing says of which class a request of phase `{}` is", phase.name);
        field.problem(message, Some(help));
    }
}

/// The key that names classes, and whether there are any to name.
pub(super) fn field_of(fields: &Fields<'_>, classes: &[Class]) -> Option<String> {
    let field = fields.optional("class_field");
    let key = field.text();
    if field.is_there() && classes.is_empty() {
        let help = "[[classes]] has a `name` and limits for each".to_owned();
        field.problem("the sweep has no classes", Some(help));
    }
    key
}
