//! Work and bytes of a token, and what follows from them. The formulas, all of them:
//!
//! * FLOPs of a token at context c: 2 N + 4 L H D c. N: active parameters without the embedding
//!   lookup; L layers of H heads of width D. One multiply-add is two FLOPs; scores and their use
//!   are 2 H D c each.
//! * FLOPs of a prefill of P tokens: 2 (N - N_head) P + 2 N_head + 4 L H D P (P + 1) / 2: the output
//!   layer works on the last position only.
//! * Bytes of a decode step with b requests at context c: W + b c K. W: weights without the embedding
//!   lookup; of routed experts at least the share that one token takes; K: KV bytes of a token.
//! * MFU: FLOPs that the delivered tokens needed / (time x FP16 peak), prefill and decode apart.
//! * MBU: bytes that had to be read / (time x peak bandwidth), in bounds. While anything decodes,
//!   steps follow one another at least as fast as a stream's tokens, so there is at least a step
//!   each mean TPOT; without a TPOT, at least one for every `users` tokens. At most, every prefill
//!   reads the weights once more, and a batch touches as many experts as even choice makes likely.
//!   (A load with pauses in which nothing decodes reads less than the least given here.)
//! * Roofline of a closed loop of b users: OSL tokens a request in no less time than
//!   max(bytes / bandwidth, FLOPs / peak) with all b in every step, or as many as have room for
//!   their prompts' KV beside the weights.
//! * Floors: TTFT >= max(prefill FLOPs / peak, W / bandwidth), TPOT >= (W + c K) / bandwidth.
//!
//! Assumes one token a step and stream: speculative decoding may pass the TPOT floor and the
//! roofline, and then a mark says so. Pure.

use super::gpu::Hardware;
use super::shape::ModelShape;
use crate::units::count_f64;
use serde::{Deserialize, Serialize};

/// TPOT is held against its floor from this many output tokens on.
const LEAST_TPOT_TOKENS: f64 = 16.0;

/// A model on its hardware.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) hardware: &'a Hardware,
    pub(crate) shape: &'a ModelShape,
}

/// One phase as it was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) users: u32,
    /// Input and output tokens of a request, on average.
    pub(crate) isl: f64,
    pub(crate) osl: f64,
    /// Prompt tokens that the server took from its cache, on average.
    pub(crate) cached: f64,
    /// The fewest prompt tokens that a request had computed.
    pub(crate) least_isl: f64,
    pub(crate) output_tokens_per_s: f64,
    /// The highest figure that is printed anywhere: of any trial and window.
    pub(crate) most_tokens_per_s: f64,
    pub(crate) mean_tpot_ms: Option<f64>,
    /// The fastest of each: they are held against the floors.
    pub(crate) min_tpot_ms: Option<f64>,
    pub(crate) min_ttft_ms: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    Memory,
    Compute,
}

/// A measured phase held against its limits. Shares are of 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Against {
    pub(crate) mfu: f64,
    pub(crate) mfu_prefill: f64,
    pub(crate) mfu_decode: f64,
    /// Decode steps alone.
    pub(crate) mbu_least: f64,
    /// With a pass over the weights for each prefill; absent without a TPOT.
    pub(crate) mbu_most: Option<f64>,
    pub(crate) roofline_tokens_per_s: f64,
    pub(crate) roofline_share: f64,
    pub(crate) roofline_bound: Bound,
    pub(crate) tpot_floor_ms: f64,
    pub(crate) ttft_floor_ms: f64,
    /// What cannot be; empty for a measurement without fault.
    pub(crate) impossible: Vec<Impossible>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Impossible {
    pub(crate) figure: Figure,
    pub(crate) measured: f64,
    pub(crate) limit: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    OutputTokensPerS,
    TpotMs,
    TtftMs,
    ReadBytesPerS,
}

