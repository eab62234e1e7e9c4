//! When the requests of an open loop are due.
//!
//! Pure: no clock, no I/O. The same seed yields the same offsets, so two engines meet identical
//! arrivals. Gaps are drawn with a mean of one and laid along the rate, whatever steps it takes;
//! they are never rescaled afterwards, for a process whose last arrival is fixed is not Poisson.
//!
//! Invariant: an offset never depends on how fast the engine answers. A slow engine must not slow
//! the clock it is measured by (coordinated omission).

use crate::seed::{Seed, Stream};
use crate::units::count_f64;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;
use std::time::Duration;

/// Arrivals of one phase at most: half a gigabyte of offsets is a mistake.
const MOST: usize = 50_000_000;

/// How the gaps between arrivals are spread about their mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Arrivals {
    Constant,
    Poisson,
    /// A gamma distribution of this shape: 1 is Poisson, less comes in bursts.
    Gamma {
        shape: f64,
    },
}

/// A rate that holds for so long, or that changes evenly into another one meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stage {
    /// At its beginning; 0 only of a ramp.
    pub(crate) rate_per_s: f64,
    /// At the end of a ramp; absent where the rate holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to_per_s: Option<f64>,
    pub(crate) seconds: f64,
}

impl Stage {
    /// Arrivals of the whole stage, at its mean rate.
    pub(crate) fn expected(self) -> f64 {
        (self.rate_per_s + self.to_per_s.unwrap_or(self.rate_per_s)) / 2.0 * self.seconds
    }

    /// When the integral of the rate comes to `arrivals`, in seconds from the stage's beginning. In
    /// this form neither a ramp from 0 nor one that hardly climbs divides by nothing.
    fn at(self, arrivals: f64) -> f64 {
        let climb = self.to_per_s.map_or(0.0, |to| (to - self.rate_per_s) / self.seconds);
        let root = (self.rate_per_s.powi(2) + 2.0 * climb * arrivals).max(0.0).sqrt();
        let rates = self.rate_per_s + root;
        if rates > 0.0 { (2.0 * arrivals / rates).min(self.seconds) } else { 0.0 }
    }

    /// For people.
    pub(crate) fn describe(self) -> String {
        match self.to_per_s {
            Some(to) => format!("{} to {to} in {} s", self.rate_per_s, self.seconds),
            None => format!("{} for {} s", self.rate_per_s, self.seconds),
        }
    }
}

/// An open loop: requests come by the clock, whatever the server does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OpenLoop {
    /// At one rate, until both are met.
    Rate { arrivals: Arrivals, rate_per_s: f64, min_requests: u32, min_seconds: f64 },
    /// One rate after another.
    Stages { arrivals: Arrivals, stages: Vec<Stage> },
    /// As a trace has it: nanoseconds from the start, and tokens of prompt and answer of each.
    Trace {
        offsets: Vec<u64>,
        lengths: Vec<[u32; 2]>,
        /// The class of each, by its place among the sweep's; empty where the trace says none.
        #[serde(default)]
        classes: Vec<Option<u32>>,
    },
}

impl OpenLoop {
    /// Nanoseconds from the phase's start to each arrival, in order.
    pub(crate) fn offsets(&self, seed: Seed) -> Vec<u64> {
        match self {
            Self::Rate { arrivals, rate_per_s, min_requests, min_seconds } => {
                let least = usize::try_from(*min_requests).unwrap_or(usize::MAX).min(MOST);
                let mut sum = Gaps::new(*arrivals, seed);
                let times = std::iter::from_fn(|| Some(sum.next() / rate_per_s));
                times
                    .enumerate()
                    .take_while(|(n, at)| (*n < least || *at < *min_seconds) && *n < MOST)
                    .map(|(_, at)| nanoseconds(at))
                    .collect()
            }
            Self::Stages { arrivals, stages } => along(stages, Gaps::new(*arrivals, seed)),
            Self::Trace { offsets, .. } => offsets.clone(),
        }
    }

    /// Tokens of the prompt and the answer of the n-th request, where it says so.
    pub(crate) fn lengths(&self, n: u32) -> Option<[u32; 2]> {
        let Self::Trace { lengths, .. } = self else { return None };
        lengths.get(usize::try_from(n).ok()?).copied()
    }

