//! A phase: its event loops, each in a thread of its own, and what they say together. Edge.
//!
//! Users and their connections are dealt out among the loops, as are an open loop's requests, in
//! turn; nothing moves between loops afterwards. What they share is `joint`.
//!
//! Invariant: every request that was begun in any loop leaves exactly one record.

use super::arrivals;
use super::conn;
use super::driver::{DriveError, Driver, Outset, Stopper, now, system};
use super::frames::Writer;
use super::joint::{Joint, Part};
use super::message::{LoadEvent, LoadPattern, LoadPlan};
use super::rules::Watch;
use super::supply::Supplies;
use super::tls;
use crate::run::phase::{ClientCost, OpenFacts, PhaseEnd, PhaseFacts, TlsFacts};
use crate::seed::Seed;
use crate::units::MonoNs;
use nix::sys::resource::{Resource, Usage, UsageWho, getrlimit, getrusage};
use nix::sys::socket::SockaddrIn;
use nix::sys::time::TimeValLike;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// Which of the loops one is, and of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) number: u32,
    pub(crate) of: u32,
}

impl Share {
    /// How many of `all` are dealt to it.
    pub(crate) fn count(self, all: u32) -> u32 {
        all / self.of + u32::from(self.number < all % self.of)
    }

    /// Its `nth`, counted among all.
    pub(crate) fn nth(self, nth: u32) -> u32 {
        nth.saturating_mul(self.of).saturating_add(self.number)
    }
}

/// What one loop has to say at its end.
#[derive(Clone, Debug)]
pub(super) struct PartFacts {
    pub(super) users: u32,
    pub(super) full_at: Option<MonoNs>,
    pub(super) end: Option<(PhaseEnd, MonoNs)>,
    pub(super) cost: ClientCost,
    pub(super) open: Option<OpenFacts>,
    pub(super) stamped_reads: u64,
    pub(super) protocol: Option<String>,
}

/// A phase that is ready to be driven.
pub(crate) struct LoadPhase {
    plan: Arc<LoadPlan>,
    drivers: Vec<Driver>,
    supplies: Supplies,
    joint: Arc<Joint>,
    writer: Writer,
    tls: Option<TlsFacts>,
    started: MonoNs,
    usage: Usage,
    _stamping: OwnedFd,
}

/// The times of an open loop, kept with the run before they are used.
fn offsets(plan: &LoadPlan) -> Result<Option<Vec<u64>>, DriveError> {
    let LoadPattern::Open { schedule, seed, kept } = &plan.pattern else { return Ok(None) };
    let offsets = schedule.offsets(Seed::new(*seed));
    arrivals::save(kept, &offsets)
        .map_err(|source| DriveError::Schedule { path: kept.clone(), source })?;
    Ok(Some(offsets))
}

fn address(plan: &LoadPlan) -> Result<SockaddrIn, DriveError> {
    let host = plan.host.parse().map_err(|_| DriveError::Host { host: plan.host.clone() })?;
    Ok(SockaddrIn::from(SocketAddrV4::new(host, plan.port)))
}

/// The CPUs that this process may run on.
fn cpus() -> Option<u32> {
    let count = std::thread::available_parallelism().ok()?;
    u32::try_from(count.get()).ok()
}

/// No more loops than were asked for, than there are CPUs for them, and than there are users.
fn loops(plan: &LoadPlan) -> u32 {
    plan.loops.min(cpus().unwrap_or(1)).min(plan.users).max(1)
}

impl LoadPhase {
    /// Makes everything that the phase needs; nothing is sent.
    pub(crate) fn prepare(
        plan: LoadPlan,
        stopper: Stopper,
        notes: mpsc::Sender<LoadEvent>,
    ) -> Result<Self, DriveError> {
        // First of all: stamping takes effect with a delay.
        let stamping = conn::keep_stamping().map_err(system("open a stamped socket"))?;
        let address = address(&plan)?;
        let tls = plan.peer.tls.as_ref().map(tls::Setup::new).transpose()?;
        let writer = Writer::create(&plan.records)?;
        let offsets = offsets(&plan)?;
        let of = loops(&plan);
        let mut stoppers = vec![stopper];
        for _ in 1..of {
            stoppers.push(Stopper::new()?);
        }
        let mut supplies = Supplies::new(&plan, offsets.as_ref().map(Vec::len), of)?;
        let usage = getrusage(UsageWho::RUSAGE_SELF).map_err(system("read the CPU time"))?;
        let started = now()?;
        let watch = Watch::new(&plan, started, offsets.as_ref().map(Vec::len));
        let joint = Joint::new(watch, started, stoppers.clone(), notes);
        let plan = Arc::new(plan);
        let mut drivers = Vec::new();
        for (number, stopper) in (0..of).zip(stoppers) {
            let share = Share { number, of };
            drivers.push(Driver::new(Outset {
                share,
                plan: Arc::clone(&plan),
                address,
                tls: tls.clone(),
                offsets: offsets.as_ref().map(|offsets| dealt(offsets, share)),
                supply: supplies.deal(share, Arc::clone(stopper.descriptor()))?,
                stopper,
                watch: Part::new(&joint, drivers.len()),
                records: writer.sink(),
                started,
            })?);
        }
        let tls = tls.map(|setup| setup.facts());
        let _stamping = stamping;
        Ok(Self { plan, drivers, supplies, joint, writer, tls, started, usage, _stamping })
    }

