//! The simulated engine: a real process with a real server, known timings and faults on demand.
//!
//! It stands where an engine would, so that everything else can be tested without a GPU. Its
//! timings are computed from a cost model and a seed and measure nothing; it says so in its
//! first log line, in `/health` and in `/server_info`.
//!
//! Request -> `request` (checked) -> `engine` (thread) -> `schedule` (decides) -> `reply` -> stream.
//! The deciding is pure: `schedule`, `request`, `reply`, `fault`, `words`, `metrics`.
//!
//! Invariant: nothing here is used by any other part of the crate except by starting this
//! process.

mod cache;
mod clock;
mod engine;
mod fault;
mod http;
mod log;
mod metrics;
mod options;
mod process;
mod reply;
mod request;
mod schedule;
mod words;

use fault::Fault;
pub(crate) use options::SimOptions;
use options::{ChildRole, Settings};
use std::io;
use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Runs the engine until a signal or a fault ends it. Exit code 0 after SIGTERM.
pub(crate) fn run(options: SimOptions) -> ExitCode {
    if let Some(role) = options.child {
        return process::live_as(role);
    }
    log::info("this is a SIMULATED engine: its timings are computed and measure nothing");
    match live(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Each message is a line of the engine's log.
#[derive(Debug, thiserror::Error)]
enum SimError {
    #[error("cannot {action}: {source}")]
    Start { action: &'static str, source: io::Error },
    // As Python servers put it: log rules look for this text.
    #[error(
        "[Errno {}] error while attempting to bind on address ('{host}', {port}): {}",
        .source.raw_os_error().unwrap_or(0),
        if .source.kind() == io::ErrorKind::AddrInUse { "address already in use".to_owned() }
        else { .source.to_string() }
    )]
    Bind { host: String, port: u16, source: io::Error },
    #[error("the server has failed: {0}")]
    Serve(io::Error),
}

fn live(options: &SimOptions) -> Result<(), SimError> {
    let failed = |action| move |source| SimError::Start { action, source };
    let settings = options.settings();
    process::raise_file_limit();
    let stop = process::stop_on_signal(settings.faults.always(Fault::IgnoreSigterm))
        .map_err(failed("watch signals"))?;
    let worker = begin(&settings).map_err(failed("start a child"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(failed("start the runtime"))?;
    let result = runtime.block_on(load_and_serve(options, settings, &stop));
    // Streams in flight are cut here: their tasks are dropped, and the connections with them.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Some(mut worker) = worker {
        worker.kill().ok();
        worker.wait().ok();
    }
    result
}

/// What happens before loading. Returns the child that a proper end must end, too.
fn begin(settings: &Settings) -> io::Result<Option<Child>> {
    for fault in settings.faults.at_start() {
        if let Fault::LogFlood(lines_per_second) = fault {
            process::flood(lines_per_second)?;
        } else if fault == Fault::SetsidChild {
            // Never waited for: it is to outlive this process.
            drop(process::spawn_child(ChildRole::Session, Stdio::null())?);
        }
    }
    settings
        .faults
        .has_worker()
        .then(|| process::spawn_child(ChildRole::Worker, Stdio::null()))
        .transpose()
}

async fn load_and_serve(
    options: &SimOptions,
    settings: Settings,
    stop: &CancellationToken,
) -> Result<(), SimError> {
    let (ability, limits) = (&settings.ability, &settings.limits);
    // Not the faults: a rule that looks for their names must not find them here.
    log::info(&format!(
        "loading model {:?}: max_running={} kv_tokens={} context={} seed={}",
        ability.model,
        limits.max_running,
        ability.kv_tokens,
        ability.context,
        ability.seed.value()
    ));
    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        () = load(&settings) => {}
    }
    // Last, as engines do: before this, nobody listens.
    let (host, port) = (options.host.as_str(), options.port);
    let failed = |source| SimError::Bind { host: host.to_owned(), port, source };
    let listener = TcpListener::bind((host, port)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    if settings.faults.always(Fault::HoldPort) {
        // Never waited for: it is to outlive this process.
        let held = process::hold(&listener).map_err(failed)?;
        drop(held);
    }
    let app = http::App::start(settings)
        .map_err(|source| SimError::Start { action: "start the engine's thread", source })?;
    log::info(&format!("SIMULATED engine listening on http://{address}"));
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        served = http::serve(listener, app) => served.map_err(SimError::Serve),
    }
}

async fn load(settings: &Settings) {
    tokio::time::sleep(settings.start_delay).await;
    for fault in settings.faults.at_start() {
        match fault {
            Fault::SlowStart(longer) => tokio::time::sleep(longer).await,
            Fault::NeverReady => std::future::pending().await,
            Fault::Die(death) => process::die(death),
            // Of the process, done before loading.
            Fault::IgnoreSigterm | Fault::LogFlood(_) | Fault::SetsidChild => {}
            // Of the socket, once there is one; of the settings.
            Fault::HoldPort
            | Fault::Clamp(_)
            | Fault::ShortAnswers
            | Fault::LongAnswers
            | Fault::NoUsage => {}
            // Of the server.
            Fault::HealthyNoGenerate
            | Fault::Hang
            | Fault::WorkerLost
            | Fault::Http500
            | Fault::SlowHeader(_)
            | Fault::InStream(_) => {}
        }
    }
}

#[cfg(test)]
mod profile_tests;
