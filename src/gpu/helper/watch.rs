//! Samples GPUs at a fixed rate into a file of frames, and says what someone must act on.
//!
//! A tick that comes late is skipped, not made up for: every sample carries its own time.

use super::super::fault::{Fault, FaultKind};
use super::super::frames;
use super::super::message::{Request, WatchEvent, WatchPlan};
use super::probe::{Repeated, Taker};
use super::{fault, inventory, say};
use crate::clock;
use crate::run::gpu::{GpuProcess, GpuSample};
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{Clock, PcieUtilCounter, TemperatureSensor};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::event::EventSet;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::{NVML_FI_DEV_POWER_AVERAGE, NVML_FI_DEV_POWER_INSTANT};
use nvml_wrapper::{Device, Nvml};
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// From the end of stdin to the end of the process.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(300);
/// In ticks: the process list is read twice a second, PCIe throughput (20 ms of the driver's time) once.
const PROCESSES_EVERY: u64 = 5;
const SECOND: u64 = 10;
/// A tick at which nothing is read that is not read at each.
const BETWEEN: u64 = 1;

pub(super) fn run(nvml: &Nvml, plan: &WatchPlan, orders: &Receiver<Request>) -> io::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(&plan.frames)?;
    let mut out = BufWriter::with_capacity(1 << 16, file);
    let mut gpus = Vec::new();
    let all = plan.uuids.iter().map(|uuid| (uuid, true));
    let all = all.chain(plan.others.iter().map(|uuid| (uuid, false)));
    for (place, (uuid, is_own)) in (0_u32..).zip(all) {
        match nvml.device_by_uuid(uuid.as_str()) {
            Ok(device) => gpus.push(Watched::new(place, device, is_own)),
            // A neighbour that does not answer is nobody's business here.
            Err(_) if !is_own => {}
            Err(error) => {
                let fault = fault(uuid, &error);
                say(&WatchEvent::Lost { gpu: place, at: clock::now(), fault })?;
            }
        }
    }
    if !gpus.iter().any(|gpu: &Watched<'_>| gpu.is_own) {
        return say(&WatchEvent::Failed(Fault::new(FaultKind::NotFound, "no GPU to watch")));
    }
    let events = register(nvml, &gpus);
    say(&WatchEvent::Beat)?;
    let every = Duration::from_millis(plan.every_ms.max(10));
    let mut next = clock::now();
    for tick in 0_u64.. {
        sample(&mut gpus, tick, &mut out)?;
        if let Some(set) = &events {
            tell_xids(set, &gpus)?;
        }
        if tick.is_multiple_of(SECOND) {
            out.flush()?;
            say(&WatchEvent::Beat)?;
        }
        next = next.plus(every);
        if next < clock::now() {
            next = clock::now();
        }
        match orders.recv_timeout(next.since(clock::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(_) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // What there is first: the driver may hang, and this process ends when its time is up.
    out.flush()?;
    // The last phase's end lies between two samples, too.
    sample(&mut gpus, BETWEEN, &mut out)?;
    out.flush()
}

fn sample(gpus: &mut [Watched<'_>], tick: u64, out: &mut impl Write) -> io::Result<()> {
    for gpu in gpus {
        if let Some(sample) = gpu.sample(tick)? {
            frames::write(out, &sample)?;
        }
    }
    Ok(())
}

/// `None` where the driver tells no XIDs.
fn register<'nvml>(nvml: &'nvml Nvml, gpus: &[Watched<'nvml>]) -> Option<EventSet<'nvml>> {
    let mut set = nvml.create_event_set().ok()?;
    for gpu in gpus {
        set = gpu.device.register_events(EventTypes::CRITICAL_XID_ERROR, set).ok()?;
    }
    Some(set)
}

fn tell_xids(set: &EventSet<'_>, gpus: &[Watched<'_>]) -> io::Result<()> {
    // Bounded: a card in a storm of errors must not hold the sampling up.
    for _ in 0..8 {
        let Ok(event) = set.wait(0) else { return Ok(()) };
        let Some(data) = event.event_data else { continue };
        let uuid = event.device.uuid().ok();
        let gpu = gpus.iter().find(|gpu| uuid.is_some() && gpu.uuid == uuid);
        let code = match data {
            XidError::Value(code) => Some(code),
            XidError::Unknown => None,
        };
        let gpu = gpu.map_or(0, |gpu| gpu.place);
        say(&WatchEvent::Xid { gpu, at: clock::now(), code })?;
    }
    Ok(())
}

struct Watched<'nvml> {
    place: u32,
    is_own: bool,
    device: Device<'nvml>,
    uuid: Option<String>,
    known: Option<Vec<u32>>,
    lost: bool,
    asks: Asks,
}

/// What this card was found not to offer is not asked again.
#[derive(Default)]
struct Asks {
    fields: Repeated,
    power: Repeated,
    energy: Repeated,
    utilisation: Repeated,
    memory: Repeated,
    temperature: Repeated,
    sm_clock: Repeated,
    memory_clock: Repeated,
    throttle: Repeated,
    sent: Repeated,
    received: Repeated,
}

impl<'nvml> Watched<'nvml> {
    fn new(place: u32, device: Device<'nvml>, is_own: bool) -> Self {
        let uuid = device.uuid().ok();
        Self { place, is_own, device, uuid, known: None, lost: false, asks: Asks::default() }
    }

    /// `None` once the GPU is lost.
    fn sample(&mut self, tick: u64) -> io::Result<Option<GpuSample>> {
        if self.lost {
            return Ok(None);
        }
        let mut taker = Taker::default();
        if !self.is_own {
            if tick.is_multiple_of(SECOND) {
                let list = inventory::compute_processes(&mut taker, &self.device);
                self.tell_processes(list.map(|list| list.iter().map(process).collect()))?;
            }
            return Ok(None);
        }
        let sample = self.read(&mut taker, tick);
        if let Some(fault) = taker.lost {
            self.lost = true;
            say(&WatchEvent::Lost { gpu: self.place, at: clock::now(), fault })?;
            return Ok(None);
        }
        self.tell_processes(sample.processes.clone())?;
        Ok(Some(sample))
    }

    fn read(&mut self, t: &mut Taker, tick: u64) -> GpuSample {
        let (device, asks) = (&self.device, &mut self.asks);
        // Energy first: its time is the sample's.
        let energy_mj = asks.energy.take(t, "energy", || device.total_energy_consumption());
        let at = clock::now();
        let fields = asks.fields.take(t, "power fields", || device.field_values_for(&POWER_FIELDS));
        let [power_instant_mw, power_average_mw] = values(fields);
        let used = asks.utilisation.take(t, "utilisation", || device.utilization_rates());
        let now_and_then = |every: u64| tick.is_multiple_of(every);
        let pcie = |ask: &mut Repeated, counter: fn() -> PcieUtilCounter, t: &mut Taker| {
            now_and_then(SECOND)
                .then(|| ask.take(t, "PCIe", || device.pcie_throughput(counter())))
                .flatten()
        };
        GpuSample {
            at,
            gpu: self.place,
            power_usage_mw: asks.power.take(t, "power", || device.power_usage()),
            power_instant_mw,
            power_average_mw,
            energy_mj,
            utilisation_percent: used.as_ref().map(|used| used.gpu),
            memory_utilisation_percent: used.as_ref().map(|used| used.memory),
            memory_used_bytes: asks
                .memory
                .take(t, "memory", || device.memory_info())
                .map(|m| m.used),
            temperature_c: asks
                .temperature
                .take(t, "temperature", || device.temperature(TemperatureSensor::Gpu)),
            sm_clock_mhz: asks.sm_clock.take(t, "clock", || device.clock_info(Clock::SM)),
            memory_clock_mhz: asks
                .memory_clock
                .take(t, "clock", || device.clock_info(Clock::Memory)),
            throttle_reasons: asks
                .throttle
                .take(t, "throttle reasons", || device.current_throttle_reasons())
                .map(|reasons| reasons.bits()),
            pcie_sent_kib_s: pcie(&mut asks.sent, || PcieUtilCounter::Send, t),
            pcie_received_kib_s: pcie(&mut asks.received, || PcieUtilCounter::Receive, t),
            processes: now_and_then(PROCESSES_EVERY)
                .then(|| inventory::compute_processes(t, device))
                .flatten()
                .map(|list| list.iter().map(process).collect()),
        }
    }

    fn tell_processes(&mut self, list: Option<Vec<GpuProcess>>) -> io::Result<()> {
        let Some(list) = list else { return Ok(()) };
        let mut pids: Vec<u32> = list.iter().map(|process| process.pid).collect();
        pids.sort_unstable();
        if self.known.as_ref() == Some(&pids) {
            return Ok(());
        }
        self.known = Some(pids);
        say(&WatchEvent::Processes { gpu: self.place, at: clock::now(), list })
    }
}

fn process(info: &nvml_wrapper::struct_wrappers::device::ProcessInfo) -> GpuProcess {
    GpuProcess { pid: info.pid, memory_bytes: inventory::memory_of(info) }
}

const POWER_FIELDS: [FieldId; 2] =
    [FieldId(NVML_FI_DEV_POWER_INSTANT), FieldId(NVML_FI_DEV_POWER_AVERAGE)];

pub(super) fn power_fields(t: &mut Taker, device: &Device<'_>) -> [Option<u32>; 2] {
    fields(t, device, [NVML_FI_DEV_POWER_INSTANT, NVML_FI_DEV_POWER_AVERAGE])
}

/// Values of fields that are whole numbers.
pub(super) fn fields<const N: usize>(
    t: &mut Taker,
    device: &Device<'_>,
    ids: [u32; N],
) -> [Option<u32>; N] {
    values(t.take("fields", device.field_values_for(&ids.map(FieldId))))
}

type Fields = Vec<
    Result<nvml_wrapper::struct_wrappers::device::FieldValueSample, nvml_wrapper::error::NvmlError>,
>;

fn values<const N: usize>(fields: Option<Fields>) -> [Option<u32>; N] {
    let mut found = fields.into_iter().flatten().map(|field| match field.ok()?.value.ok()? {
        SampleValue::U32(value) => Some(value),
        SampleValue::U64(value) => u32::try_from(value).ok(),
        SampleValue::I64(value) => u32::try_from(value).ok(),
        SampleValue::F64(_) => None,
    });
    std::array::from_fn(|_| found.next().flatten())
}