    /// The class of the n-th request, where it says so.
    pub(crate) fn class(&self, n: u32) -> Option<usize> {
        let Self::Trace { classes, .. } = self else { return None };
        let class = classes.get(usize::try_from(n).ok()?).copied().flatten()?;
        usize::try_from(class).ok()
    }

    /// How long it takes at its mean rate.
    pub(crate) fn expected(&self) -> Duration {
        let seconds = match self {
            Self::Rate { rate_per_s, min_requests, min_seconds, .. } => {
                min_seconds.max(f64::from(*min_requests) / rate_per_s)
            }
            Self::Stages { stages, .. } => stages.iter().map(|stage| stage.seconds).sum(),
            Self::Trace { offsets, .. } => {
                return Duration::from_nanos(offsets.last().copied().unwrap_or(0));
            }
        };
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// How many requests it is at its mean rate.
    pub(crate) fn expected_requests(&self) -> f64 {
        match self {
            Self::Rate { rate_per_s, min_requests, min_seconds, .. } => {
                f64::from(*min_requests).max(rate_per_s * min_seconds)
            }
            Self::Stages { stages, .. } => stages.iter().map(|stage| stage.expected()).sum(),
            Self::Trace { offsets, .. } => {
                count_f64(u64::try_from(offsets.len()).unwrap_or(u64::MAX))
            }
        }
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Rate { arrivals, rate_per_s, .. } => {
                format!("{rate_per_s} requests/s, {}", arrivals.describe())
            }
            Self::Stages { arrivals, stages } => {
                let rates: Vec<String> = stages.iter().map(|stage| stage.describe()).collect();
                format!("{} requests/s, {}", rates.join(", then "), arrivals.describe())
            }
            Self::Trace { offsets, .. } => {
                format!("{} requests at the times of a trace", offsets.len())
            }
        }
    }
}

impl Arrivals {
    fn describe(self) -> String {
        match self {
            Self::Constant => "evenly spaced".to_owned(),
            Self::Poisson => "Poisson".to_owned(),
            Self::Gamma { shape } => format!("gamma gaps of shape {shape}"),
        }
    }
}

/// Running sums of gaps with a mean of one.
struct Gaps {
    arrivals: Arrivals,
    stream: Stream,
    sum: f64,
}

impl Gaps {
    fn new(arrivals: Arrivals, seed: Seed) -> Self {
        Self { arrivals, stream: seed.branch("arrivals").stream(), sum: 0.0 }
    }

    fn next(&mut self) -> f64 {
        self.sum += match self.arrivals {
            Arrivals::Constant => 1.0,
            Arrivals::Poisson => exponential(&mut self.stream),
            Arrivals::Gamma { shape } => gamma(&mut self.stream, shape) / shape,
        };
        self.sum
    }
}

