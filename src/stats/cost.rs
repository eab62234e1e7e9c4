//! What a million output tokens cost, from a GPU's rent and from the energy that was measured. Pure.

use crate::stats::cell::Cell;
use crate::stats::gpu::GpuOverTrials;
use crate::sweep::gpu::Price;
use serde::{Deserialize, Serialize};

const JOULES_PER_KWH: f64 = 3.6e6;

/// In the sweep's currency; absent where the price or the measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) gpu_time: Option<f64>,
    pub(crate) energy: Option<f64>,
}

pub(crate) fn cost(price: &Price, cell: &Cell, gpu: &GpuOverTrials) -> Cost {
    let rate = cell.whole.output_tokens_per_s.map(|rate| rate.mean).filter(|rate| *rate > 0.0);
    let gpus = crate::units::count_f64(gpu.gpus);
    Cost {
        gpu_time: price.gpu_hour.zip(rate).map(|(hour, rate)| hour * gpus / 3600.0 / rate * 1e6),
        energy: price
            .kwh
            .zip(gpu.joules_per_output_token)
            .map(|(kwh, joules)| kwh * joules.mean * 1e6 / JOULES_PER_KWH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture::run;
    use crate::stats::gpu::{GpuOverTrials, GpuTrial};
    use crate::stats::interval::OverTrials;
    use crate::stats::summary::summarise;

    #[test]
    fn a_cost_needs_its_price_and_its_measurement() {
        let mut cell = summarise(&run()).cells.remove(0);
        cell.whole.output_tokens_per_s = OverTrials::of(&[2000.0]);
        let trial =
            GpuTrial { gpus: 2, joules_per_output_token: Some(0.36), ..GpuTrial::default() };
        let gpu = GpuOverTrials::of([trial].iter()).unwrap();
        let price = Price { gpu_hour: Some(0.72), kwh: Some(0.1), currency: "EUR".into() };
        let got = cost(&price, &cell, &gpu);
        // 2 GPUs for 500 s at 0.72 an hour; 0.36 MJ are 0.1 kWh.
        assert!((got.gpu_time.unwrap() - 0.2).abs() < 1e-9, "{got:?}");
        assert!((got.energy.unwrap() - 0.01).abs() < 1e-9, "{got:?}");
        let free = cost(&Price::default(), &cell, &gpu);
        assert_eq!(free, Cost { gpu_time: None, energy: None });
    }
}
