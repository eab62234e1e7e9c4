//! `sweepd bench`: the load generator against a server that already runs.
//!
//! It starts no server and stops none. The load runs in the same process of its own as in a
//! sweep, and the figures are made by the same code.
#![expect(clippy::print_stdout, reason = "the result is what it prints")]
#![expect(clippy::print_stderr, reason = "progress goes to stderr")]

mod key;
mod plan;
mod show;
mod target;
mod under_tls;

use super::client::block_on;
use super::{input, signals};
use crate::clock;
use crate::ids::folder_stamp;
use crate::load::frames;
use crate::load::handle::LoadHandle;
use crate::load::message::{LoadEvent, LoadPlan};
use crate::report::saved::{SavedSetup, saved};
use crate::run::phase::PhaseEnd;
use crate::secrets;
use crate::stats::cell::Cell;
use crate::stats::data::PhaseData;
use crate::store::parquet;
use crate::workload::schedule::OpenLoop;
use anyhow::Context;
use clap::Args;
use plan::{Bench, PromptLength};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::sync::watch;

#[derive(Debug, Args)]
pub(super) struct BenchArguments {
    /// The server, such as http://127.0.0.1:8000.
    #[arg(long)]
    url: String,
    /// The name under which it serves the model.
    #[arg(long)]
    model: String,
    /// completions, chat, or generate: the engine's own, which needs --engine.
    #[arg(long, default_value = "completions")]
    endpoint: String,
    /// The engine file that says how its requests are written. Without it: as most servers take
    /// them, with `ignore_eos` for the output length.
    #[arg(long)]
    engine: Option<String>,
    /// A closed loop of so many users; with --rate, the most that may be in flight.
    #[arg(long, required_unless_present = "rate")]
    users: Option<u32>,
    /// Event loops of the client, each a thread; no more than it has CPUs.
    #[arg(long, default_value_t = 1)]
    loops: u32,
    /// An open loop: so many requests a second, whatever the server does.
    #[arg(long)]
    rate: Option<f64>,
    /// The shape of the gaps' gamma distribution: 1 is Poisson, less comes in bursts.
    #[arg(long, default_value_t = 1.0, requires = "rate")]
    burstiness: f64,
    /// Send so many requests, no more and no less.
    #[arg(long, required_unless_present = "duration", conflicts_with = "duration")]
    requests: Option<u32>,
    /// Send for so long, such as 30s; what is under way then comes to its end.
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<std::time::Duration>,
    #[arg(long, required_unless_present = "dataset")]
    prompt_tokens: Option<u32>,
    /// With --dataset and without this, answers are as long as the recorded ones.
    #[arg(long, required_unless_present = "dataset")]
    output_tokens: Option<u32>,
    /// Ask what people once asked: ShareGPT, OpenAI chat lines, or prompts; JSON lines or one array.
    #[arg(long, value_name = "FILE", requires = "tokenizer", conflicts_with = "prompt_tokens")]
    dataset: Option<PathBuf>,
    /// Whole conversations, with the server's own answers carried on, not only first messages.
    #[arg(long, requires = "dataset", conflicts_with = "rate")]
    whole_conversations: bool,
    /// Count requests within all of these limits, in ms: ttft:500 tpot:50 e2el:20000.
    #[arg(long, value_name = "TIME:MS", num_args = 1.., value_parser = plan::limit)]
    goodput: Vec<plan::Limit>,
    /// Requests before the measured ones, with prompts of their own.
    #[arg(long, default_value_t = 0)]
    warmup: u32,
    /// The model's tokenizer.json, or a folder with one: prompts are then exact.
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Let the model end its answers; the output length is then a bound only.
    #[arg(long)]
    natural_length: bool,
    /// Make a connection for each request, as clients without a pool do, instead of keeping them.
    #[arg(long)]
    connection_per_request: bool,
    #[command(flatten)]
    key: key::KeyArguments,
    /// Trust the certificates that this PEM file holds, and no others. Without it: those that the
    /// machine trusts (SSL_CERT_FILE and SSL_CERT_DIR are heeded).
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca_file: Option<PathBuf>,
    /// Take any certificate: whoever answers then gets the requests and the API key. The result
    /// says so.
    #[arg(long)]
    insecure: bool,
    /// The longest that one request may take.
    #[arg(long, default_value = "5min", value_parser = humantime::parse_duration)]
    request_deadline: std::time::Duration,
    /// A stream without a byte for this long has stalled.
    #[arg(long, default_value = "1min", value_parser = humantime::parse_duration)]
    stall_deadline: std::time::Duration,
    /// Write the result as JSON, in the fields that scripts for serving benchmarks read.
    #[arg(long, value_name = "FILE")]
    save_result: Option<PathBuf>,
    /// Write every request with every chunk's arrival, as Parquet.
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,
    /// With lists of one entry a request in it.
    #[arg(long, requires = "save_result")]
    save_detailed: bool,
}

