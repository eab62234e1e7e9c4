//! Whether a GPU is clean: what stands in the way of a launch, and what is left after a stop. Pure.

use crate::gpu::facts::{Gpu, Process};
use crate::run::gpu::{ForeignProcess, Xid};
use crate::sweep::gpu::{Foreign, GpuPlan};
use std::collections::BTreeSet;

/// Memory after a stop may differ by this much from before: a driver's own bookkeeping.
const TOLERANCE_BYTES: u64 = 64 << 20;

/// What kind of patience an obstacle deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Patience {
    /// For the owner of a foreign process: `wait`.
    Foreign,
    /// For memory to come back: `clean_within`.
    Memory,
    /// For the card to cool: `cool_within`.
    Warm,
    /// None: it does not go away by waiting.
    Never,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) patience: Patience,
    pub(super) text: String,
}

/// Before a launch. Nothing of the trial runs yet, so every compute process is foreign.
pub(super) fn obstacles(gpu: &Gpu, plan: &GpuPlan) -> Vec<Obstacle> {
    let uuid = gpu.uuid.as_deref().unwrap_or("GPU");
    let mut found = Vec::new();
    let mut add = |patience, text: String| {
        found.push(Obstacle { patience, text: format!("{uuid}: {text}") });
    };
    if let Some(fault) = &gpu.error {
        add(Patience::Never, format!("{fault}; {}", fault.advice()));
        return found;
    }
    if gpu.mig.is_some_and(|mig| mig.enabled) {
        add(Patience::Never, "MIG is on, and trials own whole GPUs: turn it off".to_owned());
    }
    if gpu.ecc.retirement_pending == Some(true) {
        add(Patience::Never, "memory pages wait for their retirement: reboot".to_owned());
    }
    if gpu.ecc.remapping_pending == Some(true) {
        let text = "memory rows wait to be remapped: reset the GPU (nvidia-smi -r) or reboot";
        add(Patience::Never, text.to_owned());
    }
    if gpu.ecc.remapping_failed == Some(true) {
        add(Patience::Never, "a memory row could not be remapped: replace the card".to_owned());
    }
    let foreign: Vec<&Process> = gpu.compute().into_iter().flatten().collect();
    if plan.foreign != Foreign::Taint {
        let patience = match plan.foreign {
            Foreign::Wait | Foreign::Taint => Patience::Foreign,
            Foreign::Refuse => Patience::Never,
        };
        for process in &foreign {
            add(patience, format!("{process} is on it"));
        }
    }
    // What a process holds goes with it; only what nobody holds is a leak.
    let unowned = unowned(gpu, &foreign);
    if let Some(bytes) = unowned.filter(|bytes| *bytes > plan.max_start_memory_bytes) {
        let (used, most) = (mib(bytes), mib(plan.max_start_memory_bytes));
        add(Patience::Memory, format!("{used} MiB are in use that no process holds, over {most}"));
    }
    match (gpu.temperature.gpu_c, plan.max_start_temperature_c) {
        (Some(now), Some(most)) if now > most => {
            add(Patience::Warm, format!("it has {now} C, over {most}"));
        }
        _ => {}
    }
    found
}

/// After a stop: what differs from before the launch. `is_ours`: the process belongs to the attempt.
pub(super) fn left(before: &Gpu, now: &Gpu, is_ours: impl Fn(u32) -> bool) -> Vec<String> {
    if let Some(fault) = &now.error {
        return vec![fault.to_string()];
    }
    let all: Vec<&Process> = now.compute().into_iter().flatten().collect();
    let ours = all.iter().filter(|process| is_ours(process.pid));
    let mut left: Vec<String> = ours.map(|process| format!("{process} is still on it")).collect();
    let had = before.compute().into_iter().flatten().collect::<Vec<_>>();
    let [then, now_unowned] = [unowned(before, &had), unowned(now, &all)];
    if let (Some(then), Some(now)) = (then, now_unowned)
        && now > then.saturating_add(TOLERANCE_BYTES)
    {
        left.push(format!("{} MiB are in use, and {} MiB were before", mib(now), mib(then)));
    }
    left.extend(memory_errors(before, now));
    left
}

