//! What the event loops of one phase share: who may begin, when it is over, and what the parent hears.
//!
//! Deciding is `rules`; here it is asked under one lock, twice a turn and twice a request. What comes
//! with every read touches no lock: each loop has a place of its own for when it last got a byte.
//!
//! Invariant: a request begins only with a number that no other one has, and none beyond the most;
//! whatever one loop finds out about the end, all act by.

use super::driver::Stopper;
use super::message::{LoadEvent, LoadTick};
use super::rules::{Verdict, Watch};
use crate::run::phase::PhaseEnd;
use crate::run::record::RequestOutcome;
use crate::units::MonoNs;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

/// Each in a cache line of its own, with its neighbour that the CPU fetches too.
#[derive(Debug)]
#[repr(align(128))]
struct Progress(AtomicI64);

/// What all loops act by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Order {
    /// No more is sent, why, and since when.
    pub(super) end: Option<(PhaseEnd, MonoNs)>,
    /// What is in flight ends so.
    pub(super) abandon: Option<(RequestOutcome, &'static str)>,
}

#[derive(Debug)]
struct Watched {
    watch: Watch,
    order: Order,
    begun: u32,
    /// The newest byte that `watch` knows of.
    progress: MonoNs,
    ticks: Ticks,
}

/// The counters of each loop, and how many ticks it has said.
#[derive(Debug)]
struct Ticks {
    parts: Vec<(u64, LoadTick)>,
    said: u64,
}

#[derive(Debug)]
pub(super) struct Joint {
    watched: Mutex<Watched>,
    progress: Vec<Progress>,
    /// One a loop.
    wakes: Vec<Stopper>,
    notes: mpsc::Sender<LoadEvent>,
}

impl Joint {
    pub(super) fn new(
        watch: Watch,
        started: MonoNs,
        wakes: Vec<Stopper>,
        notes: mpsc::Sender<LoadEvent>,
    ) -> Arc<Self> {
        let progress = wakes.iter().map(|_| Progress(AtomicI64::new(started.get()))).collect();
        let ticks = Ticks { parts: vec![(0, LoadTick::default()); wakes.len()], said: 0 };
        let order = Order::default();
        let watched = Watched { watch, order, begun: 0, progress: started, ticks };
        Arc::new(Self { watched: Mutex::new(watched), progress, wakes, notes })
    }

    /// With all that the loops have noted so far.
    fn lock(&self) -> MutexGuard<'_, Watched> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.progress.iter().map(|place| place.0.load(Ordering::Relaxed)).max();
        let newest = MonoNs::new(newest.unwrap_or(i64::MIN));
        if newest > watched.progress {
            watched.progress = newest;
            watched.watch.got_bytes(newest);
        }
        watched
    }

    pub(super) fn begun(&self) -> u32 {
        self.lock().begun
    }

    pub(super) fn note(&self, event: LoadEvent) {
        // Nobody may listen any more; then the end of stdin stops the phase.
        drop(self.notes.send(event));
    }
}

impl Watched {
    fn stop_sending(&mut self, end: PhaseEnd, now: MonoNs) {
        self.watch.stopped_sending();
        // The first reason stands, but a hang while draining is the engine's failure.
        let stopped_at = self.order.end.map_or(now, |(_, stopped_at)| stopped_at);
        if self.order.end.is_none() || end == PhaseEnd::Hang {
            self.order.end = Some((end, stopped_at));
        }
    }

    fn abandon(&mut self, outcome: RequestOutcome, why: &'static str) {
        self.order.abandon.get_or_insert((outcome, why));
    }

    fn judge(&mut self, now: MonoNs, stop_asked: bool) {
        // Also while draining: then the first reason to stop sending stays.
        if stop_asked {
            self.stop_sending(PhaseEnd::Stopped, now);
            return self.abandon(RequestOutcome::Cancelled, "sweepd was told to stop");
        }
        match self.watch.verdict(now) {
            Verdict::GoOn => {}
            Verdict::StopSending(end) => self.stop_sending(end, now),
            Verdict::Abandon(end, outcome) => {
                self.stop_sending(end, now);
                self.abandon(
                    outcome,
                    match end {
                        PhaseEnd::Hang => "no stream brought a byte for the stall deadline",
                        PhaseEnd::EngineGone => "nobody serves any more",
                        PhaseEnd::OnlyFailures => "every request fails",
                        PhaseEnd::Deadline => "the phase's deadline came",
                        PhaseEnd::Finished | PhaseEnd::Stopped => "the phase ended",
                    },
                );
            }
        }
    }
}

