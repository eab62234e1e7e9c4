//! The command line of the simulated engine.

use super::cache::BLOCK;
use super::fault::{Fault, FaultSpec, Faults};
use super::request::Ability;
use super::schedule::{Costs, Limits, scale};
use crate::physics::shape::whole;
use crate::seed::Seed;
use crate::units::count_f64;
use serde_json::{Value, json};
use std::time::Duration;

/// An engine with an OpenAI-compatible server and no model: its timings are computed.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct SimOptions {
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// 0 takes a free one and logs it.
    #[arg(long, default_value_t = 8000)]
    pub(crate) port: u16,
    /// The served model's name.
    #[arg(long, default_value = "sim")]
    model: String,
    /// Decides answers, their natural lengths and the jitter.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Requests that run at the same time; others wait.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    max_running: u32,
    /// Prompt and output tokens that running requests may reserve together.
    #[arg(long, value_name = "N", default_value_t = 131_072, value_parser = clap::value_parser!(u64).range(1..))]
    kv_tokens: u64,
    /// Longest prompt plus output.
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u64).range(1..))]
    context: u64,
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    prefill_tokens_per_second: u64,
    /// Fixed cost of a step that decodes.
    #[arg(long, value_name = "MS", default_value = "5", value_parser = milliseconds)]
    step_ms: Duration,
    /// Cost of each decoding request in a step.
    #[arg(long, value_name = "US", default_value = "50", value_parser = microseconds)]
    step_us_per_request: Duration,
    /// Cost of each token in the context of a decoding request: what reading the KV cache takes.
    #[arg(long, value_name = "NS", default_value = "0", value_parser = nanoseconds)]
    step_ns_per_kv_token: f64,
    /// Least cost of a step that only takes in prompts: what reading the weights takes.
    #[arg(long, value_name = "MS", default_value = "0", value_parser = milliseconds)]
    prefill_step_ms: Duration,
    /// Prompt tokens that a step takes in beside decoding; without it decoding waits for whole
    /// prompts.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    chunked_prefill: Option<u64>,
    /// Decoding waits while prompts are taken in, with --chunked-prefill too.
    #[arg(long)]
    prefill_first: bool,
    /// Prompts' common beginnings are computed once and kept, in blocks of 16 tokens, as many as
    /// --kv-tokens hold. POST /flush_cache empties it.
    #[arg(long)]
    prefix_cache: bool,
    /// Time of loading. The port is bound at its end.
    #[arg(long, value_name = "MS", default_value = "0", value_parser = milliseconds)]
    start_delay_ms: Duration,
    /// A step's cost varies evenly by up to this much, drawn from the seed.
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    jitter_percent: f64,
    /// Each launch is slower or faster as a whole by up to this much, drawn from seed and port: as
    /// real ones differ from launch to launch.
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    launch_spread_percent: f64,
    /// `NAME[@TRIGGER][=VALUE]`, where TRIGGER is `start` or `request=N`. May be given repeatedly.
    ///
    /// Requests count from 1 and include readiness probes, warm-up and refused ones.
    /// Whole life: slow-start=SECONDS, never-ready, ignore-sigterm, healthy-no-generate,
    /// log-flood[=LINES_PER_SECOND], setsid-child, hold-port, clamp=REQUESTS, short-answers,
    /// long-answers, no-usage.
    /// Death at @start or @request=N: oom, exit[=CODE], crash, leader-exit.
    /// At @request=N: hang, stall, cut, garbage, error-event, no-done, http-500, slow-header=SECONDS;
    /// from @request=N on: worker-lost.
    #[arg(long = "fault", value_name = "SPEC", verbatim_doc_comment)]
    faults: Vec<FaultSpec>,
    /// Log every generation request.
    #[arg(long)]
    log_requests: bool,
    /// What a process that the engine itself started does.
    #[arg(long, hide = true)]
    pub(crate) child: Option<ChildRole>,
}

/// The two kinds of children that faults need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ChildRole {
    Worker,
    /// In a session of its own.
    Session,
    /// The same, with the listening socket as its stdin.
    Port,
}

/// What the server is, checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) ability: Ability,
    pub(crate) limits: Limits,
    pub(crate) costs: Costs,
    /// Room of the prefix cache; 0 for none.
    pub(crate) cache_blocks: usize,
    pub(crate) start_delay: Duration,
    pub(crate) faults: Faults,
    pub(crate) log_requests: bool,
}

impl SimOptions {
    pub(crate) fn settings(&self) -> Settings {
        let pace = self.pace();
        let faults = Faults(self.faults.clone());
        let max_running = self.max_running.min(faults.clamp().unwrap_or(u32::MAX));
        Settings {
            ability: Ability {
                hears_length: !faults.always(Fault::ShortAnswers),
                hears_bound: !faults.always(Fault::LongAnswers),
                tells_usage: !faults.always(Fault::NoUsage),
                model: self.model.clone(),
                seed: Seed::new(self.seed),
                context: self.context,
                kv_tokens: self.kv_tokens,
            },
            limits: Limits {
                max_running: usize::try_from(max_running).unwrap_or(usize::MAX),
                kv_tokens: self.kv_tokens,
                chunked_prefill: self.chunked_prefill,
                prefill_first: self.prefill_first,
            },
            costs: Costs {
                step: scale(self.step_ms, pace),
                per_request: scale(self.step_us_per_request, pace),
                per_kv_token_ns: self.step_ns_per_kv_token * pace,
                prefill_tokens_per_second: whole(count_f64(self.prefill_tokens_per_second) / pace),
                prefill_step: scale(self.prefill_step_ms, pace),
                jitter_percent: self.jitter_percent,
            },
            cache_blocks: match self.prefix_cache {
                true => usize::try_from(self.kv_tokens).unwrap_or(usize::MAX) / BLOCK,
                false => 0,
            },
            start_delay: self.start_delay_ms,
            faults,
            log_requests: self.log_requests,
        }
    }
}

