//! When the guard signals, kills and ends. Pure: no clock, no process.
//!
//! Invariant: once stopping began, every path leads to `Finish` in bounded time, and whatever is
//! left after the leader has gone is killed, also when the leader obeyed.

use crate::units::MonoNs;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// The leader was asked to go.
    Grace {
        kill_at: MonoNs,
    },
    /// Everything is being killed; looked for again and again: a process may fork while it dies.
    Killing {
        give_up_at: MonoNs,
        again_at: MonoNs,
    },
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    StopAsked,
    KillAsked,
    /// The socket to sweepd closed.
    SupervisorGone,
    LeaderGone,
    /// `waitpid` answered ECHILD.
    NothingLeft,
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    SignalLeader,
    KillAll,
    Finish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) grace: Duration,
    pub(super) kill: Duration,
}

/// Looking again for what forked while it died: soon at first, then seldom, for what is left waits in
/// the kernel.
const LOOK_SOON: Duration = Duration::from_millis(20);
const LOOK_SELDOM: Duration = Duration::from_millis(500);

/// The guard's own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guard {
    pub(super) phase: Phase,
    pub(super) leader_alive: bool,
    pub(super) empty: bool,
    /// The leader did not go in its grace, or was not given any.
    pub(super) leader_killed: bool,
}

impl Guard {
    pub(super) const fn launched() -> Self {
        Self { phase: Phase::Running, leader_alive: true, empty: false, leader_killed: false }
    }

    pub(super) fn on(
        mut self,
        input: Input,
        now: MonoNs,
        limits: Limits,
    ) -> (Self, Option<Action>) {
        match input {
            Input::LeaderGone => self.leader_alive = false,
            Input::NothingLeft => (self.leader_alive, self.empty) = (false, true),
            Input::StopAsked | Input::KillAsked | Input::SupervisorGone | Input::Tick => {}
        }
        match (self.phase, input) {
            (Phase::Running, Input::StopAsked | Input::SupervisorGone) if self.leader_alive => {
                self.phase = Phase::Grace { kill_at: now.plus(limits.grace) };
                (self, Some(Action::SignalLeader))
            }
            (Phase::Running, Input::StopAsked | Input::SupervisorGone | Input::KillAsked)
            | (Phase::Grace { .. }, Input::KillAsked | Input::LeaderGone | Input::NothingLeft) => {
                self.kill(now, limits)
            }
            (Phase::Grace { kill_at }, Input::Tick) if now >= kill_at => self.kill(now, limits),
            (Phase::Killing { .. }, _) if self.empty => self.over(),
            (Phase::Killing { give_up_at, .. }, Input::Tick) if now >= give_up_at => self.over(),
            (Phase::Killing { give_up_at, again_at }, Input::Tick) if now >= again_at => {
                let killing_for = limits.kill.saturating_sub(give_up_at.since(now));
                let pause = (killing_for / 2).clamp(LOOK_SOON, LOOK_SELDOM);
                self.phase = Phase::Killing { give_up_at, again_at: now.plus(pause) };
                (self, Some(Action::KillAll))
            }
            (
                Phase::Running | Phase::Grace { .. } | Phase::Killing { .. } | Phase::Over,
                Input::StopAsked
                | Input::KillAsked
                | Input::SupervisorGone
                | Input::LeaderGone
                | Input::NothingLeft
                | Input::Tick,
            ) => (self, None),
        }
    }

    fn kill(mut self, now: MonoNs, limits: Limits) -> (Self, Option<Action>) {
        if self.empty {
            return self.over();
        }
        self.leader_killed = self.leader_alive;
        self.phase =
            Phase::Killing { give_up_at: now.plus(limits.kill), again_at: now.plus(LOOK_SOON) };
        (self, Some(Action::KillAll))
    }

    const fn over(mut self) -> (Self, Option<Action>) {
        self.phase = Phase::Over;
        (self, Some(Action::Finish))
    }

    /// When `Tick` is due next.
    pub(super) const fn wake_at(self) -> Option<MonoNs> {
        match self.phase {
            Phase::Running | Phase::Over => None,
            Phase::Grace { kill_at } => Some(kill_at),
            Phase::Killing { again_at, .. } => Some(again_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    const LIMITS: Limits = Limits { grace: Duration::from_secs(5), kill: Duration::from_secs(10) };

    #[track_caller]
    fn check(inputs: &[(i64, Input)], actions: &[Action], end: Phase) {
        let mut guard = Guard::launched();
        let mut got = Vec::new();
        for (seconds, input) in inputs {
            let (next, action) = guard.on(*input, MonoNs::new(seconds * 1_000_000_000), LIMITS);
            guard = next;
            got.extend(action);
        }
        assert_eq!(got, actions);
        assert_eq!(guard.phase, end);
    }

    #[test]
    fn the_rest_is_killed_although_the_leader_obeyed() {
        use Input::{LeaderGone, NothingLeft, StopAsked};
        check(
            &[(0, StopAsked), (1, LeaderGone), (1, NothingLeft)],
            &[Action::SignalLeader, Action::KillAll, Action::Finish],
            Phase::Over,
        );
    }

    #[test]
    fn a_leader_that_stays_is_killed_when_its_grace_is_over() {
        use Input::{NothingLeft, StopAsked, Tick};
        check(
            &[(0, StopAsked), (4, Tick), (5, Tick), (6, NothingLeft)],
            &[Action::SignalLeader, Action::KillAll, Action::Finish],
            Phase::Over,
        );
    }

    #[test]
    fn an_engine_that_has_gone_needs_no_signal() {
        use Input::{LeaderGone, NothingLeft, StopAsked};
        check(&[(0, LeaderGone), (0, NothingLeft), (1, StopAsked)], &[Action::Finish], Phase::Over);
    }

    #[test]
    fn a_dead_supervisor_stops_the_engine() {
        check(
            &[(0, Input::SupervisorGone)],
            &[Action::SignalLeader],
            Phase::Grace { kill_at: MonoNs::new(5_000_000_000) },
        );
    }

    #[test]
    fn random_walks_end_in_bounded_time_and_never_finish_early() {
        for walk in 0..2_000 {
            let mut random = Seed::new(walk).stream();
            let (mut guard, mut now, mut stopping_since) = (Guard::launched(), 0_i64, None);
            for _ in 0..2_000 {
                now += i64::try_from(random.below(300_000_000)).unwrap();
                let input = match random.below(if guard.empty { 4 } else { 6 }) {
                    0 => Input::StopAsked,
                    1 if random.below(4) == 0 => Input::KillAsked,
                    2 => Input::SupervisorGone,
                    4 if guard.leader_alive => Input::LeaderGone,
                    5 if random.below(8) == 0 => Input::NothingLeft,
                    _ => Input::Tick,
                };
                let (next, action) = guard.on(input, MonoNs::new(now), LIMITS);
                if guard.phase == Phase::Running && next.phase != Phase::Running {
                    stopping_since = Some(now);
                }
                if action == Some(Action::Finish) {
                    let gave_up = stopping_since.is_some_and(|since| now - since >= 10_000_000_000);
                    assert!(next.empty || gave_up, "walk {walk}: finished with work left");
                }
                if let Some(since) = stopping_since {
                    let late = now - since > 16_000_000_000;
                    assert!(!late || next.phase == Phase::Over, "walk {walk}: {next:?}");
                }
                guard = next;
            }
        }
    }
}
