//! When a phase stops sending, and when it is given up.
//!
//! Pure: counts and times in, a verdict out. It knows no connection.
//!
//! Invariant: a request that never reached the server does not bring a phase nearer to its goal.

use super::message::LoadPlan;
use crate::run::phase::PhaseEnd;
use crate::run::record::RequestOutcome;
use crate::units::MonoNs;
use std::time::Duration;

/// So many attempts without one byte of an answer, over more than `GONE_SPAN`: nobody serves.
const GONE_ATTEMPTS: u32 = 10;
const GONE_SPAN: Duration = Duration::from_secs(1);

/// So many failures in a row, over the stall deadline: it answers, and serves nobody.
const FAILING_REQUESTS: u32 = 10;

const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_millis(250);

/// How long a user waits after so many failures in a row. A user who is answered does not wait;
/// without this, a server that fails at once would be hammered by every user in a tight loop.
pub(crate) fn backoff(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => FIRST_BACKOFF.saturating_mul(1 << (n - 1).min(8)).min(MAX_BACKOFF),
    }
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    GoOn,
    /// Send no more; what is in flight comes to its own end.
    StopSending(PhaseEnd),
    /// Send no more and end what is in flight with this outcome.
    Abandon(PhaseEnd, RequestOutcome),
}

/// What the verdict rests on.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    deadline: MonoNs,
    min_until: MonoNs,
    open: bool,
    min_requests: u64,
    may_begin: Option<u64>,
    stall: Duration,
    sending: bool,
    in_flight: u32,
    /// Requests that the server saw and that ended.
    ended: u64,
    /// When any stream last brought a byte, or a request began with none other in flight.
    last_progress: MonoNs,
    /// The first of the unanswered attempts in a row, and how many there were.
    unanswered: Option<(MonoNs, u32)>,
    gone: bool,
    /// The first of the failures in a row, and how many there were.
    failing: Option<(MonoNs, u32)>,
}

impl Watch {
    /// `scheduled`: the requests of an open loop, which is over when all of them were sent.
    pub(crate) fn new(plan: &LoadPlan, started: MonoNs, scheduled: Option<usize>) -> Self {
        let most = plan.max_requests.map(u64::from);
        Self {
            deadline: started.plus(Duration::from_nanos(plan.phase_deadline_ns)),
            min_until: started.plus(Duration::from_nanos(plan.min_duration_ns)),
            open: scheduled.is_some(),
            min_requests: plan.min_requests.into(),
            may_begin: scheduled.map_or(most, |all| u64::try_from(all).ok()),
            stall: Duration::from_nanos(plan.stall_ns),
            sending: true,
            in_flight: 0,
            ended: 0,
            last_progress: started,
            unanswered: None,
            gone: false,
            failing: None,
        }
    }

    pub(crate) fn began(&mut self, now: MonoNs) {
        if self.in_flight == 0 {
            self.last_progress = now;
        }
        self.in_flight += 1;
        self.may_begin = self.may_begin.map(|left| left.saturating_sub(1));
    }

