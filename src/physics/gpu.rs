//! GPUs and their peaks, as data.
//!
//! The built-in table is `hardware/gpus.toml`; a user's file of the same form adds to it. A name
//! is matched as a whole, never in part: a slice of a card (MIG) is not the card.

use crate::form::{self, Fields, Problems, did_you_mean};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::path::Path;

const BUILT_IN: &str = include_str!("../../hardware/gpus.toml");
/// The newest schema of GPU tables.
const SCHEMA: i64 = 1;
const POSITIVE: RangeInclusive<f64> = 0.001..=1e9;

/// One GPU's peaks: dense, decimal units, as data sheets give them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Gpu {
    pub(crate) name: String,
    /// FP16 or BF16 on tensor or matrix cores.
    pub(crate) fp16_tflops: f64,
    pub(crate) fp8_tflops: Option<f64>,
    pub(crate) int8_tops: Option<f64>,
    pub(crate) memory_gb: Option<f64>,
    pub(crate) bandwidth_gb_s: f64,
    pub(crate) power_w: Option<f64>,
    pub(crate) throttle_c: Option<f64>,
    /// The document that says so.
    pub(crate) source: String,
}

/// What one launch of an engine has to itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hardware {
    pub(crate) gpu: Gpu,
    /// GPUs that one engine uses together.
    pub(crate) count: u32,
    /// Of a number in the KV cache, where the engine was told another format than the model's.
    pub(crate) kv_cache_bits: Option<u32>,
}

impl Hardware {
    pub(crate) fn fp16_flops_per_s(&self) -> f64 {
        self.gpu.fp16_tflops * 1e12 * f64::from(self.count)
    }

    /// The fastest arithmetic that weights of so many bits, on average, allow: a ceiling, not a
    /// habit. Eight-bit weights beside tables of sixteen make about nine.
    pub(crate) fn ceiling_flops_per_s(&self, weight_bits: f64) -> f64 {
        let Gpu { fp16_tflops, fp8_tflops, int8_tops, .. } = self.gpu;
        let quick = if weight_bits < 12.0 { [fp8_tflops, int8_tops] } else { [None, None] };
        let most = quick.into_iter().flatten().fold(fp16_tflops, f64::max);
        most * 1e12 * f64::from(self.count)
    }

    pub(crate) fn bandwidth_bytes_per_s(&self) -> f64 {
        self.gpu.bandwidth_gb_s * 1e9 * f64::from(self.count)
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    gpu: Gpu,
    /// As drivers report it.
    reported: Vec<String>,
}

/// The GPUs that can be named. Of two entries with one name the later one holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct GpuTable(Vec<Entry>);

impl GpuTable {
    pub(crate) fn built_in() -> Result<Self, Problems> {
        Self::parse(Path::new("hardware/gpus.toml"), BUILT_IN)
    }

    /// The text of a table.
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Self, Problems> {
        form::read(file, text, |_, fields| {
            fields.schema_is_known(SCHEMA).then_some(())?;
            let gpus = fields.required("gpus").table()?;
            let mut entries: Vec<Entry> = Vec::new();
            for (name, _, field) in gpus.each() {
                entries.extend(field.table().and_then(|fields| entry(name, &fields)));
            }
            Some(Self(entries))
        })
    }

    /// With a user's own table, whose entries go first.
    pub(crate) fn and(mut self, own: Self) -> Self {
        self.0.extend(own.0);
        self
    }

    /// By our name or by what a driver reports; `None` for a card that is not in the table.
    pub(crate) fn find(&self, name: &str) -> Option<&Gpu> {
        let wanted = plain(name);
        let is = |entry: &&Entry| {
            plain(&entry.gpu.name) == wanted
                || entry.reported.iter().any(|name| plain(name) == wanted)
        };
        self.0.iter().rev().find(is).map(|entry| &entry.gpu)
    }

