//! How each figure is defined, with its window and its floor.

use crate::report::block::Block;
use crate::stats::quantile::Percentile;
use crate::stats::summary::Summary;

pub(super) fn blocks(_: &Summary) -> Vec<Block> {
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
        "from when every user had a request under way until sending stopped. A request's tokens are spread evenly \
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
