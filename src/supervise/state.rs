//! One attempt's life, from launch to the proof that nothing is left. Pure: no clock, no process.
//!
//! `Launching -> Loading -> Proving -> WarmingUp -> Loaded(phase) -> [Examining] -> Stopping -> Verifying -> Ended`
//!
//! Invariants: every state has a deadline, so every walk ends; once an engine may have been
//! launched, `Ended` is reached only through `Stopping` and `Verifying`; the first reason to stop
//! is the one that is kept, but for one that only says what the engine's end then explains.

use crate::engine::rules::Symptom;
use crate::run::outcome::ExitStatus;
use crate::run::phase::PhaseEnd;
use crate::units::MonoNs;
use std::time::Duration;

/// How long each state may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) launch: Duration,
    pub(crate) load: Duration,
    pub(crate) ready: Duration,
    pub(crate) warmup: Duration,
    /// The load process ends a phase by its own deadlines; this one is for a load process that does not.
    pub(crate) phase: Duration,
    /// The last look at an engine that lives and makes no progress.
    pub(crate) examine: Duration,
    /// Grace and kill together, and some for the guard to say so.
    pub(crate) stop: Duration,
    pub(crate) verify: Duration,
    /// What the load process calls a hang.
    pub(crate) stall: Duration,
    pub(crate) phases: usize,
    pub(crate) warm_up: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Launching,
    Loading,
    Proving,
    WarmingUp,
    Loaded {
        phase: usize,
    },
    /// It lives and makes no progress: evidence is taken before it is ended.
    Examining {
        why: Why,
        was_ready: bool,
    },
    Stopping {
        why: Why,
    },
    Verifying {
        why: Why,
    },
    Ended {
        why: Why,
    },
}

/// Why an attempt stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Completed,
    /// The engine failed. This is what was seen from outside; its log may know better.
    Failed {
        symptom: Symptom,
    },
    /// sweepd or the machine failed.
    Broken {
        reason: String,
    },
    Cancelled {
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Launched,
    LaunchFailed {
        error: String,
    },
    /// The endpoint answered, and the listener is a process of ours.
    EndpointAnswered,
    /// Something that is not ours listens on the port.
    ForeignListener {
        port: u16,
    },
    /// What the latest probe met instead of success.
    ProbeFailed {
        reason: String,
    },
    TokenGenerated,
    LoadDone {
        end: PhaseEnd,
        ok: u64,
        records: u64,
    },
    LoadBroken {
        reason: String,
    },
    LeaderExited {
        status: ExitStatus,
    },
    /// The guard said its last word: the tree is empty or cannot be emptied.
    GuardEnded,
    /// The guard is gone without a last word.
    GuardLost,
    /// The GPU is lost, or is not the one that was meant.
    GpuTrouble {
        symptom: Symptom,
    },
    /// The last look is over.
    Examined,
    /// The port's state is known.
    PortChecked,
    CancelAsked {
        reason: String,
    },
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    ProbeEndpoint,
    ProveGeneration,
    StartWarmup,
    StartPhase(usize),
    /// Look at it once more, within a bound.
    Examine,
    /// Close the streams and take the records that there are.
    StopLoad,
    StopEngine,
    KillEngine,
    CheckPort,
}

/// The machine: a state, its deadline, and what the latest probe met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) state: State,
    pub(crate) deadline: MonoNs,
    last_probe: Option<String>,
    kill_asked: bool,
}

type Step = (Attempt, Vec<Action>);

impl Attempt {
    pub(crate) fn begin(now: MonoNs, limits: &Limits) -> Self {
        Self {
            state: State::Launching,
            deadline: now.plus(limits.launch),
            last_probe: None,
            kill_asked: false,
        }
    }

    pub(crate) fn on(self, event: Event, now: MonoNs, limits: &Limits) -> Step {
        match &self.state {
            State::Ended { .. } => (self, Vec::new()),
            State::Examining { .. } | State::Stopping { .. } | State::Verifying { .. } => {
                self.ending(event, now, limits)
            }
            State::Launching
            | State::Loading
            | State::Proving
            | State::WarmingUp
            | State::Loaded { .. } => self.living(event, now, limits),
        }
    }

