//! `sweepd events` and `sweepd logs`: what happens, and what an engine said.
#![expect(clippy::print_stdout, reason = "what is followed is what it prints")]

use super::client::{Client, Target, block_on};
use clap::Args;
use serde_json::Value;
use std::io::{Write, stdout};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct EventsArguments {
    /// Go on as more happens; otherwise what is remembered, and no more.
    #[arg(long, short)]
    follow: bool,
    /// Only what came after this number.
    #[arg(long, value_name = "ID")]
    after: Option<u64>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct LogsArguments {
    /// The run's id.
    run: String,
    /// The trial: `01-NAME`.
    trial: String,
    /// What the engine wrote, instead of what sweepd did.
    #[arg(long)]
    engine: bool,
    /// The engine's log as it grows, until the attempt has ended.
    #[arg(long, short)]
    follow: bool,
    /// An earlier attempt than the last.
    #[arg(long)]
    attempt: Option<u32>,
    #[command(flatten)]
    target: Target,
}

pub(super) fn events(arguments: &EventsArguments) -> anyhow::Result<ExitCode> {
    let client = Client::new(&arguments.target)?;
    let once = if arguments.follow { "" } else { "&once=true" };
    // Without a number: all that is remembered, or with --follow what comes from now on.
    let after = arguments.after.or((!arguments.follow).then_some(0));
    let after = after.map_or_else(String::new, |after| format!("after={after}"));
    block_on(async {
        let mut stream = client.stream(&format!("/v1/events?{after}{once}")).await?;
        let mut text = Vec::new();
        while let Some(chunk) = stream.chunk().await? {
            text.extend_from_slice(&chunk);
            while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = text.drain(..end + 2).collect();
                print_event(&String::from_utf8_lossy(&event), arguments.target.json)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn print_event(event: &str, json: bool) -> anyhow::Result<()> {
    let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else {
        return Ok(());
    };
    if json {
        println!("{data}");
    } else {
        let event: Value = serde_json::from_str(data)?;
        let word = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
        let trial = event.get("trial").map_or_else(String::new, |trial| {
            let block = trial.get("block").and_then(Value::as_u64).unwrap_or_default();
            format!(
                "{block:02}-{}",
                trial.get("variant").and_then(Value::as_str).unwrap_or_default()
            )
        });
        let parts = [word("at"), word("event"), word("run"), &trial, word("text")];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        match event.get("missed") {
            Some(Value::Null) => {
                println!("what happened before sweepd's last start is not remembered")
            }
            Some(missed) => println!("{missed} events are no longer remembered"),
            None => println!("{}", parts.join(" ")),
        }
    }
    stdout().flush()?;
    Ok(())
}

pub(super) fn logs(arguments: &LogsArguments) -> anyhow::Result<ExitCode> {
    let client = Client::new(&arguments.target)?;
    let LogsArguments { run, trial, .. } = arguments;
    if !arguments.engine && !arguments.follow {
        let facts: Value = block_on(client.get(&format!("/v1/runs/{run}/trials/{trial}")))?;
        if arguments.target.json {
            println!("{facts}");
        } else {
            print_attempts(&facts, arguments.attempt);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let attempt = arguments.attempt.map_or_else(String::new, |n| format!("&attempt={n}"));
    let follow = arguments.follow;
    let path = format!("/v1/runs/{run}/trials/{trial}/log?follow={follow}{attempt}");
    block_on(async {
        let mut stream = client.stream(&path).await?;
        while let Some(chunk) = stream.chunk().await? {
            stdout().write_all(&chunk)?;
            stdout().flush()?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// What sweepd did in each attempt, and when.
fn print_attempts(facts: &Value, only: Option<u32>) {
    let attempts = facts.get("attempts").and_then(Value::as_array);
    for attempt in attempts.into_iter().flatten() {
        let number = attempt.get("attempt").and_then(Value::as_u64).unwrap_or_default();
        if only.is_some_and(|only| u64::from(only) != number) {
            continue;
        }
        let word = |key: &str| attempt.get(key).and_then(Value::as_str).unwrap_or_default();
        println!("attempt {number}, from {}: {}", word("started"), word("ending"));
        let timeline = attempt.get("timeline").and_then(Value::as_array);
        for entry in timeline.into_iter().flatten() {
            let at = entry.get("at_ms").and_then(Value::as_f64).unwrap_or_default() / 1e3;
            let what = entry.get("what").and_then(Value::as_str).unwrap_or_default();
            println!("  {at:9.3} s  {what}");
        }
    }
    if facts.get("outcome").is_some_and(Value::is_null) {
        println!("the trial has not ended; --follow shows its engine's log");
    }
}
