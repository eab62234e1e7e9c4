//! `[hardware]`: the GPU that the sweep runs on, where no driver says so.
//!
//! With it, and a model whose files tell its shape, the report holds every figure against what the
//! hardware allows.

use crate::form::Fields;
use crate::physics::gpu::{Gpu, GpuTable, Hardware};
use std::ops::RangeInclusive;

const POSITIVE: RangeInclusive<f64> = 0.001..=1e9;
const MOST_GPUS: u32 = 1024;

/// A card of the table, or one that is described here; what is said here goes first. A variant's
/// own table changes what the sweep's says, `of_all`.
pub(super) fn hardware(
    fields: &Fields<'_>,
    table: &GpuTable,
    of_all: Option<&Hardware>,
) -> Option<Hardware> {
    let field = if of_all.is_some() { fields.optional("gpu") } else { fields.required("gpu") };
    let name = field.text();
    let count = fields.optional("count").count(MOST_GPUS).map(std::num::NonZeroU32::get);
    let bits = fields.optional("kv_cache_bits").integer(1..=32);
    let kv_cache_bits = bits.and_then(|bits| u32::try_from(bits).ok());
    let own = Own::read(fields);
    if let Some(of_all) = of_all
        && !field.is_there()
    {
        return Some(Hardware {
            gpu: own.over(of_all.gpu.clone()),
            count: count.unwrap_or(of_all.count),
            kv_cache_bits: kv_cache_bits.or(of_all.kv_cache_bits),
        });
    }
    let name = name?;
    let gpu = match (table.find(&name), own.whole(&name)) {
        (Some(known), _) => own.over(known.clone()),
        (None, Some(gpu)) => gpu,
        (None, None) => {
            let help = "or describe it: `fp16_tflops` and `bandwidth_gb_s`, dense, of one GPU";
            let help = format!("{}; {help}", table.nearest(&name));
            field.problem(format!("no GPU {name:?} is known"), Some(help));
            return None;
        }
    };
    Some(Hardware { gpu, count: count.unwrap_or(1), kv_cache_bits })
}

/// Figures that the sweep gives itself.
#[derive(Debug)]
struct Own {
    fp16_tflops: Option<f64>,
    fp8_tflops: Option<f64>,
    int8_tops: Option<f64>,
    memory_gb: Option<f64>,
    bandwidth_gb_s: Option<f64>,
    power_w: Option<f64>,
    throttle_c: Option<f64>,
}

impl Own {
    fn read(fields: &Fields<'_>) -> Self {
        let number = |key| fields.optional(key).float(POSITIVE);
        Self {
            fp16_tflops: number("fp16_tflops"),
            fp8_tflops: number("fp8_tflops"),
            int8_tops: number("int8_tops"),
            memory_gb: number("memory_gb"),
            bandwidth_gb_s: number("bandwidth_gb_s"),
            power_w: number("power_w"),
            throttle_c: number("throttle_c"),
        }
    }

    /// A card that no table knows.
    fn whole(&self, name: &str) -> Option<Gpu> {
        Some(Gpu {
            name: name.to_owned(),
            fp16_tflops: self.fp16_tflops?,
            fp8_tflops: self.fp8_tflops,
            int8_tops: self.int8_tops,
            memory_gb: self.memory_gb,
            bandwidth_gb_s: self.bandwidth_gb_s?,
            power_w: self.power_w,
            throttle_c: self.throttle_c,
            source: "the sweep file".to_owned(),
        })
    }

    fn over(&self, known: Gpu) -> Gpu {
        let changed = Gpu {
            fp16_tflops: self.fp16_tflops.unwrap_or(known.fp16_tflops),
            fp8_tflops: self.fp8_tflops.or(known.fp8_tflops),
            int8_tops: self.int8_tops.or(known.int8_tops),
            memory_gb: self.memory_gb.or(known.memory_gb),
            bandwidth_gb_s: self.bandwidth_gb_s.unwrap_or(known.bandwidth_gb_s),
            power_w: self.power_w.or(known.power_w),
            throttle_c: self.throttle_c.or(known.throttle_c),
            ..known.clone()
        };
        if changed == known {
            return known;
        }
        Gpu { source: format!("{}, changed by the sweep file", known.source), ..changed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form;
    use std::path::Path;

    fn read(text: &str) -> Result<Hardware, String> {
        read_over(text, None)
    }

    fn read_over(text: &str, of_all: Option<&Hardware>) -> Result<Hardware, String> {
        let table = GpuTable::built_in().unwrap_or_else(|problems| panic!("{problems}"));
        form::read(Path::new("s.toml"), text, |_, fields| hardware(fields, &table, of_all))
            .map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_card_is_known_changed_or_described() {
        let a40 = read("gpu = \"NVIDIA A40\"\ncount = 2\nkv_cache_bits = 8").unwrap();
        assert_eq!((a40.gpu.name.as_str(), a40.count, a40.kv_cache_bits), ("A40", 2, Some(8)));
        let slower = read("gpu = \"A40\"\nbandwidth_gb_s = 600").unwrap();
        assert_eq!((slower.gpu.fp16_tflops, slower.gpu.bandwidth_gb_s), (149.7, 600.0));
        assert!(slower.gpu.source.ends_with("changed by the sweep file"), "{slower:?}");
        let own = read("gpu = \"Z9\"\nfp16_tflops = 10\nbandwidth_gb_s = 20").unwrap();
        assert_eq!((own.gpu.name.as_str(), own.count), ("Z9", 1));
    }

    #[test]
    fn a_variant_changes_what_the_sweep_says() {
        let all = read("gpu = \"A40\"\nkv_cache_bits = 8").unwrap();
        let two = read_over("count = 2", Some(&all)).unwrap();
        assert_eq!((two.gpu.name.as_str(), two.count, two.kv_cache_bits), ("A40", 2, Some(8)));
        let other = read_over("gpu = \"L4\"", Some(&all)).unwrap();
        assert_eq!((other.gpu.name.as_str(), other.kv_cache_bits), ("L4", None));
    }

    #[test]
    fn mistakes_are_told_with_the_right_spelling() {
        let said = read("gpu = \"A4O\"\ncount = 0\nbandwith_gb_s = 3").unwrap_err();
        for part in ["no GPU \"A4O\" is known", "A40", "`count`", "`bandwidth_gb_s`"] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}