impl Machine<'_> {
    /// What a token at this context multiplies and adds.
    pub(crate) fn decode_flops(&self, context: f64) -> f64 {
        2.0 * count_f64(self.shape.matmul_parameters())
            + self.attention_flops() * self.seen(context)
    }

    /// Of `tokens` new ones after `cached` that are in the cache.
    pub(crate) fn prefill_flops(&self, tokens: f64, cached: f64) -> f64 {
        let head = count_f64(self.shape.head_parameters);
        let body = count_f64(self.shape.matmul_parameters()) - head;
        let mean_context = self.seen(cached + (tokens + 1.0) / 2.0);
        2.0 * body * tokens + 2.0 * head + self.attention_flops() * tokens * mean_context
    }

    /// A position of context costs this.
    fn attention_flops(&self) -> f64 {
        let attention = &self.shape.attention;
        4.0 * count_f64(attention.layers) * count_f64(attention.heads * attention.head_dim)
    }

    fn seen(&self, context: f64) -> f64 {
        self.shape.attention.window.map_or(context, |window| context.min(count_f64(window)))
    }

    /// Weights that a step reads at the least.
    pub(crate) fn least_weight_bytes(&self) -> f64 {
        self.weight_bytes(self.shape.expert_share)
    }

    /// Weights of a step in which so many requests choose their experts evenly.
    fn likely_weight_bytes(&self, batch: f64) -> f64 {
        self.weight_bytes(1.0 - (1.0 - self.shape.expert_share).powf(batch.max(1.0)))
    }

    fn weight_bytes(&self, share_of_experts: f64) -> f64 {
        let experts = count_f64(self.shape.expert_bytes);
        let body = count_f64(self.shape.weight_bytes - self.shape.lookup_bytes) - experts;
        body + experts * share_of_experts
    }

    /// Keys and values that a token at this context reads.
    pub(crate) fn kv_bytes(&self, context: f64) -> f64 {
        self.kv_bytes_per_token() * self.seen(context)
    }

    /// In the number format that the KV cache really has, as far as anybody said.
    pub(crate) fn kv_bytes_per_token(&self) -> f64 {
        let attention = &self.shape.attention;
        let bits = self.hardware.kv_cache_bits.map_or(attention.kv_number_bits, u64::from);
        count_f64(attention.kv_numbers_per_token()) * count_f64(bits) / 8.0
    }

    fn ceiling(&self) -> f64 {
        self.hardware.ceiling_flops_per_s(self.shape.weight_bits())
    }

    /// The shortest decode step, in seconds.
    pub(crate) fn step_floor_s(&self, batch: f64, context: f64) -> f64 {
        let bytes = self.least_weight_bytes() + batch * self.kv_bytes(context);
        let flops = batch * self.decode_flops(context);
        (bytes / self.hardware.bandwidth_bytes_per_s()).max(flops / self.ceiling())
    }

    /// The most tokens a second of a batch that only decodes.
    #[cfg(test)]
    pub(crate) fn decode_roofline(&self, batch: f64, context: f64) -> f64 {
        batch / self.step_floor_s(batch, context)
    }

    /// The shortest time to a first token, in seconds.
    pub(crate) fn ttft_floor_s(&self, isl: f64, cached: f64) -> f64 {
        // At least the last position is computed, whatever the cache holds.
        let fresh = (isl - cached).max(1.0);
        let compute = self.prefill_flops(fresh, (isl - fresh).max(0.0)) / self.ceiling();
        compute.max(self.least_weight_bytes() / self.hardware.bandwidth_bytes_per_s())
    }

    /// The most output tokens a second of a closed loop, prefill included; and what bounds it.
    pub(crate) fn roofline(&self, of: &Measured) -> (f64, Bound) {
        let (decoded, context) = decoded(of);
        let batch = f64::from(of.users.max(1)).min(self.largest_batch(of));
        // A prefill may ride along in a step, so its reads are free here; its FLOPs are not.
        let bytes = decoded * (self.least_weight_bytes() / batch + self.kv_bytes(context));
        let fresh = (of.isl - of.cached).max(1.0);
        let flops =
            self.prefill_flops(fresh, of.isl - fresh) + decoded * self.decode_flops(context);
        let (memory_s, compute_s) =
            (bytes / self.hardware.bandwidth_bytes_per_s(), flops / self.ceiling());
        let bound = if memory_s >= compute_s { Bound::Memory } else { Bound::Compute };
        (of.osl / memory_s.max(compute_s), bound)
    }

    /// Requests whose own KV cache fits beside the weights. Memory is counted in GiB, although data
    /// sheets may mean less, and what a prompt shares with others as if it took no room.
    fn largest_batch(&self, of: &Measured) -> f64 {
        let Some(memory) = self.hardware.gpu.memory_gb else { return f64::INFINITY };
        let memory = memory * f64::from(1 << 30) * f64::from(self.hardware.count);
        let room = memory - count_f64(self.shape.weight_bytes);
        let own = (of.isl - of.cached).max(1.0);
        (room / (self.kv_bytes_per_token() * self.seen(own))).max(1.0)
    }

    /// `None` where nothing was measured that could be held against anything.
    pub(crate) fn against(&self, of: &Measured) -> Option<Against> {
        let sound = of.osl >= 1.0 && of.isl >= 1.0 && of.output_tokens_per_s.is_finite();
        if !sound || of.output_tokens_per_s <= 0.0 {
            return None;
        }
        let requests_per_s = of.output_tokens_per_s / of.osl;
        let (decoded, context) = decoded(of);
        let decoded_per_s = requests_per_s * decoded;
        let (peak, bandwidth) =
            (self.hardware.fp16_flops_per_s(), self.hardware.bandwidth_bytes_per_s());
        let fresh = (of.isl - of.cached).max(1.0);
        let mfu_prefill = requests_per_s * self.prefill_flops(fresh, of.isl - fresh) / peak;
        let mfu_decode = decoded_per_s * self.decode_flops(context) / peak;
        let kv_per_s = decoded_per_s * self.kv_bytes(context);
        let users = f64::from(of.users.max(1));
        let by_tpot = of.mean_tpot_ms.filter(|tpot| *tpot > 0.0).map(|tpot| 1e3 / tpot);
        // Never more steps than tokens: an engine that idles between requests makes none.
        let steps_per_s = by_tpot.unwrap_or(decoded_per_s / users).min(decoded_per_s);
        let least = steps_per_s * self.least_weight_bytes() + kv_per_s;
        let most = by_tpot.map(|_| {
            let weights = self.likely_weight_bytes((decoded_per_s / steps_per_s).min(users));
            ((steps_per_s + requests_per_s) * weights + kv_per_s).min(bandwidth)
        });
        let (roofline, roofline_bound) = self.roofline(of);
        let mut against = Against {
            mfu: mfu_prefill + mfu_decode,
            mfu_prefill,
            mfu_decode,
            mbu_least: least / bandwidth,
            mbu_most: most.map(|most| most.max(least) / bandwidth),
            roofline_tokens_per_s: roofline,
            roofline_share: of.output_tokens_per_s / roofline,
            roofline_bound,
            tpot_floor_ms: self.step_floor_s(1.0, of.least_isl) * 1e3,
            ttft_floor_ms: self.ttft_floor_s(of.least_isl, 0.0) * 1e3,
            impossible: Vec::new(),
        };
        against.impossible = against.found(of, bandwidth);
        Some(against)
    }
}

