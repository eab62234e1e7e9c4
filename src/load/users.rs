//! What one user does: wait, ask, be answered, and again; `link` has its connection. Edge.
//!
//! The users' half of the driver: no O(users) work on any event.
//! Invariant: a flight ends in `finish`, and only there, with its one record.

use super::conn::{Conn, split_key};
use super::driver::{DriveError, Driver};
use super::message::LoadPattern;
use super::request::History;
use super::rules::backoff;
use super::stream::{Asked, Stream};
use super::supply::Prepared;
use crate::run::record::{RequestOutcome, RequestRecord};
use crate::units::MonoNs;
use nix::sys::epoll::EpollFlags;
use std::cmp::Reverse;
use std::time::Duration;

/// A server may close an idle connection a little before its own limit.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);

/// A request under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) stream: Stream,
    /// Kept until the end: a lost race sends it again.
    pub(super) request: Prepared,
    pub(super) written: usize,
    /// The connection is up.
    pub(super) connected: bool,
    /// When connecting began, or the handshake after it.
    pub(super) began: MonoNs,
    pub(super) last_byte: MonoNs,
    deadline: MonoNs,
}

#[derive(Debug)]
pub(super) enum State {
    /// Thinking, or backing off; then the next request is due.
    Waiting {
        until: MonoNs,
    },
    /// Its request is due; it waits for its turn in `starts`, or for its prompt.
    Due {
        scheduled: MonoNs,
    },
    Flying(Box<Flight>),
}

/// One user and its connection.
#[derive(Debug)]
pub(crate) struct User {
    pub(super) state: State,
    pub(super) conn: Option<Conn>,
    /// Tells events of this connection from those of one closed in the same turn.
    pub(super) generation: u32,
    idle_since: MonoNs,
    /// The live entry in the heap of timers.
    timer: Option<MonoNs>,
    failures: u32,
    pub(super) has_sent: bool,
    lacks_prompt: bool,
    /// Of the conversation under way.
    pub(super) history: History,
    /// Tokens of its last turn, prompt and answer, by the server's count.
    pub(super) carried: Option<u32>,
}

impl User {
    pub(crate) const fn new(due: MonoNs) -> Self {
        Self {
            state: State::Due { scheduled: due },
            conn: None,
            generation: 0,
            idle_since: due,
            timer: None,
            failures: 0,
            has_sent: false,
            lacks_prompt: false,
            history: History::new(),
            carried: None,
        }
    }

    /// Its first request is due later; a timer is armed for it.
    pub(crate) fn later(due: MonoNs) -> Self {
        Self { state: State::Waiting { until: due }, timer: Some(due), ..Self::new(due) }
    }

    /// Waits for whatever comes.
    pub(crate) fn idle(now: MonoNs) -> Self {
        Self { state: State::Waiting { until: MonoNs::new(i64::MAX) }, ..Self::new(now) }
    }

    pub(crate) fn clock_stepped(&mut self) {
        if let State::Flying(flight) = &mut self.state {
            flight.stream.clock_stepped();
        }
    }

    pub(super) fn flight(&mut self) -> Option<&mut Flight> {
        match &mut self.state {
            State::Flying(flight) => Some(flight),
            State::Waiting { .. } | State::Due { .. } => None,
        }
    }
}

impl Driver {
    fn user(&mut self, user: u32) -> Option<&mut User> {
        self.users.get_mut(usize::try_from(user).ok()?)
    }

    pub(super) fn make_due(&mut self, id: u32, scheduled: MonoNs) {
        if let Some(user) = self.user(id) {
            user.state = State::Due { scheduled };
        }
    }

    /// A user's prompt was made; if it waited for it, it is due.
    pub(super) fn prompt_arrived(&mut self, user: u32) {
        if self.user(user).is_some_and(|user| std::mem::take(&mut user.lacks_prompt)) {
            self.starts.push_back(user);
        }
    }