    /// Drives the phase to its end; what there is to say about it.
    pub(crate) fn run(self) -> Result<PhaseFacts, DriveError> {
        let Self { plan, drivers, supplies, joint, writer, tls, started, usage, _stamping } = self;
        joint.note(LoadEvent::Started);
        let mut drivers = drivers.into_iter();
        let here = drivers.next();
        // A loop whose thread cannot start is dropped with its part; then the others must end, too.
        let mut threads = Vec::new();
        let mut parts = Vec::new();
        for (number, driver) in (1..).zip(drivers) {
            match start(number, driver) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    Part::new(&joint, usize::MAX).fail(started);
                    parts.push(Err(error));
                }
            }
        }
        parts.extend(here.map(Driver::run));
        let joined = threads.into_iter().map(|thread| thread.join());
        parts.extend(joined.map(|part| part.unwrap_or(Err(DriveError::Panicked))));
        let ended = now()?;
        let records = writer.finish()?;
        let begun = joint.begun();
        let parts: Vec<PartFacts> = parts.into_iter().collect::<Result<_, _>>()?;
        if records != u64::from(begun) {
            return Err(DriveError::Lost { begun, kept: records });
        }
        let after = getrusage(UsageWho::RUSAGE_SELF).map_err(system("read the CPU time"))?;
        let seconds = |of: fn(&Usage) -> nix::sys::time::TimeVal| {
            let spent = (of(&after) - of(&usage)).num_microseconds();
            Duration::from_micros(u64::try_from(spent).unwrap_or(0)).as_secs_f64()
        };
        let facts = merged(&plan, &parts, started, ended);
        Ok(PhaseFacts {
            records,
            client: ClientCost {
                user_cpu_s: seconds(Usage::user_time),
                system_cpu_s: seconds(Usage::system_time),
                max_rss_bytes: u64::try_from(after.max_rss()).unwrap_or(0) * 1024,
                open_files: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
                cpus: cpus(),
                ..facts.client
            },
            open: facts.open.map(|open| OpenFacts {
                not_started: open.scheduled.saturating_sub(begun.into()),
                ..open
            }),
            dataset: supplies.part_facts().map(Box::new),
            tls: tls.map(|tls| TlsFacts { protocol: protocol(&parts), ..tls }),
            ..facts
        })
    }
}

fn start(
    number: u32,
    driver: Driver,
) -> Result<JoinHandle<Result<PartFacts, DriveError>>, DriveError> {
    std::thread::Builder::new()
        .name(format!("loop-{number}"))
        .spawn(move || driver.run())
        .map_err(DriveError::Thread)
}

/// Every so many of them, in their order.
fn dealt(offsets: &[u64], share: Share) -> Vec<u64> {
    let [number, of] = [share.number, share.of].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    offsets.iter().skip(number).step_by(of).copied().collect()
}

fn protocol(parts: &[PartFacts]) -> Option<String> {
    parts.iter().find_map(|part| part.protocol.clone())
}

/// What the loops say together: sums, and of what tells how well they kept up the worst.
fn merged(plan: &LoadPlan, parts: &[PartFacts], started: MonoNs, ended: MonoNs) -> PhaseFacts {
    let (end, stopped_at) =
        parts.iter().find_map(|part| part.end).unwrap_or((PhaseEnd::Stopped, ended));
    let open = parts.iter().filter_map(|part| part.open).reduce(|a, b| OpenFacts {
        scheduled: a.scheduled + b.scheduled,
        scheduled_s: a.scheduled_s.max(b.scheduled_s),
        not_started: a.not_started + b.not_started,
        late: a.late + b.late,
        held_back: a.held_back + b.held_back,
        max_start_lag_ns: a.max_start_lag_ns.max(b.max_start_lag_ns),
    });
    let costs = parts.iter().map(|part| part.cost);
    let full = parts.iter().map(|part| part.full_at);
    PhaseFacts {
        phase: plan.phase.clone(),
        users: match open {
            Some(_) => parts.iter().map(|part| part.users).sum(),
            None => plan.users,
        },
        started,
        full_at: match open {
            // With its first request; users are made as they are needed.
            Some(_) => full.flatten().min(),
            None => full.reduce(|a, b| Some(a?.max(b?))).flatten(),
        },
        stopped_at,
        ended,
        end,
        records: 0,
        client: ClientCost {
            loops: u32::try_from(parts.len()).ok(),
            ..costs.reduce(both).unwrap_or_default()
        },
        intended_cached: plan.prompts.shape.intended_cached(),
        classes: plan.prompts.classes.clone(),
        stages: plan.pattern.stages().to_vec(),
        dataset: None,
        open,
        tls: None,
        kernel_stamps: parts.iter().any(|part| part.stamped_reads > 0),
    }
}

fn both(a: ClientCost, b: ClientCost) -> ClientCost {
    ClientCost {
        loop_turns: a.loop_turns + b.loop_turns,
        max_turn_gap_ns: a.max_turn_gap_ns.max(b.max_turn_gap_ns),
        reads: a.reads + b.reads,
        coalesced_reads: a.coalesced_reads + b.coalesced_reads,
        // Each loop sees each step of the one clock.
        clock_steps: a.clock_steps.max(b.clock_steps),
        stalls: a.stalls + b.stalls,
        read_lag_p99_ns: a.read_lag_p99_ns.max(b.read_lag_p99_ns),
        // The loop that others were put before shows most.
        niceness: a.niceness.max(b.niceness),
        ..a
    }
}

#[cfg(test)]
#[path = "loops_tests.rs"]
mod tests;
