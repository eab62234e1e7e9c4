//! `sweepd engines`: what a sweep can name, and where each comes from.
#![expect(clippy::print_stdout, reason = "the list is what it prints")]

use super::input;
use crate::engine::def::{EngineDef, EngineSource};
use crate::engine::rules::rule::FailureRule;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct EnginesArguments {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &EnginesArguments, folders: Vec<PathBuf>) -> anyhow::Result<ExitCode> {
    let (library, disk) = (input::library(folders)?, input::disk());
    let (mut list, mut all_well) = (Vec::new(), true);
    for name in library.names(&disk) {
        list.push(match library.find(&name, &[], &disk) {
            Ok(engine) => facts(&engine),
            Err(error) => {
                all_well = false;
                json!({"name": name, "error": error.to_string()})
            }
        });
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&list)?);
    } else {
        for engine in &list {
            println!("{}", shown(engine));
        }
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What an engine's file holds, for people and scripts.
fn facts(engine: &EngineDef) -> Value {
    let rule = |rule: &FailureRule| {
        json!({
            "pattern": rule.pattern.as_str(),
            "kind": rule.kind,
            "role": rule.role,
            "origin": rule.origin,
            "one_sample": rule.one_sample,
        })
    };
    json!({
        "name": engine.name,
        "source": match &engine.source {
            EngineSource::BuiltIn => "built in".to_owned(),
            EngineSource::File(path) => path.display().to_string(),
        },
        "simulated": engine.simulated,
        "params": engine.params.iter().map(|(name, param)| {
            json!({"name": name, "flag": param.flag, "about": param.about})
        }).collect::<Vec<_>>(),
        "metrics": engine.metrics.as_ref().map(|metrics| {
            json!({"path": metrics.path, "names": metrics.names})
        }),
        "failure_rules": engine.log.failures.iter().map(rule).collect::<Vec<_>>(),
    })
}

/// One engine in two or three lines.
fn shown(engine: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&engine["name"]);
    if let Some(error) = engine["error"].as_str() {
        return format!("{name}  cannot be used: {error}");
    }
    let params: Vec<String> = engine["params"]
        .as_array()
        .map(|params| params.iter().map(|param| text(&param["name"])).collect())
        .unwrap_or_default();
    format!("{name}  ({})\n    parameters: {}", text(&engine["source"]), params.join(", "))
}
