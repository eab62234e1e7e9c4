//! Before a launch: the GPUs are leased, clean, set as asked, and watched.

use super::clean::{Obstacle, Patience, obstacles};
use super::hold::{LOOK, advance};
use super::settings::{self, Held};
use super::watch::Watch;
use super::{Machine, choose};
use crate::clock;
use crate::daemon::attempt::StopRequests;
use crate::daemon::progress::{Progress, Watcher};
use crate::engine::def::{EngineGpu, PinStyle};
use crate::gpu::client::Client;
use crate::gpu::facts::{Gpu, Inventory};
use crate::gpu::fault::Fault;
use crate::gpu::lease::{Holder, Lease};
use crate::gpu::message::WatchPlan;
use crate::ids::{RunId, TrialId};
use crate::supervise::state::{Event, Why};
use crate::sweep::def::{Sweep, Variant};
use crate::sweep::gpu::{self, GpuPlan, Wanted};
use crate::sweep::side::SideBySide;
use crate::units::MonoNs;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

const SAMPLE_EVERY_MS: u64 = 100;
/// Between two looks at a GPU that is not clean yet.
const CLEAN_LOOK: Duration = Duration::from_millis(500);

/// What a trial asks for.
#[derive(Clone, Copy)]
pub(crate) struct Need<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) sweep: &'a Sweep,
    pub(crate) variant: &'a Variant,
    pub(crate) run: &'a RunId,
    pub(crate) trial: &'a TrialId,
    pub(crate) marker: &'a str,
    /// The attempt's folder.
    pub(crate) folder: &'a Path,
    pub(crate) inherited: &'a BTreeMap<String, String>,
    pub(crate) watcher: &'a Watcher,
    /// Which trials may run at once, and what they ask for.
    pub(crate) side: &'a SideBySide,
}

/// What comes of it.
pub(crate) enum Isolation {
    /// The variant asks for no GPU, or for one where there is any and there is none; why.
    None(Option<String>),
    Owned(Box<Isolated>),
}

/// The GPUs cannot be had.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) why: Why,
    /// What happened until then, for the timeline.
    pub(crate) notes: Vec<(MonoNs, String)>,
}

/// GPUs that are a trial's own.
#[derive(Debug)]
pub(crate) struct Isolated {
    pub(super) machine: Machine,
    pub(super) client: Client,
    pub(super) plan: GpuPlan,
    pub(super) leases: Vec<Lease>,
    pub(super) held: Vec<Held>,
    pub(super) settings: Vec<String>,
    /// As they were before anything was set, in the order of `leases`.
    pub(super) before: Vec<Gpu>,
    pub(super) driver_version: Option<String>,
    pub(super) watch: Option<Watch>,
    pub(super) frames: PathBuf,
    pub(super) notes: Vec<(MonoNs, String)>,
    /// Run, trial, pid and since when: what a lease and a quarantine say.
    pub(super) holder: Holder,
    pub(super) marker: String,
    pin: Vec<(String, String)>,
    list: String,
    alarms: Option<mpsc::UnboundedReceiver<Event>>,
}

impl Isolated {
    /// The variables that pin the engine.
    pub(crate) fn pin(&self) -> &[(String, String)] {
        &self.pin
    }

    /// What `{gpus}` stands for.
    pub(crate) fn list(&self) -> &str {
        &self.list
    }

    pub(crate) fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// Events of the GPUs that end the attempt. To be taken once.
    pub(crate) fn take_alarms(&mut self) -> Option<mpsc::UnboundedReceiver<Event>> {
        self.alarms.take()
    }

    fn uuids(&self) -> Vec<String> {
        self.leases.iter().map(|lease| lease.uuid.clone()).collect()
    }
}

