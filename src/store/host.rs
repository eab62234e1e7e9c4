//! `host.parquet`: what the host did during a phase, one row a second.

use super::files::StoreError;
use super::flat::{self, FlatColumn, Values};
use crate::run::host::HostSample;
use std::path::Path;

pub(crate) fn write(path: &Path, samples: &[HostSample]) -> Result<(), StoreError> {
    let doubles = |name: &str, value: fn(&HostSample) -> Option<f64>| {
        FlatColumn::new(name, Values::Doubles(samples.iter().map(value).collect()))
    };
    let integers = |name: &str, value: fn(&HostSample) -> Option<u64>| {
        let whole = |sample| value(sample).and_then(|value| i64::try_from(value).ok());
        FlatColumn::new(name, Values::Integers(samples.iter().map(whole).collect()))
    };
    let at = samples.iter().map(|sample| Some(sample.at.get())).collect();
    let columns = [
        FlatColumn::new("at_ns", Values::Integers(at)),
        doubles("busy_cores", |s| s.busy_cores),
        doubles("engine_cores", |s| s.engine_cores),
        doubles("client_cores", |s| s.client_cores),
        doubles("sweepd_cores", |s| s.sweepd_cores),
        doubles("beside_cores", |s| s.beside_cores),
        integers("memory_available_bytes", |s| s.memory_available_bytes),
        integers("swap_used_bytes", |s| s.swap_used_bytes),
        doubles("load_1min", |s| s.load_1min),
        integers("disk_read_bytes", |s| s.disk_read_bytes),
        integers("disk_written_bytes", |s| s.disk_written_bytes),
    ];
    flat::write(path, &columns)
}
