//! A sample that may be very large.
//!
//! Up to a bound every value is kept, and percentiles are exact. Beyond it the values are counted
//! in buckets that are 1/1024 of their size wide at most, so that a percentile is right within
//! 0.1 %; mean, spread, minimum and maximum stay exact. Pure.
//!
//! Invariant: merging pools in any order gives the same count, minimum and maximum.

use crate::stats::quantile::{Distribution, Percentile, interpolate, mean};
use crate::units::count_f64;
use std::collections::BTreeMap;

/// Values kept one by one at most: 8 MB.
const EXACT: usize = 1_000_000;

#[derive(Clone, Debug)]
pub(crate) enum Pool {
    Exact(Vec<f64>),
    Counted(Box<Counted>),
}

impl Default for Pool {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Counted {
    /// By the leading bits of a value, which order as the values do; none is negative.
    buckets: BTreeMap<u64, u64>,
    n: u64,
    sum: f64,
    /// About the first value, so that a small spread on a large mean survives.
    origin: f64,
    squares: f64,
    min: f64,
    max: f64,
}

/// Sign, exponent and ten bits of the fraction.
const KEPT_SHIFT: u32 = 42;

fn bucket(value: f64) -> u64 {
    value.max(0.0).to_bits() >> KEPT_SHIFT
}

/// The middle of a bucket.
fn middle(bucket: u64) -> f64 {
    let low = f64::from_bits(bucket << KEPT_SHIFT);
    let high = f64::from_bits((bucket + 1) << KEPT_SHIFT);
    low + (high - low) / 2.0
}

impl Counted {
    fn new(values: &[f64]) -> Self {
        let origin = values.first().copied().unwrap_or(0.0);
        let mut counted = Self {
            buckets: BTreeMap::new(),
            n: 0,
            sum: 0.0,
            origin,
            squares: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        };
        values.iter().for_each(|value| counted.add(*value));
        counted
    }

    fn add(&mut self, value: f64) {
        *self.buckets.entry(bucket(value)).or_default() += 1;
        self.n += 1;
        self.sum += value - self.origin;
        self.squares += (value - self.origin).powi(2);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    fn append(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
        // Moved from the other's origin to this one's.
        let moved = other.origin - self.origin;
        let n = count_f64(other.n);
        self.squares += other.squares + 2.0 * moved * other.sum + n * moved.powi(2);
        self.sum += other.sum + n * moved;
        self.n += other.n;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    fn percentile(&self, percentile: Percentile) -> Option<f64> {
        let rank = percentile.rank(self.n)?;
        let mut passed = 0;
        let found = self.buckets.iter().find(|(_, count)| {
            passed += **count;
            passed > rank
        });
        found.map(|(bucket, _)| middle(*bucket).clamp(self.min, self.max))
    }

    fn distribution(&self) -> Distribution {
        let n = count_f64(self.n);
        let mean = (self.origin + self.sum / n).clamp(self.min, self.max);
        let sd = ((self.squares - self.sum.powi(2) / n).max(0.0) / (n - 1.0)).sqrt();
        Distribution {
            n: self.n,
            mean,
            sd: Some(sd),
            cv: (mean > 0.0).then(|| sd / mean),
            min: self.min,
            p50: self.percentile(Percentile::P50),
            p90: self.percentile(Percentile::P90),
            p95: self.percentile(Percentile::P95),
            p99: self.percentile(Percentile::P99),
            max: self.max,
        }
    }
}

impl Pool {
    pub(crate) fn add(&mut self, value: f64) {
        match self {
            Self::Exact(values) if values.len() < EXACT => values.push(value),
            Self::Exact(values) => {
                let mut counted = Counted::new(values);
                counted.add(value);
                *self = Self::Counted(Box::new(counted));
            }
            Self::Counted(counted) => counted.add(value),
        }
    }

    pub(crate) fn append(&mut self, other: Self) {
        match (&mut *self, other) {
            (_, Self::Exact(values)) => values.into_iter().for_each(|value| self.add(value)),
            (Self::Counted(counted), Self::Counted(other)) => counted.append(&other),
            (Self::Exact(values), Self::Counted(mut other)) => {
                values.iter().for_each(|value| other.add(*value));
                *self = Self::Counted(other);
            }
        }
    }

    /// `None` for an empty sample.
    pub(crate) fn distribution(&mut self) -> Option<Distribution> {
        match self {
            Self::Exact(values) => Distribution::of(values),
            Self::Counted(counted) => Some(counted.distribution()),
        }
    }
}

/// The figures that result files of other tools have: no floors, the population's spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Plain {
    pub(crate) mean: f64,
    pub(crate) median: f64,
    pub(crate) sd: f64,
    pub(crate) percentiles: [f64; 4],
}

impl Plain {
    pub(crate) fn of(values: &mut [f64]) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let n = count_f64(values.len() as u64);
        let [p50, p90, p95, p99] = [50, 90, 95, 99].map(|percent| interpolate(values, percent));
        let mean = mean(values)?;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let sd = (squares / n).sqrt();
        Some(Self { mean, median: p50?, sd, percentiles: [p50?, p90?, p95?, p99?] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    /// So many values with a long tail.
    fn values(n: usize) -> Vec<f64> {
        let mut stream = Seed::new(5).stream();
        (0..n).map(|_| 20.0 - 3.0 * (1.0 - stream.unit()).ln()).collect()
    }

    #[track_caller]
    fn close(got: f64, want: f64, within: f64) {
        assert!((got - want).abs() <= within * want.abs(), "{got}, not {want}");
    }

    #[test]
    fn counted_values_have_the_figures_of_exact_ones() {
        let mut all = values(40_000);
        let got = Counted::new(&all).distribution();
        let want = Distribution::of(&mut all).unwrap();
        assert_eq!((got.n, got.min, got.max), (want.n, want.min, want.max));
        close(got.mean, want.mean, 1e-12);
        close(got.sd.unwrap(), want.sd.unwrap(), 1e-9);
        for percentile in Percentile::ALL {
            let [got, want] = [got, want].map(|figures| figures.percentile(percentile).unwrap());
            close(got, want, 0.001);
        }
    }

    #[test]
    fn a_pool_turns_to_counting_at_its_bound() {
        let mut pool = Pool::default();
        (0..EXACT).for_each(|_| pool.add(1.0));
        assert!(matches!(pool, Pool::Exact(_)));
        pool.add(3.0);
        assert!(matches!(pool, Pool::Counted(_)));
        let figures = pool.distribution().unwrap();
        assert_eq!((figures.n, figures.max), (EXACT as u64 + 1, 3.0));
        close(figures.p99.unwrap(), 1.0, 0.001);
    }

    #[test]
    fn merging_is_the_same_in_any_order() {
        let parts = || {
            let [a, b, c] = [values(100), values(3000), vec![0.0, 7.0]];
            [Pool::Exact(a), Pool::Counted(Box::new(Counted::new(&b))), Pool::Exact(c)]
        };
        let merged = |order: [usize; 3]| {
            let mut whole = Pool::Counted(Box::new(Counted::new(&[])));
            order.into_iter().for_each(|n| whole.append(parts()[n].clone()));
            whole.distribution().unwrap()
        };
        let (one, two) = (merged([0, 1, 2]), merged([2, 1, 0]));
        assert_eq!((one.n, one.min, one.max, one.p50), (two.n, two.min, two.max, two.p50));
        close(one.mean, two.mean, 1e-9);
        close(one.sd.unwrap(), two.sd.unwrap(), 1e-9);
    }
}
