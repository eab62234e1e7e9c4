//! How each figure is defined, with its window and its floor.

use crate::report::block::Block;
use crate::stats::quantile::Percentile;
use crate::stats::summary::Summary;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let floors: Vec<String> = Percentile::ALL
        .iter()
        .map(|percentile| format!("{} {}", percentile.name(), percentile.floor()))
        .collect();
    let percentiles = format!(
        "linear interpolation (numpy's default), over the requests of all trials. Absent below the sample with \
         which, at 95 % confidence, one value lies beyond the true percentile: {}.",
        floors.join(", ")
    );
    let mut terms: Vec<(String, String)> =
        TERMS.iter().map(|(term, meaning)| ((*term).to_owned(), (*meaning).to_owned())).collect();
    terms.push(("Percentiles".to_owned(), percentiles));
    if !summary.against_hardware.is_empty() {
        let own = |(term, meaning): &(&str, &str)| ((*term).to_owned(), (*meaning).to_owned());
        terms.extend(PHYSICS.iter().map(own));
    }
    vec![Block::Terms(terms)]
}

const TERMS: [(&str, &str); 13] = [
    (
        "TTFT",
        "from just before the request's first byte was written (connected before that) to the arrival of the first \
         chunk with generated text. Chunks without text, such as a role, do not count; \"first chunk\" counts them.",
    ),
    (
        "E2EL",
        "from the same start to the arrival of the last chunk; usage and end markers do not count.",
    ),
    (
        "TPOT",
        "(E2EL - TTFT) / (output tokens - 1) of each request; requests with one token have none.",
    ),
    (
        "ITL",
        "the gaps between successive chunks from the first text on, all requests together. A chunk is not a token: \
         see tokens per chunk. Its n counts gaps, which are not independent.",
    ),
    (
        "From scheduled",
        "the same from when the load pattern wanted the request sent, so that a late client cannot hide waiting.",
    ),
    (
        "Arrival",
        "the kernel's receive stamp. Where several chunks were read together only bounds are known (censored); tables \
         use the later bound.",
    ),
    (
        "Output tokens",
        "as the server's usage reports them. Asked, but not reported, is not counted.",
    ),
    (
        "Steady window",
        "from when every user had a request under way (of an open loop: as many in flight as in its second half) until sending \
         stopped. A request's tokens are spread evenly \
         over its chunks and count where those arrived; a request counts where it ended, its input where its first text came.",
    ),
    (
        "Whole phase",
        "from the first request's due time to the end of the last stream, ramp and drain included: what most tools print.",
    ),
    ("Speed for one user", "output tokens / E2EL of each request; SD with n - 1; CV = SD / mean."),
    (
        "Trials and intervals",
        "a trial is one fresh launch of the engine. Throughput is a figure of a trial; its 95 % t interval is over trials.",
    ),
    (
        "Sent",
        "every request that the load pattern started, also where no connection could be made. Only ok ones, whose \
         stream came whole, have latencies and give tokens.",
    ),
    (
        "Warm-up",
        "its requests come before the first phase of each launch, from prompts of their own, and are in no figure.",
    ),
];

/// Said where figures are held against hardware.
const PHYSICS: [(&str, &str); 4] = [
    (
        "MFU",
        "FLOPs of the delivered tokens / (time x FP16 dense peak). A decoded token at context c takes 2 N + 4 L H D c; \
         a prefill of P tokens 2 (N - N_head) P + 2 N_head + 4 L H D P (P + 1) / 2. N: parameters at work on a token, \
         without the embedding lookup; L layers, H heads of width D.",
    ),
    (
        "MBU",
        "bytes that decoding had to read / (time x peak bandwidth): W for each step and K c for each token at context \
         c. W: weights without the embedding lookup (of experts, those that were chosen), K: KV bytes of a token. \
         Least: a step each mean TPOT, for steps follow one another no slower than a stream's tokens. Most: a pass \
         over the weights for every prefill besides.",
    ),
    (
        "Roofline",
        "OSL / max(bytes / bandwidth, FLOPs / peak) of one request, its weights shared by all users (in an open loop: by the most requests that were in flight at once; or as many as \
         memory holds the KV of) and its prefill's \
         reads left out: a bound that no scheduler can pass. Peak: the fastest arithmetic for such weights.",
    ),
    (
        "Floors",
        "TPOT: (W + K c) / bandwidth, at the shortest prompt. TTFT: max(prefill FLOPs / peak, W / bandwidth), of the \
         fewest prompt tokens that a request had computed. Both take one token a step: speculative decoding may pass them.",
    ),
];
