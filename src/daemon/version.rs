//! Asks an engine for its version, and for those of what it stands on, once a run. Not knowing
//! them stops nothing.

use super::{ask, prepare};
use crate::engine::def::VersionProbe;
use crate::engine::launch::{self, Slots};
use crate::supervise::user::RunAs;
use crate::sweep::def::Variant;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Python engines import for seconds before they say their version.
const WITHIN: Duration = Duration::from_secs(60);

/// The version that the variant's engine tells of itself; `None` when it cannot be had.
pub(crate) async fn of(
    variant: &Variant,
    sweepd: &Path,
    inherited: &BTreeMap<String, String>,
    run_as: Option<&String>,
) -> Option<String> {
    let user = user(run_as).ok()?;
    let slots = prepare::slots(variant, 0, sweepd);
    let env = prepare::environment(variant, inherited, &slots).ok()?;
    asked(variant.engine.version.as_ref()?, &slots, &env, user.as_ref()).await
}

/// The other versions that the engine file asks for, by name; those that cannot be had are missing.
pub(crate) async fn others(
    variant: &Variant,
    sweepd: &Path,
    inherited: &BTreeMap<String, String>,
    run_as: Option<&String>,
) -> BTreeMap<String, String> {
    let slots = prepare::slots(variant, 0, sweepd);
    let mut versions = BTreeMap::new();
    let Ok(env) = prepare::environment(variant, inherited, &slots) else { return versions };
    let Ok(user) = user(run_as) else { return versions };
    for (name, probe) in &variant.engine.versions {
        if let Some(version) = asked(probe, &slots, &env, user.as_ref()).await {
            versions.insert(name.clone(), version);
        }
    }
    versions
}

/// An engine's program is never run with more rights for its version than for its work.
fn user(run_as: Option<&String>) -> Result<Option<RunAs>, String> {
    run_as.map(|name| RunAs::find(name)).transpose()
}

pub(super) async fn asked(
    probe: &VersionProbe,
    slots: &Slots<'_>,
    env: &BTreeMap<String, String>,
    user: Option<&RunAs>,
) -> Option<String> {
    let argv = launch::expanded(&probe.command, slots).ok()?;
    let text = ask::output(&argv, env, user, WITHIN).await.ok()?;
    launch::version_in(probe, &text).map(str::to_owned)
}
