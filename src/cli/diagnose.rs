//! `sweepd diagnose LOG`: why an engine failed, from its log and its end; the same rules and the same
//! weighing as in a run. Nothing is launched.
#![expect(clippy::print_stdout, reason = "the verdict is what it prints")]

use super::input::{self, Refused};
use crate::engine::rules::rule::{LogPhase, LogRules};
use crate::engine::rules::scan::{Hit, ScanSpec, Scanner};
use crate::engine::rules::{Judgement, Matcher, judge, symptom_of};
use crate::ids::wire_name;
use crate::run::outcome::{EvidenceLine, ExitStatus};
use crate::supervise::log::LineCutter;
use clap::Args;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const TAIL_LINES: usize = 12;

#[derive(Debug, Args)]
pub(super) struct DiagnoseArguments {
    /// The log's file, as the engine, a container or sweepd wrote it; `-` reads standard input.
    log: PathBuf,
    /// The engine that wrote it, as `sweepd engines` lists them; `common` for any other program.
    #[arg(long, value_name = "NAME")]
    engine: String,
    /// What it was doing when it failed, where that is known.
    #[arg(long, value_name = "PHASE", value_parser = phase,
          long_help = "What it was doing when it failed, where that is known: startup, weights, \
                       kv_cache, graphs, load (serving under load), teardown, or unknown.")]
    phase: Option<Phase>,
    /// Its exit code; 137 is taken as signal 9, as shells and containers mean it.
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with = "signal")]
    exit_code: Option<i32>,
    /// The signal that ended it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=64))]
    signal: Option<i32>,
    /// Its version, where that is known: some rules hold for some versions only.
    #[arg(long, value_name = "VERSION")]
    engine_version: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// `None`: the user does not know either.
#[derive(Clone, Copy, Debug)]
struct Phase(Option<LogPhase>);

fn phase(word: &str) -> Result<Phase, String> {
    Ok(Phase(Some(match word.replace('-', "_").as_str() {
        "unknown" => return Ok(Phase(None)),
        "startup" | "start" | "starting" | "launching" | "loading" => LogPhase::Starting,
        "weights" => LogPhase::Weights,
        "kv_cache" => LogPhase::KvCache,
        "graphs" | "warmup" | "warm_up" | "warming_up" => LogPhase::Graphs,
        "load" | "serving" | "loaded" | "phase" => LogPhase::Serving,
        "teardown" | "stopping" => LogPhase::Stopping,
        _ => {
            return Err("one of startup, weights, kv_cache, graphs, load, teardown, unknown".into());
        }
    })))
}

pub(super) fn run(
    arguments: &DiagnoseArguments,
    folders: Vec<PathBuf>,
) -> anyhow::Result<ExitCode> {
    let rules = input::library(folders)?
        .log_rules(&arguments.engine, &input::disk())
        .map_err(|error| Refused::Other(error.to_string()))?;
    let unreadable = |cause| Refused::Unreadable { file: arguments.log.clone(), cause };
    let phase = arguments.phase.and_then(|phase| phase.0);
    let mut reader = Reader::new(&rules, phase.unwrap_or_default());
    if arguments.log == Path::new("-") {
        reader.take_all(io::stdin().lock()).map_err(unreadable)?;
    } else {
        reader.take_all(File::open(&arguments.log).map_err(unreadable)?).map_err(unreadable)?;
    }
    let code = arguments.exit_code.map(ExitStatus::Code);
    let status = code.or(arguments.signal.map(ExitStatus::Signal));
    let symptom = symptom_of(status, phase, &reader.scanner);
    let log = reader.finish(&rules, arguments.engine_version.as_deref());
    let judged = judge(&log, symptom.as_ref());
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&facts(judged.as_ref()))?);
    } else {
        println!("{}", shown(judged.as_ref()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a log of any size, as the guard of a run does.
struct Reader {
    scanner: Scanner,
    cutter: LineCutter,
    hits: Vec<Hit>,
    tail: VecDeque<EvidenceLine>,
    lines: u64,
}

impl Reader {
    fn new(rules: &LogRules, phase: LogPhase) -> Self {
        Self {
            scanner: Scanner::new(ScanSpec::new(rules), phase),
            cutter: LineCutter::default(),
            hits: Vec::new(),
            tail: VecDeque::new(),
            lines: 0,
        }
    }

    fn take_all(&mut self, mut source: impl Read) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let mut cutter = std::mem::take(&mut self.cutter);
            let count = match source.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            cutter.feed(&buffer[..count], |line| self.take(line));
            if count == 0 {
                if let Some(rest) = cutter.rest() {
                    self.take(rest);
                }
                return Ok(());
            }
            self.cutter = cutter;
        }
    }

    fn take(&mut self, text: String) {
        self.lines += 1;
        self.hits.extend(self.scanner.read(self.lines, &text));
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(EvidenceLine { line: self.lines, text });
    }

    fn finish(mut self, rules: &LogRules, version: Option<&str>) -> Matcher {
        self.hits.extend(self.scanner.finish());
        let tail: Vec<EvidenceLine> = self.tail.into_iter().collect();
        Matcher::reported(rules, version, &self.hits, &tail)
    }
}

fn facts(judged: Option<&Judgement>) -> Value {
    match judged {
        None => json!({
            "kind": "none", "root_cause": null, "evidence": [], "advice": null, "confidence": "medium",
        }),
        Some(judged) => json!({
            "kind": judged.kind,
            "root_cause": judged.root_cause,
            "evidence": judged.evidence,
            "advice": judged.advice,
            "confidence": judged.confidence,
        }),
    }
}

fn shown(judged: Option<&Judgement>) -> String {
    let Some(judged) = judged else {
        return "none: no line of the log and nothing about its end speaks of a failure".to_owned();
    };
    let kind = wire_name(&judged.kind);
    let mut text = format!(
        "{kind} (confidence: {})\n  {}\n",
        wire_name(&judged.confidence),
        judged.root_cause
    );
    if let Some(advice) = &judged.advice {
        text.push_str(&format!("  advice: {advice}\n"));
    }
    for line in &judged.evidence {
        text.push_str(&format!("{:>8} | {}\n", line.line, line.text));
    }
    text.trim_end().to_owned()
}