impl SimOptions {
    /// What every cost of this launch is multiplied by; exactly 1 without a spread.
    fn pace(&self) -> f64 {
        let mut dice = Seed::new(self.seed).branch("launch").nth(self.port.into()).stream();
        let swing = 2.0 * dice.unit() - 1.0;
        1.0 + self.launch_spread_percent / 100.0 * swing
    }
}

impl Settings {
    /// The effective configuration, as `/server_info` shows it.
    pub(crate) fn describe(&self) -> Value {
        let faults: Vec<&str> = self.faults.0.iter().map(|spec| spec.text.as_str()).collect();
        json!({
            "simulated": true,
            "version": env!("CARGO_PKG_VERSION"),
            "model": self.ability.model,
            "seed": self.ability.seed.value(),
            "max_running": self.limits.max_running,
            "kv_tokens": self.limits.kv_tokens,
            "context": self.ability.context,
            "prefix_caching": self.cache_blocks > 0,
            "schedule_policy": "fcfs",
            "chunked_prefill": self.limits.chunked_prefill,
            "prefill_first": self.limits.prefill_first,
            "prefill_tokens_per_second": self.costs.prefill_tokens_per_second,
            "step_ms": self.costs.step.as_secs_f64() * 1e3,
            "step_us_per_request": self.costs.per_request.as_secs_f64() * 1e6,
            "step_ns_per_kv_token": self.costs.per_kv_token_ns,
            "prefill_step_ms": self.costs.prefill_step.as_secs_f64() * 1e3,
            "jitter_percent": self.costs.jitter_percent,
            "start_delay_ms": self.start_delay.as_secs_f64() * 1e3,
            "faults": faults,
        })
    }
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    span(text, 1e3)
}

fn microseconds(text: &str) -> Result<Duration, String> {
    span(text, 1e6)
}

/// A second for each token is far beyond any use.
fn nanoseconds(text: &str) -> Result<f64, String> {
    let value = number(text)?;
    if value > 1e9 { Err("is more than a second".to_owned()) } else { Ok(value) }
}

/// An hour is far beyond any use, and far below any overflow.
fn span(text: &str, per_second: f64) -> Result<Duration, String> {
    let seconds = number(text)? / per_second;
    if seconds > 3600.0 {
        return Err("is more than an hour".to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn percent(text: &str) -> Result<f64, String> {
    let value = number(text)?;
    if value > 100.0 { Err("is more than 100".to_owned()) } else { Ok(value) }
}

fn number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        Ok(_) => Err("is not zero or more".to_owned()),
        Err(_) => Err("is not a number".to_owned()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        sim: SimOptions,
    }

    pub(crate) fn parse(arguments: &str) -> Result<SimOptions, String> {
        let arguments = std::iter::once("sim").chain(arguments.split_whitespace());
        Cli::try_parse_from(arguments).map(|cli| cli.sim).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_settings() {
        let options = parse(
            "--port 0 --model m --max-running 4 --step-ms 2.5 --step-us-per-request 10 \
             --chunked-prefill 64 --jitter-percent 5 --fault oom@request=3 --fault ignore-sigterm",
        );
        let shown = options.unwrap().settings().describe();
        for (field, value) in [
            ("simulated", json!(true)),
            ("model", json!("m")),
            ("max_running", json!(4)),
            ("step_ms", json!(2.5)),
            ("step_us_per_request", json!(10.0)),
            ("chunked_prefill", json!(64)),
            ("faults", json!(["oom@request=3", "ignore-sigterm"])),
        ] {
            assert_eq!(shown[field], value, "{field}");
        }
    }

    #[test]
    fn launches_differ_within_their_spread() {
        let step = |text: &str| parse(text).unwrap().settings().describe()["step_ms"].as_f64();
        let steps: Vec<f64> = (1..50)
            .filter_map(|port| {
                step(&format!("--port {port} --step-ms 100 --launch-spread-percent 2"))
            })
            .collect();
        assert!(steps.iter().all(|ms| (98.0..=102.0).contains(ms)), "{steps:?}");
        assert!(steps.iter().any(|ms| *ms < 99.0) && steps.iter().any(|ms| *ms > 101.0));
        assert_eq!(step("--port 7 --step-ms 100"), Some(100.0));
    }

    /// What was asked for stands on the command line; what is served, in `/server_info`.
    #[test]
    fn a_clamp_only_lowers() {
        let running =
            |text: &str| parse(text).unwrap().settings().describe()["max_running"].clone();
        assert_eq!(running("--max-running 8 --fault clamp=2"), json!(2));
        assert_eq!(running("--max-running 8 --fault clamp=20"), json!(8));
    }

    #[test]
    fn mistakes_are_refused() {
        for (arguments, message) in [
            ("--max-running 0", "0 is not in 1.."),
            ("--step-ms -1", "unexpected argument"),
            ("--step-ms=-1", "is not zero or more"),
            ("--step-ms 1e9", "is more than an hour"),
            ("--jitter-percent 101", "is more than 100"),
            ("--jitter-percent x", "is not a number"),
            ("--fault hang", "hang needs @request=N"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(message), "{arguments}: {error}");
        }
    }
}
