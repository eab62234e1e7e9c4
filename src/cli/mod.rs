//! The command line: arguments in, exit code out.
//!
//! Exit codes: 0 done, 1 the sweep or the check failed, 2 bad usage or input, 3 sweepd's own fault.
#![expect(clippy::print_stderr, reason = "this is where people are spoken to")]

mod bench;
mod broken_pipe;
mod calibrate;
mod check;
mod client;
mod control;
mod daemon;
mod diagnose;
mod engines;
mod follow;
mod generate;
mod gpu;
mod input;
mod launch;
mod logging;
mod plain;
mod queue;
mod report;
mod resume;
mod room;
mod run;
mod service;
mod signals;
mod submit;
mod terminal;
mod wait;
mod when;
mod why;

use crate::cpus::CpuSet;
use crate::secrets;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Benchmark sweeps of LLM inference servers, unattended, with a report that can be believed.
///
/// SWEEPD_LOG=info (or debug, or a tracing filter) writes what sweepd does to stderr.
#[derive(Debug, Parser)]
#[command(name = "sweepd", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// A folder with engine files of your own; before $XDG_CONFIG_HOME/sweepd/engines.
    #[arg(long = "engines", global = true, value_name = "DIR")]
    engine_folders: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a sweep in the foreground, to its report.
    Run(run::RunArguments),
    /// Check a sweep file and show its plan; nothing is launched.
    Check(check::CheckArguments),
    /// Put load on a server that already runs, and measure it.
    Bench(Box<bench::BenchArguments>),
    /// What the load generator itself adds on this machine, against a server whose times are known.
    Calibrate(calibrate::CalibrateArguments),
    /// Make a run's reports again from its files.
    Report(report::ReportArguments),
    /// Say why an engine failed, from its log and its end.
    Diagnose(diagnose::DiagnoseArguments),
    /// Why a trial of a run failed, was tried again, limited or skipped.
    Why(why::WhyArguments),
    /// List the engines that a sweep can name.
    Engines(engines::EnginesArguments),
    /// Show the GPUs, their state, who is on them and who has leased them.
    Gpu(gpu::GpuArguments),
    /// The simulated engine: a real server with computed timings, and faults on demand.
    Sim(Box<crate::sim::SimOptions>),
    #[command(flatten)]
    Service(service::ServiceCommand),
    /// Between sweepd and one engine. Started by sweepd.
    #[command(name = "__guard", hide = true)]
    Guard,
    /// Drives one phase of load. Started by sweepd.
    #[command(name = "__load", hide = true)]
    Load {
        #[arg(long)]
        cpus: Option<CpuSet>,
    },
    /// Streams at known times. Started by sweepd.
    #[command(name = "__null", hide = true)]
    Null {
        #[arg(value_parser = humantime::parse_duration)]
        ttft: std::time::Duration,
        #[arg(value_parser = humantime::parse_duration)]
        gap: std::time::Duration,
    },
    /// Calls NVIDIA's driver library, so that nothing else hangs when it does. Started by sweepd.
    #[command(name = "__nvml", hide = true)]
    Nvml {
        #[arg(long)]
        library: Option<PathBuf>,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let environment = input::environment();
    let named = environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    secrets::learn(secrets::among(named));
    // These are other programs in the same file: no logging, no runtime.
    match arguments.command {
        Command::Guard => return crate::supervise::guard::main(),
        Command::Load { cpus } => return crate::load::main(cpus.as_ref()),
        Command::Null { ttft, gap } => return crate::load::null::main(ttft, gap),
        Command::Nvml { library } => return crate::gpu::main(library.as_deref()),
        Command::Sim(options) => return crate::sim::run(*options),
        Command::Run(_)
        | Command::Check(_)
        | Command::Bench(_)
        | Command::Calibrate(_)
        | Command::Report(_)
        | Command::Why(_)
        | Command::Diagnose(_)
        | Command::Engines(_)
        | Command::Gpu(_)
        | Command::Service(_) => {}
    }
    broken_pipe::is_no_fault();
    logging::start(matches!(&arguments.command, Command::Service(command) if command.is_daemon()));
    let folders = input::engine_folders(arguments.engine_folders);
    let result = match arguments.command {
        Command::Run(arguments) => run::run(&arguments, folders),
        Command::Check(arguments) => check::run(&arguments, folders),
        Command::Bench(arguments) => bench::run(&arguments, folders),
        Command::Calibrate(arguments) => calibrate::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Why(arguments) => why::run(&arguments),
        Command::Diagnose(arguments) => diagnose::run(&arguments, folders),
        Command::Engines(arguments) => engines::run(&arguments, folders),
        Command::Gpu(arguments) => gpu::run(&arguments),
        Command::Service(command) => service::run(&command, folders),
        Command::Guard
        | Command::Load { .. }
        | Command::Null { .. }
        | Command::Nvml { .. }
        | Command::Sim(_) => Ok(ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("sweepd: {error:#}");
        ExitCode::from(error.downcast_ref::<input::Refused>().map_or(3, |_| 2))
    })
}
