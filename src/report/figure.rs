//! How a number is written.
//!
//! One column, one number of decimals: the smallest value keeps three significant digits, unless
//! the largest is so large that they would be noise.

/// What stands for a value that does not exist.
pub(crate) const ABSENT: &str = "–";

/// The decimals with which a column of these values is written.
pub(crate) fn decimals(values: impl Iterator<Item = f64>) -> usize {
    let (mut smallest, mut largest) = (f64::INFINITY, 0.0_f64);
    for value in values.map(f64::abs).filter(|value| *value > 0.0) {
        smallest = smallest.min(value);
        largest = largest.max(value);
    }
    let wanted = match smallest {
        v if v.is_infinite() || v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    let most = match largest {
        v if v >= 10_000.0 => 0,
        v if v >= 1000.0 => 1,
        v if v >= 100.0 => 2,
        _ => 3,
    };
    wanted.min(most)
}

pub(crate) fn number(value: f64, decimals: usize) -> String {
    format!("{value:.decimals$}")
}

/// Half an interval's width. A width that is not zero never looks like zero.
pub(crate) fn half_width(value: f64, decimals: usize) -> String {
    let shown = number(value, decimals);
    let looks_zero = value > 0.0 && shown.bytes().all(|byte| byte == b'0' || byte == b'.');
    match (looks_zero, value < 0.001) {
        (false, _) => shown,
        (true, true) => "0.001".to_owned(),
        (true, false) => number(value, 3),
    }
}

/// A share as a percentage.
pub(crate) fn percent(share: Option<f64>) -> String {
    match share {
        None => ABSENT.to_owned(),
        Some(share) if share > 0.0 && share < 0.001 => "under 0.1 %".to_owned(),
        Some(share) => format!("{:.1} %", share * 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[f64], expected: &[&str]) {
        let decimals = decimals(values.iter().copied());
        let got: Vec<String> = values.iter().map(|value| number(*value, decimals)).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn a_column_has_one_number_of_decimals() {
        check(&[1637.6, 224.63], &["1638", "225"]);
        check(&[14.032, 9.5], &["14.03", "9.50"]);
        check(&[14.032, 94.51], &["14.0", "94.5"]);
        check(&[0.0412, 1.5], &["0.041", "1.500"]);
        check(&[1.25, 5000.0], &["1.2", "5000.0"]);
        check(&[1.25, 50_000.0], &["1", "50000"]);
        check(&[0.0, 250.0], &["0", "250"]);
        check(&[], &[]);
    }

    #[test]
    fn a_width_that_is_not_zero_does_not_look_like_zero() {
        assert_eq!(half_width(0.3, 0), "0.300");
        assert_eq!(half_width(0.0001, 1), "0.001");
        assert_eq!(half_width(0.0, 1), "0.0");
        assert_eq!(percent(Some(0.0004)), "under 0.1 %");
        assert_eq!(percent(Some(0.0)), "0.0 %");
        assert_eq!(percent(None), ABSENT);
        assert_eq!(half_width(12.34, 1), "12.3");
    }
}
