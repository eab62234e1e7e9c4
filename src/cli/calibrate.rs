//! `sweepd calibrate`: what the load generator adds of its own on this machine, at a concurrency and
//! token rate, against a server of ours that does nothing but stream at times it knows.
#![expect(clippy::print_stdout, reason = "the result is what it prints")]
#![expect(clippy::print_stderr, reason = "progress goes to stderr")]

use super::client::block_on;
use super::input::Refused;
use super::{bench, input, signals};
use crate::clock;
use crate::daemon::reports;
use crate::engine::def::Endpoint;
use crate::engine::request;
use crate::ids::Name;
use crate::load::message::{LoadPattern, LoadPlan, PromptPlan, RequestPlan};
use crate::load::null::{NullPort, NullTruth};
use crate::load::peer::Peer;
use crate::own::{self, Piped};
use crate::run::FORMAT;
use crate::run::calibration::{Calibration, Point};
use crate::stats::calibration::{self, Pace};
use crate::stats::data::PhaseData;
use crate::units::nanoseconds;
use anyhow::Context;
use clap::Args;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::watch;

/// Tokens of each answer.
const TOKENS: NonZeroU32 = NonZeroU32::new(64).expect("64 is not 0");
/// The longest that a point may take, but for its last requests.
const POINT: Duration = Duration::from_secs(1800);
const MOST_USERS: u32 = 100_000;

#[derive(Debug, Args)]
pub(super) struct CalibrateArguments {
    /// A run, by folder or id: at the concurrency and pace of each of its phases; kept with the
    /// run, whose report then shows it.
    #[arg(required_unless_present = "users", conflicts_with_all = ["users", "gap", "ttft"])]
    run: Option<PathBuf>,
    /// So many streams at once.
    #[arg(long)]
    users: Option<u32>,
    /// Between two tokens of a stream.
    #[arg(long, default_value = "20ms", value_parser = humantime::parse_duration)]
    gap: Duration,
    /// From a request to its first token.
    #[arg(long, default_value = "50ms", value_parser = humantime::parse_duration)]
    ttft: Duration,
    /// The result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &CalibrateArguments) -> anyhow::Result<ExitCode> {
    let run = arguments.run.as_ref();
    let dir = run.map(|run| input::find_run(run, &input::runs_folder())).transpose()?;
    let paces = match (&dir, arguments.users) {
        (Some(dir), _) => {
            let summary = reports::rewrite(dir).context("cannot read the run")?;
            let paces = calibration::paces(&summary);
            anyhow::ensure!(!paces.is_empty(), "the run has no phase that was measured");
            paces
        }
        (None, users) => vec![asked(arguments, users.unwrap_or(1))?],
    };
    let stop = signals::stop_requests()?;
    let scratch =
        input::scratch_folder("sweepd-calibrate").context("cannot make a scratch folder")?;
    let measured = block_on(all(&paces, &scratch, stop));
    std::fs::remove_dir_all(&scratch).ok();
    let calibration = Calibration {
        format: FORMAT,
        sweepd: env!("CARGO_PKG_VERSION").to_owned(),
        at: clock::wall_time(),
        points: measured?,
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&calibration)?);
    } else {
        print!("{}", crate::report::calibration_table(&calibration));
    }
    if let Some(dir) = dir {
        reports::keep_calibration(&dir, &calibration).context("cannot keep the calibration")?;
        reports::rewrite(&dir).context("cannot make the report")?;
        eprintln!("report: {}", dir.file("report.md").display());
    }
    Ok(ExitCode::SUCCESS)
}

fn asked(arguments: &CalibrateArguments, users: u32) -> Result<Pace, Refused> {
    let wrong = |name, why: &str| Refused::Argument { name, why: why.to_owned() };
    if !(1..=MOST_USERS).contains(&users) {
        return Err(wrong("--users", "must be from 1 to 100000"));
    }
    if arguments.gap < Duration::from_micros(100) {
        return Err(wrong("--gap", "must be at least 100us"));
    }
    let ms = |span: Duration| span.as_secs_f64() * 1e3;
    Ok(Pace { users, ttft_ms: ms(arguments.ttft), gap_ms: ms(arguments.gap) })
}

async fn all(
    paces: &[Pace],
    scratch: &Path,
    stop: watch::Receiver<u32>,
) -> anyhow::Result<Vec<Point>> {
    let mut points = Vec::new();
    for (number, pace) in (1..).zip(paces) {
        eprintln!(
            "{number} of {}: {} users, a token every {:.2} ms",
            paces.len(),
            pace.users,
            pace.gap_ms
        );
        let (data, truth) = one(pace, &scratch.join(format!("{number}.frames")), &stop).await?;
        points.push(calibration::point(pace, &data, truth.ttft_ns, truth.gaps_ns));
    }
    Ok(points)
}

/// One level against a server of its own.
async fn one(
    pace: &Pace,
    records: &Path,
    stop: &watch::Receiver<u32>,
) -> anyhow::Result<(PhaseData, NullTruth)> {
    let mut command = own::command("__null");
    let microseconds = |ms: f64| format!("{:.0}us", ms * 1e3);
    command.arg(microseconds(pace.ttft_ms)).arg(microseconds(pace.gap_ms));
    let Piped { child: _child, stdin, mut lines } =
        Piped::start(command).context("cannot start the null server")?;
    let gone = "the null server ended without a word";
    let line = lines.next_line().await?.context(gone)?;
    let NullPort { port } = serde_json::from_str(&line).context(gone)?;
    let data = bench::drive(&plan(pace, port, records)?, stop.clone()).await?;
    // The end of its stdin is its end.
    drop(stdin);
    let line = lines.next_line().await?.context(gone)?;
    Ok((data, serde_json::from_str(&line).context(gone)?))
}

fn plan(pace: &Pace, port: u16, records: &Path) -> anyhow::Result<LoadPlan> {
    let shape = request::common_shape();
    let sampling = BTreeMap::from([("temperature".to_owned(), 0.0)]);
    let draft = request::draft("null", &shape, Endpoint::Completions, "null", &sampling, TOKENS)?;
    let requests = pace.requests(TOKENS.get());
    Ok(LoadPlan {
        phase: Name::new("calibration").unwrap_or_else(Name::warmup),
        host: "127.0.0.1".to_owned(),
        port,
        authority: format!("127.0.0.1:{port}"),
        peer: Peer::default(),
        request: RequestPlan {
            path: "/v1/completions".to_owned(),
            draft,
            output_tokens: TOKENS.get(),
            done_marker: shape.done_marker,
        },
        prompts: PromptPlan::words(8),
        users: pace.users.min(requests),
        loops: 1,
        min_requests: requests,
        max_requests: Some(requests),
        min_duration_ns: 0,
        pattern: LoadPattern::CLOSED,
        phase_deadline_ns: nanoseconds(POINT),
        request_deadline_ns: nanoseconds(POINT),
        stall_ns: nanoseconds(Duration::from_secs(60)),
        keep_alive_ns: nanoseconds(Duration::from_secs(3600)),
        records: records.to_owned(),
    })
}
