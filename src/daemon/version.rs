//! Asks an engine for its version, and for those of what it stands on, once a run. Not knowing
//! them stops nothing.

use super::{ask, prepare};
use crate::engine::def::VersionProbe;
use crate::engine::launch::{self, Slots};
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
) -> Option<String> {
    let slots = prepare::slots(variant, 0, sweepd);
    let env = prepare::environment(variant, inherited, &slots).ok()?;
    asked(variant.engine.version.as_ref()?, &slots, &env).await
}

/// The other versions that the engine file asks for, by name; those that cannot be had are missing.
pub(crate) async fn others(
    variant: &Variant,
    sweepd: &Path,
    inherited: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let slots = prepare::slots(variant, 0, sweepd);
    let mut versions = BTreeMap::new();
    let Ok(env) = prepare::environment(variant, inherited, &slots) else { return versions };
    for (name, probe) in &variant.engine.versions {
        if let Some(version) = asked(probe, &slots, &env).await {
            versions.insert(name.clone(), version);
        }
    }
    versions
}

pub(super) async fn asked(
    probe: &VersionProbe,
    slots: &Slots<'_>,
    env: &BTreeMap<String, String>,
) -> Option<String> {
    let argv = launch::expanded(&probe.command, slots).ok()?;
    let text = ask::output(&argv, env, WITHIN).await.ok()?;
    launch::version_in(probe, &text).map(str::to_owned)
}