/// One loop's place among them.
#[derive(Debug)]
pub(super) struct Part {
    joint: Arc<Joint>,
    number: usize,
    in_flight: u32,
    /// When the verdict may change although nothing happens; as of the last look.
    due: MonoNs,
}

impl Part {
    pub(super) fn new(joint: &Arc<Joint>, number: usize) -> Self {
        Self { joint: Arc::clone(joint), number, in_flight: 0, due: MonoNs::new(i64::MIN) }
    }

    /// Of this loop.
    pub(super) const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(super) const fn next_due(&self) -> MonoNs {
        self.due
    }

    /// Another request would be beyond the most that may be sent.
    pub(super) fn is_exhausted(&self) -> bool {
        self.joint.lock().watch.is_exhausted()
    }

    /// A request begins: its number; `None` when there may be no more.
    pub(super) fn begin(&mut self, now: MonoNs) -> Option<u32> {
        let mut watched = self.joint.lock();
        if watched.watch.is_exhausted() || watched.order.end.is_some() {
            return None;
        }
        watched.watch.began(now);
        let index = watched.begun;
        watched.begun += 1;
        self.in_flight += 1;
        Some(index)
    }

    pub(super) fn got_bytes(&self, now: MonoNs) {
        if let Some(place) = self.joint.progress.get(self.number) {
            place.0.store(now.get(), Ordering::Relaxed);
        }
    }

    /// `answered`: at least one byte came back.
    pub(super) fn ended(&mut self, outcome: RequestOutcome, answered: bool, now: MonoNs) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.joint.lock().watch.ended(outcome, answered, now);
    }

    /// Looks whether the phase is over, and what all have to do then.
    pub(super) fn judge(&mut self, now: MonoNs, stop_asked: bool) -> Order {
        let (before, after) = {
            let mut watched = self.joint.lock();
            let before = watched.order;
            watched.judge(now, stop_asked);
            self.due = watched.watch.next_due(now);
            (before, watched.order)
        };
        if before != after {
            self.wake_others();
        }
        after
    }

    /// The machine failed under this loop: no other one goes on.
    pub(super) fn fail(&self, now: MonoNs) {
        {
            let mut watched = self.joint.lock();
            watched.stop_sending(PhaseEnd::Stopped, now);
            watched.abandon(RequestOutcome::Cancelled, "the load generator failed");
        }
        self.wake_others();
    }

    fn wake_others(&self) {
        let others = self.joint.wakes.iter().enumerate().filter(|(n, _)| *n != self.number);
        others.for_each(|(_, other)| other.wake());
    }

    /// The loop's counters after so many seconds; the parent hears the sum when all have said theirs.
    pub(super) fn tick(&self, seconds: u64, tick: LoadTick, now: MonoNs) {
        let mut watched = self.joint.lock();
        let (in_flight, silent_ns) = (watched.watch.in_flight(), watched.watch.silent_ns(now));
        let ticks = &mut watched.ticks;
        if let Some(part) = ticks.parts.get_mut(self.number) {
            *part = (seconds, tick);
        }
        let all = ticks.parts.iter().map(|(seconds, _)| *seconds).min().unwrap_or(0);
        // After the last loop's end there is the end itself to be heard.
        if all <= ticks.said || all == u64::MAX {
            return;
        }
        ticks.said = all;
        let sum =
            |count: fn(&LoadTick) -> u64| ticks.parts.iter().map(|(_, part)| count(part)).sum();
        let elapsed = ticks.parts.iter().map(|(_, part)| part.elapsed_ns).max();
        let sum = LoadTick {
            elapsed_ns: elapsed.unwrap_or(0),
            in_flight,
            sent: sum(|part| part.sent),
            ok: sum(|part| part.ok),
            failed: sum(|part| part.failed),
            chunks: sum(|part| part.chunks),
            output_tokens: sum(|part| part.output_tokens),
            silent_ns,
        };
        drop(watched);
        self.joint.note(LoadEvent::Tick(sum));
    }
}

impl Drop for Part {
    /// A loop that panics must not leave the others waiting for it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fail(MonoNs::new(0));
        }
    }
}

#[cfg(test)]
#[path = "joint_tests.rs"]
mod tests;
