//! After an attempt: the GPUs are seen to be as they were before, settings are put back, leases end.

use super::belongs::{Belongs, belongs};
use super::clean::{bytes_of_others, card_errors, left};
use super::isolate::Isolated;
use super::settings;
use super::watch::Seen;
use crate::clock;
use crate::gpu::facts::{Gpu, Temperature};
use crate::gpu::lease::Quarantine;
use crate::run::FORMAT;
use crate::run::gpu::{AttemptGpu, OwnedGpu};
use crate::units::MonoNs;
use std::path::PathBuf;
use std::time::Duration;

const LOOK: Duration = Duration::from_millis(250);

/// What an attempt's GPUs came to.
#[derive(Debug)]
pub(crate) struct Released {
    pub(crate) facts: AttemptGpu,
    /// For the attempt's timeline.
    pub(crate) notes: Vec<(MonoNs, String)>,
    /// Samples of the whole attempt.
    pub(crate) frames: PathBuf,
    /// Memory that was not the engine's.
    pub(crate) bytes_of_others: Option<u64>,
}

impl Isolated {
    /// Gives everything back. `launched`: an engine may have been on the GPUs. `survivors`: processes
    /// of it that live on; their GPUs are not free, whatever the driver says.
    pub(crate) async fn release(mut self, launched: bool, survivors: Option<String>) -> Released {
        let watch = self.watch.take();
        let mut seen = match watch {
            Some(watch) => watch.stop().await,
            None => Seen::default(),
        };
        let (after, mut not_released) = self.see_clean(launched).await;
        if let Some(survivors) = survivors {
            not_released = Some(format!("SIGKILL did not end {survivors}"));
        }
        let is_own = |uuid: &str| self.leases.iter().any(|lease| lease.uuid == uuid);
        not_released = not_released.or_else(|| card_errors(&seen.xids, is_own));
        if let Some(lost) = &seen.lost {
            not_released = Some(lost.clone());
        }
        let not_restored =
            settings::restore(&mut self.client, std::mem::take(&mut self.held)).await;
        let mut notes = std::mem::take(&mut self.notes);
        notes.append(&mut seen.notes);
        notes.extend(not_restored.iter().map(|text| (clock::now(), text.clone())));
        if let Some(diagnosis) = &not_released {
            notes.push((clock::now(), format!("not given back: {diagnosis}")));
            self.quarantine(diagnosis, &mut notes);
        }
        let bytes_of_others = bytes_of_others(&self.before, &seen.foreign);
        let facts = self.facts(&seen, &after, not_released, not_restored);
        // The leases end here: the guard, if it still lives, keeps its own descriptors of them.
        Released { facts, notes, frames: self.frames, bytes_of_others }
    }

    /// Waits for the GPUs to be as they were; what is left after the deadline.
    async fn see_clean(&mut self, launched: bool) -> (Vec<Gpu>, Option<String>) {
        let uuids: Vec<String> = self.leases.iter().map(|lease| lease.uuid.clone()).collect();
        let until = clock::now().plus(self.plan.clean_within);
        loop {
            let now = match self.client.inspect(&uuids).await {
                Ok(now) => now,
                Err(fault) => {
                    let why = format!("it cannot be seen whether the GPU is free: {fault}");
                    return (Vec::new(), launched.then_some(why));
                }
            };
            let is_ours = |pid: u32| belongs(pid, &self.marker) == Belongs::Ours;
            let left: Vec<String> = self
                .before
                .iter()
                .zip(&now)
                .flat_map(|(before, now)| {
                    let uuid = before.uuid.as_deref().unwrap_or("GPU");
                    left(before, now, is_ours)
                        .into_iter()
                        .map(move |text| format!("{uuid}: {text}"))
                })
                .collect();
            if left.is_empty() || !launched {
                return (now, None);
            }
            let never = now.iter().any(|gpu| gpu.error.is_some());
            if never || clock::now() >= until {
                return (now, Some(left.join("; ")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn quarantine(&self, diagnosis: &str, notes: &mut Vec<(MonoNs, String)>) {
        let leases = self.machine.leases();
        let why = Quarantine {
            since: clock::wall_time(),
            run: self.holder.run.clone(),
            trial: self.holder.trial.clone(),
            diagnosis: diagnosis.to_owned(),
        };
        let blamed = |uuid: &&str| diagnosis.contains(*uuid) || !diagnosis.contains("GPU-");
        for uuid in self.leases.iter().map(|lease| lease.uuid.as_str()).filter(blamed) {
            match leases.quarantine(uuid, &why) {
                Ok(()) => notes.push((clock::now(), format!("{uuid} is quarantined"))),
                Err(error) => {
                    notes.push((clock::now(), format!("{uuid} cannot be quarantined: {error}")));
                }
            }
        }
    }

    fn facts(
        &self,
        seen: &Seen,
        after: &[Gpu],
        not_released: Option<String>,
        not_restored: Vec<String>,
    ) -> AttemptGpu {
        let owned = |(place, before): (usize, &Gpu)| OwnedGpu {
            card: before.name.as_deref().and_then(|name| self.machine.cards.find(name)).cloned(),
            ..owned(before, after.get(place))
        };
        AttemptGpu {
            format: FORMAT,
            driver_version: self.driver_version.clone(),
            gpus: self.before.iter().enumerate().map(owned).collect(),
            pin: self.pin().to_vec(),
            settings: self.settings.clone(),
            placement: seen.placement(self.leases.len()),
            foreign: seen.foreign.clone(),
            xids: seen.xids.clone(),
            lost: seen.lost.clone(),
            gaps: seen.gaps.clone(),
            not_released,
            not_restored,
        }
    }
}

/// The driver lowers clocks above the highest operating temperature, the hardware at its own threshold.
fn slows_at(told: &Temperature) -> Option<u32> {
    [told.gpu_max_c, told.slowdown_c].into_iter().flatten().min()
}

fn owned(before: &Gpu, after: Option<&Gpu>) -> OwnedGpu {
    OwnedGpu {
        uuid: before.uuid.clone().unwrap_or_default(),
        index: before.index,
        name: before.name.clone(),
        card: None,
        power_default_w: before.power.limit_default_w,
        power_limit_w: after.and_then(|after| after.power.limit_w).or(before.power.limit_w),
        slowdown_c: slows_at(&before.temperature),
        sm_clock_max_mhz: before.clocks.sm.max,
        memory_before_bytes: before.memory.used_bytes,
        memory_after_bytes: after.and_then(|after| after.memory.used_bytes),
        temperature_before_c: before.temperature.gpu_c,
        ecc_uncorrected_before: before.ecc.uncorrected,
        ecc_uncorrected_after: after.and_then(|after| after.ecc.uncorrected),
    }
}
