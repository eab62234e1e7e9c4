//! A figure over trials: its mean with the 95 % t interval.
//!
//! The trial, an engine launched afresh, is the unit of replication. Requests within one trial
//! share its engine and its hour, so their number says nothing about how the next trial would do.

use crate::stats::quantile::{mean, sample_sd};
use crate::units::count_f64;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Interval {
    pub(crate) lower: f64,
    pub(crate) upper: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OverTrials {
    pub(crate) trials: u64,
    pub(crate) mean: f64,
    pub(crate) sd: Option<f64>,
    /// 95 % t interval of the mean; absent for fewer than two trials.
    pub(crate) ci95: Option<Interval>,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl OverTrials {
    /// `None` for no trials.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mean = mean(values)?;
        Some(Self {
            trials: u64::try_from(values.len()).unwrap_or(u64::MAX),
            mean,
            sd: sample_sd(values),
            ci95: half_width(values)
                .map(|half| Interval { lower: mean - half, upper: mean + half }),
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }

    pub(crate) fn half_width(&self) -> Option<f64> {
        self.ci95.map(|interval| (interval.upper - interval.lower) / 2.0)
    }
}

/// Half of the 95 % t interval: t(0.975, n - 1) * SD / sqrt(n).
pub(crate) fn half_width(values: &[f64]) -> Option<f64> {
    let sd = sample_sd(values)?;
    let n = count_f64(u64::try_from(values.len()).ok()?);
    let student = StudentsT::new(0.0, 1.0, n - 1.0).ok()?;
    Some(student.inverse_cdf(0.975) * sd / n.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[f64], mean: f64, half: Option<f64>) {
        let got = OverTrials::of(values).unwrap();
        assert!((got.mean - mean).abs() < 1e-9, "{got:?}");
        match (got.half_width(), half) {
            (Some(got), Some(half)) => assert!((got - half).abs() < 1e-3, "{got}, not {half}"),
            (got, half) => assert_eq!(got, half),
        }
    }

    /// t(0.975) from tables: 12.7062 for 1, 4.3027 for 2, 2.7764 for 4 degrees of freedom.
    #[test]
    fn intervals_from_a_table_of_t() {
        check(&[10.0], 10.0, None);
        check(&[9.0, 11.0], 10.0, Some(12.7062));
        check(&[1.0, 2.0, 3.0], 2.0, Some(4.3027 / 3.0_f64.sqrt()));
        check(&[1.0, 2.0, 3.0, 4.0, 5.0], 3.0, Some(2.7764 * 2.5_f64.sqrt() / 5.0_f64.sqrt()));
        check(&[4.0, 4.0, 4.0], 4.0, Some(0.0));
    }

    #[test]
    fn no_trials_give_no_figure() {
        assert_eq!(OverTrials::of(&[]), None);
    }
}