    /// Before anything made it stop.
    fn living(mut self, event: Event, now: MonoNs, limits: &Limits) -> Step {
        match (&self.state, event) {
            (State::Launching, Event::Launched) => {
                self.go(State::Loading, limits.load, now, Action::ProbeEndpoint)
            }
            (State::Launching, Event::LaunchFailed { error }) => {
                self.end_unlaunched(failed(Symptom::CannotLaunch { detail: error }))
            }
            (State::Loading, Event::EndpointAnswered) => {
                self.last_probe = None;
                self.go(State::Proving, limits.ready, now, Action::ProveGeneration)
            }
            (State::Loading | State::Proving, Event::ProbeFailed { reason }) => {
                self.last_probe = Some(reason);
                (self, Vec::new())
            }
            (_, Event::ForeignListener { port }) => {
                self.stop(failed(Symptom::PortTaken { port }), now, limits)
            }
            (State::Proving, Event::TokenGenerated) => self.proven(now, limits),
            (State::WarmingUp, Event::LoadDone { end, ok, records }) => {
                match load_verdict(end, ok, records, "the warm-up", limits) {
                    None => self.phase(0, now, limits),
                    Some(why) => self.give_up(why, now, limits),
                }
            }
            (State::Loaded { phase }, Event::LoadDone { end, ok, records }) => {
                let next = phase + 1;
                match load_verdict(end, ok, records, "the phase", limits) {
                    None => self.phase(next, now, limits),
                    Some(why) => self.give_up(why, now, limits),
                }
            }
            (_, Event::LoadBroken { reason }) => self.stop(Why::Broken { reason }, now, limits),
            (_, Event::LeaderExited { status }) => {
                let was_ready = self.is_ready();
                self.stop(failed(Symptom::Exited { status, was_ready }), now, limits)
            }
            (_, Event::GpuTrouble { symptom }) => self.stop(failed(symptom), now, limits),
            (_, Event::GuardEnded | Event::GuardLost) => {
                let reason = "the guard process ended before it was told to".into();
                self.verify(Why::Broken { reason }, now, limits, vec![Action::StopLoad])
            }
            (_, Event::CancelAsked { reason }) => self.stop(Why::Cancelled { reason }, now, limits),
            (_, Event::Tick) if now >= self.deadline => {
                let why = self.too_late(limits);
                self.give_up(why, now, limits)
            }
            (
                _,
                Event::Launched
                | Event::LaunchFailed { .. }
                | Event::EndpointAnswered
                | Event::ProbeFailed { .. }
                | Event::TokenGenerated
                | Event::LoadDone { .. }
                | Event::Examined
                | Event::PortChecked
                | Event::Tick,
            ) => (self, Vec::new()),
        }
    }

    /// After the first reason to stop, which is kept. What ends a look early ends the engine, too.
    fn ending(mut self, event: Event, now: MonoNs, limits: &Limits) -> Step {
        match (&self.state, event) {
            (State::Examining { why, .. }, Event::Examined | Event::CancelAsked { .. }) => {
                let why = why.clone();
                self.stop(why, now, limits)
            }
            (State::Examining { why, .. }, Event::Tick) if now >= self.deadline => {
                let why = why.clone();
                self.stop(why, now, limits)
            }
            (State::Examining { why, was_ready }, Event::LeaderExited { status }) => {
                let symptom = Symptom::Exited { status, was_ready: *was_ready };
                let why = if is_explained_by_its_end(why) { failed(symptom) } else { why.clone() };
                self.stop(why, now, limits)
            }
            (State::Examining { why, .. }, Event::GuardEnded | Event::GuardLost) => {
                let why = why.clone();
                self.verify(why, now, limits, vec![Action::StopLoad])
            }
            (State::Stopping { why }, Event::GuardEnded | Event::GuardLost) => {
                let why = why.clone();
                self.verify(why, now, limits, Vec::new())
            }
            // Asked twice: no more grace.
            (State::Stopping { .. }, Event::CancelAsked { .. }) if !self.kill_asked => {
                self.kill_asked = true;
                (self, vec![Action::KillEngine])
            }
            (State::Stopping { why }, Event::Tick) if now >= self.deadline => {
                let why = why.clone();
                self.verify(why, now, limits, Vec::new())
            }
            (State::Verifying { why }, Event::PortChecked) => {
                self.state = State::Ended { why: why.clone() };
                (self, Vec::new())
            }
            (State::Verifying { why }, Event::Tick) if now >= self.deadline => {
                self.state = State::Ended { why: why.clone() };
                (self, Vec::new())
            }
            (
                _,
                Event::Launched
                | Event::LaunchFailed { .. }
                | Event::EndpointAnswered
                | Event::ForeignListener { .. }
                | Event::ProbeFailed { .. }
                | Event::TokenGenerated
                | Event::LoadDone { .. }
                | Event::LoadBroken { .. }
                | Event::LeaderExited { .. }
                | Event::GuardEnded
                | Event::GuardLost
                | Event::GpuTrouble { .. }
                | Event::Examined
                | Event::PortChecked
                | Event::CancelAsked { .. }
                | Event::Tick,
            ) => (self, Vec::new()),
        }
    }