impl Against {
    fn found(&self, of: &Measured, bandwidth: f64) -> Vec<Impossible> {
        let floor = |figure, measured: Option<f64>, limit: f64| {
            let measured = measured.filter(|measured| *measured < limit)?;
            Some(Impossible { figure, measured, limit })
        };
        let above = (of.most_tokens_per_s > self.roofline_tokens_per_s).then_some(Impossible {
            figure: Figure::OutputTokensPerS,
            measured: of.most_tokens_per_s,
            limit: self.roofline_tokens_per_s,
        });
        let read = self.mbu_least * bandwidth;
        // Too many tokens a second are too many bytes a second: that is said once.
        let reads = (above.is_none() && self.mbu_least > 1.0).then_some(Impossible {
            figure: Figure::ReadBytesPerS,
            measured: read,
            limit: bandwidth,
        });
        // Of few tokens, one that was delivered late would make the gaps look short.
        let tpot = of.min_tpot_ms.filter(|_| of.osl >= LEAST_TPOT_TOKENS);
        above
            .into_iter()
            .chain(floor(Figure::TpotMs, tpot, self.tpot_floor_ms))
            .chain(floor(Figure::TtftMs, of.min_ttft_ms, self.ttft_floor_ms))
            .chain(reads)
            .collect()
    }
}

