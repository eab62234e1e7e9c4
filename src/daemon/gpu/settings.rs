//! Settings of a GPU for one trial: written down, set, read back, put back.
//!
//! Invariant: before a setting is changed, a fsynced file says what it was. Whoever finds the file of a
//! process that is gone puts the setting back.

use crate::gpu::client::Client;
use crate::gpu::facts::{ComputeMode, Gpu};
use crate::gpu::fault::FaultKind;
use crate::gpu::message::Change;
use crate::store::intents::{Intent, Intents};
use crate::sweep::gpu::Settings;
use serde::{Deserialize, Serialize};

/// The kind of an intent's file.
pub(super) const KIND: &str = "gpu_settings";

/// What was there before. What the driver did not tell was not changed, but for locked clocks, which
/// it never tells: those are unlocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Before {
    pub(super) uuid: String,
    pub(super) power_limit_mw: Option<u32>,
    pub(super) persistence: Option<bool>,
    pub(super) compute_mode: Option<ComputeMode>,
    pub(super) gpu_clocks_locked: bool,
    pub(super) memory_clocks_locked: bool,
}

/// The changes that these settings ask of a GPU in this state, in the order in which they are made.
pub(super) fn changes(settings: &Settings, now: &Gpu) -> Vec<Change> {
    let mut changes = Vec::new();
    // First persistence: without it, the driver forgets the rest when its last client goes.
    if let Some(on) = settings.persistence.filter(|on| now.persistence != Some(*on)) {
        changes.push(Change::Persistence { on });
    }
    if settings.exclusive && now.compute_mode != Some(ComputeMode::ExclusiveProcess) {
        changes.push(Change::ComputeMode { mode: ComputeMode::ExclusiveProcess });
    }
    if let Some(milliwatts) = settings.power_limit_mw.filter(|mw| power_limit(now) != Some(*mw)) {
        changes.push(Change::PowerLimit { milliwatts });
    }
    if let Some((min_mhz, max_mhz)) = settings.lock_memory_clocks_mhz {
        changes.push(Change::LockMemoryClocks { min_mhz, max_mhz });
    }
    if let Some((min_mhz, max_mhz)) = settings.lock_clocks_mhz {
        changes.push(Change::LockGpuClocks { min_mhz, max_mhz });
    }
    changes
}

/// What puts them back, in the opposite order.
fn undo(before: &Before) -> Vec<Change> {
    let mut changes = Vec::new();
    if before.gpu_clocks_locked {
        changes.push(Change::ResetGpuClocks);
    }
    if before.memory_clocks_locked {
        changes.push(Change::ResetMemoryClocks);
    }
    changes.extend(before.power_limit_mw.map(|milliwatts| Change::PowerLimit { milliwatts }));
    changes.extend(before.compute_mode.map(|mode| Change::ComputeMode { mode }));
    changes.extend(before.persistence.map(|on| Change::Persistence { on }));
    changes
}

/// Only what is about to change is put back later.
fn before(uuid: &str, now: &Gpu, changes: &[Change]) -> Before {
    let changes_any = |is: fn(&Change) -> bool| changes.iter().any(is);
    let power = changes_any(|change| matches!(change, Change::PowerLimit { .. }));
    let persistence = changes_any(|change| matches!(change, Change::Persistence { .. }));
    let mode = changes_any(|change| matches!(change, Change::ComputeMode { .. }));
    Before {
        uuid: uuid.to_owned(),
        power_limit_mw: power_limit(now).filter(|_| power),
        persistence: now.persistence.filter(|_| persistence),
        compute_mode: now.compute_mode.filter(|_| mode),
        gpu_clocks_locked: changes_any(|change| matches!(change, Change::LockGpuClocks { .. })),
        memory_clocks_locked: changes_any(|change| {
            matches!(change, Change::LockMemoryClocks { .. })
        }),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the driver's own milliwatts, there and back"
)]
fn power_limit(gpu: &Gpu) -> Option<u32> {
    gpu.power.limit_w.map(|watts| (watts * 1e3).round() as u32)
}

/// Settings of one GPU that are to be put back.
#[derive(Debug)]
pub(super) struct Held {
    before: Before,
    intent: Intent,
}

/// Sets what is asked, and reads it back. What was set before a mistake is put back by the caller, who
/// has it in `held`.
pub(super) async fn set(
    client: &mut Client,
    intents: &Intents,
    gpu: &Gpu,
    settings: &Settings,
    held: &mut Vec<Held>,
) -> Result<Vec<String>, String> {
    let Some(uuid) = gpu.uuid.as_deref() else { return Ok(Vec::new()) };
    let changes = changes(settings, gpu);
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let before = before(uuid, gpu, &changes);
    let intent = intents.write(KIND, &before).map_err(|error| {
        format!("{uuid}: its settings cannot be written down, so they are not changed: {error}")
    })?;
    held.push(Held { before, intent });
    for change in &changes {
        client.change(uuid, *change).await.map_err(|fault| {
            let advice = match fault.kind {
                FaultKind::NoPermission => "; changing settings needs root",
                _ => "",
            };
            format!("{}: {fault}{advice}", words(*change))
        })?;
    }
    let now = client.inspect(&[uuid.to_owned()]).await.map_err(|fault| fault.to_string())?;
    let now = now.first().ok_or_else(|| format!("{uuid} is gone"))?;
    let differing: Vec<String> =
        changes.iter().filter_map(|change| differs(*change, now)).collect();
    if !differing.is_empty() {
        return Err(format!("{uuid}: {}", differing.join("; ")));
    }
    Ok(changes.iter().map(|change| format!("{uuid}: {}", words(*change))).collect())
}

