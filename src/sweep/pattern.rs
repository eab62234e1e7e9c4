//! One phase of a sweep file: a closed loop of users, or an open loop by the clock.

use super::def::{Deadlines, Pattern, Phase};
use super::load::{MOST_REQUESTS, MOST_USERS, WARMUP_NAME, WEEK};
use super::variants::Surroundings;
use super::{search, trace};
use crate::form::{Field, Fields};
use crate::ids::Name;
use crate::run::slo::Class;
use crate::workload::schedule::{Arrivals, OpenLoop, Stage};
use serde::Deserialize;
use std::num::NonZeroU32;
use std::time::Duration;

/// Requests in flight in an open loop, where the sweep does not say.
const IN_FLIGHT: u32 = 4096;
const MOST_RATE: f64 = 1_000_000.0;

/// A phase's least, and whether each was said.
struct Least {
    requests: Option<u32>,
    duration: Option<Duration>,
}

pub(super) fn phase(
    fields: &Fields<'_>,
    deadlines: &Deadlines,
    around: &Surroundings<'_>,
    classes: &[Class],
) -> Option<Phase> {
    if fields.optional("trace").is_there() {
        let (users, pattern) = trace::read(fields, around, deadlines.phase, classes);
        return Some(Phase {
            name: phase_name(fields.required("name"))?,
            users: users?,
            pattern: pattern?,
            min_requests: 0,
            min_duration: Duration::ZERO,
        });
    }
    let searches = fields.optional("search").is_there();
    let stages = fields.optional("stages").is_there();
    let open = stages || fields.optional("rate").is_there();
    let least = least(fields, deadlines, stages);
    let (users, pattern) = match (searches, open) {
        (true, _) => search::read(fields),
        (false, true) => open_loop(fields, &least),
        (false, false) => closed_loop(fields),
    };
    let field = fields.optional("name");
    let name = if field.is_there() {
        field.name()
    } else if !open && !searches {
        users.and_then(|users| Name::new(&format!("{users}-users")))
    } else if stages || searches {
        fields.required("name").name()
    } else {
        let rate = fields.optional("rate").float(f64::MIN_POSITIVE..=MOST_RATE);
        rate.and_then(|rate| Name::new(&format!("{rate}-per-s")))
    };
    if name.as_ref().is_some_and(|name| name.as_str() == WARMUP_NAME) {
        field.problem(format!("`{WARMUP_NAME}` is the warm-up's name"), None);
    }
    Some(Phase {
        name: name?,
        users: users?,
        pattern: pattern?,
        min_requests: least.requests.unwrap_or(0),
        min_duration: least.duration.unwrap_or_default(),
    })
}

