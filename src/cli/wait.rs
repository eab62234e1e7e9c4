//! `sweepd wait RUN`: until the run has ended; the exit code tells what it came to.
#![expect(clippy::print_stdout, reason = "the outcome is what it prints")]

use super::client::{Client, Target, block_on};
use crate::daemon::service::view::RunDetail;
use crate::ids::RunId;
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The daemon may be restarted meanwhile.
const AGAIN: Duration = Duration::from_secs(1);
const PATIENCE: u32 = 120;

#[derive(Debug, Args)]
pub(super) struct WaitArguments {
    /// The run's id.
    run: String,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &WaitArguments) -> anyhow::Result<ExitCode> {
    let client = Client::new(&arguments.target)?;
    block_on(async {
        let ended = until_ended(&client, &RunId(arguments.run.clone())).await?;
        outcome_of(&ended, arguments.target.json)
    })
}

/// Asks whenever something has happened, also through a restart of the daemon.
pub(super) async fn until_ended(client: &Client, run: &RunId) -> anyhow::Result<RunDetail> {
    let mut missed = 0;
    let path = format!("/v1/runs/{run}");
    loop {
        match client.get::<RunDetail>(&path).await {
            Ok(detail)
                if matches!(detail.run.state.as_str(), "ended" | "cancelled")
                    && detail.run.ended.is_some() =>
            {
                return Ok(detail);
            }
            Ok(_) => missed = 0,
            Err(error) if error.is::<super::input::Refused>() || missed >= PATIENCE => {
                return Err(error);
            }
            Err(_) => missed += 1,
        }
        sleep(AGAIN).await;
        wait_for_an_event(client).await;
    }
}

/// Returns with the next event, or after a while: then it is asked again all the same.
async fn wait_for_an_event(client: &Client) {
    const WHILE: Duration = Duration::from_secs(5);
    let next = async {
        let mut stream = client.stream("/v1/events").await.ok()?;
        stream.chunk().await.ok()?
    };
    timeout(WHILE, next).await.ok();
}

/// 0 when every trial completed, else 1.
pub(super) fn outcome_of(ended: &RunDetail, json: bool) -> anyhow::Result<ExitCode> {
    let run = &ended.run;
    if json {
        println!("{}", serde_json::to_string(ended)?);
    } else {
        let (id, state) = (&run.run, &run.state);
        let (completed, planned) = (run.trials_completed, run.trials_planned);
        println!("run {id} {state}: {completed} of {planned} trials completed");
        println!("report: {}/report.md", run.path);
    }
    let all = run.trials_completed == run.trials_planned;
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