/// What was set is not what the card has now. Locked clocks cannot be read back: the telemetry under
/// load shows whether they hold.
fn differs(change: Change, now: &Gpu) -> Option<String> {
    let has = match change {
        Change::PowerLimit { milliwatts } => {
            let limit = power_limit(now);
            limit
                .filter(|limit| *limit != milliwatts)
                .map(|mw| format!("{} W", f64::from(mw) / 1e3))
        }
        Change::Persistence { on } => {
            now.persistence.filter(|now| *now != on).map(|n| n.to_string())
        }
        Change::ComputeMode { mode } => {
            now.compute_mode.filter(|now| *now != mode).map(|mode| format!("{mode:?}"))
        }
        Change::LockGpuClocks { .. }
        | Change::ResetGpuClocks
        | Change::LockMemoryClocks { .. }
        | Change::ResetMemoryClocks => None,
    };
    has.map(|has| format!("{} was accepted, and the card has {has}", words(change)))
}

pub(super) fn words(change: Change) -> String {
    match change {
        Change::LockGpuClocks { min_mhz, max_mhz } => {
            format!("SM clock locked to {min_mhz} to {max_mhz} MHz")
        }
        Change::LockMemoryClocks { min_mhz, max_mhz } => {
            format!("memory clock locked to {min_mhz} to {max_mhz} MHz")
        }
        Change::ResetGpuClocks => "SM clock unlocked".to_owned(),
        Change::ResetMemoryClocks => "memory clock unlocked".to_owned(),
        Change::PowerLimit { milliwatts } => {
            format!("power limit {} W", f64::from(milliwatts) / 1e3)
        }
        Change::Persistence { on } => format!("persistence mode {}", if on { "on" } else { "off" }),
        Change::ComputeMode { mode } => format!("compute mode {mode:?}"),
    }
}

/// Puts everything back, the last first. What cannot be put back keeps its file, for the next start.
pub(super) async fn restore(client: &mut Client, held: Vec<Held>) -> Vec<String> {
    let mut failed = Vec::new();
    for Held { before, intent } in held.into_iter().rev() {
        let wrong = put_back(client, &before).await;
        if wrong.is_empty() {
            if let Err(error) = intent.remove() {
                failed.push(error.to_string());
            }
        } else {
            failed.extend(wrong);
        }
    }
    failed
}

/// Every setting is tried, also after one that failed.
async fn put_back(client: &mut Client, before: &Before) -> Vec<String> {
    let mut failed = Vec::new();
    for change in undo(before) {
        if let Err(fault) = client.change(&before.uuid, change).await {
            failed.push(format!(
                "{}: {} could not be put back: {fault}",
                before.uuid,
                words(change)
            ));
        }
    }
    failed
}

/// What a sweepd that is gone left set is put back. In words: what was done, and what could not be.
pub(crate) async fn undo_orphans(client: &mut Client, intents: &Intents) -> Vec<String> {
    let (orphans, unreadable) = match intents.orphans() {
        Ok(found) => found,
        Err(error) => return vec![error.to_string()],
    };
    let mut said: Vec<String> = unreadable.iter().map(ToString::to_string).collect();
    for intent in orphans.into_iter().filter(|intent| intent.file.kind == KIND) {
        let before = match serde_json::from_value::<Before>(intent.file.before.clone()) {
            Ok(before) => before,
            Err(error) => {
                said.push(format!("an intent cannot be understood and is left: {error}"));
                continue;
            }
        };
        // A reboot puts every setting back by itself.
        let wrong = match intent.file.is_of_this_boot() {
            true => put_back(client, &before).await,
            false => Vec::new(),
        };
        if wrong.is_empty() {
            let (uuid, written) = (&before.uuid, &intent.file.written);
            said.push(format!("settings of {uuid} from {written} were put back"));
            if let Err(error) = intent.remove() {
                said.push(error.to_string());
            }
        } else {
            said.extend(wrong);
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::facts::Power;

    fn gpu() -> Gpu {
        Gpu {
            uuid: Some("GPU-1".into()),
            power: Power { limit_w: Some(300.0), ..Power::default() },
            persistence: Some(true),
            compute_mode: Some(ComputeMode::Default),
            ..Gpu::default()
        }
    }

    #[test]
    fn only_what_differs_is_changed_and_only_that_is_put_back() {
        let settings = Settings {
            lock_clocks_mhz: Some((1410, 1410)),
            power_limit_mw: Some(250_000),
            persistence: Some(true),
            ..Settings::default()
        };
        let changes = changes(&settings, &gpu());
        assert_eq!(
            changes,
            [
                Change::PowerLimit { milliwatts: 250_000 },
                Change::LockGpuClocks { min_mhz: 1410, max_mhz: 1410 },
            ]
        );
        let before = before("GPU-1", &gpu(), &changes);
        assert_eq!(
            undo(&before),
            [Change::ResetGpuClocks, Change::PowerLimit { milliwatts: 300_000 }]
        );
    }

    #[test]
    fn a_card_that_does_not_obey_is_found_out() {
        let change = Change::PowerLimit { milliwatts: 250_000 };
        let said = differs(change, &gpu()).unwrap();
        assert!(said.contains("250 W") && said.contains("300 W"), "{said}");
        assert_eq!(differs(Change::PowerLimit { milliwatts: 300_000 }, &gpu()), None);
        assert_eq!(differs(Change::Persistence { on: true }, &Gpu::default()), None);
    }
}
