//! The load process of an attempt: started, listened to, stopped, its records kept.
//!
//! Never decides how an attempt goes on: what the load process says becomes an event for the machine.

use super::super::progress::Progress;
use super::Shell;
use crate::load::frames;
use crate::load::handle::LoadHandle;
use crate::load::message::{LoadEvent, LoadPlan};
use crate::run::phase::PhaseFacts;
use crate::run::record::RequestRecord;
use crate::secrets;
use crate::store::dirs::AttemptDir;
use crate::supervise::state::Event;
use std::time::Duration;
use tokio::time::timeout;

/// For the load process to close its streams and write what it has.
const LOAD_STOP: Duration = Duration::from_secs(20);

/// A load process at work.
#[derive(Debug)]
pub(super) struct Loading {
    handle: LoadHandle,
    plan: LoadPlan,
    warmup: bool,
}

pub(super) async fn next_load(load: &mut Option<Loading>) -> Option<LoadEvent> {
    match load {
        Some(loading) => loading.handle.next().await,
        None => std::future::pending().await,
    }
}

impl Shell<'_> {
    pub(super) async fn load_said(&mut self, event: Option<LoadEvent>) -> Event {
        match event {
            Some(LoadEvent::Started) => Event::Tick,
            Some(LoadEvent::Tick(tick)) => {
                self.watcher.say(Progress::Tick(tick));
                Event::Tick
            }
            Some(LoadEvent::Done { facts }) => self.load_done(*facts).await,
            Some(LoadEvent::Broken { reason }) => {
                drop(self.take_load(None));
                Event::LoadBroken { reason }
            }
            None => {
                let how = match self.take_load(None) {
                    Some(loading) => loading.handle.reap().await,
                    None => None,
                };
                let how = how.unwrap_or_else(|| "it exited without a result".into());
                Event::LoadBroken { reason: format!("the load generator failed: {how}") }
            }
        }
    }

    /// The load process is no longer waited for; its samplers end.
    fn take_load(&mut self, facts: Option<&PhaseFacts>) -> Option<Loading> {
        let loading = self.load.take()?;
        self.samplers.load_ended(&loading.plan, loading.warmup, facts);
        Some(loading)
    }

    /// Keeps what a load process measured: its records become the phase's files.
    async fn load_done(&mut self, facts: PhaseFacts) -> Event {
        let Some(loading) = self.take_load(Some(&facts)) else { return Event::Tick };
        let (end, records) = (facts.end, facts.records);
        let plan = loading.plan.clone();
        let warmup = loading.warmup;
        loading.handle.reap().await;
        match store(self.dir, &plan, &facts, warmup).await {
            Ok(Stored { ok, records: kept }) => {
                if !warmup {
                    self.seek(&facts, &kept);
                    self.finding.phases.push(facts);
                }
                Event::LoadDone { end, ok, records }
            }
            Err(reason) => Event::LoadBroken { reason },
        }
    }

    pub(super) async fn start_load(&mut self, plan: LoadPlan, warmup: bool) {
        match LoadHandle::start_on(&plan, self.plan.client_cpus.as_ref()).await {
            Ok(handle) => {
                self.samplers.load_started(&plan, warmup, handle.pid(), self.guard.pid());
                self.load = Some(Loading { handle, plan, warmup });
            }
            Err(error) => {
                let reason = format!("cannot start the load generator: {error}");
                self.events.send(Event::LoadBroken { reason }).ok();
            }
        }
    }

    /// Closes the streams and keeps the records, within a bound.
    pub(super) async fn stop_load(&mut self) {
        let Some(loading) = &mut self.load else { return };
        loading.handle.stop().await;
        let facts = timeout(LOAD_STOP, async {
            loop {
                match loading.handle.next().await {
                    Some(LoadEvent::Done { facts }) => return Some(*facts),
                    Some(_) => {}
                    None => return None,
                }
            }
        })
        .await;
        match facts {
            Ok(Some(facts)) => {
                self.load_done(facts).await;
            }
            Ok(None) | Err(_) => {
                drop(self.take_load(None)); // Dropping the handle kills it.
                tracing::warn!(attempt = self.plan.guard.marker, "load generator killed");
                self.note("the load generator did not hand over its records".into());
            }
        }
    }
}

/// What a load process handed over.
struct Stored {
    ok: u64,
    records: Vec<RequestRecord>,
}

/// Turns a load process's frames into the phase's files.
async fn store(
    dir: &AttemptDir,
    plan: &LoadPlan,
    facts: &PhaseFacts,
    warmup: bool,
) -> Result<Stored, String> {
    let (dir, path, facts) = (dir.clone(), plan.records.clone(), facts.clone());
    let work = move || {
        let frames = frames::read(&path).map_err(|error| error.to_string())?;
        if frames.torn {
            return Err(format!("{} ends within a record", path.display()));
        }
        let mut records = frames.records;
        for record in &mut records {
            record.error = record.error.take().map(|text| secrets::redacted(&text).into_owned());
        }
        let write = if warmup { AttemptDir::write_warmup } else { AttemptDir::write_phase };
        write(&dir, &facts, &records).map_err(|error| error.to_string())?;
        std::fs::remove_file(&path).ok();
        let ok = |record: &&crate::run::record::RequestRecord| {
            record.outcome == crate::run::record::RequestOutcome::Ok
        };
        Ok(Stored { ok: records.iter().filter(ok).count() as u64, records })
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(format!("the records could not be stored: {error}")),
    }
}