/// Everything up to the launch. What was taken is given back where it comes to nothing.
pub(crate) async fn isolate(need: Need<'_>, stop: &mut StopRequests) -> Result<Isolation, Refused> {
    let Some(asks) = gpu::need(need.sweep.gpu.as_ref(), need.variant) else {
        return Ok(Isolation::None(None));
    };
    let asked = asks.asked;
    let mut client = Client::new(need.machine.nvml.clone());
    let inventory = match client.inventory().await {
        Ok(inventory) if asked || !inventory.gpus.is_empty() => inventory,
        Ok(_) => return Ok(Isolation::None(Some("the driver knows of no GPU".to_owned()))),
        Err(fault) if asked => return Err(broken(told(&fault), Vec::new())),
        Err(fault) => return Ok(Isolation::None(Some(fault.to_string()))),
    };
    let mut isolated = begin(need, asks.plan, client, &inventory);
    let result = isolated.take_all(need, &asks.wanted, &inventory, stop).await;
    match result {
        Ok(()) => Ok(Isolation::Owned(Box::new(isolated))),
        Err(why) => {
            let failed = settings::restore(&mut isolated.client, isolated.held).await;
            let mut notes = isolated.notes;
            notes.extend(failed.into_iter().map(|text| (clock::now(), text)));
            Err(Refused { why, notes })
        }
    }
}

fn begin(need: Need<'_>, plan: GpuPlan, client: Client, inventory: &Inventory) -> Isolated {
    Isolated {
        machine: need.machine.clone(),
        client,
        plan,
        leases: Vec::new(),
        held: Vec::new(),
        settings: Vec::new(),
        before: Vec::new(),
        driver_version: inventory.driver_version.clone(),
        watch: None,
        frames: need.folder.join("gpu.frames"),
        notes: Vec::new(),
        holder: Holder {
            run: need.run.0.clone(),
            trial: need.trial.to_string(),
            pid: std::process::id(),
            since: clock::wall_time(),
        },
        marker: need.marker.to_owned(),
        pin: Vec::new(),
        list: String::new(),
        alarms: None,
    }
}

fn told(fault: &Fault) -> String {
    format!("the GPU cannot be had: {fault}; {}", fault.advice())
}

fn broken(reason: String, notes: Vec<(MonoNs, String)>) -> Refused {
    Refused { why: Why::Broken { reason }, notes }
}

impl Isolated {
    async fn take_all(
        &mut self,
        need: Need<'_>,
        wanted: &Wanted,
        inventory: &Inventory,
        stop: &mut StopRequests,
    ) -> Result<(), Why> {
        let broken = |reason: String| Why::Broken { reason };
        let visible = need.inherited.get("CUDA_VISIBLE_DEVICES").map(String::as_str);
        let choice =
            choose::choose(wanted, inventory, visible, &need.side.named()).map_err(broken)?;
        self.lease(&choice, need.watcher, stop).await?;
        self.wait_clean(need.watcher, stop).await?;
        self.change_settings().await?;
        self.pin_to(&need.variant.engine.pin());
        self.begin_watching(need, inventory);
        Ok(())
    }

    fn note(&mut self, watcher: &Watcher, text: String) {
        tracing::info!(attempt = self.marker, text, "gpu");
        watcher.say(Progress::State { what: text.clone() });
        self.notes.push((clock::now(), text));
    }

    async fn lease(
        &mut self,
        choice: &choose::Choice,
        watcher: &Watcher,
        stop: &mut StopRequests,
    ) -> Result<(), Why> {
        let leases = self.machine.leases();
        let until = clock::now().plus(self.plan.wait);
        let mut last = None;
        loop {
            let waits = advance(&leases, choice, &self.holder, &mut self.leases)
                .map_err(|error| Why::Broken { reason: format!("cannot lease a GPU: {error}") })?;
            let Some(waits) = waits else { return Ok(()) };
            if clock::now() >= until {
                let waited = humantime::format_duration(self.plan.wait);
                return Err(Why::Broken { reason: format!("no GPU after {waited}: {waits}") });
            }
            if last.as_ref() != Some(&waits) {
                self.note(watcher, format!("waiting: {waits}"));
                last = Some(waits);
            }
            pause(LOOK, stop).await?;
        }
    }

