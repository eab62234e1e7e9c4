//! Energy of a phase: from the card's counter, or as the sum of power over time. Pure.
//!
//! The counter is right whatever the sampling rate; between two readings it is taken to grow evenly.
//! Power has to be sampled densely, and the average of the last second says nothing exact about a
//! short phase. Invariant: a figure that cannot be trusted is marked invalid and keeps its reason.

use crate::run::gpu::GpuSample;
use crate::run::gpu_phase::{Energy, EnergySource, PowerSource};
use crate::units::{MonoNs, ns_to_ms};

/// An edge of the phase should have a reading this near, and power a sample this often.
const LARGEST_GAP_MS: f64 = 1000.0;
/// A one-second average is late by about half a second at both edges: 5 % of this.
const SHORTEST_AVERAGED_MS: f64 = 10_000.0;

/// The span that is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) from: MonoNs,
    pub(crate) to: MonoNs,
}

impl Span {
    pub(crate) fn holds(self, at: MonoNs) -> bool {
        self.from <= at && at <= self.to
    }

    fn milliseconds(self) -> f64 {
        ns_to_ms(self.to.since_ns(self.from))
    }
}

/// `samples`: of one GPU, in order, also from before and after the span.
pub(crate) fn energy(samples: &[&GpuSample], span: Span) -> Option<Energy> {
    counter(samples, span).or_else(|| integrated(samples, span))
}

/// The source of power that a span's figures are made from: the most exact that there is.
pub(crate) fn source(samples: &[&GpuSample]) -> Option<PowerSource> {
    let any = |source| samples.iter().any(|sample| milliwatts(sample, source).is_some());
    [PowerSource::Instant, PowerSource::Usage, PowerSource::Average]
        .into_iter()
        .find(|source| any(*source))
}

pub(crate) fn milliwatts(sample: &GpuSample, source: PowerSource) -> Option<u32> {
    match source {
        PowerSource::Instant => sample.power_instant_mw,
        PowerSource::Usage => sample.power_usage_mw,
        PowerSource::Average => sample.power_average_mw,
    }
}

/// A growing quantity at known times.
type Curve = Vec<(MonoNs, f64)>;

fn counter(samples: &[&GpuSample], span: Span) -> Option<Energy> {
    let power = power_curve(samples);
    let mut curve: Curve = Vec::new();
    let mut bridged = 0_u32;
    let mut last: Option<(MonoNs, u64)> = None;
    let mut sum = 0.0;
    for sample in samples {
        let Some(now) = sample.energy_mj else { continue };
        if let Some((at, before)) = last {
            sum += match now.checked_sub(before) {
                Some(grown) => crate::units::count_f64(grown) / 1e3,
                // It began again: for this one step power has to do.
                None => {
                    bridged += u32::from(sample.at > span.from && at < span.to);
                    let step = Span { from: at, to: sample.at };
                    power.as_ref().and_then(|(_, power)| area(power, step))?
                }
            };
        }
        curve.push((sample.at, sum));
        last = Some((sample.at, now));
    }
    let joules = value_at(&curve, span.to)? - value_at(&curve, span.from)?;
    let gap = edge_gap_ms(&curve, span.from).max(edge_gap_ms(&curve, span.to));
    let far = (gap > LARGEST_GAP_MS)
        .then(|| format!("the counter was not read for {gap:.0} ms at an edge of the phase"));
    let note = far.clone().or_else(|| {
        (bridged > 0).then(|| format!("the counter began again {bridged} times; bridged by power"))
    });
    let source = EnergySource::Counter;
    Some(Energy { joules, source, largest_gap_ms: Some(gap), valid: far.is_none(), note })
}

/// The sum of power over time, whatever the counter says.
pub(crate) fn integrated(samples: &[&GpuSample], span: Span) -> Option<Energy> {
    let (power, curve) = power_curve(samples)?;
    let joules = area(&curve, span)?;
    let gap = largest_gap_ms(curve.iter().map(|(at, _)| *at), span);
    let note = if gap > LARGEST_GAP_MS {
        Some(format!("no power was read for {gap:.0} ms"))
    } else if power != PowerSource::Instant && span.milliseconds() < SHORTEST_AVERAGED_MS {
        let seconds = span.milliseconds() / 1e3;
        Some(format!(
            "power is the average of the last second, and the phase lasted {seconds:.1} s of the 10 s that \
             takes"
        ))
    } else {
        None
    };
    let source = EnergySource::IntegratedPower;
    Some(Energy { joules, source, largest_gap_ms: Some(gap), valid: note.is_none(), note })
}

fn power_curve(samples: &[&GpuSample]) -> Option<(PowerSource, Curve)> {
    let source = source(samples)?;
    let point =
        |sample: &&GpuSample| Some((sample.at, f64::from(milliwatts(sample, source)?) / 1e3));
    Some((source, samples.iter().filter_map(point).collect()))
}

/// Straight between two points; `None` outside of them.
fn value_at(curve: &Curve, at: MonoNs) -> Option<f64> {
    let after = curve.iter().position(|(time, _)| *time >= at)?;
    let (to, end) = curve.get(after)?;
    if *to == at {
        return Some(*end);
    }
    let (from, begin) = curve.get(after.checked_sub(1)?)?;
    let share = ns_to_ms(at.since_ns(*from)) / ns_to_ms(to.since_ns(*from));
    Some(begin + (end - begin) * share)
}

