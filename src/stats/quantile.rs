//! A sample's figures: mean, spread, percentiles.
//!
//! Percentiles interpolate linearly between order statistics (type 7, numpy's default). Each has
//! a sample floor: the smallest n for which, with 95 % probability, at least one value lies above
//! the true percentile (1 - q^n >= 0.95). Below it a "p99" would only be the maximum under another
//! name, so it is absent.
//!
//! Invariant: min <= p50 <= p90 <= p95 <= p99 <= max among those that are present.

use crate::units::count_f64;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Percentile {
    P50,
    P90,
    P95,
    P99,
}

impl Percentile {
    pub(crate) const ALL: [Self; 4] = [Self::P50, Self::P90, Self::P95, Self::P99];

    const fn percent(self) -> usize {
        match self {
            Self::P50 => 50,
            Self::P90 => 90,
            Self::P95 => 95,
            Self::P99 => 99,
        }
    }

    /// The smallest sample that supports it.
    pub(crate) const fn floor(self) -> usize {
        match self {
            Self::P50 => 5,
            Self::P90 => 29,
            Self::P95 => 59,
            Self::P99 => 299,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P95 => "p95",
            Self::P99 => "p99",
        }
    }

    /// The place of this percentile among `n` ordered values; `None` below the floor.
    pub(crate) fn rank(self, n: u64) -> Option<u64> {
        let floor = u64::try_from(self.floor()).unwrap_or(u64::MAX);
        let percent = u64::try_from(self.percent()).unwrap_or(100);
        (n >= floor).then(|| (n - 1) * percent / 100)
    }

    /// `None` below the floor.
    fn of(self, sorted: &[f64]) -> Option<f64> {
        (sorted.len() >= self.floor()).then(|| interpolate(sorted, self.percent())).flatten()
    }
}

/// The figures of one sample. Its unit is in the name under which it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Distribution {
    pub(crate) n: u64,
    pub(crate) mean: f64,
    /// Sample standard deviation (n - 1); absent for one value.
    pub(crate) sd: Option<f64>,
    /// SD over mean; absent for a mean of zero.
    pub(crate) cv: Option<f64>,
    pub(crate) min: f64,
    pub(crate) p50: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p95: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: f64,
}

impl Distribution {
    /// Sorts `values`. `None` for an empty sample.
    pub(crate) fn of(values: &mut [f64]) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let mean = mean(values)?;
        let sd = sample_sd(values);
        Some(Self {
            n: u64::try_from(values.len()).unwrap_or(u64::MAX),
            mean,
            sd,
            cv: sd.and_then(|sd| (mean > 0.0).then(|| sd / mean)),
            min,
            p50: Percentile::P50.of(values),
            p90: Percentile::P90.of(values),
            p95: Percentile::P95.of(values),
            p99: Percentile::P99.of(values),
            max,
        })
    }

    pub(crate) const fn percentile(&self, percentile: Percentile) -> Option<f64> {
        match percentile {
            Percentile::P50 => self.p50,
            Percentile::P90 => self.p90,
            Percentile::P95 => self.p95,
            Percentile::P99 => self.p99,
        }
    }
}

/// `None` for nothing.
pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    let low = values.iter().copied().min_by(f64::total_cmp)?;
    let high = values.iter().copied().max_by(f64::total_cmp)?;
    // Rounding must not carry a mean out of its sample.
    Some((values.iter().sum::<f64>() / count_f64(values.len() as u64)).clamp(low, high))
}

/// With n - 1 in the denominator; `None` for fewer than two values.
pub(crate) fn sample_sd(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / count_f64(values.len() as u64 - 1)).sqrt())
}

/// Position `percent` % of the way through the sorted values, in whole numbers so that no
/// rounding can pick the wrong neighbours.
pub(super) fn interpolate(sorted: &[f64], percent: usize) -> Option<f64> {
    let position = percent * sorted.len().checked_sub(1)?;
    let low = *sorted.get(position / 100)?;
    let high = sorted.get(position / 100 + 1).copied().unwrap_or(low);
    let way = count_f64((position % 100) as u64) / 100.0;
    // From the nearer end, so that rounding never passes `high`.
    Some(if way < 0.5 { low + (high - low) * way } else { high - (high - low) * (1.0 - way) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(values: &[f64], percent: usize, expected: f64) {
        let mut values = values.to_vec();
        values.sort_unstable_by(f64::total_cmp);
        let got = interpolate(&values, percent).unwrap();
        assert!((got - expected).abs() < 1e-9, "p{percent} of {values:?}: {got}, not {expected}");
    }

    /// The expected values are numpy.percentile's.
    #[test]
    fn percentiles_are_those_of_numpy() {
        check(&[7.0], 99, 7.0);
        check(&[1.0, 2.0], 50, 1.5);
        check(&[15.0, 20.0, 35.0, 40.0, 50.0], 50, 35.0);
        check(&[15.0, 20.0, 35.0, 40.0, 50.0], 90, 46.0);
        check(&[3.0, 1.0, 2.0, 4.0], 95, 3.85);
        check(&[3.0, 1.0, 2.0, 4.0], 99, 3.97);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        check(&hundred, 50, 50.5);
        check(&hundred, 90, 90.1);
        check(&hundred, 99, 99.01);
    }

    #[test]
    fn figures_worked_by_hand() {
        let mut values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        let got = Distribution::of(&mut values).unwrap();
        assert_eq!((got.n, got.mean, got.min, got.max), (8, 5.0, 2.0, 9.0));
        assert_eq!(got.p50, Some(4.5));
        assert!((got.sd.unwrap() - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
        assert!((got.cv.unwrap() - (32.0_f64 / 7.0).sqrt() / 5.0).abs() < 1e-12);
        assert_eq!(Distribution::of(&mut []), None);
        assert_eq!(Distribution::of(&mut [3.0]).unwrap().sd, None);
    }

    #[test]
    fn a_percentile_below_its_floor_is_absent() {
        for percentile in Percentile::ALL {
            let n = percentile.floor();
            let q = count_f64(percentile.percent() as u64) / 100.0;
            assert!(1.0 - q.powi(i32::try_from(n).unwrap()) >= 0.95, "{}", percentile.name());
            assert!(1.0 - q.powi(i32::try_from(n - 1).unwrap()) < 0.95, "{}", percentile.name());
            let at = |n| Distribution::of(&mut vec![1.0; n]).unwrap().percentile(percentile);
            assert_eq!((at(n), at(n - 1)), (Some(1.0), None), "{}", percentile.name());
        }
    }

    proptest! {
        #[test]
        fn percentiles_rise(mut values in prop::collection::vec(0.0..1e9_f64, 1..700)) {
            let got = Distribution::of(&mut values).unwrap();
            let present = [Some(got.min), got.p50, got.p90, got.p95, got.p99, Some(got.max)];
            let present: Vec<f64> = present.into_iter().flatten().collect();
            prop_assert!(present.is_sorted(), "{present:?}");
            prop_assert!(got.min <= got.mean && got.mean <= got.max);
        }
    }
}
