//! Marks that the GPUs and the host give a phase.

use crate::run::gpu::Placement;
use crate::run::gpu_phase::PhaseGpu;
use crate::stats::data::PhaseData;
use crate::stats::gpu::{GpuTrial, notes};
use crate::stats::marks::MarkCode;
use crate::units::{MonoNs, ns_to_ms};

/// More throttled samples than this.
pub(crate) const THROTTLED_LIMIT: f64 = 0.01;
/// A longer time without a sample, in seconds.
const GAP_LIMIT_S: f64 = 2.0;

type Found = (MarkCode, String);

/// Everything that GPUs and host say about a phase.
pub(super) fn noticed(data: &PhaseData, trial: Option<&GpuTrial>) -> Vec<Found> {
    let mut found = match &data.gpu {
        Some(gpu) => about_gpus(gpu, trial, data.facts.started),
        None => Vec::new(),
    };
    if let Some(host) = data.host.as_ref().filter(|host| host.has_busy_neighbour()) {
        let others = host.other_cores.unwrap_or(0.0);
        let text = format!("{others:.1} of {} cores went to other processes", host.cpus);
        found.push((MarkCode::BusyNeighbour, text));
    }
    found
}

/// `began`: when the phase's first request was due.
fn about_gpus(phase: &PhaseGpu, trial: Option<&GpuTrial>, began: MonoNs) -> Vec<Found> {
    let mut found = Vec::new();
    for process in &phase.foreign {
        let second = ns_to_ms(process.first_seen.since_ns(began)) / 1e3;
        let when = if second <= 0.0 {
            "from before the phase".to_owned()
        } else {
            format!("from second {second:.1}")
        };
        let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "unknown".to_owned());
        found.push((
            MarkCode::Tainted,
            format!(
                "pid {} ({}, {}) was on {} {when}",
                process.pid,
                word(&process.user),
                word(&process.command),
                process.gpu
            ),
        ));
    }
    for gpu in &phase.gpus {
        if let Some(share) = gpu.throttled_share.filter(|share| *share > THROTTLED_LIMIT) {
            let idle = "gpu_idle";
            let reasons: Vec<String> = gpu
                .throttle_shares
                .iter()
                .filter(|(name, _)| *name != idle && *name != "applications_clocks_setting")
                .map(|(name, share)| format!("{name} {:.0} %", share * 100.0))
                .collect();
            let hot = gpu.temperature_max_c.map_or(String::new(), |c| format!(", at most {c} C"));
            let text = format!(
                "{:.0} % of the phase on {}: {}{hot}",
                share * 100.0,
                gpu.uuid,
                reasons.join(", ")
            );
            found.push((MarkCode::Throttled, text));
        }
    }
    for xid in &phase.xids {
        let code = xid.code.map_or("of an unknown number".to_owned(), |code| code.to_string());
        found.push((MarkCode::Xid, format!("XID {code} on {}", xid.gpu)));
    }
    for (uuid, energy) in notes(phase) {
        let note = energy.note.clone().unwrap_or_default();
        found.push((MarkCode::EnergyUncertain, format!("{uuid}: {note}")));
    }
    let gap = phase.gpus.iter().filter_map(|gpu| gpu.largest_gap_ms).fold(0.0_f64, f64::max) / 1e3;
    if gap > GAP_LIMIT_S && trial.is_some() {
        let why = phase.gaps.first().map_or(String::new(), |gap| format!(": {}", gap.why));
        found.push((MarkCode::GpuTelemetryGap, format!("no samples for {gap:.1} s{why}")));
    }
    if trial.is_none() {
        let why = phase.gaps.first().map_or(String::new(), |gap| format!(": {}", gap.why));
        found.push((MarkCode::GpuTelemetryGap, format!("not one sample{why}")));
    }
    found
}

/// Where the engine really was.
pub(super) fn about_placement(placement: Placement) -> Option<Found> {
    let text = match placement {
        Placement::Verified => return None,
        Placement::NotSeen => "no process of the engine was seen on its GPU",
        Placement::Elsewhere => "the engine was on a GPU that is not its own",
        Placement::Unverifiable => {
            "the driver's process list does not tell (in a container it cannot), so nobody knows who else was on the GPU"
        }
    };
    Some((MarkCode::GpuNotVerified, text.to_owned()))
}
