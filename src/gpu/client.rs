//! sweepd's side of the helper: asks with a deadline, and abandons a helper that does not answer.
//!
//! A helper that hangs in the kernel cannot be ended; it gets SIGKILL, which works when the call returns,
//! and is never waited for. The next question starts another.

use super::facts::{Gpu, Inventory};
use super::fault::{Fault, FaultKind};
use super::message::{Answer, Change, Request, WatchEvent, WatchPlan};
use crate::clock;
use crate::own::{self, Piped};
use crate::units::MonoNs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// The first call of a driver without persistence mode wakes the card, which takes seconds.
const ANSWER: Duration = Duration::from_secs(15);
/// A watcher says something every second; on a busy machine it may be late.
const BEAT: Duration = Duration::from_secs(6);
/// For a watcher to write out its last samples.
const STOP: Duration = Duration::from_secs(2);

/// How to reach NVML: the library, if not the system's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nvml {
    pub(crate) library: Option<PathBuf>,
}

/// One helper at a time, started when it is needed.
#[derive(Debug)]
pub(crate) struct Client {
    nvml: Nvml,
    helper: Option<Helper>,
}

#[derive(Debug)]
struct Helper(Piped);

impl Helper {
    fn start(nvml: &Nvml) -> io::Result<Self> {
        let mut command = own::command("__nvml");
        if let Some(library) = &nvml.library {
            command.arg("--library").arg(library);
        }
        Piped::start(command).map(Self)
    }

    async fn send(&mut self, request: &Request) -> io::Result<()> {
        let line = serde_json::to_string(request)?;
        self.0.stdin.write_all(format!("{line}\n").as_bytes()).await
    }

    async fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        self.send(request).await?;
        let line = self.0.lines.next_line().await?;
        let line = line.ok_or_else(|| io::Error::other("it ended without an answer"))?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Where it hangs, as far as the kernel tells.
    fn where_it_hangs(&self) -> String {
        let Some(pid) = self.0.child.id() else { return "it is gone".to_owned() };
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
        let state = read("stat").ok().and_then(|stat| {
            let (_, rest) = stat.rsplit_once(") ")?;
            rest.chars().next()
        });
        let waits = read("wchan").unwrap_or_default();
        let waits = if waits.is_empty() || waits == "0" { "unknown" } else { waits.trim() };
        format!("helper pid {pid}, state {}, waiting in {waits}", state.unwrap_or('?'))
    }
}

impl Client {
    pub(crate) fn new(nvml: Nvml) -> Self {
        Self { nvml, helper: None }
    }

    pub(crate) async fn inventory(&mut self) -> Result<Inventory, Fault> {
        match self.ask(&Request::Inventory, "listing the GPUs").await? {
            Answer::Inventory(inventory) => Ok(inventory),
            other => Err(unexpected(other)),
        }
    }

    /// These GPUs, in this order.
    pub(crate) async fn inspect(&mut self, uuids: &[String]) -> Result<Vec<Gpu>, Fault> {
        let request = Request::Inspect { uuids: uuids.to_vec() };
        match self.ask(&request, "looking at the GPU").await? {
            Answer::Gpus(gpus) => Ok(gpus),
            other => Err(unexpected(other)),
        }
    }

    pub(crate) async fn change(&mut self, uuid: &str, change: Change) -> Result<(), Fault> {
        let request = Request::Change { uuid: uuid.to_owned(), change };
        match self.ask(&request, "changing a setting").await? {
            Answer::Changed => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    async fn ask(&mut self, request: &Request, doing: &str) -> Result<Answer, Fault> {
        let mut helper = match self.helper.take() {
            Some(helper) => helper,
            None => Helper::start(&self.nvml).map_err(|error| gone(&error))?,
        };
        match timeout(ANSWER, helper.ask(request)).await {
            Ok(Ok(answer)) => {
                self.helper = Some(helper);
                Ok(answer)
            }
            Ok(Err(error)) => Err(gone(&error)),
            // Dropping it sends SIGKILL and waits for nothing.
            Err(_) => Err(stuck(doing, ANSWER, &helper)),
        }
    }
}

fn gone(error: &io::Error) -> Fault {
    Fault::new(FaultKind::HelperGone, error.to_string())
}

fn stuck(doing: &str, waited: Duration, helper: &Helper) -> Fault {
    let (seconds, place) = (waited.as_secs(), helper.where_it_hangs());
    Fault::new(FaultKind::Stuck, format!("{doing}: no answer for {seconds} s; {place}"))
}

fn unexpected(answer: Answer) -> Fault {
    match answer {
        Answer::Failed(fault) => fault,
        Answer::Inventory(_) | Answer::Gpus(_) | Answer::Changed => {
            Fault::new(FaultKind::HelperGone, "it answered another question")
        }
    }
}

/// A helper that samples.
#[derive(Debug)]
pub(crate) struct Watcher {
    helper: Helper,
    heard: MonoNs,
}

impl Watcher {
    pub(crate) async fn start(nvml: &Nvml, plan: &WatchPlan) -> Result<Self, Fault> {
        let mut helper = Helper::start(nvml).map_err(|error| gone(&error))?;
        helper.send(&Request::Watch(plan.clone())).await.map_err(|error| gone(&error))?;
        Ok(Self { helper, heard: clock::now() })
    }

    /// The next event, or why there are no more. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<WatchEvent, Fault> {
        // Counted from the last line and not from this call, which may be one of many.
        let left = self.heard.plus(BEAT).since(clock::now());
        let line = timeout(left, self.helper.0.lines.next_line()).await;
        if line.is_ok() {
            self.heard = clock::now();
        }
        match line {
            Ok(Ok(Some(line))) => match serde_json::from_str(&line) {
                Ok(event) => Ok(event),
                // Before it watches, the helper answers like any other: that NVML cannot be had.
                Err(_) => Err(match serde_json::from_str::<Answer>(&line) {
                    Ok(answer) => unexpected(answer),
                    Err(error) => gone(&error.into()),
                }),
            },
            Ok(Ok(None)) => Err(gone(&io::Error::other("it ended"))),
            Ok(Err(error)) => Err(gone(&error)),
            Err(_) => Err(stuck("sampling", BEAT, &self.helper)),
        }
    }

    /// Lets it write its last samples; whether it did.
    pub(crate) async fn stop(mut self) -> bool {
        drop(self.helper.0.stdin);
        timeout(STOP, self.helper.0.child.wait()).await.is_ok()
    }
}