    /// Begins the next request of a user whose time has come.
    pub(super) fn begin(&mut self, id: u32, now: MonoNs) -> Result<(), DriveError> {
        let Some(State::Due { scheduled }) = self.user(id).map(|user| &user.state) else {
            return Ok(());
        };
        let scheduled = *scheduled;
        if self.watch.is_exhausted() {
            return Ok(());
        }
        let lane = if self.schedule.is_some() { 0 } else { id };
        let Some(mut request) = self.supply.take(lane) else {
            if let Some(user) = self.user(id) {
                user.lacks_prompt = true;
            }
            if let Some(schedule) = &mut self.schedule {
                schedule.lacking.push_back(id);
            }
            return Ok(());
        };
        self.carry_on(id, &mut request)?;
        // Another loop may have begun the last one meanwhile.
        let Some(index) = self.watch.begin(now) else { return Ok(()) };
        self.tick.sent += 1;
        let asked = Asked {
            index,
            user: self.share.nth(id),
            turn: request.turn,
            scheduled,
            prompt_tokens: request.prompt_tokens,
            prompt_tokens_expected: request.prompt_tokens_expected,
            output_tokens: request.output_tokens,
            done_marker: self.plan.request.done_marker,
            keeps_text: request.said.is_some(),
        };
        let deadline = now.plus(Duration::from_nanos(self.plan.request_deadline_ns));
        let mut stream = Stream::new(&asked);
        if self.tls.is_some() {
            stream.under_tls();
        }
        let flight = Flight {
            stream,
            request,
            written: 0,
            connected: false,
            began: now,
            last_byte: now,
            deadline,
        };
        let due = deadline.min(now.plus(Duration::from_nanos(self.plan.stall_ns)));
        let keep_alive = Duration::from_nanos(self.plan.keep_alive_ns);
        let Some(user) = self.users.get_mut(usize::try_from(id).unwrap_or(usize::MAX)) else {
            return Ok(());
        };
        user.state = State::Flying(Box::new(flight));
        let idle = now.since(user.idle_since);
        let fresh = idle < keep_alive.saturating_sub(KEEP_ALIVE_MARGIN);
        let buffer = &mut self.buffer;
        let reuse = fresh && user.conn.as_mut().is_some_and(|conn| conn.is_quiet(buffer));
        self.arm(id, due);
        if !reuse {
            return self.connect(id, now);
        }
        if let Some(flight) = self.user(id).and_then(User::flight) {
            flight.connected = true;
            flight.stream.on_reused_connection();
        }
        self.write(id)
    }

    /// Something happened on a connection.
    pub(super) fn on_socket(&mut self, key: u64, events: EpollFlags) -> Result<(), DriveError> {
        let (id, generation) = split_key(key);
        let user = self.users.get_mut(usize::try_from(id).unwrap_or(usize::MAX));
        let Some(user) = user.filter(|user| user.generation == generation) else {
            return Ok(());
        };
        let User { state: State::Flying(flight), conn: Some(conn), .. } = user else {
            // Idle: the server closed it, or said something that nobody asked for.
            let said = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP;
            let buffer = &mut self.buffer;
            let stays = |conn: &mut Conn| conn.is_tls() && conn.is_quiet(buffer);
            if events.intersects(said) && !user.conn.as_mut().is_some_and(stays) {
                user.conn = None;
            }
            return Ok(());
        };
        let unwritten = flight.written < flight.request.bytes.len() || conn.wants_flush();
        if !flight.connected {
            self.on_connecting(id)?;
        } else if unwritten && events.contains(EpollFlags::EPOLLOUT) {
            self.write(id)?;
        }
        let closing = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        // Writing may have led to a new connection, which these events are not about.
        let same = self.user(id).is_some_and(|user| {
            user.generation == generation && user.flight().is_some_and(|flight| flight.connected)
        });
        if same && events.intersects(EpollFlags::EPOLLIN | closing) {
            self.read(id, events.intersects(closing))?;
        }
        Ok(())
    }

    /// Ends a user's request from outside, if one is under way.
    pub(super) fn give_up(
        &mut self,
        id: u32,
        outcome: RequestOutcome,
        why: &str,
        now: MonoNs,
    ) -> Result<(), DriveError> {
        let Some(user) = self.user(id) else { return Ok(()) };
        let User { state: State::Flying(flight), conn, .. } = user else { return Ok(()) };
        let late = matches!(outcome, RequestOutcome::Stalled | RequestOutcome::TimedOut);
        let (outcome, why) = match conn {
            Some(conn) if late && !flight.connected && conn.is_tls() => {
                (RequestOutcome::TlsFailed, "TLS handshake: not through in time")
            }
            _ if late && !flight.connected => (RequestOutcome::Refused, "no connection in time"),
            _ => (outcome, why),
        };
        flight.stream.give_up(outcome, why, now);
        self.finish(id, false, now)
    }

