//! `sweepd __nvml`: the one process that calls NVML. Requests on stdin, answers on stdout.
//!
//! The main thread is in the driver, perhaps for ever; another reads stdin and ends the process when
//! sweepd is gone. Every field that the driver does not offer is absent, whatever the reason.

mod change;
mod inventory;
mod probe;
mod watch;

use super::fault::{Fault, FaultKind};
use super::message::{Answer, Request};
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver};

/// Runs until stdin ends. `library`: instead of the system's `libnvidia-ml.so.1`.
pub(crate) fn main(library: Option<&Path>) -> ExitCode {
    let orders = orders();
    let mut nvml = None;
    for request in &orders {
        if nvml.is_none() {
            match open(library) {
                Ok(opened) => nvml = Some(opened),
                Err(fault) => {
                    if say(&Answer::Failed(fault)).is_err() {
                        break;
                    }
                    continue;
                }
            }
        }
        let Some(nvml) = &nvml else { continue };
        let answer = match request {
            Request::Inventory => {
                inventory::all(nvml).map_or_else(Answer::Failed, Answer::Inventory)
            }
            Request::Inspect { uuids } => Answer::Gpus(inventory::some(nvml, &uuids)),
            Request::Change { uuid, change } => match change::apply(nvml, &uuid, change) {
                Ok(()) => Answer::Changed,
                Err(fault) => Answer::Failed(fault),
            },
            Request::Watch(plan) => {
                return match watch::run(nvml, &plan, &orders) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(_) => ExitCode::from(3),
                };
            }
        };
        if say(&answer).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

/// Requests as they come. When stdin ends, sweepd is gone or done: this process ends at once, also when
/// the other thread is in a call that does not return.
fn orders() -> Receiver<Request> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            // A request that cannot be read comes from another version of sweepd: nothing to serve.
            let Ok(request) = serde_json::from_str(&line) else { break };
            if sender.send(request).is_err() {
                break;
            }
        }
        drop(sender);
        // A watcher gets a moment to write its last samples out.
        std::thread::sleep(watch::LAST_WORDS);
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).ok();
    });
    receiver
}

fn say(line: &impl serde::Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    out.write_all(b"\n")?;
    out.flush()
}

fn open(library: Option<&Path>) -> Result<Nvml, Fault> {
    let mut builder = Nvml::builder();
    if let Some(library) = library {
        builder.lib_path(library.as_os_str());
    }
    builder.init().map_err(|error| match error {
        NvmlError::LibloadingError(cause) => {
            let name = library.map_or("libnvidia-ml.so.1".to_owned(), |p| p.display().to_string());
            Fault::new(FaultKind::NoLibrary, with_causes(&cause, &name))
        }
        // A library that lacks its very first function is no NVML.
        NvmlError::FailedToLoadSymbol(detail) => Fault::new(FaultKind::NoLibrary, detail),
        error => fault("initialising NVML", &error),
    })
}

/// libloading keeps the linker's words in its source.
fn with_causes(error: &dyn std::error::Error, name: &str) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    if words.contains(name) { words } else { format!("{name}: {words}") }
}

/// What an error of NVML means here.
fn fault(doing: &str, error: &NvmlError) -> Fault {
    let kind = match error {
        NvmlError::DriverNotLoaded => FaultKind::NoDriver,
        NvmlError::LibRmVersionMismatch => FaultKind::VersionMismatch,
        NvmlError::LibraryNotFound => FaultKind::NoLibrary,
        NvmlError::NoPermission => FaultKind::NoPermission,
        NvmlError::GpuLost | NvmlError::ResetRequired => FaultKind::GpuLost,
        NvmlError::NotFound => FaultKind::NotFound,
        NvmlError::InvalidArg => FaultKind::InvalidArgument,
        error if probe::is_never(error) => FaultKind::NotSupported,
        _ => FaultKind::Other,
    };
    Fault::new(kind, format!("{doing}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_a_state_of_its_own() {
        let cases = [
            (NvmlError::DriverNotLoaded, FaultKind::NoDriver),
            (NvmlError::LibRmVersionMismatch, FaultKind::VersionMismatch),
            (NvmlError::NoPermission, FaultKind::NoPermission),
            (NvmlError::GpuLost, FaultKind::GpuLost),
            (NvmlError::ResetRequired, FaultKind::GpuLost),
            (NvmlError::NotFound, FaultKind::NotFound),
            (NvmlError::NotSupported, FaultKind::NotSupported),
            (NvmlError::FailedToLoadSymbol("x".into()), FaultKind::NotSupported),
            (NvmlError::Unknown, FaultKind::Other),
        ];
        for (error, kind) in cases {
            assert_eq!(fault("testing", &error).kind, kind, "{error:?}");
        }
    }

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let path = Path::new("/nowhere/libnvidia-ml.so.1");
        let fault = open(Some(path)).unwrap_err();
        assert_eq!(fault.kind, FaultKind::NoLibrary);
        assert!(fault.detail.contains("/nowhere/libnvidia-ml.so.1"), "{fault}");
    }
}