/// Errors of its memory that came meanwhile. The card may go on; what ran on it is not to be trusted.
fn memory_errors(before: &Gpu, now: &Gpu) -> Option<String> {
    let grown = now.ecc.uncorrected?.checked_sub(before.ecc.uncorrected?)?;
    (grown > 0).then(|| format!("{grown} uncorrectable memory errors (ECC) came meanwhile"))
}

/// XIDs of the card or its driver, by NVIDIA's list: memory errors and remapping (48, 63, 64, 92, 94, 95,
/// 140), micro-controllers (62, 119, 120), NVLink (74), off the bus (79). The others an engine can cause.
const OF_THE_CARD: [u64; 12] = [48, 62, 63, 64, 74, 79, 92, 94, 95, 119, 120, 140];

/// Errors of the card that the driver told of meanwhile, each code once.
pub(super) fn card_errors(xids: &[Xid], own: impl Fn(&str) -> bool) -> Option<String> {
    let grave = |xid: &&Xid| own(&xid.gpu) && xid.code.is_some_and(|c| OF_THE_CARD.contains(&c));
    let text = |xid: &Xid| format!("{}: XID {}", xid.gpu, xid.code.unwrap_or_default());
    let told: BTreeSet<String> = xids.iter().filter(grave).map(text).collect();
    (!told.is_empty()).then(|| told.into_iter().collect::<Vec<_>>().join("; "))
}

/// Memory that was not the engine's: in use before the launch, or held by who came later.
pub(super) fn bytes_of_others(before: &[Gpu], came: &[ForeignProcess]) -> Option<u64> {
    let told: Vec<u64> = before.iter().filter_map(|gpu| gpu.memory.used_bytes).collect();
    let was_there = |pid: u32| {
        before.iter().filter_map(Gpu::compute).flatten().any(|process| process.pid == pid)
    };
    let later = came.iter().filter(|process| !was_there(process.pid));
    let later: u64 = later.filter_map(|process| process.memory_bytes).sum();
    (!told.is_empty()).then(|| told.iter().sum::<u64>() + later)
}

