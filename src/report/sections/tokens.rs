//! Token counts: what was asked against what the server counted, and what its cache knew against what
//! the workload meant it to.

use crate::report::block::Block;
use crate::report::figure::percent;
use crate::report::sections::label;
use crate::report::table::Table;
use crate::stats::metric::share;

use crate::stats::summary::Summary;
use crate::units::count_f64;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let mut table = Table::new([
        "phase",
        "variant",
        "ISL asked",
        "ISL counted",
        "compared",
        "differ",
        "OSL counted",
        "short",
        "cached",
        "meant to be",
    ]);
    for cell in summary.cells.iter().filter(|cell| cell.requests.ok > 0) {
        let (tokens, ok) = (&cell.tokens, cell.requests.ok);
        let mean = |sum: u64| Some(count_f64(sum) / count_f64(ok)).filter(|_| sum > 0);
        table.row(vec![
            cell.phase.as_str().into(),
            label(summary, &cell.variant).into(),
            mean(tokens.prompt_asked).into(),
            mean(tokens.prompt).into(),
            tokens.prompt_compared.into(),
            tokens.prompt_mismatched.into(),
            mean(tokens.output).filter(|_| tokens.usage_missing == 0).into(),
            tokens.output_short.into(),
            percent(tokens.cached.and_then(|cached| share(cached, tokens.prompt))).into(),
            percent(tokens.meant_share()).into(),
        ]);
    }
    if table.is_empty() {
        return Vec::new();
    }
    vec![Block::Table(table), Block::text(EXPLAINED)]
}

const EXPLAINED: &str = "Means over whole requests of all trials. Asked: content tokens by the model's own tokenizer, counted again in each \
     finished text; of a later turn of a conversation only what is new. Counted: by the server, with special tokens, template \
     and what was carried on. Compared: requests whose whole count is known beforehand; a chat's template is the server's own, and \
     the answers in a conversation are what the engine made. Short: answers with fewer tokens than asked. Cached: prompt tokens \
     that the server says its prefix cache had, a dash where it does not say; meant to be: those that an earlier request of \
     the phase had begun with.";