    fn go(mut self, state: State, span: Duration, now: MonoNs, action: Action) -> Step {
        self.state = state;
        self.deadline = now.plus(span);
        (self, vec![action])
    }

    fn proven(self, now: MonoNs, limits: &Limits) -> Step {
        if limits.warm_up {
            self.go(State::WarmingUp, limits.warmup, now, Action::StartWarmup)
        } else {
            self.phase(0, now, limits)
        }
    }

    fn phase(self, phase: usize, now: MonoNs, limits: &Limits) -> Step {
        if phase < limits.phases {
            self.go(State::Loaded { phase }, limits.phase, now, Action::StartPhase(phase))
        } else {
            self.stop(Why::Completed, now, limits)
        }
    }

    /// An engine that lives is looked at before it is ended.
    fn give_up(mut self, why: Why, now: MonoNs, limits: &Limits) -> Step {
        if !matches!(why, Why::Failed { .. }) {
            return self.stop(why, now, limits);
        }
        self.state = State::Examining { why, was_ready: self.is_ready() };
        self.deadline = now.plus(limits.examine);
        (self, vec![Action::Examine])
    }

    /// Streams first, then the engine: a stream in flight can hold an engine's exit for ever.
    fn stop(mut self, why: Why, now: MonoNs, limits: &Limits) -> Step {
        self.state = State::Stopping { why };
        self.deadline = now.plus(limits.stop);
        (self, vec![Action::StopLoad, Action::StopEngine])
    }

    fn verify(mut self, why: Why, now: MonoNs, limits: &Limits, mut actions: Vec<Action>) -> Step {
        self.state = State::Verifying { why };
        self.deadline = now.plus(limits.verify);
        actions.push(Action::CheckPort);
        (self, actions)
    }

    fn end_unlaunched(mut self, why: Why) -> Step {
        self.state = State::Ended { why };
        (self, Vec::new())
    }

    /// It had generated a token.
    fn is_ready(&self) -> bool {
        matches!(self.state, State::WarmingUp | State::Loaded { .. })
    }

    /// The state's deadline has passed.
    fn too_late(&self, limits: &Limits) -> Why {
        let met = || self.last_probe.clone().unwrap_or_else(|| "it was never asked".into());
        match &self.state {
            State::Launching => Why::Broken { reason: "the guard did not launch in time".into() },
            State::Loading => failed(Symptom::NotReady {
                waited: limits.load,
                last_probe: self.last_probe.clone(),
            }),
            State::Proving => failed(Symptom::CannotGenerate { detail: met() }),
            State::WarmingUp | State::Loaded { .. } => Why::Broken {
                reason: "the load process did not end by the deadlines it was given".into(),
            },
            State::Examining { why, .. }
            | State::Stopping { why }
            | State::Verifying { why }
            | State::Ended { why } => why.clone(),
        }
    }
}

/// Streams that end are an engine that ends, seen from the other side and an instant earlier.
fn is_explained_by_its_end(why: &Why) -> bool {
    let Why::Failed { symptom } = why else { return false };
    matches!(symptom, Symptom::CannotGenerate { .. } | Symptom::NoConnections)
}

fn failed(symptom: Symptom) -> Why {
    Why::Failed { symptom }
}

/// `None`: go on.
fn load_verdict(end: PhaseEnd, ok: u64, records: u64, what: &str, limits: &Limits) -> Option<Why> {
    match end {
        PhaseEnd::Finished if ok == 0 && records > 0 => {
            let detail = format!("not one of {records} requests of {what} succeeded");
            Some(failed(Symptom::CannotGenerate { detail }))
        }
        PhaseEnd::Finished => None,
        PhaseEnd::Deadline => {
            let detail = format!("{what} did not reach its requests and duration by its deadline");
            Some(failed(Symptom::TooSlow { detail }))
        }
        PhaseEnd::Hang => Some(failed(Symptom::NoProgress { silent: limits.stall })),
        PhaseEnd::EngineGone => Some(failed(Symptom::NoConnections)),
        PhaseEnd::OnlyFailures => {
            let silent = limits.stall.as_secs();
            let detail =
                format!("for {silent} s every request of {what} failed; {ok} had succeeded");
            Some(failed(Symptom::CannotGenerate { detail }))
        }
        PhaseEnd::Stopped => {
            Some(Why::Broken { reason: "the load process stopped without being told to".into() })
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