    /// Takes the record of an ended request, and sets the user to what comes next.
    pub(super) fn finish(&mut self, id: u32, keep: bool, now: MonoNs) -> Result<(), DriveError> {
        let sending = self.is_sending();
        let think = match self.plan.pattern {
            LoadPattern::Closed { think_time_ns, .. } => Duration::from_nanos(think_time_ns),
            LoadPattern::Open { .. } => Duration::ZERO,
        };
        let keep = keep && self.plan.keep_alive_ns > 0;
        let Some(user) = self.user(id) else { return Ok(()) };
        let idle = State::Waiting { until: MonoNs::new(i64::MAX) };
        let State::Flying(mut flight) = std::mem::replace(&mut user.state, idle) else {
            return Ok(());
        };
        if keep && flight.stream.leaves_connection_usable() {
            user.idle_since = now;
        } else {
            user.conn = None;
        }
        let answered = flight.stream.got_bytes();
        let said = flight.stream.take_text().zip(flight.request.said.take());
        let mut record = flight.stream.into_record();
        record.dataset_entry = flight.request.dataset_entry;
        record.class = flight.request.class.take();
        record.cached_tokens_meant = flight.request.cached_tokens_meant;
        if let Some((answer, (_, prompt))) = said.filter(|_| record.outcome.is_ok()) {
            user.history.push((prompt, answer));
            let counted = record.prompt_tokens_reported.zip(record.output_tokens_reported);
            user.carried = counted.map(|(prompt, answer)| prompt.saturating_add(answer));
        }
        user.failures =
            if record.outcome == RequestOutcome::Ok { 0 } else { user.failures.saturating_add(1) };
        let due = record.end.plus(think.max(backoff(user.failures)));
        self.watch.ended(record.outcome, answered, now);
        self.count(&record);
        self.records.put(record);
        if let Some(schedule) = &mut self.schedule {
            schedule.free(id);
            return Ok(());
        }
        if !sending {
            return Ok(());
        }
        let Some(user) = self.user(id) else { return Ok(()) };
        if due > now {
            user.state = State::Waiting { until: due };
            self.arm(id, due);
        } else {
            user.state = State::Due { scheduled: due };
            self.starts.push_back(id);
        }
        Ok(())
    }

    fn count(&mut self, record: &RequestRecord) {
        if record.outcome == RequestOutcome::Ok {
            self.tick.ok += 1;
        } else {
            self.tick.failed += 1;
        }
        self.tick.output_tokens += u64::from(record.output_tokens_reported.unwrap_or(0));
    }

    /// Has the user looked at when `due`, if nothing earlier is armed.
    fn arm(&mut self, id: u32, due: MonoNs) {
        let Some(user) = self.user(id) else { return };
        if user.timer.is_none_or(|armed| due < armed) {
            user.timer = Some(due);
            self.timers.push(Reverse((due, id)));
        }
    }

    /// A timer came up. Deadlines move with every byte; only here are they looked at.
    pub(super) fn on_timer(&mut self, id: u32, due: MonoNs, now: MonoNs) -> Result<(), DriveError> {
        let stall = Duration::from_nanos(self.plan.stall_ns);
        let sending = self.is_sending();
        let Some(user) = self.user(id).filter(|user| user.timer == Some(due)) else {
            return Ok(());
        };
        user.timer = None;
        match &mut user.state {
            State::Waiting { until } if sending && *until <= now => {
                user.state = State::Due { scheduled: *until };
                self.starts.push_back(id);
            }
            State::Waiting { until } if sending => {
                let until = *until;
                self.arm(id, until);
            }
            State::Waiting { .. } | State::Due { .. } => {}
            State::Flying(flight) => {
                let stalls = flight.last_byte.plus(stall);
                let next = stalls.min(flight.deadline);
                if next > now {
                    self.arm(id, next);
                } else if stalls <= now {
                    return self.give_up(
                        id,
                        RequestOutcome::Stalled,
                        "no byte for the stall deadline",
                        now,
                    );
                } else {
                    return self.give_up(
                        id,
                        RequestOutcome::TimedOut,
                        "the request's deadline came",
                        now,
                    );
                }
            }
        }
        Ok(())
    }
}
