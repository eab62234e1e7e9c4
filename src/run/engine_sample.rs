//! What an engine said of itself while it worked: one row a second.

use crate::engine::exposition::MetricName;
use crate::units::MonoNs;
use std::collections::BTreeMap;

/// One look at an engine's metrics.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EngineSample {
    /// Before it was asked.
    pub(crate) at: MonoNs,
    pub(crate) took_ns: i64,
    /// False: no answer in time, or one without metrics.
    pub(crate) answered: bool,
    /// What it did not say is missing.
    pub(crate) figures: BTreeMap<MetricName, f64>,
}
