//! Marks that the GPUs and the host give a phase.

use crate::run::gpu::{Placement, THROTTLED, throttle_names};
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
            let held = throttle_names(THROTTLED);
            let reasons: Vec<String> = gpu
                .throttle_shares
                .iter()
                .filter(|(name, _)| held.contains(name))
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
    for gpu in phase.gpus.iter().filter(|gpu| gpu.samples > 0 && gpu.energy.is_none()) {
        let text = format!("{}: neither its counter nor its power covers the phase", gpu.uuid);
        found.push((MarkCode::EnergyUncertain, text));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::wire_name;
    use crate::run::gpu::{ForeignProcess, Gap, Xid};
    use crate::run::gpu_phase::{Energy, EnergySource, GpuFigures};
    use crate::run::host::PhaseHost;
    use crate::stats::fixture::facts;

    const SECOND: i64 = 1_000_000_000;

    fn calm() -> GpuFigures {
        GpuFigures {
            uuid: "GPU-1".into(),
            samples: 40,
            largest_gap_ms: Some(130.0),
            throttled_share: Some(0.0),
            energy: Some(Energy {
                joules: 800.0,
                source: EnergySource::Counter,
                largest_gap_ms: Some(50.0),
                valid: true,
                note: None,
            }),
            ..GpuFigures::default()
        }
    }

    fn phase(gpu: GpuFigures) -> PhaseGpu {
        let format = crate::run::FORMAT;
        PhaseGpu { format, gpus: vec![gpu], foreign: vec![], xids: vec![], gaps: vec![] }
    }

    /// The marks of a phase of 4 s, as `code: detail`.
    fn of(gpu: Option<PhaseGpu>, other_cores: Option<f64>) -> Vec<String> {
        let mut data = PhaseData::new(facts("p", 1, [0, 0, 4000, 4000]), Vec::new());
        data.host = other_cores.map(|cores| PhaseHost {
            format: crate::run::FORMAT,
            samples: 3,
            cpus: 8,
            busy_cores: None,
            engine_cores: None,
            client_cores: None,
            sweepd_cores: None,
            beside_cores: None,
            other_cores: Some(cores),
            memory_available_min_bytes: None,
            swap_used_max_bytes: None,
            swap_grown_bytes: None,
            load_1min_max: None,
            disk_read_bytes: None,
            disk_written_bytes: None,
        });
        let trial = gpu.as_ref().and_then(|gpu| GpuTrial::of(gpu, None));
        data.gpu = gpu;
        let found = noticed(&data, trial.as_ref());
        found.iter().map(|(code, detail)| format!("{}: {detail}", wire_name(code))).collect()
    }

    fn stranger(first_seen: MonoNs) -> PhaseGpu {
        let process = ForeignProcess {
            gpu: "GPU-1".into(),
            pid: 4242,
            user: Some("eve".into()),
            command: Some("train".into()),
            memory_bytes: None,
            first_seen,
            last_seen: first_seen.plus(std::time::Duration::from_secs(1)),
        };
        PhaseGpu { foreign: vec![process], ..phase(calm()) }
    }

    #[test]
    fn a_calm_phase_has_no_mark() {
        assert_eq!(of(Some(phase(calm())), Some(0.7)), [""; 0]);
        assert_eq!(of(None, None), [""; 0]);
    }

    #[test]
    fn a_stranger_is_named_with_pid_and_time() {
        let began = facts("p", 1, [0, 0, 4000, 4000]).started;
        let late = of(Some(stranger(MonoNs::new(began.get() + 5 * SECOND / 2))), None);
        assert_eq!(late, ["tainted: pid 4242 (eve, train) was on GPU-1 from second 2.5"]);
        let before = of(Some(stranger(MonoNs::new(began.get() - SECOND))), None);
        assert!(before[0].ends_with("from before the phase"), "{before:?}");
    }

    #[test]
    fn heat_is_told_with_its_share_and_idling_is_not_heat() {
        let shares = [("gpu_idle", 0.5), ("sw_thermal_slowdown", 0.25), ("sw_power_cap", 0.1)];
        let hot = GpuFigures {
            throttled_share: Some(0.3),
            throttle_shares: shares.map(|(name, share)| (name.to_owned(), share)).into(),
            temperature_max_c: Some(91),
            ..calm()
        };
        assert_eq!(
            of(Some(phase(hot)), None),
            [
                "throttled: 30 % of the phase on GPU-1: sw_power_cap 10 %, sw_thermal_slowdown 25 %, at most 91 C"
            ]
        );
        let rarely = GpuFigures { throttled_share: Some(0.005), ..calm() };
        assert_eq!(of(Some(phase(rarely)), None), [""; 0]);
    }

    #[test]
    fn errors_gaps_and_uncertain_energy_are_told() {
        let xids = vec![Xid { gpu: "GPU-1".into(), at: MonoNs::new(0), code: Some(63) }];
        let gap = Gap { from: MonoNs::new(0), to: MonoNs::new(1), why: "stuck".into() };
        let energy = Energy {
            joules: 1.0,
            source: EnergySource::IntegratedPower,
            largest_gap_ms: Some(3000.0),
            valid: false,
            note: Some("no power was read for 3000 ms".into()),
        };
        let figures = GpuFigures { largest_gap_ms: Some(3000.0), energy: Some(energy), ..calm() };
        let got = of(Some(PhaseGpu { xids, gaps: vec![gap], ..phase(figures) }), None);
        assert_eq!(
            got,
            [
                "xid: XID 63 on GPU-1",
                "energy_uncertain: GPU-1: no power was read for 3000 ms",
                "gpu_telemetry_gap: no samples for 3.0 s: stuck",
            ]
        );
        let silent = GpuFigures { samples: 0, ..calm() };
        assert_eq!(of(Some(phase(silent)), None), ["gpu_telemetry_gap: not one sample"]);
    }

    #[test]
    fn a_neighbour_is_busy_above_a_tenth_of_the_machine() {
        assert_eq!(of(None, Some(0.9)), ["busy_neighbour: 0.9 of 8 cores went to other processes"]);
    }
}