    /// Each kind of obstacle has its own deadline, from when waiting began.
    async fn wait_clean(&mut self, watcher: &Watcher, stop: &mut StopRequests) -> Result<(), Why> {
        let began = clock::now();
        let uuids = self.uuids();
        let mut last = None;
        loop {
            let gpus = self.client.inspect(&uuids).await;
            let gpus = gpus.map_err(|fault| Why::Broken { reason: told(&fault) })?;
            let found: Vec<Obstacle> =
                gpus.iter().flat_map(|gpu| obstacles(gpu, &self.plan)).collect();
            let Some(worst) = found.iter().max_by_key(|obstacle| obstacle.patience) else {
                self.before = gpus;
                self.lift_quarantine(watcher);
                return Ok(());
            };
            let late = found
                .iter()
                .find(|obstacle| clock::now() >= began.plus(self.patience(obstacle.patience)));
            if let Some(late) = late {
                return Err(Why::Broken { reason: self.never_clean(&late.text) });
            }
            if last.as_ref() != Some(&worst.text) {
                last = Some(worst.text.clone());
                self.note(watcher, format!("waiting: {}", worst.text));
            }
            pause(CLEAN_LOOK, stop).await?;
        }
    }

    fn patience(&self, patience: Patience) -> Duration {
        match patience {
            Patience::Foreign => self.plan.wait,
            Patience::Memory => self.plan.clean_within,
            Patience::Warm => self.plan.cool_within,
            Patience::Never => Duration::ZERO,
        }
    }

    fn never_clean(&self, obstacle: &str) -> String {
        let leases = self.machine.leases();
        let before = self.leases.iter().find_map(|lease| leases.quarantined(&lease.uuid));
        match before {
            Some(why) => format!(
                "the GPU is not clean: {obstacle}; quarantined since {} (run {}, trial {}): {}",
                why.since, why.run, why.trial, why.diagnosis
            ),
            None => format!("the GPU is not clean: {obstacle}"),
        }
    }

    fn lift_quarantine(&mut self, watcher: &Watcher) {
        let leases = self.machine.leases();
        for uuid in self.uuids() {
            if leases.quarantined(&uuid).is_some() && leases.lift(&uuid).is_ok() {
                self.note(watcher, format!("{uuid} is clean again: its quarantine is lifted"));
            }
        }
    }

    async fn change_settings(&mut self) -> Result<(), Why> {
        if self.plan.settings.is_empty() {
            return Ok(());
        }
        let broken = |reason: String| Why::Broken { reason };
        let intents = self.machine.intents().map_err(|error| broken(error.to_string()))?;
        for gpu in &self.before {
            let settings = &self.plan.settings;
            let done =
                settings::set(&mut self.client, &intents, gpu, settings, &mut self.held).await;
            let done = done.map_err(|error| broken(format!("cannot set the GPU: {error}")))?;
            self.notes.extend(done.iter().map(|text| (clock::now(), text.clone())));
            self.settings.extend(done);
        }
        Ok(())
    }

    fn pin_to(&mut self, engine: &EngineGpu) {
        let names = self.before.iter().map(|gpu| match engine.pin {
            PinStyle::Uuid => gpu.uuid.clone().unwrap_or_default(),
            PinStyle::Index => gpu.index.to_string(),
        });
        self.list = names.collect::<Vec<_>>().join(",");
        self.pin = vec![
            ("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned()),
            (engine.env.clone(), self.list.clone()),
        ];
    }

    fn begin_watching(&mut self, need: Need<'_>, inventory: &Inventory) {
        let uuids = self.uuids();
        let all = inventory.gpus.iter().filter_map(|gpu| gpu.uuid.clone());
        let plan = WatchPlan {
            others: all.filter(|uuid| !uuids.contains(uuid)).collect(),
            uuids,
            every_ms: SAMPLE_EVERY_MS,
            frames: self.frames.clone(),
        };
        let there = self.before.iter().filter_map(Gpu::compute).flatten();
        let known = there.map(|process| process.pid).collect();
        let (alarms, heard) = mpsc::unbounded_channel();
        let nvml = self.machine.nvml.clone();
        self.watch = Some(Watch::start(nvml, plan, need.marker.to_owned(), known, alarms));
        self.alarms = Some(heard);
    }
}

/// Waits, unless sweepd is told to stop.
async fn pause(span: Duration, stop: &mut StopRequests) -> Result<(), Why> {
    let asked = async { stop.wait_for(|count| *count > 0).await.is_ok() };
    match tokio::time::timeout(span, asked).await {
        Ok(true) => Err(Why::Cancelled { reason: "stopped by the user".to_owned() }),
        // Nobody can ask any more: the span is waited for all the same.
        Ok(false) => {
            tokio::time::sleep(span).await;
            Ok(())
        }
        Err(_) => Ok(()),
    }
}
