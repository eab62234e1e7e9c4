//! From samples of the host to a phase's figures. Pure.

use crate::run::host::{HostSample, PhaseHost};
use crate::run::phase::PhaseFacts;
use crate::units::ns_to_ms;

/// `None` where the phase holds no sample: it was shorter than a second or two.
pub(crate) fn of_phase(samples: &[HostSample], facts: &PhaseFacts, cpus: u64) -> Option<PhaseHost> {
    let inside: Vec<&HostSample> = samples
        .iter()
        .filter(|sample| facts.started <= sample.at && sample.at <= facts.ended)
        .collect();
    let before = std::iter::once(facts.started).chain(inside.iter().map(|sample| sample.at));
    let spans: Vec<i64> =
        before.zip(&inside).map(|(from, sample)| sample.at.since_ns(from)).collect();
    // Each sample stands for the time since the one before it.
    let over = |value: fn(&HostSample) -> Option<f64>| {
        let known =
            inside.iter().zip(&spans).filter_map(|(s, span)| Some((value(s)?, ns_to_ms(*span))));
        let (sum, whole) =
            known.fold((0.0, 0.0), |(sum, whole), (v, ms)| (sum + v * ms, whole + ms));
        (whole > 0.0).then(|| sum / whole)
    };
    let sum = |value: fn(&HostSample) -> Option<u64>| -> Option<u64> {
        let values: Vec<u64> = inside.iter().filter_map(|sample| value(sample)).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    };
    let swap = |sample: Option<&&HostSample>| i64::try_from(sample?.swap_used_bytes?).ok();
    let (first, last) = (swap(inside.first()), swap(inside.last()));
    let other = |sample: &HostSample| {
        let own = sample.engine_cores? + sample.client_cores? + sample.sweepd_cores?;
        let known = own + sample.beside_cores.unwrap_or(0.0);
        // The readings are not of one instant.
        Some((sample.busy_cores? - known).max(0.0))
    };
    (!inside.is_empty()).then(|| PhaseHost {
        format: crate::run::FORMAT,
        samples: u64::try_from(inside.len()).unwrap_or(u64::MAX),
        cpus,
        busy_cores: over(|sample| sample.busy_cores),
        engine_cores: over(|sample| sample.engine_cores),
        client_cores: over(|sample| sample.client_cores),
        sweepd_cores: over(|sample| sample.sweepd_cores),
        beside_cores: over(|sample| sample.beside_cores),
        other_cores: over(other),
        memory_available_min_bytes: inside.iter().filter_map(|s| s.memory_available_bytes).min(),
        swap_used_max_bytes: inside.iter().filter_map(|s| s.swap_used_bytes).max(),
        swap_grown_bytes: first.zip(last).map(|(first, last)| last - first),
        load_1min_max: inside.iter().filter_map(|s| s.load_1min).reduce(f64::max),
        disk_read_bytes: sum(|sample| sample.disk_read_bytes),
        disk_written_bytes: sum(|sample| sample.disk_written_bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture::facts;
    use crate::units::MonoNs;

    fn sample(at_ms: i64, busy: f64, engine: f64) -> HostSample {
        HostSample {
            at: MonoNs::new(at_ms * 1_000_000),
            busy_cores: Some(busy),
            engine_cores: Some(engine),
            client_cores: Some(0.1),
            sweepd_cores: Some(0.0),
            beside_cores: Some(0.0),
            memory_available_bytes: Some(1 << 30),
            swap_used_bytes: Some(5),
            load_1min: Some(1.0),
            disk_read_bytes: Some(10),
            disk_written_bytes: None,
        }
    }

    #[test]
    fn what_is_not_ours_is_the_neighbours() {
        let facts = facts("p", 1, [0, 0, 4000, 4000]);
        let began = facts.started.get() / 1_000_000;
        let samples = [sample(began + 1000, 2.0, 1.5), sample(began + 2000, 4.0, 1.5)];
        let got = of_phase(&samples, &facts, 8).unwrap();
        assert!((got.other_cores.unwrap() - 1.4).abs() < 1e-9, "{got:?}");
        assert!(got.has_busy_neighbour());
        assert_eq!((got.disk_read_bytes, got.disk_written_bytes), (Some(20), None));
        let rested = [samples[0], sample(began + 4000, 4.0, 1.5)];
        let rested = of_phase(&rested, &facts, 8).unwrap();
        assert!((rested.busy_cores.unwrap() - (2.0 + 3.0 * 4.0) / 4.0).abs() < 1e-9, "{rested:?}");
        let quiet = of_phase(&samples[..1], &facts, 8).unwrap();
        assert!(!quiet.has_busy_neighbour());
        assert_eq!(of_phase(&[], &facts, 8), None);
        // A trial that runs beside this one is known, and told by a mark of its own.
        let beside = |sample: &HostSample| HostSample { beside_cores: Some(1.4), ..*sample };
        let got = of_phase(&samples.each_ref().map(beside), &facts, 8).unwrap();
        assert!(!got.has_busy_neighbour(), "{got:?}");
    }
}
