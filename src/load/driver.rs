//! Drives one phase: the event loop. Edge.
//!
//! One thread, one epoll. This file holds the turns of the loop and the end of a phase; what a
//! user does with its connection is in `users`; when a phase ends is decided in `rules`.
//!
//! Invariant: every request that was begun leaves exactly one record, whatever ends the phase.

use super::arrivals::{self, Schedule, TIMER};
use super::clock::{ClockChange, ClockSample, WallOffset};
use super::conn::{self, ReadBuffer};
use super::event::Classifier;
use super::frames::{FramesError, Writer};
use super::lag::Lags;
use super::message::{LoadEvent, LoadPattern, LoadPlan, LoadTick};
use super::reading::LATE_NS;
use super::request::RequestTemplate;
use super::rules::{Verdict, Watch};
use super::supply::{Supply, SupplyError};
use super::tls;
use super::users::User;
use crate::run::phase::{ClientCost, PhaseEnd, PhaseFacts, TlsFacts};
use crate::run::record::RequestOutcome;
use crate::seed::Seed;
use crate::units::MonoNs;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, Usage, UsageWho, getrlimit, getrusage};
use nix::sys::socket::SockaddrIn;
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Events of one turn.
const MAX_EVENTS: usize = 512;
/// Requests begun in one turn: connecting many users must not keep the loop from reading.
const MAX_STARTS: usize = 64;
/// A gap in the loop that counts as a stall.
const STALL_NS: i64 = 50_000_000;
const TICK: Duration = Duration::from_secs(1);
/// The key of the wake-up descriptor.
const WAKE: u64 = u64::MAX;
/// Tries for a narrow sample of the clocks.
const CLOCK_TRIES: u32 = 4;

/// Why a phase could not be driven. Each message completes "the load generator is broken: …".
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriveError {
    #[error("{host} is not an IPv4 address")]
    Host { host: String },
    #[error("cannot make requests: {0}")]
    Supply(#[from] SupplyError),
    #[error("cannot keep the schedule {}: {source}", .path.display())]
    Schedule { path: PathBuf, source: std::io::Error },
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] tls::SetupError),
    #[error("cannot keep records: {0}")]
    Frames(#[from] FramesError),
    #[error("{begun} requests were begun and {kept} left a record")]
    Lost { begun: u32, kept: u64 },
    #[error("cannot {action}: {source}")]
    System { action: &'static str, source: Errno },
}

pub(super) fn system(action: &'static str) -> impl Fn(Errno) -> DriveError {
    move |source| DriveError::System { action, source }
}

/// How the outside ends a phase: set the flag, then wake the loop.
#[derive(Clone, Debug)]
pub(crate) struct Stopper {
    asked: Arc<AtomicBool>,
    wake: Arc<EventFd>,
}

impl Stopper {
    pub(crate) fn new() -> Result<Self, DriveError> {
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .map_err(system("make an eventfd"))?;
        Ok(Self { asked: Arc::new(AtomicBool::new(false)), wake: Arc::new(wake) })
    }

    /// Readable once stopping was asked for.
    pub(super) fn descriptor(&self) -> &EventFd {
        &self.wake
    }

    pub(crate) fn stop(&self) {
        self.asked.store(true, Ordering::Release);
        // It can only fail when the counter is full, and then the loop is awake.
        let _: Result<usize, Errno> = self.wake.write(1);
    }
}

/// The clock of everything stored.
pub(super) fn now() -> Result<MonoNs, DriveError> {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(|time| MonoNs::new(time.num_nanoseconds()))
        .map_err(system("read the clock"))
}

pub(super) fn sample_clocks() -> Result<ClockSample, DriveError> {
    let mut best: Option<ClockSample> = None;
    for _ in 0..CLOCK_TRIES {
        let before = now()?;
        let realtime = clock_gettime(ClockId::CLOCK_REALTIME).map_err(system("read the clock"))?;
        let sample = ClockSample { before, realtime_ns: realtime.num_nanoseconds(), after: now()? };
        if best.is_none_or(|best| sample.width_ns() < best.width_ns()) {
            best = Some(sample);
        }
        if sample.is_narrow() {
            break;
        }
    }
    best.ok_or(DriveError::System { action: "read the clock", source: Errno::EINVAL })
}

/// The times of an open loop, kept with the run before they are used.
fn offsets(plan: &LoadPlan) -> Result<Option<Vec<u64>>, DriveError> {
    let LoadPattern::Open { schedule, seed, kept } = &plan.pattern else { return Ok(None) };
    let offsets = schedule.offsets(Seed::new(*seed));
    arrivals::save(kept, &offsets)
        .map_err(|source| DriveError::Schedule { path: kept.clone(), source })?;
    Ok(Some(offsets))
}

type FirstTurns = (Vec<User>, BinaryHeap<Reverse<(MonoNs, u32)>>, VecDeque<u32>);

/// The users of a closed loop, and when each begins.
fn first_turns(plan: &LoadPlan, started: MonoNs) -> FirstTurns {
    let LoadPattern::Closed { ramp_up_ns, .. } = plan.pattern else { return FirstTurns::default() };
    let (mut users, mut timers, mut starts) = FirstTurns::default();
    for id in 0..plan.users {
        let share = u128::from(ramp_up_ns) * u128::from(id) / u128::from(plan.users.max(1));
        let due = started.plus(Duration::from_nanos(u64::try_from(share).unwrap_or(0)));
        if due > started {
            users.push(User::later(due));
            timers.push(Reverse((due, id)));
        } else {
            users.push(User::new(due));
            starts.push_back(id);
        }
    }
    (users, timers, starts)
}

/// The CPUs that this process may run on.
fn cpus() -> Option<u32> {
    let count = std::thread::available_parallelism().ok()?;
    u32::try_from(count.get()).ok()
}

/// All state of a phase under way.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(super) plan: LoadPlan,
    pub(super) address: SockaddrIn,
    pub(super) tls: Option<tls::Setup>,
    /// Version and cipher of the first connection with TLS.
    pub(super) protocol: Option<String>,
    pub(super) epoll: Epoll,
    pub(super) classifier: Classifier,
    pub(super) buffer: ReadBuffer,
    pub(super) offset: WallOffset,
    pub(super) supply: Supply,
    pub(super) template: RequestTemplate,
    pub(super) writer: Writer,
    pub(super) users: Vec<User>,
    pub(super) watch: Watch,
    pub(super) tick: LoadTick,
    pub(super) cost: ClientCost,
    pub(super) lags: Lags,
    /// The loop has not looked at its sockets for a while.
    pub(super) late: bool,
    pub(super) next_index: u32,
    /// Users whose next request is due.
    pub(super) starts: VecDeque<u32>,
    /// At most one live entry a user: when it must be looked at.
    pub(super) timers: BinaryHeap<Reverse<(MonoNs, u32)>>,
    /// Users who have not sent their first request yet.
    pub(super) not_yet_sent: u32,
    pub(super) full_at: Option<MonoNs>,
    pub(super) stamped_reads: u64,
    /// There for an open loop.
    pub(super) schedule: Option<Schedule>,
    pub(super) started: MonoNs,
    next_tick: MonoNs,
    end: Option<(PhaseEnd, MonoNs)>,
    usage: Usage,
    stopper: Stopper,
    notes: mpsc::Sender<LoadEvent>,
    _stamping: OwnedFd,
}