fn closed_loop(fields: &Fields<'_>) -> (Option<NonZeroU32>, Option<Pattern>) {
    let users = fields.required("users").count(MOST_USERS);
    let span = |key| fields.optional(key).duration(Duration::ZERO..=WEEK).unwrap_or_default();
    (users, Some(Pattern::Closed { think_time: span("think_time"), ramp_up: span("ramp_up") }))
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ArrivalKind {
    Constant,
    Poisson,
    Gamma,
}

fn open_loop(fields: &Fields<'_>, least: &Least) -> (Option<NonZeroU32>, Option<Pattern>) {
    if fields.optional("users").is_there() {
        let help = "a closed loop has `users`, an open loop `rate` or `stages`".to_owned();
        fields.optional("users").problem("a phase with a rate has no users", Some(help));
    }
    let most = in_flight(fields);
    let arrivals = arrivals(fields);
    let schedule = if fields.optional("stages").is_there() {
        let both = fields.optional("rate");
        if both.is_there() {
            both.problem("`stages` have rates of their own", None);
        }
        let tables = fields.required("stages").tables();
        let stages: Vec<Stage> = tables.iter().filter_map(stage).collect();
        let whole = !stages.is_empty() && stages.len() == tables.len();
        whole
            .then_some(stages)
            .zip(arrivals)
            .map(|(stages, arrivals)| OpenLoop::Stages { arrivals, stages })
    } else {
        let rate = fields.required("rate").float(f64::MIN_POSITIVE..=MOST_RATE);
        rate.zip(arrivals).map(|(rate_per_s, arrivals)| OpenLoop::Rate {
            arrivals,
            rate_per_s,
            min_requests: least.requests.unwrap_or(0),
            min_seconds: least.duration.unwrap_or_default().as_secs_f64(),
        })
    };
    (most, schedule.map(Pattern::Open))
}

/// The most that may be in flight.
pub(super) fn in_flight(fields: &Fields<'_>) -> Option<NonZeroU32> {
    let field = fields.optional("max_in_flight");
    if field.is_there() { field.count(MOST_USERS) } else { NonZeroU32::new(IN_FLIGHT) }
}

/// A name that is not the warm-up's.
fn phase_name(field: Field<'_>) -> Option<Name> {
    let name = field.name()?;
    if name.as_str() == WARMUP_NAME {
        field.problem(format!("`{WARMUP_NAME}` is the warm-up's name"), None);
    }
    Some(name)
}

fn arrivals(fields: &Fields<'_>) -> Option<Arrivals> {
    let field = fields.optional("arrivals");
    let kind = if field.is_there() { field.choice()? } else { ArrivalKind::Poisson };
    let burstiness = fields.optional("burstiness");
    match kind {
        ArrivalKind::Gamma => {
            let shape = fields.required("burstiness").float(0.01..=1000.0);
            shape.map(|shape| Arrivals::Gamma { shape })
        }
        ArrivalKind::Constant | ArrivalKind::Poisson if burstiness.is_there() => {
            let help = "write `arrivals = \"gamma\"`: 1 is Poisson, less comes in bursts";
            burstiness.problem("only gamma arrivals have it", Some(help.to_owned()));
            None
        }
        ArrivalKind::Constant => Some(Arrivals::Constant),
        ArrivalKind::Poisson => Some(Arrivals::Poisson),
    }
}

/// A rate that holds, or a ramp from one to another; one of the two may be 0.
fn stage(fields: &Fields<'_>) -> Option<Stage> {
    let to = fields.optional("to");
    let is_ramp = to.is_there();
    let least = if is_ramp { 0.0 } else { f64::MIN_POSITIVE };
    let rate = fields.required("rate").float(least..=MOST_RATE);
    let span = fields.required("duration").duration(Duration::from_millis(1)..=WEEK);
    let to_per_s = if is_ramp { Some(to.float(0.0..=MOST_RATE)?) } else { None };
    if rate == Some(0.0) && to_per_s == Some(0.0) {
        to.problem("a ramp from 0 to 0 sends nothing", None);
        return None;
    }
    Some(Stage { rate_per_s: rate?, to_per_s, seconds: span?.as_secs_f64() })
}

/// When the phase may end; stages say it themselves.
fn least(fields: &Fields<'_>, deadlines: &Deadlines, stages: bool) -> Least {
    let [requests, duration] = ["min_requests", "min_duration"].map(|key| fields.optional(key));
    let least = Least {
        requests: requests.count_or_zero(MOST_REQUESTS),
        duration: duration.duration(Duration::ZERO..=WEEK),
    };
    if stages {
        for field in [&requests, &duration].into_iter().filter(|field| field.is_there()) {
            field.problem("`stages` say how long the phase lasts", None);
        }
    } else if !requests.is_there() && !duration.is_there() {
        let help = "the phase ends when both are met".to_owned();
        let message = "neither `min_requests` nor `min_duration` in [[phases]]";
        fields.form().absence(fields.at(), message, Some(help));
    } else if ends_at_once(least.requests, requests.is_there())
        && ends_at_once(least.duration, duration.is_there())
    {
        let help = "the phase ends when `min_requests` and `min_duration` are met".to_owned();
        fields.form().problem(fields.at(), "the phase would end before it began", Some(help));
    }
    if least.duration.is_some_and(|least| least > deadlines.phase) {
        let deadline = humantime::format_duration(deadlines.phase);
        let help = format!("raise `phase` in [deadlines], which is {deadline}");
        duration.problem("is longer than a phase may last", Some(help));
    }
    least
}

/// A value that is there and wrong has been told already and is no zero.
fn ends_at_once<T: Default + PartialEq>(least: Option<T>, is_there: bool) -> bool {
    least.map_or(!is_there, |least| least == T::default())
}