    /// Advice for a name that is not there.
    pub(crate) fn nearest(&self, name: &str) -> String {
        let names: Vec<&str> = self.0.iter().map(|entry| entry.gpu.name.as_str()).collect();
        did_you_mean(name, &names, "GPUs:")
    }
}

/// What counts in a name: not the maker's words, not the punctuation.
fn plain(name: &str) -> String {
    let lower = name.to_lowercase().replace(['-', '_', '(', ')'], " ");
    let words = lower.split_whitespace();
    let counts = |word: &&str| !["nvidia", "amd", "tesla", "geforce", "quadro"].contains(word);
    words.filter(counts).collect::<Vec<_>>().join(" ")
}

fn entry(name: &str, fields: &Fields<'_>) -> Option<Entry> {
    let reported = fields.optional("names");
    let reported = if reported.is_there() { reported.texts() } else { Some(Vec::new()) };
    let gpu = peaks(name, fields);
    let source = fields.required("source").text();
    Some(Entry { reported: reported?, gpu: Gpu { source: source?, ..gpu? } })
}

/// The peaks of a table entry, without their source.
fn peaks(name: &str, fields: &Fields<'_>) -> Option<Gpu> {
    let number = |key| fields.optional(key).float(POSITIVE);
    let fp16_tflops = fields.required("fp16_tflops").float(POSITIVE);
    let bandwidth_gb_s = fields.required("bandwidth_gb_s").float(POSITIVE);
    let gpu = Gpu {
        name: name.to_owned(),
        fp16_tflops: fp16_tflops.unwrap_or_default(),
        fp8_tflops: number("fp8_tflops"),
        int8_tops: number("int8_tops"),
        memory_gb: number("memory_gb"),
        bandwidth_gb_s: bandwidth_gb_s.unwrap_or_default(),
        power_w: number("power_w"),
        throttle_c: number("throttle_c"),
        source: String::new(),
    };
    fp16_tflops.and(bandwidth_gb_s).map(|_| gpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> GpuTable {
        GpuTable::built_in().unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn cards_are_found_by_what_drivers_report() {
        let table = table();
        for (reported, name) in [
            ("NVIDIA A40", "A40"),
            ("A40", "A40"),
            ("nvidia a40", "A40"),
            ("NVIDIA A100-SXM4-80GB", "A100-80GB-SXM"),
            ("A100-SXM4-80GB", "A100-80GB-SXM"),
            ("NVIDIA A100 80GB PCIe", "A100-80GB-PCIe"),
            ("NVIDIA H100 80GB HBM3", "H100-SXM"),
            ("NVIDIA H200", "H200-SXM"),
            ("NVIDIA L40S", "L40S"),
            ("NVIDIA L4", "L4"),
            ("Tesla T4", "T4"),
            ("Tesla V100-SXM2-32GB", "V100-SXM"),
            ("GeForce RTX 3090", "RTX-3090"),
            ("NVIDIA RTX 6000 Ada Generation", "RTX-6000-Ada"),
            ("rtx 4090", "RTX-4090"),
        ] {
            let found = table.find(reported).map(|gpu| gpu.name.as_str());
            assert_eq!(found, Some(name), "{reported}");
        }
        for stranger in ["A100", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "A400", "A4", "", "NVIDIA"] {
            assert_eq!(table.find(stranger), None, "{stranger}");
        }
        assert!(table.nearest("A4O").contains("A40"));
    }

    /// Bounds that hold for every card of these years; a doubled or a shifted figure falls outside.
    #[test]
    fn every_entry_is_plausible_and_dense() {
        let table = table();
        assert!(table.0.len() >= 30);
        let mut seen = std::collections::BTreeSet::new();
        for Entry { gpu, reported } in &table.0 {
            for name in reported.iter().chain([&gpu.name]) {
                // Ours may be what a driver reports, too.
                let fresh = seen.insert(plain(name)) || plain(name) == plain(&gpu.name);
                assert!(fresh, "{name} comes twice");
            }
            let intensity = gpu.fp16_tflops * 1e3 / gpu.bandwidth_gb_s;
            assert!((30.0..450.0).contains(&intensity), "{}: {intensity} FLOP a byte", gpu.name);
            let per_watt = gpu.fp16_tflops / gpu.power_w.unwrap();
            assert!((0.2..2.5).contains(&per_watt), "{}: {per_watt} TFLOPS a watt", gpu.name);
            for double in [gpu.fp8_tflops, gpu.int8_tops].into_iter().flatten() {
                let ratio = double / gpu.fp16_tflops;
                assert!((1.9..2.1).contains(&ratio), "{}: {ratio}", gpu.name);
            }
            assert!(gpu.source.contains("NVIDIA") || gpu.source.contains("AMD"), "{}", gpu.name);
        }
    }

    #[test]
    fn the_a40_is_the_one_of_its_data_sheet() {
        let table = table();
        let a40 =
            Hardware { gpu: table.find("A40").unwrap().clone(), count: 2, kv_cache_bits: None };
        assert_eq!(a40.fp16_flops_per_s(), 299.4e12);
        assert_eq!(a40.bandwidth_bytes_per_s(), 1392e9);
        assert_eq!((a40.gpu.memory_gb, a40.gpu.power_w), (Some(48.0), Some(300.0)));
        assert_eq!(a40.gpu.throttle_c, Some(83.0));
        assert_eq!(a40.ceiling_flops_per_s(16.0), 299.4e12);
        assert_eq!(a40.ceiling_flops_per_s(8.0), 598.6e12);
    }

    #[test]
    fn a_users_table_adds_and_replaces() {
        let own = r#"
            schema = 1
            [gpus.A40]
            fp16_tflops = 1
            bandwidth_gb_s = 2
            source = "mine"
            [gpus.Z9]
            names = ["ACME Z9"]
            fp16_tflops = 3
            bandwidth_gb_s = 4
            source = "mine"
        "#;
        let both = table().and(GpuTable::parse(Path::new("own.toml"), own).unwrap());
        assert_eq!(both.find("A40").unwrap().fp16_tflops, 1.0);
        assert_eq!(both.find("acme z9").unwrap().bandwidth_gb_s, 4.0);
        assert!(both.find("L4").is_some());
    }

    #[test]
    fn every_mistake_of_a_table_is_told() {
        let text = "schema = 1\n[gpus.X]\nfp16_tflop = 1\nbandwidth_gb_s = -2\nnames = \"X\"\n";
        let said = GpuTable::parse(Path::new("own.toml"), text).unwrap_err().to_string();
        for mistake in ["`fp16_tflop`", "`bandwidth_gb_s`", "`names`", "`source`"] {
            assert!(said.contains(mistake), "{mistake} in {said}");
        }
    }
}
