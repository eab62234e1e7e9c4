//! The open loop: requests that come by the clock. Edge.
//!
//! Times are absolute and made ahead. An arrival takes an idle connection, or a new one, and never
//! waits for an answer; when there is no room it starts late, and keeps the time it was due.
//!
//! Invariant: arrivals begin in their order, each once.

use super::driver::{DriveError, Driver, system};
use super::users::User;
use crate::run::phase::OpenFacts;
use crate::units::MonoNs;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// The key of the timer's descriptor.
pub(super) const TIMER: u64 = u64::MAX - 1;
/// A request that began so long after it was due is counted as late.
const LATE: Duration = Duration::from_millis(10);

/// What is due, and who may take it.
#[derive(Debug)]
pub(super) struct Schedule {
    offsets: Vec<u64>,
    next: usize,
    /// Users without a request: the one that was busy last is at the end.
    idle: Vec<u32>,
    /// Users whose arrival has begun and whose prompt is still being made.
    pub(super) lacking: VecDeque<u32>,
    most: u32,
    /// More precise than the wait of epoll.
    timer: TimerFd,
    armed: Option<MonoNs>,
    held_back: u64,
    late: u64,
    max_lag_ns: i64,
}

impl Schedule {
    pub(super) fn new(offsets: Vec<u64>, most: u32, epoll: &Epoll) -> Result<Self, DriveError> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(system("make a timer"))?;
        // Edge-triggered: setting it again is enough, nothing has to be read.
        let wanted = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(&timer, EpollEvent::new(wanted, TIMER)).map_err(system("watch the timer"))?;
        Ok(Self {
            offsets,
            next: 0,
            idle: Vec::new(),
            lacking: VecDeque::new(),
            most,
            timer,
            armed: None,
            held_back: 0,
            late: 0,
            max_lag_ns: 0,
        })
    }

    fn due(&self, started: MonoNs) -> Option<MonoNs> {
        self.offsets.get(self.next).map(|offset| started.plus(Duration::from_nanos(*offset)))
    }

    pub(super) fn free(&mut self, user: u32) {
        self.idle.push(user);
    }

    fn begins(&mut self, due: MonoNs, now: MonoNs) {
        self.next += 1;
        let lag = now.since_ns(due);
        self.max_lag_ns = self.max_lag_ns.max(lag);
        self.late += u64::from(now.since(due) > LATE);
    }

    pub(super) fn facts(&self) -> OpenFacts {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let seconds =
            self.offsets.last().map_or(0.0, |last| Duration::from_nanos(*last).as_secs_f64());
        OpenFacts {
            scheduled: count(self.offsets.len()),
            scheduled_s: seconds,
            not_started: count(self.offsets.len() - self.next),
            late: self.late,
            held_back: self.held_back,
            max_start_lag_ns: self.max_lag_ns,
        }
    }
}

/// Keeps the schedule with the run, before the first request is sent.
pub(super) fn save(path: &Path, offsets: &[u64]) -> std::io::Result<()> {
    let mut text = String::from("request,due_ns_after_start\n");
    for (index, offset) in offsets.iter().enumerate() {
        let _infallible = writeln!(text, "{index},{offset}");
    }
    std::fs::write(path, text)
}

impl Driver {
    /// Begins what is due, as far as there is room.
    pub(super) fn start_arrivals(&mut self, now: MonoNs, most: usize) -> Result<(), DriveError> {
        for _ in 0..most {
            let started = self.started;
            let Some(schedule) = &mut self.schedule else { return Ok(()) };
            let Some(due) = schedule.due(started).filter(|due| *due <= now) else { break };
            let room = self.users.len() < usize::try_from(schedule.most).unwrap_or(usize::MAX);
            let id = match (schedule.idle.pop(), u32::try_from(self.users.len())) {
                (Some(id), _) => id,
                (None, Ok(id)) if room => {
                    self.users.push(User::idle(now));
                    id
                }
                (None, _) => {
                    schedule.held_back += 1;
                    return Ok(());
                }
            };
            schedule.begins(due, now);
            self.make_due(id, due);
            self.begin(id, now)?;
        }
        self.arm_timer()
    }

    fn arm_timer(&mut self) -> Result<(), DriveError> {
        let started = self.started;
        let Some(schedule) = &mut self.schedule else { return Ok(()) };
        let due = schedule.due(started);
        if let Some(at) = due.filter(|_| due != schedule.armed) {
            let at = Expiration::OneShot(TimeSpec::nanoseconds(at.get()));
            let absolute = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
            schedule.timer.set(at, absolute).map_err(system("set the timer"))?;
        }
        schedule.armed = due;
        Ok(())
    }

    /// Something is due by now, and there may be room for it.
    pub(super) fn arrivals_wait(&self, now: MonoNs) -> bool {
        let Some(schedule) = &self.schedule else { return false };
        let room = !schedule.idle.is_empty()
            || self.users.len() < usize::try_from(schedule.most).unwrap_or(usize::MAX);
        room && schedule.due(self.started).is_some_and(|due| due <= now)
    }
}

#[cfg(test)]
#[path = "arrivals_tests.rs"]
mod tests;