    /// Another request would be beyond the most that may be sent.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.may_begin == Some(0)
    }

    pub(crate) fn got_bytes(&mut self, now: MonoNs) {
        self.last_progress = now;
        self.unanswered = None;
    }

    /// `answered`: at least one byte came back.
    pub(crate) fn ended(&mut self, outcome: RequestOutcome, answered: bool, now: MonoNs) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if !outcome.is_unasked() {
            self.ended += 1;
        }
        self.failing = match (outcome, self.failing) {
            (RequestOutcome::Ok, _) => None,
            (RequestOutcome::Cancelled, failing) => failing,
            (_, None) => Some((now, 1)),
            (_, Some((first, count))) => Some((first, count.saturating_add(1))),
        };
        let lost = matches!(
            outcome,
            RequestOutcome::Refused
                | RequestOutcome::TlsFailed
                | RequestOutcome::Reset
                | RequestOutcome::Cut
        );
        if lost && !answered {
            let (first, count) = self.unanswered.map_or((now, 1), |(first, n)| (first, n + 1));
            self.unanswered = Some((first, count));
            self.gone |= count >= GONE_ATTEMPTS && now.since(first) > GONE_SPAN;
        }
    }

    pub(crate) fn verdict(&self, now: MonoNs) -> Verdict {
        if self.in_flight > 0 && now >= self.last_progress.plus(self.stall) {
            return Verdict::Abandon(PhaseEnd::Hang, RequestOutcome::Stalled);
        }
        if !self.sending {
            return Verdict::GoOn;
        }
        if self.gone {
            return Verdict::Abandon(PhaseEnd::EngineGone, RequestOutcome::Cancelled);
        }
        if self.failing.is_some_and(|(first, count)| {
            count >= FAILING_REQUESTS && now.since(first) >= self.stall
        }) {
            return Verdict::Abandon(PhaseEnd::OnlyFailures, RequestOutcome::Cancelled);
        }
        let all_sent = self.is_exhausted() && (self.open || self.in_flight == 0);
        let enough = !self.open && self.ended >= self.min_requests && now >= self.min_until;
        if all_sent || enough {
            return Verdict::StopSending(PhaseEnd::Finished);
        }
        if now >= self.deadline {
            return Verdict::Abandon(PhaseEnd::Deadline, RequestOutcome::Cancelled);
        }
        Verdict::GoOn
    }

    pub(crate) fn stopped_sending(&mut self) {
        self.sending = false;
    }

    /// When the verdict may change although nothing happens.
    pub(crate) fn next_due(&self, now: MonoNs) -> MonoNs {
        let mut due = MonoNs::new(i64::MAX);
        if self.in_flight > 0 {
            due = due.min(self.last_progress.plus(self.stall));
        }
        if self.sending {
            due = due.min(self.deadline);
            if now < self.min_until {
                due = due.min(self.min_until);
            }
        }
        due
    }

    pub(crate) const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Nanoseconds without a byte of any stream while something is in flight.
    pub(crate) fn silent_ns(&self, now: MonoNs) -> u64 {
        if self.in_flight == 0 {
            return 0;
        }
        u64::try_from(now.since_ns(self.last_progress)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RequestOutcome::{Cut, ErrorEvent, HttpError, Ok, Refused, Reset};

    const GO_ON: Verdict = Verdict::GoOn;
    const FINISHED: Verdict = Verdict::StopSending(PhaseEnd::Finished);
    const DEADLINE: Verdict = Verdict::Abandon(PhaseEnd::Deadline, RequestOutcome::Cancelled);
    const HANG: Verdict = Verdict::Abandon(PhaseEnd::Hang, RequestOutcome::Stalled);
    const FAILING: Verdict = Verdict::Abandon(PhaseEnd::OnlyFailures, RequestOutcome::Cancelled);
    const GONE: Verdict = Verdict::Abandon(PhaseEnd::EngineGone, RequestOutcome::Cancelled);

    enum Step {
        Began,
        Bytes,
        Ended(RequestOutcome, bool),
        Stopped,
        Check(Verdict),
    }
    use Step::{Began, Bytes, Check, Ended, Stopped};

    /// Two requests and 10 s at least, 60 s at most, 5 s of stall. Steps at milliseconds.
    #[track_caller]
    fn check(steps: &[(i64, Step)]) {
        let mut plan = super::super::scripted::plan_for(1);
        plan.min_requests = 2;
        plan.min_duration_ns = 10_000_000_000;
        plan.phase_deadline_ns = 60_000_000_000;
        plan.stall_ns = 5_000_000_000;
        let at = |ms: i64| MonoNs::new(ms * 1_000_000);
        let mut watch = Watch::new(&plan, at(0), None);
        for (ms, step) in steps {
            match step {
                Began => watch.began(at(*ms)),
                Bytes => watch.got_bytes(at(*ms)),
                Ended(outcome, answered) => watch.ended(*outcome, *answered, at(*ms)),
                Stopped => watch.stopped_sending(),
                Check(want) => assert_eq!(watch.verdict(at(*ms)), *want, "at {ms} ms"),
            }
        }
    }

    #[test]
    fn both_goals_must_be_met() {
        check(&[
            (0, Began),
            (1, Ended(Ok, true)),
            (2, Ended(Cut, true)),
            (9_999, Check(GO_ON)),
            (10_000, Check(FINISHED)),
        ]);
        check(&[(0, Ended(Ok, true)), (11_000, Check(GO_ON)), (60_000, Check(DEADLINE))]);
        check(&[(0, Ended(Refused, false)), (1, Ended(Refused, false)), (11_000, Check(GO_ON))]);
    }

    #[test]
    fn silence_of_all_streams_is_a_hang() {
        check(&[(0, Began), (4_999, Check(GO_ON)), (5_000, Check(HANG))]);
        check(&[(0, Began), (4_000, Bytes), (8_999, Check(GO_ON)), (9_000, Check(HANG))]);
        // A request after a pause starts the clock anew.
        check(&[(0, Began), (1, Ended(Ok, true)), (20_000, Began), (24_000, Check(GO_ON))]);
        // Another one beside it does not.
        check(&[(0, Began), (4_000, Began), (5_000, Check(HANG))]);
        check(&[(0, Began), (0, Stopped), (5_000, Check(HANG))]);
        check(&[(0, Stopped), (99_000, Check(GO_ON))]);
    }

    #[test]
    fn nobody_serves_after_many_attempts_over_a_second() {
        let mut steps: Vec<(i64, Step)> = (0..9)
            .zip([Refused, Reset, Cut].into_iter().cycle())
            .map(|(n, outcome)| (n * 150, Ended(outcome, false)))
            .collect();
        steps.push((1_250, Check(GO_ON)));
        steps.push((1_250, Ended(Refused, false)));
        steps.push((1_250, Check(GONE)));
        check(&steps);
        // Many in no time are one event.
        let at_once: Vec<(i64, Step)> = (0..50).map(|_| (10, Ended(Refused, false))).collect();
        check(&at_once.into_iter().chain([(20, Check(GO_ON))]).collect::<Vec<_>>());
        // One byte from anyone in between.
        let answered = (0..20).flat_map(|n| [(n * 100, Bytes), (n * 100, Ended(Reset, false))]);
        check(&answered.take(18).chain([(1_900, Check(GO_ON))]).collect::<Vec<_>>());
    }

    #[test]
    fn failures_alone_for_the_stall_deadline_end_the_phase() {
        let every_half = |outcomes: &'static [RequestOutcome]| {
            let all = (0..).zip(outcomes.iter().cycle());
            all.map(|(n, outcome)| (n * 500, Ended(*outcome, true)))
        };
        let failing = every_half(&[ErrorEvent, HttpError]);
        check(
            &failing
                .take(10)
                .chain([(4_999, Check(GO_ON)), (5_000, Check(FAILING))])
                .collect::<Vec<_>>(),
        );
        // Few over a long time are no rule.
        let few = [(0, Ended(ErrorEvent, true)), (8_000, Ended(ErrorEvent, true))];
        check(&few.into_iter().chain([(9_000, Check(GO_ON))]).collect::<Vec<_>>());
        // One that came whole begins the count anew.
        let mixed = every_half(&[ErrorEvent, ErrorEvent, ErrorEvent, ErrorEvent, ErrorEvent, Ok]);
        check(&mixed.take(18).chain([(9_000, Check(GO_ON))]).collect::<Vec<_>>());
    }

    #[test]
    fn users_back_off_up_to_a_bound() {
        let ms: Vec<u128> = (0..6).map(|n| backoff(n).as_millis()).collect();
        assert_eq!(ms, [0, 50, 100, 200, 250, 250]);
        assert_eq!(backoff(u32::MAX), MAX_BACKOFF);
    }
}
