//! One event loop of a phase: one thread, one epoll. Edge.
//!
//! This file holds the turns of the loop; what a user does is in `users`, when a phase ends is
//! decided in `rules` for all its loops at once (`joint`), and `loops` makes and joins them.
//!
//! Invariant: every request that was begun leaves exactly one record, whatever ends the phase.

use super::arrivals::{Schedule, TIMER};
use super::clock::{ClockChange, ClockSample, WallOffset};
use super::conn::ReadBuffer;
use super::event::Classifier;
use super::frames::{FramesError, Sink};
use super::joint::{Order, Part};
use super::lag::Lags;
use super::loops::{PartFacts, Share};
use super::message::{LoadPattern, LoadPlan, LoadTick};
use super::priority::{self, Priority};
use super::reading::LATE_NS;
use super::request::RequestTemplate;
use super::supply::{Supply, SupplyError};
use super::tls;
use super::users::User;
use crate::run::phase::{ClientCost, PhaseEnd};
use crate::run::record::RequestOutcome;
use crate::units::MonoNs;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::SockaddrIn;
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    #[error("cannot start an event loop: {0}")]
    Thread(std::io::Error),
    #[error("an event loop panicked")]
    Panicked,
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
    pub(super) fn descriptor(&self) -> &Arc<EventFd> {
        &self.wake
    }

    /// Has the loop look round.
    pub(super) fn wake(&self) {
        // It can only fail when the counter is full, and then the loop is awake.
        let _: Result<usize, Errno> = self.wake.write(1);
    }

    pub(crate) fn stop(&self) {
        self.asked.store(true, Ordering::Release);
        self.wake();
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

type FirstTurns = (Vec<User>, BinaryHeap<Reverse<(MonoNs, u32)>>, VecDeque<u32>);

/// The users of a closed loop, and when each begins.
fn first_turns(plan: &LoadPlan, share: Share, started: MonoNs) -> FirstTurns {
    let LoadPattern::Closed { ramp_up_ns, .. } = plan.pattern else { return FirstTurns::default() };
    let (mut users, mut timers, mut starts) = FirstTurns::default();
    for id in 0..share.count(plan.users) {
        let before = u128::from(share.nth(id));
        let wait = u128::from(ramp_up_ns) * before / u128::from(plan.users.max(1));
        let due = started.plus(Duration::from_nanos(u64::try_from(wait).unwrap_or(0)));
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

/// All state of one loop of a phase under way.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(super) share: Share,
    pub(super) plan: Arc<LoadPlan>,
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
    pub(super) records: Sink,
    pub(super) users: Vec<User>,
    pub(super) watch: Part,
    pub(super) tick: LoadTick,
    pub(super) cost: ClientCost,
    pub(super) lags: Lags,
    priority: Priority,
    /// The loop has not looked at its sockets for a while.
    pub(super) late: bool,
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
    /// How many it has said.
    ticks: u64,
    end: Option<(PhaseEnd, MonoNs)>,
    /// What was in flight at the end was given up.
    abandoned: bool,
    stopper: Stopper,
}

/// What a loop begins with.
#[derive(Debug)]
pub(super) struct Outset {
    pub(super) share: Share,
    pub(super) plan: Arc<LoadPlan>,
    pub(super) address: SockaddrIn,
    pub(super) tls: Option<tls::Setup>,
    /// Of an open loop: what is dealt to this one.
    pub(super) offsets: Option<Vec<u64>>,
    pub(super) supply: Supply,
    pub(super) stopper: Stopper,
    pub(super) watch: Part,
    pub(super) records: Sink,
    pub(super) started: MonoNs,
}

impl Driver {
    pub(super) fn new(outset: Outset) -> Result<Self, DriveError> {
        let Outset { share, plan, address, tls, offsets, supply, stopper, watch, records, started } =
            outset;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(system("make an epoll"))?;
        epoll
            .add(&stopper.wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))
            .map_err(system("watch the eventfd"))?;
        let (users, timers, starts) = first_turns(&plan, share, started);
        let most = share.count(plan.users);
        let schedule = offsets.map(|offsets| Schedule::new(offsets, most, &epoll)).transpose()?;
        Ok(Self {
            share,
            schedule,
            not_yet_sent: u32::try_from(users.len()).unwrap_or(u32::MAX).max(1),
            users,
            timers,
            starts,
            watch,
            tls,
            protocol: None,
            address,
            epoll,
            classifier: Classifier::new(plan.request.draft.answer.as_ref()),
            buffer: ReadBuffer::new(),
            offset: WallOffset::new(sample_clocks()?),
            supply,
            template: RequestTemplate::new(&plan).map_err(SupplyError::from)?,
            records,
            tick: LoadTick::default(),
            cost: ClientCost::default(),
            lags: Lags::default(),
            priority: Priority::default(),
            late: false,
            full_at: None,
            stamped_reads: 0,
            started,
            next_tick: started.plus(TICK),
            ticks: 0,
            end: None,
            abandoned: false,
            stopper,
            plan,
        })
    }

    /// Drives the loop to its end; what it has to say about it.
    pub(super) fn run(mut self) -> Result<PartFacts, DriveError> {
        self.priority.begin(now()?);
        let driven = self.turns();
        let now = now()?;
        if driven.is_err() {
            // The machine failed: what was begun still leaves its records.
            self.watch.fail(now);
            self.end.get_or_insert((PhaseEnd::Stopped, now));
            self.give_up_all(RequestOutcome::Cancelled, "the load generator failed", now)?;
        }
        // No tick of this loop is waited for any more.
        self.say(u64::MAX, now);
        driven.map(|()| self.facts())
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
            if self.late || gap > LATE_NS {
                self.priority.late(before);
            }
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

    /// Looks whether the phase is over, and does what all loops then do.
    fn judge(&mut self, now: MonoNs) -> Result<(), DriveError> {
        let asked = self.stopper.asked.swap(false, Ordering::AcqRel);
        let Order { end, abandon } = self.watch.judge(now, asked);
        self.end = end;
        match abandon {
            Some((outcome, why)) if !self.abandoned => {
                self.abandoned = true;
                self.give_up_all(outcome, why, now)
            }
            Some(_) | None => Ok(()),
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
            self.ticks += 1;
        }
        self.say(self.ticks, now);
    }

    fn say(&mut self, seconds: u64, now: MonoNs) {
        self.tick.elapsed_ns = u64::try_from(now.since_ns(self.started)).unwrap_or(0);
        self.watch.tick(seconds, self.tick, now);
    }

    /// Milliseconds until something is due, rounded up so that it is then due indeed.
    fn timeout(&self, now: MonoNs) -> EpollTimeout {
        if !self.starts.is_empty() || (self.end.is_none() && self.arrivals_wait(now)) {
            return EpollTimeout::ZERO;
        }
        let mut due = self.next_tick.min(self.watch.next_due());
        if let Some(&Reverse((timer, _))) = self.timers.peek() {
            due = due.min(timer);
        }
        let wait = due.since(now).as_nanos().div_ceil(1_000_000);
        EpollTimeout::from(u16::try_from(wait).unwrap_or(u16::MAX))
    }

    fn facts(&self) -> PartFacts {
        PartFacts {
            users: u32::try_from(self.users.len()).unwrap_or(u32::MAX),
            full_at: self.full_at,
            end: self.end,
            cost: ClientCost {
                read_lag_p99_ns: self.lags.p99_ns(),
                niceness: priority::niceness(),
                ..self.cost
            },
            open: self.schedule.as_ref().map(Schedule::facts),
            stamped_reads: self.stamped_reads,
            protocol: self.protocol.clone(),
        }
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
pub(crate) mod tests;