impl Driver {
    /// Makes everything that the phase needs; nothing is sent.
    pub(crate) fn prepare(
        plan: LoadPlan,
        stopper: Stopper,
        notes: mpsc::Sender<LoadEvent>,
    ) -> Result<Self, DriveError> {
        // First of all: stamping takes effect with a delay.
        let stamping = conn::keep_stamping().map_err(system("open a stamped socket"))?;
        let host: Ipv4Addr =
            plan.host.parse().map_err(|_| DriveError::Host { host: plan.host.clone() })?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(system("make an epoll"))?;
        epoll
            .add(&stopper.wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))
            .map_err(system("watch the eventfd"))?;
        let writer = Writer::create(&plan.records)?;
        let offsets = offsets(&plan)?;
        let supply =
            Supply::start(&plan, offsets.as_ref().map(Vec::len), Arc::clone(&stopper.wake))?;
        let usage = getrusage(UsageWho::RUSAGE_SELF).map_err(system("read the CPU time"))?;
        let started = now()?;
        let (users, timers, starts) = first_turns(&plan, started);
        let watch = Watch::new(&plan, started, offsets.as_ref().map(Vec::len));
        let schedule =
            offsets.map(|offsets| Schedule::new(offsets, plan.users, &epoll)).transpose()?;
        Ok(Self {
            schedule,
            not_yet_sent: u32::try_from(users.len()).unwrap_or(u32::MAX).max(1),
            users,
            timers,
            starts,
            watch,
            tls: plan.peer.tls.as_ref().map(tls::Setup::new).transpose()?,
            protocol: None,
            address: SockaddrIn::from(SocketAddrV4::new(host, plan.port)),
            epoll,
            classifier: Classifier::new(plan.request.draft.answer.as_ref()),
            buffer: ReadBuffer::new(),
            offset: WallOffset::new(sample_clocks()?),
            supply,
            template: RequestTemplate::new(&plan).map_err(SupplyError::from)?,
            writer,
            tick: LoadTick::default(),
            cost: ClientCost::default(),
            lags: Lags::default(),
            late: false,
            next_index: 0,
            full_at: None,
            stamped_reads: 0,
            started,
            next_tick: started.plus(TICK),
            end: None,
            usage,
            stopper,
            notes,
            plan,
            _stamping: stamping,
        })
    }

    /// Drives the phase to its end; what there is to say about it.
    pub(crate) fn run(mut self) -> Result<PhaseFacts, DriveError> {
        // Here, so that only the loop has it: who makes prompts has time.
        self.cost.niceness = super::priority::raise();
        self.note(LoadEvent::Started);
        let driven = self.turns();
        if driven.is_err() {
            // The machine failed: what was begun still leaves its records.
            let now = now()?;
            self.end.get_or_insert((PhaseEnd::Stopped, now));
            self.give_up_all(RequestOutcome::Cancelled, "the load generator failed", now)?;
        }
        let facts = self.facts();
        let Self { writer, next_index: begun, .. } = self;
        let records = writer.finish()?;
        driven?;
        if records != u64::from(begun) {
            return Err(DriveError::Lost { begun, kept: records });
        }
        Ok(PhaseFacts { records, ..facts? })
    }

    fn turns(&mut self) -> Result<(), DriveError> {
        let mut events = vec![EpollEvent::empty(); MAX_EVENTS];
        let mut woke = now()?;
        loop {
            self.cost.loop_turns += 1;
            self.sample_offset()?;
            // First, so that no request is begun beyond the goal.
            self.judge(woke)?;
            self.start_due(woke)?;
            let now_ns = now()?;
            self.fire_timers(now_ns)?;
            self.judge(now_ns)?;
            if self.end.is_some() && self.watch.in_flight() == 0 {
                return Ok(());
            }
            self.tick(now_ns);
            let timeout = self.timeout(now_ns);
            let before = now()?;
            let gap = before.since_ns(woke);
            self.saw_gap(gap);
            self.late = gap > LATE_NS;
            let ready = match self.epoll.wait(&mut events, timeout) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(source) => return Err(DriveError::System { action: "wait", source }),
            };
            woke = now()?;
            for event in events.get(..ready).unwrap_or_default() {
                if event.data() == WAKE {
                    self.on_wake()?;
                } else if event.data() != TIMER {
                    self.on_socket(event.data(), event.events())?;
                }
            }
        }
    }

    /// Time in which the loop did not look at its sockets.
    pub(super) fn saw_gap(&mut self, ns: i64) {
        self.cost.max_turn_gap_ns = self.cost.max_turn_gap_ns.max(ns);
        self.cost.stalls += u32::from(ns > STALL_NS);
    }

    fn sample_offset(&mut self) -> Result<(), DriveError> {
        if self.offset.follow(sample_clocks()?) == ClockChange::Stepped {
            self.cost.clock_steps += 1;
            self.users.iter_mut().for_each(User::clock_stepped);
        }
        Ok(())
    }

    fn on_wake(&mut self) -> Result<(), DriveError> {
        // Level-triggered: read it empty, whatever it counted.
        let _: Result<u64, Errno> = self.stopper.wake.read();
        for lane in self.supply.collect()? {
            let waiting = match &mut self.schedule {
                Some(schedule) => schedule.lacking.pop_front(),
                None => Some(lane),
            };
            if let Some(user) = waiting {
                self.prompt_arrived(user);
            }
        }
        Ok(())
    }

    fn start_due(&mut self, woke: MonoNs) -> Result<(), DriveError> {
        if self.end.is_some() {
            self.starts.clear();
        }
        for _ in 0..MAX_STARTS {
            let Some(user) = self.starts.pop_front() else { break };
            self.begin(user, woke)?;
        }
        if self.end.is_none() { self.start_arrivals(woke, MAX_STARTS) } else { Ok(()) }
    }

    fn fire_timers(&mut self, now: MonoNs) -> Result<(), DriveError> {
        while let Some(&Reverse((due, user))) = self.timers.peek() {
            if due > now {
                break;
            }
            self.timers.pop();
            // While all are silent the phase's verdict comes first: that is a hang, no stall.
            self.judge(now)?;
            self.on_timer(user, due, now)?;
        }
        Ok(())
    }

    /// Looks whether the phase is over, and ends it.
    fn judge(&mut self, now: MonoNs) -> Result<(), DriveError> {
        // Also while draining: then the first reason to stop sending stays.
        if self.stopper.asked.swap(false, Ordering::AcqRel) {
            self.stop_sending(PhaseEnd::Stopped, now);
            return self.give_up_all(RequestOutcome::Cancelled, "sweepd was told to stop", now);
        }
        match self.watch.verdict(now) {
            Verdict::GoOn => Ok(()),
            Verdict::StopSending(end) => {
                self.stop_sending(end, now);
                Ok(())
            }
            Verdict::Abandon(end, outcome) => {
                self.stop_sending(end, now);
                let why = match end {
                    PhaseEnd::Hang => "no stream brought a byte for the stall deadline",
                    PhaseEnd::EngineGone => "nobody serves any more",
                    PhaseEnd::OnlyFailures => "every request fails",
                    PhaseEnd::Deadline => "the phase's deadline came",
                    PhaseEnd::Finished | PhaseEnd::Stopped => "the phase ended",
                };
                self.give_up_all(outcome, why, now)
            }
        }
    }

    fn stop_sending(&mut self, end: PhaseEnd, now: MonoNs) {
        self.watch.stopped_sending();
        // The first reason stands, but a hang while draining is the engine's failure.
        let stopped_at = self.end.map_or(now, |(_, stopped_at)| stopped_at);
        if self.end.is_none() || end == PhaseEnd::Hang {
            self.end = Some((end, stopped_at));
        }
    }

    pub(super) fn is_sending(&self) -> bool {
        self.end.is_none()
    }

    fn give_up_all(
        &mut self,
        outcome: RequestOutcome,
        why: &str,
        now: MonoNs,
    ) -> Result<(), DriveError> {
        for user in 0..u32::try_from(self.users.len()).unwrap_or(u32::MAX) {
            self.give_up(user, outcome, why, now)?;
        }
        Ok(())
    }

    fn tick(&mut self, now: MonoNs) {
        if now < self.next_tick {
            return;
        }
        while self.next_tick <= now {
            self.next_tick = self.next_tick.plus(TICK);
        }
        self.tick.elapsed_ns = u64::try_from(now.since_ns(self.started)).unwrap_or(0);
        self.tick.in_flight = self.watch.in_flight();
        self.tick.silent_ns = self.watch.silent_ns(now);
        self.note(LoadEvent::Tick(self.tick));
    }

    fn note(&self, event: LoadEvent) {
        // Nobody may listen any more; then the end of stdin stops the phase.
        drop(self.notes.send(event));
    }

    /// Milliseconds until something is due, rounded up so that it is then due indeed.
    fn timeout(&self, now: MonoNs) -> EpollTimeout {
        if !self.starts.is_empty() || (self.end.is_none() && self.arrivals_wait(now)) {
            return EpollTimeout::ZERO;
        }
        let mut due = self.next_tick.min(self.watch.next_due(now));
        if let Some(&Reverse((timer, _))) = self.timers.peek() {
            due = due.min(timer);
        }
        let wait = due.since(now).as_nanos().div_ceil(1_000_000);
        EpollTimeout::from(u16::try_from(wait).unwrap_or(u16::MAX))
    }

    fn facts(&self) -> Result<PhaseFacts, DriveError> {
        let ended = now()?;
        let usage = getrusage(UsageWho::RUSAGE_SELF).map_err(system("read the CPU time"))?;
        let (end, stopped_at) = self.end.unwrap_or((PhaseEnd::Stopped, ended));
        let seconds = |since: fn(&Usage) -> nix::sys::time::TimeVal| {
            let spent = since(&usage) - since(&self.usage);
            Duration::from_micros(u64::try_from(spent.num_microseconds()).unwrap_or(0))
                .as_secs_f64()
        };
        Ok(PhaseFacts {
            phase: self.plan.phase.clone(),
            users: match self.schedule {
                Some(_) => u32::try_from(self.users.len()).unwrap_or(u32::MAX),
                None => self.plan.users,
            },
            started: self.started,
            full_at: self.full_at,
            stopped_at,
            ended,
            end,
            records: 0,
            client: ClientCost {
                user_cpu_s: seconds(Usage::user_time),
                system_cpu_s: seconds(Usage::system_time),
                max_rss_bytes: u64::try_from(usage.max_rss()).unwrap_or(0) * 1024,
                read_lag_p99_ns: self.lags.p99_ns(),
                open_files: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
                cpus: cpus(),
                ..self.cost
            },
            intended_cached: self.plan.prompts.shape.intended_cached(),
            classes: self.plan.prompts.classes.clone(),
            stages: self.plan.pattern.stages().to_vec(),
            dataset: self.supply.part_facts().map(Box::new),
            open: self.schedule.as_ref().map(Schedule::facts),
            tls: self
                .tls
                .as_ref()
                .map(|setup| TlsFacts { protocol: self.protocol.clone(), ..setup.facts() }),
            kernel_stamps: self.stamped_reads > 0,
        })
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
pub(crate) mod tests;
