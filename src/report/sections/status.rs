//! What ran, how far it came, and of what kind the figures are.

use crate::report::block::Block;
use crate::report::sections::{label, really, smoke};
use crate::report::table::Table;
use crate::stats::summary::{Status, Summary};
use crate::sweep::def::Endpoint;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let mut blocks = Vec::new();
    if summary.status.simulated {
        blocks.push(Block::Notice(
            "SIMULATED: variants marked (simulated) ran on a simulated engine. Their figures are no \
             measurements."
                .to_owned(),
        ));
    }
    blocks.extend(smoke::notices(summary));
    blocks.extend(really::notices(summary));
    blocks.push(Block::Text(progress(&summary.status)));
    let when = match (&summary.status.started, &summary.status.ended) {
        (Some(started), Some(ended)) => format!(", {started} to {ended}"),
        _ => String::new(),
    };
    let setup = &summary.setup;
    let endpoint = match setup.endpoint {
        Endpoint::Completions => "completions",
        Endpoint::Chat => "chat completions",
        Endpoint::Generate => "engine's own generate",
    };
    let blocks_text = match setup.blocks {
        1 => "1 block".to_owned(),
        n => format!("{n} blocks"),
    };
    blocks.push(Block::Text(format!(
        "Run {}{when}. Each request: {} tokens in (ISL), {} tokens out (OSL), streamed from the {endpoint} \
         endpoint; {}, each one trial of every variant.",
        summary.run,
        length(setup.prompt_tokens, setup.prompt_tokens_vary),
        length(setup.output_tokens, setup.output_tokens_vary),
        blocks_text
    )));
    blocks.push(Block::Table(variants(summary)));
    blocks
}

fn length(tokens: u32, vary: bool) -> String {
    if vary { format!("at most {tokens}") } else { tokens.to_string() }
}

fn progress(status: &Status) -> String {
    let ended = if status.complete {
        format!("Complete: all {} trials have ended", status.trials_planned)
    } else {
        format!("Unfinished: {} of {} trials so far", status.trials_ended, status.trials_planned)
    };
    let kinds = [
        (status.trials_completed, "completed"),
        (status.trials_engine_failed, "failed"),
        (status.trials_broken, "broken by the machine or by sweepd"),
        (status.trials_cancelled, "cancelled"),
        (status.trials_skipped, "skipped"),
    ];
    let counts: Vec<String> = kinds
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, kind)| format!("{count} {kind}"))
        .collect();
    let counts = match counts.is_empty() {
        true => String::new(),
        false => format!(" ({})", counts.join(", ")),
    };
    let interrupted = match status.trials_interrupted {
        0 => String::new(),
        1 => " 1 of them was interrupted by sweepd's own end and run again.".to_owned(),
        count => format!(" {count} of them were interrupted by sweepd's own end and run again."),
    };
    format!("{ended}{counts}.{interrupted}")
}

fn variants(summary: &Summary) -> Table {
    let mut table = Table::new(["variant", "engine", "version", "model", "parameters"]);
    for variant in summary.variants.iter().map(|variant| &variant.facts) {
        let params: Vec<String> =
            variant.params.iter().map(|fact| format!("{}={}", fact.name, fact.value)).collect();
        table.row(vec![
            label(summary, &variant.name).into(),
            variant.engine.as_str().into(),
            variant.engine_version.as_deref().unwrap_or("unknown").into(),
            variant.model.as_str().into(),
            if params.is_empty() { "defaults".into() } else { params.join(" ").into() },
        ]);
    }
    table
}
