//! `engine.parquet`: what the engine said of itself during a phase, one row a second.

use super::files::StoreError;
use super::flat::{self, FlatColumn, Values};
use crate::engine::exposition::MetricName;
use crate::run::engine_sample::EngineSample;
use crate::units::MonoNs;
use std::collections::BTreeMap;
use std::path::Path;

const AT: &str = "at_ns";
const TOOK: &str = "took_ns";
const ANSWERED: &str = "answered";

pub(crate) fn write(path: &Path, samples: &[EngineSample]) -> Result<(), StoreError> {
    let mut columns = vec![
        FlatColumn::new(AT, Values::Integers(samples.iter().map(|s| Some(s.at.get())).collect())),
        FlatColumn::new(TOOK, Values::Integers(samples.iter().map(|s| Some(s.took_ns)).collect())),
        FlatColumn::new(
            ANSWERED,
            Values::Flags(samples.iter().map(|s| Some(s.answered)).collect()),
        ),
    ];
    columns.extend(MetricName::ALL.map(|name| {
        let values = samples.iter().map(|sample| sample.figures.get(&name).copied());
        FlatColumn::new(name.name(), Values::Doubles(values.collect()))
    }));
    flat::write(path, &columns)
}

/// Columns of another sweepd's that this one does not know are passed over.
pub(crate) fn read(path: &Path) -> Result<Vec<EngineSample>, StoreError> {
    let columns = flat::read(path)?;
    let find = |name: &str| columns.iter().find(|column| column.name == name).map(|c| &c.values);
    let missing = || StoreError::damaged(path, "it lacks the columns of its kind");
    let (Some(Values::Integers(at)), Some(Values::Integers(took)), Some(Values::Flags(answered))) =
        (find(AT), find(TOOK), find(ANSWERED))
    else {
        return Err(missing());
    };
    let figures = |row: usize| -> BTreeMap<MetricName, f64> {
        let figure = |name: MetricName| match find(name.name()) {
            Some(Values::Doubles(values)) => Some((name, values.get(row).copied().flatten()?)),
            _ => None,
        };
        MetricName::ALL.into_iter().filter_map(figure).collect()
    };
    let sample = |row: usize| {
        Some(EngineSample {
            at: MonoNs::new((*at.get(row)?)?),
            took_ns: (*took.get(row)?)?,
            answered: (*answered.get(row)?)?,
            figures: figures(row),
        })
    };
    (0..at.len()).map(|row| sample(row).ok_or_else(missing)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_back_and_what_was_not_said_stays_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.parquet");
        let samples = [
            EngineSample {
                at: MonoNs::new(5),
                took_ns: 7,
                answered: true,
                figures: BTreeMap::from([(MetricName::RequestsRunning, 3.0)]),
            },
            EngineSample {
                at: MonoNs::new(6),
                took_ns: 8,
                answered: false,
                figures: BTreeMap::new(),
            },
        ];
        write(&path, &samples).unwrap();
        assert_eq!(read(&path).unwrap(), samples);
    }
}