/// Tokens that decode steps bring, for the prefill brings the first; and their mean context.
fn decoded(of: &Measured) -> (f64, f64) {
    let decoded = (of.osl - 1.0).max(0.0);
    // The step that brings token k sees the prompt and the k tokens before it: k = 1 to OSL - 1.
    (decoded, of.isl + of.osl / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::physics::config_json::Config;
    use crate::physics::gpu::GpuTable;
    use proptest::prelude::*;

    fn a40(count: u32) -> Hardware {
        let table = GpuTable::built_in().unwrap_or_else(|problems| panic!("{problems}"));
        Hardware { gpu: table.find("A40").unwrap().clone(), count, kv_cache_bits: None }
    }

    fn model(text: &str) -> ModelShape {
        Config::parse(text.as_bytes()).unwrap().shape().unwrap()
    }

    fn eight() -> ModelShape {
        model(include_str!("models/8b.json"))
    }

    #[track_caller]
    fn close(got: f64, expected: f64) {
        assert!((got / expected - 1.0).abs() < 1e-3, "{got}, not {expected}");
    }

    const SEED: Measured = Measured {
        users: 100,
        isl: 128.0,
        osl: 256.0,
        cached: 0.0,
        least_isl: 128.0,
        output_tokens_per_s: 1637.6,
        most_tokens_per_s: 1637.6,
        mean_tpot_ms: None,
        min_tpot_ms: None,
        min_ttft_ms: None,
    };

    #[test]
    fn an_8b_model_on_an_a40_worked_by_hand() {
        let (hardware, shape) = (a40(1), eight());
        let machine = Machine { hardware: &hardware, shape: &shape };
        // 7,504,924,672 parameters multiply; 4 x 32 x 4096 FLOPs a position.
        close(machine.decode_flops(256.0), 2.0 * 7.504_924_672e9 + 524_288.0 * 256.0);
        // 15.01 GB at 696 GB/s: no token of a stream comes faster than every 21.6 ms.
        close(machine.least_weight_bytes(), 15.009_849_344e9);
        close(machine.step_floor_s(1.0, 256.0), (15.009_849_344e9 + 33_554_432.0) / 696e9);
        // 100 requests at 256 tokens read 3.36 GB of KV a step.
        close(machine.decode_roofline(100.0, 256.0), 100.0 / (18.365_29e9 / 696e9));
        // 128 tokens: 1.79 TFLOP at 149.7 TFLOPS take 12 ms, the weights 21.6 ms.
        close(machine.prefill_flops(128.0, 0.0), 1.7935e12);
        close(machine.ttft_floor_s(128.0, 0.0), 15.009_849_344e9 / 696e9);
        close(machine.ttft_floor_s(2048.0, 0.0), machine.prefill_flops(2048.0, 0.0) / 149.7e12);
    }

    /// The figures of a report that nobody checked: 256 tokens within 4.2 s.
    #[test]
    fn a_stream_faster_than_the_weights_can_be_read_is_impossible() {
        let (hardware, shape) = (a40(1), eight());
        let machine = Machine { hardware: &hardware, shape: &shape };
        let tpot = 4202.0 / 256.0;
        let got = machine.against(&Measured { min_tpot_ms: Some(tpot), ..SEED }).unwrap();
        assert_eq!(got.impossible.len(), 1, "{got:?}");
        assert_eq!(got.impossible[0].figure, Figure::TpotMs);
        close(got.tpot_floor_ms, 21.59);
        // Its throughput by itself is possible.
        assert!(got.roofline_share < 0.6, "{got:?}");
        // Decode alone gives about what the report called MFU; prefill belongs to it, too.
        assert!((0.16..0.18).contains(&got.mfu_decode), "{got:?}");
        assert!(got.mfu_prefill > 0.07 && got.mfu > 0.24, "{got:?}");
    }

    #[test]
    fn what_lies_beyond_a_limit_is_named() {
        let (hardware, shape) = (a40(1), eight());
        let machine = Machine { hardware: &hardware, shape: &shape };
        let at = |figure: Figure, of: Measured| {
            let got = machine.against(&of).unwrap();
            let found: Vec<_> = got.impossible.iter().map(|found| found.figure).collect();
            assert_eq!(found, [figure], "{got:?}");
        };
        at(Figure::OutputTokensPerS, Measured { users: 10, ..SEED });
        at(Figure::TpotMs, Measured { min_tpot_ms: Some(20.0), ..SEED });
        at(Figure::TtftMs, Measured { min_ttft_ms: Some(21.0), ..SEED });
        assert_eq!(
            machine.against(&Measured { min_ttft_ms: Some(22.0), ..SEED }).unwrap().impossible,
            []
        );
        assert_eq!(machine.against(&Measured { output_tokens_per_s: 0.0, ..SEED }), None);
    }

    #[test]
    fn bandwidth_is_used_between_two_bounds() {
        let (hardware, shape) = (a40(1), eight());
        let machine = Machine { hardware: &hardware, shape: &shape };
        let got = machine.against(&Measured { mean_tpot_ms: Some(40.0), ..SEED }).unwrap();
        // KV: 1631.2 tokens/s x 256 x 131,072 B = 54.7 GB/s; weights: 25 steps a second, and at most
        // 6.4 prefills besides.
        close(got.mbu_least, (25.0 * 15.009_849 + 54.735) / 696.0);
        close(got.mbu_most.unwrap(), ((25.0 + 1637.6 / 256.0) * 15.009_849 + 54.735) / 696.0);
        let got = machine.against(&SEED).unwrap();
        close(got.mbu_least, (16.312 * 15.009_849 + 54.735) / 696.0);
        assert_eq!(got.mbu_most, None);
        // A mean TPOT of 22 ms is above the floor, but not with the KV cache of 36 streams in each step.
        let got = machine.against(&Measured { mean_tpot_ms: Some(22.0), ..SEED }).unwrap();
        assert_eq!(got.impossible[0].figure, Figure::ReadBytesPerS, "{got:?}");
    }

    /// 51.5 GB less 16.1 of weights hold the KV of some 270 prompts of 1,000 tokens, and no more.
    #[test]
    fn more_users_than_have_room_are_no_faster() {
        let (hardware, shape) = (a40(1), eight());
        let machine = Machine { hardware: &hardware, shape: &shape };
        let long = Measured { isl: 1000.0, osl: 8000.0, ..SEED };
        let at = |users| machine.roofline(&Measured { users, ..long }).0;
        assert!(at(250) > at(200) * 1.001);
        assert!((at(2000) / at(300) - 1.0).abs() < 1e-9);
    }

    /// A small batch of a mixture reads few experts, a large one all of them.
    #[test]
    fn experts_are_read_as_they_are_chosen() {
        let (hardware, shape) = (a40(4), model(include_str!("models/8x7b.json")));
        let machine = Machine { hardware: &hardware, shape: &shape };
        let all = count_f64(shape.weight_bytes - shape.lookup_bytes);
        assert!(machine.least_weight_bytes() < 0.3 * all);
        assert!(machine.likely_weight_bytes(1.0) < 0.3 * all);
        assert!(machine.likely_weight_bytes(64.0) > 0.999 * all);
    }

    proptest! {
        /// The limits never cross: a batch never does worse than one request alone, and nothing is
        /// faster than its floor.
        #[test]
        fn limits_are_in_order(users in 1..2000_u32, isl in 1.0..8000.0_f64, osl in 1.0..4000.0_f64) {
            let (hardware, shape) = (a40(1), eight());
            let machine = Machine { hardware: &hardware, shape: &shape };
            let of = Measured { users, isl, osl, least_isl: isl, ..SEED };
            let (roofline, _) = machine.roofline(&of);
            prop_assert!(roofline.is_finite() && roofline > 0.0);
            let alone = machine.roofline(&Measured { users: 1, ..of }).0;
            prop_assert!(roofline >= alone * 0.999_999);
            let rate = roofline * 0.999;
            let at_the_limit =
                Measured { output_tokens_per_s: rate, most_tokens_per_s: rate, ..of };
            let got = machine.against(&at_the_limit).unwrap();
            prop_assert!(got.impossible.is_empty(), "{:?}", got);
            prop_assert!(got.mbu_least <= 1.0 && got.mfu <= 1.0, "{:?}", got);
        }
    }
}
