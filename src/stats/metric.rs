//! The per-request metrics: their names in files and tables, and their samples.
//!
//! Names are the field's; a unit stands at the end. One entry here puts a metric into the
//! summary, the CSV and whatever loops over `ALL`.

use crate::stats::group::GroupKey;
use crate::stats::pool::Pool;
use crate::stats::quantile::Distribution;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Metric {
    #[serde(rename = "ttft_ms")]
    Ttft,
    /// Only where a first text chunk was censored: the earliest it can have arrived.
    #[serde(rename = "ttft_lower_bound_ms")]
    TtftLowerBound,
    #[serde(rename = "ttft_from_scheduled_ms")]
    TtftFromScheduled,
    /// What tools that count any first chunk call TTFT.
    #[serde(rename = "first_chunk_ms")]
    FirstChunk,
    #[serde(rename = "tpot_ms")]
    Tpot,
    #[serde(rename = "itl_ms")]
    Itl,
    /// Only where chunks were censored.
    #[serde(rename = "itl_lower_bound_ms")]
    ItlLowerBound,
    /// Only where chunks were censored.
    #[serde(rename = "itl_upper_bound_ms")]
    ItlUpperBound,
    #[serde(rename = "e2el_ms")]
    E2el,
    #[serde(rename = "e2el_from_scheduled_ms")]
    E2elFromScheduled,
    #[serde(rename = "output_per_user_tokens_per_s")]
    UserSpeed,
}

impl Metric {
    pub(crate) const ALL: [Self; 11] = [
        Self::Ttft,
        Self::TtftLowerBound,
        Self::TtftFromScheduled,
        Self::FirstChunk,
        Self::Tpot,
        Self::Itl,
        Self::ItlLowerBound,
        Self::ItlUpperBound,
        Self::E2el,
        Self::E2elFromScheduled,
        Self::UserSpeed,
    ];

    /// The name without its unit; with `unit`, the name in JSON.
    pub(crate) const fn stem(self) -> &'static str {
        match self {
            Self::Ttft => "ttft",
            Self::TtftLowerBound => "ttft_lower_bound",
            Self::TtftFromScheduled => "ttft_from_scheduled",
            Self::FirstChunk => "first_chunk",
            Self::Tpot => "tpot",
            Self::Itl => "itl",
            Self::ItlLowerBound => "itl_lower_bound",
            Self::ItlUpperBound => "itl_upper_bound",
            Self::E2el => "e2el",
            Self::E2elFromScheduled => "e2el_from_scheduled",
            Self::UserSpeed => "output_per_user",
        }
    }

    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::UserSpeed => "tokens_per_s",
            Self::Ttft
            | Self::TtftLowerBound
            | Self::TtftFromScheduled
            | Self::FirstChunk
            | Self::Tpot
            | Self::Itl
            | Self::ItlLowerBound
            | Self::ItlUpperBound
            | Self::E2el
            | Self::E2elFromScheduled => "ms",
        }
    }

    /// The name in tables.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Ttft => "TTFT",
            Self::TtftLowerBound => "TTFT, lower bound",
            Self::TtftFromScheduled => "TTFT from scheduled",
            Self::FirstChunk => "first chunk",
            Self::Tpot => "TPOT",
            Self::Itl => "ITL",
            Self::ItlLowerBound => "ITL, lower bound",
            Self::ItlUpperBound => "ITL, upper bound",
            Self::E2el => "E2EL",
            Self::E2elFromScheduled => "E2EL from scheduled",
            Self::UserSpeed => "output tok/s per user",
        }
    }
}

/// Figures by metric; a metric without a sample is missing.
pub(crate) type Distributions = BTreeMap<Metric, Distribution>;

/// Raw values by metric: of all requests, and of each group of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    all: BTreeMap<Metric, Pool>,
    groups: BTreeMap<GroupKey, Self>,
}

impl Samples {
    pub(crate) fn add(&mut self, metric: Metric, value: Option<f64>) {
        if let Some(value) = value {
            self.all.entry(metric).or_default().add(value);
        }
    }

    pub(crate) fn append(&mut self, other: Self) {
        for (metric, values) in other.all {
            self.all.entry(metric).or_default().append(values);
        }
        for (key, values) in other.groups {
            self.groups.entry(key).or_default().append(values);
        }
    }

    pub(crate) fn of_group(&mut self, key: &GroupKey) -> &mut Self {
        self.groups.entry(key.clone()).or_default()
    }

    /// Bounds are left out where `censored` says that there is nothing to bound.
    pub(crate) fn distributions(&mut self, censored: Censoring) -> Distributions {
        let wanted = |metric: Metric| match metric {
            Metric::TtftLowerBound => censored.first_texts > 0,
            Metric::ItlLowerBound | Metric::ItlUpperBound => censored.gaps > 0,
            _ => true,
        };
        let kept = self.all.iter_mut().filter(|(metric, _)| wanted(**metric));
        kept.filter_map(|(metric, values)| Some((*metric, values.distribution()?))).collect()
    }
}

/// How many times are bounds and not stamps of their own, and of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Censoring {
    pub(crate) first_texts: u64,
    pub(crate) first_texts_of: u64,
    pub(crate) gaps: u64,
    pub(crate) gaps_of: u64,
    /// Of the gaps, those that are bounds only because the stream's last token was read together
    /// with what ends the stream: how servers send it, no fault of the client's.
    #[serde(default)]
    pub(crate) gaps_at_end: u64,
}

impl Censoring {
    pub(crate) fn add(&mut self, other: Self) {
        self.first_texts += other.first_texts;
        self.first_texts_of += other.first_texts_of;
        self.gaps += other.gaps;
        self.gaps_of += other.gaps_of;
        self.gaps_at_end += other.gaps_at_end;
    }

    pub(crate) fn first_text_share(self) -> Option<f64> {
        share(self.first_texts, self.first_texts_of)
    }

    /// Of the gaps, those between two chunks that each had a stamp of their own.
    pub(crate) fn own_stamp_share(self) -> Option<f64> {
        share(self.gaps_of.saturating_sub(self.gaps), self.gaps_of)
    }

    /// Gaps that the client itself could not time, by reading too late.
    pub(crate) fn late_gap_share(self) -> Option<f64> {
        share(self.gaps.saturating_sub(self.gaps_at_end), self.gaps_of)
    }

    pub(crate) fn gap_share(self) -> Option<f64> {
        share(self.gaps, self.gaps_of)
    }
}

/// `None` for a part of nothing.
pub(crate) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| crate::units::count_f64(part) / crate::units::count_f64(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_json_is_stem_and_unit() {
        for metric in Metric::ALL {
            let name = serde_json::to_value(metric).unwrap();
            assert_eq!(name, format!("{}_{}", metric.stem(), metric.unit()));
        }
    }

    #[test]
    fn bounds_are_kept_only_where_something_is_censored() {
        let mut samples = Samples::default();
        samples.add(Metric::Ttft, Some(2.0));
        samples.add(Metric::TtftLowerBound, Some(1.0));
        samples.add(Metric::Tpot, None);
        let keys = |d: Distributions| d.into_keys().collect::<Vec<_>>();
        assert_eq!(keys(samples.distributions(Censoring::default())), [Metric::Ttft]);
        let one = Censoring { first_texts: 1, first_texts_of: 1, ..Censoring::default() };
        assert_eq!(keys(samples.distributions(one)), [Metric::Ttft, Metric::TtftLowerBound]);
    }
}