pub(super) fn run(arguments: &BenchArguments, folders: Vec<PathBuf>) -> anyhow::Result<ExitCode> {
    let mut bench = plan::bench(arguments, folders, &input::environment())?;
    secrets::learn(bench.key.iter().map(|key| key.key.expose().to_owned()));
    for note in bench.notes() {
        eprintln!("note: {note}");
    }
    let stop = signals::stop_requests()?;
    let scratch = input::scratch_folder("sweepd-bench").context("cannot make a scratch folder")?;
    let result = block_on(measure(&mut bench, &scratch, stop));
    std::fs::remove_dir_all(&scratch).ok();
    let data = result?;
    let cell = show::cell(&data, bench.open.as_ref().map(OpenLoop::describe));
    let text = show::result(&bench, &data, &cell);
    print!("{}", secrets::redacted(&text));
    if let Some(file) = &arguments.records {
        let path = std::path::absolute(file).context("cannot find the folder for the records")?;
        parquet::write(&path, &data.records).context("cannot keep the records")?;
        println!("records: {}", file.display());
    }
    if let Some(file) = &arguments.save_result {
        let result = saved(
            &setup(&bench, &data, &cell),
            &data.facts,
            &data.records,
            arguments.save_detailed,
        );
        let text = serde_json::to_string_pretty(&result)? + "\n";
        std::fs::write(file, &*secrets::redacted(&text))
            .with_context(|| format!("cannot write {}", file.display()))?;
        println!("result: {}", file.display());
    }
    let ok = data.records.iter().any(|record| record.outcome.is_ok());
    let ended = matches!(data.facts.end, PhaseEnd::Finished | PhaseEnd::Deadline);
    Ok(if ok && ended { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Warm-up, then what is measured.
async fn measure(
    bench: &mut Bench,
    scratch: &Path,
    stop: watch::Receiver<u32>,
) -> anyhow::Result<PhaseData> {
    if let Some(plan) = bench.warmup(scratch) {
        eprintln!("warm-up: {} requests", plan.min_requests);
        let data = drive(&plan, stop.clone()).await.context("the warm-up failed")?;
        bench.learn(&data.records);
    }
    drive(&bench.measured(scratch), stop).await
}

pub(super) async fn drive(
    plan: &LoadPlan,
    mut stop: watch::Receiver<u32>,
) -> anyhow::Result<PhaseData> {
    let mut handle = LoadHandle::start(plan).await.context("cannot start the load generator")?;
    let mut may_stop = true;
    let facts = loop {
        tokio::select! {
            event = handle.next() => match event {
                Some(LoadEvent::Done { facts }) => break *facts,
                Some(LoadEvent::Tick(tick)) => eprintln!(
                    "{:>4} s: {} sent, {} ok, {} failed, {} in flight",
                    tick.elapsed_ns / 1_000_000_000, tick.sent, tick.ok, tick.failed, tick.in_flight
                ),
                Some(LoadEvent::Started) => {}
                Some(LoadEvent::Broken { reason }) => {
                    anyhow::bail!("the load generator is broken: {reason}")
                }
                None => anyhow::bail!("the load generator ended without a result"),
            },
            asked = stop.changed(), if may_stop => {
                may_stop = asked.is_ok();
                handle.stop().await;
            }
        }
    };
    if let Some(how) = handle.reap().await {
        anyhow::bail!("the load generator failed: {how}");
    }
    let frames = frames::read(&plan.records).context("cannot read what was measured")?;
    anyhow::ensure!(!frames.torn, "the load generator's records end within one");
    Ok(PhaseData::new(facts, frames.records))
}

fn setup<'a>(bench: &'a Bench, data: &PhaseData, cell: &Cell) -> SavedSetup<'a> {
    SavedSetup {
        date: folder_stamp(&clock::wall_time()),
        backend: &bench.backend,
        model: &bench.model,
        tokenizer: match &bench.length {
            PromptLength::Exact { tokenizer } => Some(tokenizer.display().to_string()),
            PromptLength::Words { .. } => None,
        },
        requests: bench.requests,
        rate: bench.rate(),
        burstiness: bench.burstiness,
        users: bench.open.is_none().then_some(bench.users),
        slo: bench.slo,
        more: show::facts(bench, data, cell),
    }
}
