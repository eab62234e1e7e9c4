//! Whether a level keeps to its limits, and how sure that is. Pure.
//!
//! "p99 at most x" means that no more than one request in a hundred is over x. How many of n were
//! over is binomial, so the question has an exact answer at 95 % confidence: met, missed, or too
//! few requests to say. A p99 that merely comes out below the limit is no proof that it is.

use crate::run::search::{Search, SearchRun};
use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, DiscreteCDF};

/// The share that may be over a limit at the 99th percentile.
const MAY_BE_OVER: f64 = 0.01;
/// The chance of being wrong.
const ALPHA: f64 = 0.05;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    Missed,
    Unclear,
    Met,
}

/// Whether the true share of `over` among `n` is below `share`.
pub(crate) fn of_share(over: u64, n: u64, share: f64) -> Standing {
    let Ok(binomial) = Binomial::new(share, n) else { return Standing::Unclear };
    // If the share were just as large: how likely are so few, and how likely so many?
    let so_few = binomial.cdf(over);
    let so_many = over.checked_sub(1).map_or(1.0, |fewer| binomial.sf(fewer));
    if so_few <= ALPHA {
        Standing::Met
    } else if so_many <= ALPHA {
        Standing::Missed
    } else {
        Standing::Unclear
    }
}

/// Over all runs of one level; the worst of its limits decides.
pub(super) fn of_level<'a>(
    search: &Search,
    runs: impl Iterator<Item = &'a SearchRun> + Clone,
) -> Standing {
    let sum = |count: fn(&SearchRun) -> u64| runs.clone().map(count).sum::<u64>();
    let (sent, failed) = (sum(|run| run.sent), sum(|run| run.failed));
    let limits = [
        (search.slo.ttft_ms, sum(|run| run.over_ttft)),
        (search.slo.tpot_ms, sum(|run| run.over_tpot)),
    ];
    let limits = limits.into_iter().filter(|(limit, _)| limit.is_some());
    // A budget is spent when it is spent; no doubt is added to it.
    let within =
        crate::units::count_f64(failed) <= search.error_budget * crate::units::count_f64(sent);
    let errors = if within && sent > 0 { Standing::Met } else { Standing::Missed };
    limits
        .map(|(_, over)| of_share(over, sent, MAY_BE_OVER))
        .chain([errors])
        .min()
        .unwrap_or(Standing::Unclear)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_p99_is_met_or_missed_only_with_enough_requests() {
        for (over, n, want) in [
            // 0.99^299 < 0.05: the floor of a p99.
            (0, 298, Standing::Unclear),
            (0, 299, Standing::Met),
            (1, 299, Standing::Unclear),
            (1, 473, Standing::Met),
            (10, 1000, Standing::Unclear),
            (4, 1000, Standing::Met),
            (17, 1000, Standing::Missed),
            (50, 1000, Standing::Missed),
            (2, 10, Standing::Missed),
            (0, 0, Standing::Unclear),
        ] {
            assert_eq!(of_share(over, n, 0.01), want, "{over} of {n}");
        }
    }
}