/// Watts over time in joules, by trapezoids; `None` where the span is not covered.
fn area(curve: &Curve, span: Span) -> Option<f64> {
    let mut points = vec![(span.from, value_at(curve, span.from)?)];
    points.extend(curve.iter().filter(|(at, _)| span.from < *at && *at < span.to));
    points.push((span.to, value_at(curve, span.to)?));
    let trapezoid = |pair: &[(MonoNs, f64)]| match pair {
        [(from, begin), (to, end)] => (begin + end) / 2.0 * ns_to_ms(to.since_ns(*from)) / 1e3,
        _ => 0.0,
    };
    Some(points.windows(2).map(trapezoid).sum())
}

/// The step in which the edge lies.
fn edge_gap_ms(curve: &Curve, edge: MonoNs) -> f64 {
    let after = curve.iter().find(|(at, _)| *at >= edge).map(|(at, _)| *at);
    let before = curve.iter().rev().find(|(at, _)| *at <= edge).map(|(at, _)| *at);
    match (before, after) {
        (Some(before), Some(after)) => ns_to_ms(after.since_ns(before)),
        _ => f64::INFINITY,
    }
}

/// The longest time without a point, the span's edges included.
pub(crate) fn largest_gap_ms(times: impl Iterator<Item = MonoNs>, span: Span) -> f64 {
    let mut last = span.from;
    let mut largest = 0.0_f64;
    for at in times.filter(|at| span.holds(*at)).chain([span.to]) {
        largest = largest.max(ns_to_ms(at.since_ns(last)));
        last = at;
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn sample(at_ms: i64) -> GpuSample {
        GpuSample::at(MonoNs::new(at_ms * 1_000_000))
    }

    /// 100 W rising by 10 W a second, sampled ten times a second from second 0 to 30.
    fn ramp(counter_of: impl Fn(f64) -> Option<u64>, instant: bool) -> Vec<GpuSample> {
        let one = |tick: i64| {
            let seconds = ns_to_ms(tick * 100_000_000) / 1e3;
            let milliwatts = u32::try_from(100_000 + tick * 1000).unwrap();
            GpuSample {
                power_usage_mw: Some(milliwatts),
                power_instant_mw: instant.then_some(milliwatts),
                energy_mj: counter_of(seconds),
                ..sample(tick * 100)
            }
        };
        (0..=300).map(one).collect()
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a test's own numbers"
    )]
    fn exact_mj(seconds: f64) -> u64 {
        ((100.0 * seconds + 5.0 * seconds * seconds) * 1e3).round() as u64
    }

    fn span(from_ms: i64, to_ms: i64) -> Span {
        let at = |ms: i64| MonoNs::new(ms * (SECOND / 1000));
        Span { from: at(from_ms), to: at(to_ms) }
    }

    #[track_caller]
    fn of(samples: &[GpuSample], span: Span) -> Energy {
        energy(&samples.iter().collect::<Vec<_>>(), span).unwrap()
    }

    #[track_caller]
    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() <= expected * 1e-3, "{got} J, expected {expected}");
    }

    #[test]
    fn counter_and_integral_agree_between_samples_too() {
        let samples = ramp(|seconds| Some(exact_mj(seconds)), true);
        let exact = |from: f64, to: f64| 100.0 * (to - from) + 5.0 * (to * to - from * from);
        for (from, to) in [(5_000, 15_000), (5_033, 5_777), (0, 30_000)] {
            let span = span(from, to);
            let expected = exact(ns_to_ms(from * 1_000_000) / 1e3, ns_to_ms(to * 1_000_000) / 1e3);
            let counted = of(&samples, span);
            near(counted.joules, expected);
            assert_eq!((counted.source, counted.valid), (EnergySource::Counter, true));
            let summed = integrated(&samples.iter().collect::<Vec<_>>(), span).unwrap();
            near(summed.joules, expected);
            assert!(summed.valid);
        }
    }

    #[test]
    fn a_counter_that_begins_again_is_bridged_and_told() {
        let wrapped = ramp(|seconds| Some(exact_mj(seconds) % 500_000), true);
        let got = of(&wrapped, span(2_000, 19_500));
        near(got.joules, 100.0 * 17.5 + 5.0 * (19.5 * 19.5 - 4.0));
        assert!(got.valid && got.note.unwrap().contains("began again 7 times"));
    }

    #[test]
    fn without_a_counter_a_short_phase_of_averaged_power_is_not_valid() {
        let averaged = ramp(|_| None, false);
        let short = of(&averaged, span(1_000, 9_000));
        assert_eq!((short.source, short.valid), (EnergySource::IntegratedPower, false));
        assert!(short.note.unwrap().contains("8.0 s"));
        assert!(of(&averaged, span(1_000, 12_000)).valid);
        assert!(of(&ramp(|_| None, true), span(1_000, 3_000)).valid);
    }

    #[test]
    fn a_gap_in_the_samples_is_told() {
        let holed = |counter: bool| {
            let all = ramp(|seconds| counter.then(|| exact_mj(seconds)), true);
            all.into_iter().filter(|s| !(7_000..12_000).contains(&(s.at.get() / 1_000_000)))
        };
        let integrated: Vec<_> = holed(false).collect();
        let gap = of(&integrated, span(2_000, 20_000));
        assert_eq!((gap.valid, gap.largest_gap_ms), (false, Some(5_100.0)));
        // The counter knows what happened meanwhile, but not when: an edge in the gap is a guess.
        let counted: Vec<_> = holed(true).collect();
        assert!(of(&counted, span(2_000, 20_000)).valid);
        assert!(!of(&counted, span(9_000, 20_000)).valid);
    }

    #[test]
    fn nothing_is_said_about_a_span_that_is_not_covered() {
        let samples = ramp(|seconds| Some(exact_mj(seconds)), true);
        assert_eq!(energy(&samples.iter().collect::<Vec<_>>(), span(20_000, 40_000)), None);
        assert_eq!(energy(&[], span(0, 1)), None);
    }
}
