//! The load that a sweep asks for: warm-up, phases, and how long each may take.

use super::def::{Deadlines, Pattern, Phase, Warmup};
use super::pattern::phase;
use super::variants::Surroundings;
use crate::form::Fields;
use crate::run::search::level_of;
use crate::run::slo::Class;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
pub(super) const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// No wait is unbounded, and none is zero.
const WAIT: RangeInclusive<Duration> = SECOND..=WEEK;

pub(super) const MOST_USERS: u32 = 100_000;
pub(super) const MOST_REQUESTS: u32 = 10_000_000;
pub(super) const MOST_TOKENS: u32 = 10_000_000;
/// Enough for an engine's caches and compilers; more only costs time.
const WARMUP_REQUESTS: u32 = 64;
/// Warm-up requests are kept like a phase's, under this name.
pub(super) const WARMUP_NAME: &str = "warmup";

/// How many users a phase keeps busy, as far as that is known beforehand.
pub(super) fn usual_users(phase: &Phase) -> NonZeroU32 {
    const OPEN: NonZeroU32 = NonZeroU32::new(16).expect("16 is not 0");
    match &phase.pattern {
        Pattern::Closed { .. } => phase.users,
        Pattern::Open(_) => phase.users.min(OPEN),
        Pattern::Search(search) => {
            search.points.first().and_then(|n| NonZeroU32::new(*n)).unwrap_or(phase.users)
        }
    }
}

/// Without other word: two requests for each user of the largest phase.
pub(super) fn warmup(fields: Option<&Fields<'_>>, most_users: Option<NonZeroU32>) -> Warmup {
    let most_users = most_users.unwrap_or(NonZeroU32::MIN);
    let requests =
        fields.and_then(|fields| fields.optional("requests").count_or_zero(MOST_REQUESTS));
    let users = fields.and_then(|fields| fields.optional("users").count(MOST_USERS));
    let requests =
        requests.unwrap_or_else(|| most_users.get().saturating_mul(2).min(WARMUP_REQUESTS));
    // A user without a request would only wait.
    let at_most = NonZeroU32::new(requests).unwrap_or(NonZeroU32::MIN);
    Warmup { requests, users: users.unwrap_or(most_users.min(at_most)) }
}

pub(super) fn phases(
    fields: &Fields<'_>,
    deadlines: &Deadlines,
    around: &Surroundings<'_>,
    classes: &[Class],
) -> Vec<Phase> {
    let tables = fields.required("phases").tables();
    if fields.optional("phases").is_list() && tables.is_empty() {
        fields.optional("phases").problem("is an empty list", None);
    }
    let mut phases: Vec<Phase> = Vec::new();
    for table in &tables {
        let Some(phase) = phase(table, deadlines, around, classes) else { continue };
        if phases.iter().any(|other| other.name == phase.name) {
            let name = table.optional("name");
            let message = format!("another phase has the name `{}`", phase.name);
            let help = (!name.is_there())
                .then(|| "phases with as many users need a `name` each".to_owned());
            fields.form().problem(name.at(), message, help);
        }
        phases.push(phase);
    }
    no_level_is_a_phase(&phases, fields);
    phases
}

/// A search keeps its runs under names of its own.
fn no_level_is_a_phase(phases: &[Phase], fields: &Fields<'_>) {
    let searches = phases.iter().filter(|phase| matches!(phase.pattern, Pattern::Search(_)));
    for search in searches {
        let taken = phases.iter().find(|other| level_of(&search.name, &other.name).is_some());
        if let Some(other) = taken {
            let message =
                format!("`{}` may be a level of the search `{}`", other.name, search.name);
            fields.optional("phases").problem(message, Some("rename one of them".to_owned()));
        }
    }
}

/// A sweep without `[deadlines]` gets these.
pub(super) fn deadlines(fields: Option<&Fields<'_>>) -> Deadlines {
    let wait = |key| fields.and_then(|fields| fields.optional(key).duration(WAIT));
    Deadlines {
        launch: wait("launch").unwrap_or(30 * SECOND),
        load: wait("load"),
        ready: wait("ready").unwrap_or(60 * SECOND),
        warmup: wait("warmup").unwrap_or(300 * SECOND),
        phase: wait("phase").unwrap_or(1800 * SECOND),
        request: wait("request").unwrap_or(300 * SECOND),
        stall: wait("stall").unwrap_or(60 * SECOND),
        stop: wait("stop"),
        verify: wait("verify").unwrap_or(30 * SECOND),
    }
}