/// Arrivals of unit rate, laid along a rate that changes by steps and ramps: each is due when the
/// integral of the rate comes to it, which leaves a Poisson process one, of the changing rate.
fn along(stages: &[Stage], mut gaps: Gaps) -> Vec<u64> {
    let mut offsets = Vec::new();
    let (mut begun_s, mut passed) = (0.0, 0.0);
    let mut next = gaps.next();
    for stage in stages {
        let inside = stage.expected();
        while next < passed + inside && offsets.len() < MOST {
            offsets.push(nanoseconds(begun_s + stage.at(next - passed)));
            next = gaps.next();
        }
        passed += inside;
        begun_s += stage.seconds;
    }
    offsets
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times are positive and far below 2^63 ns"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// Mean 1. Never of ln 0.
fn exponential(stream: &mut Stream) -> f64 {
    -(1.0 - stream.unit()).ln()
}

fn normal(stream: &mut Stream) -> f64 {
    let radius = (2.0 * exponential(stream)).sqrt();
    radius * (2.0 * PI * stream.unit()).cos()
}

/// Marsaglia and Tsang (2000); a shape below 1 by their boost.
fn gamma(stream: &mut Stream, shape: f64) -> f64 {
    if shape < 1.0 {
        let boost = (1.0 - stream.unit()).powf(1.0 / shape);
        return gamma(stream, shape + 1.0) * boost;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(stream);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - stream.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(arrivals: Arrivals, rate_per_s: f64, seconds: f64) -> OpenLoop {
        OpenLoop::Rate { arrivals, rate_per_s, min_requests: 0, min_seconds: seconds }
    }

    fn gaps(offsets: &[u64]) -> Vec<f64> {
        let from_start = std::iter::once(&0).chain(offsets);
        from_start.zip(offsets).map(|(a, b)| count_f64(b - a) / 1e9).collect()
    }

    /// Kolmogorov-Smirnov: the largest distance from the distribution, times the root of n.
    fn distance(mut sample: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
        sample.sort_unstable_by(f64::total_cmp);
        let n = count_f64(sample.len() as u64);
        let each = sample.iter().enumerate().map(|(i, value)| {
            let (below, p) = (count_f64(i as u64) / n, cdf(*value));
            (p - below).abs().max((p - below - 1.0 / n).abs())
        });
        each.fold(0.0, f64::max) * n.sqrt()
    }

    /// The 1 % point of the statistic.
    const KS_LIMIT: f64 = 1.63;

    #[test]
    fn poisson_gaps_are_exponential() {
        for seed in 0..5 {
            let offsets = rate(Arrivals::Poisson, 500.0, 40.0).offsets(Seed::new(seed));
            let d = distance(gaps(&offsets), |gap| 1.0 - (-500.0 * gap).exp());
            assert!(d < KS_LIMIT, "seed {seed}: {d}");
            // Within 0.5 % of the asked rate, give or take three standard errors of a count.
            let got = count_f64(offsets.len() as u64) / 40.0;
            assert!((got - 500.0).abs() < 0.005 * 500.0 + 3.0 * (500.0_f64 / 40.0).sqrt(), "{got}");
            // It would not pass as another rate.
            assert!(distance(gaps(&offsets), |gap| 1.0 - (-450.0 * gap).exp()) > KS_LIMIT);
        }
    }

    /// The rate is the asked one; a count of n arrivals is off by its chance, 1 / sqrt(n), and
    /// is never rescaled. Over 800 s at 500/s that is 0.16 %.
    #[test]
    fn a_long_schedule_has_the_rate_that_was_asked() {
        for seed in 0..5 {
            let offsets = rate(Arrivals::Poisson, 500.0, 800.0).offsets(Seed::new(seed));
            let got = count_f64(offsets.len() as u64) / 800.0;
            assert!((got / 500.0 - 1.0).abs() < 0.005, "seed {seed}: {got}");
        }
    }

    #[test]
    fn gamma_gaps_have_their_mean_and_spread() {
        for shape in [0.25, 0.5, 1.0, 4.0] {
            let offsets = rate(Arrivals::Gamma { shape }, 100.0, 600.0).offsets(Seed::new(9));
            let gaps = gaps(&offsets);
            let n = count_f64(gaps.len() as u64);
            let mean = gaps.iter().sum::<f64>() / n;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n;
            assert!((mean * 100.0 - 1.0).abs() < 0.05, "shape {shape}: mean {mean}");
            let cv2 = variance / mean.powi(2);
            assert!((cv2 * shape - 1.0).abs() < 0.1, "shape {shape}: squared CV {cv2}");
        }
        let as_poisson = rate(Arrivals::Gamma { shape: 1.0 }, 100.0, 200.0).offsets(Seed::new(2));
        assert!(distance(gaps(&as_poisson), |gap| 1.0 - (-100.0 * gap).exp()) < KS_LIMIT);
    }

    #[test]
    fn constant_arrivals_are_evenly_spaced_from_one_gap_on() {
        let offsets = rate(Arrivals::Constant, 4.0, 1.1).offsets(Seed::new(1));
        assert_eq!(offsets, [250_000_000, 500_000_000, 750_000_000, 1_000_000_000]);
    }

    #[test]
    fn both_minima_are_met() {
        let open = OpenLoop::Rate {
            arrivals: Arrivals::Constant,
            rate_per_s: 10.0,
            min_requests: 25,
            min_seconds: 1.0,
        };
        assert_eq!(open.offsets(Seed::new(1)).len(), 25);
        assert_eq!(
            (open.expected(), open.expected_requests()),
            (Duration::from_millis(2500), 25.0)
        );
    }

    #[test]
    fn stages_follow_one_another() {
        let stage = |rate_per_s, seconds| Stage { rate_per_s, to_per_s: None, seconds };
        let stages = vec![stage(100.0, 100.0), stage(400.0, 100.0), stage(50.0, 100.0)];
        let open = OpenLoop::Stages { arrivals: Arrivals::Poisson, stages };
        let offsets = open.offsets(Seed::new(3));
        assert!(offsets.is_sorted());
        assert_eq!(
            (open.expected(), open.expected_requests()),
            (Duration::from_secs(300), 55_000.0)
        );
        let within = |from: u64, to: u64| {
            let inside = offsets.iter().filter(|at| (from..to).contains(&(**at / 1_000_000_000)));
            count_f64(inside.count() as u64) / 100.0
        };
        for (from, to, want) in [(0, 100, 100.0), (100, 200, 400.0), (200, 300, 50.0)] {
            let got = within(from, to);
            assert!((got - want).abs() < 4.0 * f64::sqrt(want / 100.0), "{got}, not {want}");
        }
    }

    /// On the clock of the integrated rate a Poisson process of any rate is one of rate 1.
    #[test]
    fn gaps_along_a_ramp_are_exponential_by_the_integrated_rate() {
        let ramp = |rate_per_s, to: f64, seconds| Stage { rate_per_s, to_per_s: Some(to), seconds };
        let held = Stage { rate_per_s: 40.0, to_per_s: None, seconds: 50.0 };
        // Up, on, down, and up from nothing.
        let stages = [ramp(10.0, 40.0, 100.0), held, ramp(40.0, 5.0, 80.0), ramp(0.0, 30.0, 60.0)];
        let passed = |seconds: f64| {
            let (mut from, mut sum) = (0.0, 0.0);
            for stage in &stages {
                let inside = (seconds - from).clamp(0.0, stage.seconds);
                let to = stage.to_per_s.unwrap_or(stage.rate_per_s);
                let climb = (to - stage.rate_per_s) / stage.seconds;
                sum += stage.rate_per_s * inside + climb * inside.powi(2) / 2.0;
                from += stage.seconds;
            }
            sum
        };
        for seed in 0..5 {
            let open = OpenLoop::Stages { arrivals: Arrivals::Poisson, stages: stages.to_vec() };
            let offsets = open.offsets(Seed::new(seed));
            assert!(offsets.is_sorted() && *offsets.last().unwrap() <= 290_000_000_000);
            let inner: Vec<f64> = offsets.iter().map(|at| passed(count_f64(*at) / 1e9)).collect();
            let before = std::iter::once(&0.0).chain(&inner);
            let gaps: Vec<f64> = before.zip(&inner).map(|(a, b)| b - a).collect();
            let d = distance(gaps.clone(), |gap| 1.0 - (-gap).exp());
            assert!(d < KS_LIMIT, "seed {seed}: {d}");
            // By the clock on the wall they are not.
            let d = distance(self::gaps(&offsets), |gap| 1.0 - (-gap * 25.0).exp());
            assert!(d > KS_LIMIT, "seed {seed}: {d}");
            let got = count_f64(offsets.len() as u64);
            let want = open.expected_requests();
            assert!((got - want).abs() < 4.0 * want.sqrt(), "{got}, not {want}");
        }
    }

    #[test]
    fn constant_arrivals_along_a_ramp_are_where_the_integral_says() {
        let stage = Stage { rate_per_s: 0.0, to_per_s: Some(4.0), seconds: 2.0 };
        let open = OpenLoop::Stages { arrivals: Arrivals::Constant, stages: vec![stage] };
        // The integral is t^2, so the n-th comes at the root of n; the fourth would be at the end.
        let seconds: Vec<f64> =
            open.offsets(Seed::new(1)).iter().map(|at| count_f64(*at) / 1e9).collect();
        assert_eq!(seconds.len(), 3);
        for (n, at) in (1_u32..).zip(seconds) {
            assert!((at - f64::from(n).sqrt()).abs() < 1e-8, "{n}: {at}");
        }
        assert_eq!((open.expected(), open.expected_requests()), (Duration::from_secs(2), 4.0));
        assert_eq!(open.describe(), "0 to 4 in 2 s requests/s, evenly spaced");
    }

    #[test]
    fn a_schedule_is_its_seeds_alone() {
        let open = rate(Arrivals::Poisson, 50.0, 10.0);
        assert_eq!(open.offsets(Seed::new(1)), open.offsets(Seed::new(1)));
        assert_ne!(open.offsets(Seed::new(1)), open.offsets(Seed::new(2)));
    }
}