/// Memory in use that no listed process accounts for; `None` where the driver does not tell.
fn unowned(gpu: &Gpu, processes: &[&Process]) -> Option<u64> {
    let held: u64 = processes.iter().filter_map(|process| process.memory_bytes).sum();
    gpu.memory.used_bytes.map(|used| used.saturating_sub(held))
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::facts::{Ecc, Memory, Mig, ProcessKind, Temperature};
    use crate::units::MonoNs;

    fn gpu(used_mib: u64, pids: &[(u32, u64)]) -> Gpu {
        let process = |(pid, mib): &(u32, u64)| Process {
            pid: *pid,
            kind: ProcessKind::Compute,
            memory_bytes: Some(mib << 20),
            user: Some("eve".into()),
            command: Some("train".into()),
        };
        Gpu {
            uuid: Some("GPU-1".into()),
            memory: Memory { used_bytes: Some(used_mib << 20), ..Memory::default() },
            temperature: Temperature { gpu_c: Some(60), ..Temperature::default() },
            processes: Some(pids.iter().map(process).collect()),
            ..Gpu::default()
        }
    }

    #[track_caller]
    fn check(gpu: &Gpu, plan: &GpuPlan, expected: &[(Patience, &str)]) {
        let got = obstacles(gpu, plan);
        assert_eq!(got.len(), expected.len(), "{got:?}");
        for (got, (patience, word)) in got.iter().zip(expected) {
            assert_eq!(got.patience, *patience, "{got:?}");
            assert!(got.text.contains(word) && got.text.starts_with("GPU-1"), "{got:?}");
        }
    }

    #[test]
    fn each_obstacle_has_its_patience() {
        let plan = GpuPlan::default();
        check(&gpu(300, &[]), &plan, &[]);
        check(&gpu(2000, &[]), &plan, &[(Patience::Memory, "2000 MiB")]);
        let busy = gpu(9000, &[(7, 8900)]);
        check(&busy, &plan, &[(Patience::Foreign, "pid 7 (eve, train)")]);
        let refuse = GpuPlan { foreign: Foreign::Refuse, ..plan.clone() };
        check(&busy, &refuse, &[(Patience::Never, "pid 7")]);
        check(&busy, &GpuPlan { foreign: Foreign::Taint, ..plan.clone() }, &[]);
        let cool = GpuPlan { max_start_temperature_c: Some(50), ..plan.clone() };
        check(&gpu(0, &[]), &cool, &[(Patience::Warm, "60 C")]);
        let ecc = |ecc: Ecc| Gpu { ecc, ..gpu(0, &[]) };
        let rows = Ecc { remapping_pending: Some(true), ..Ecc::default() };
        check(&ecc(rows), &plan, &[(Patience::Never, "reset the GPU")]);
        let worn = Ecc { remapping_failed: Some(true), ..Ecc::default() };
        check(&ecc(worn), &plan, &[(Patience::Never, "replace the card")]);
        let mig = Some(Mig { enabled: true, enabled_after_reset: true });
        check(&Gpu { mig, ..gpu(0, &[]) }, &plan, &[(Patience::Never, "MIG")]);
    }

    #[test]
    fn what_the_driver_does_not_tell_stands_in_no_way() {
        let silent = Gpu { uuid: Some("GPU-1".into()), ..Gpu::default() };
        let cool = GpuPlan { max_start_temperature_c: Some(50), ..GpuPlan::default() };
        check(&silent, &cool, &[]);
        assert!(left(&silent, &silent, |_| true).is_empty());
    }

    #[test]
    fn memory_that_did_not_come_back_is_left_and_a_strangers_is_not() {
        let before = gpu(300, &[]);
        assert!(left(&before, &gpu(310, &[]), |_| false).is_empty());
        let [leak] = &left(&before, &gpu(9300, &[]), |_| false)[..] else { panic!() };
        assert!(leak.contains("9300 MiB") && leak.contains("300 MiB"), "{leak}");
        let stranger = gpu(9300, &[(7, 9000)]);
        assert!(left(&before, &stranger, |_| false).is_empty());
        let [still] = &left(&before, &stranger, |pid| pid == 7)[..] else { panic!() };
        assert!(still.contains("pid 7"), "{still}");
    }

    #[test]
    fn memory_errors_that_came_meanwhile_are_left() {
        let counted =
            |uncorrected| Gpu { ecc: Ecc { uncorrected, ..Ecc::default() }, ..gpu(300, &[]) };
        let left = |then, now| left(&counted(then), &counted(now), |_| false);
        assert!(left(Some(2), Some(2)).is_empty() && left(None, Some(2)).is_empty());
        let [errors] = &left(Some(2), Some(5))[..] else { panic!() };
        assert!(errors.starts_with("3 uncorrectable"), "{errors}");
    }

    #[test]
    fn errors_of_the_card_are_told_and_those_of_the_engine_are_not() {
        let xid = |gpu: &str, code| Xid { gpu: gpu.into(), at: MonoNs::new(0), code };
        let own = |gpu: &str| gpu == "GPU-1";
        let seen = [xid("GPU-1", Some(31)), xid("GPU-2", Some(79)), xid("GPU-1", None)];
        assert_eq!(card_errors(&seen, own), None);
        let seen = [xid("GPU-1", Some(63)), xid("GPU-1", Some(63)), xid("GPU-1", Some(94))];
        assert_eq!(card_errors(&seen, own).unwrap(), "GPU-1: XID 63; GPU-1: XID 94");
    }

    #[test]
    fn others_hold_what_was_in_use_before_and_what_came_later() {
        let process = |pid: u32, mib: u64| ForeignProcess {
            gpu: "GPU-1".into(),
            pid,
            user: None,
            command: None,
            memory_bytes: Some(mib << 20),
            first_seen: MonoNs::new(0),
            last_seen: MonoNs::new(1),
        };
        let before = [gpu(9000, &[(7, 8900)])];
        let came = [process(7, 8900), process(8, 100)];
        assert_eq!(bytes_of_others(&before, &came), Some(9100 << 20));
        assert_eq!(bytes_of_others(&[Gpu::default()], &came), None);
    }
}
