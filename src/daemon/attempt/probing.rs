//! Asks an engine whether it serves, and whether its port is free, beside the event loop.
//!
//! What was met becomes an event; the machine's deadlines bound every question.

use super::Shell;
use crate::clock;
use crate::supervise::ports::{self, Listener};
use crate::supervise::probe;
use crate::supervise::state::Event;
use crate::supervise::tree;
use std::time::Duration;
use tokio::time::sleep;

const PROBE_EVERY: Duration = Duration::from_millis(200);
const PROBE_SELDOM: Duration = Duration::from_secs(2);

/// Between one question and the next: the time to ready is known to the fiftieth part of it.
fn pause(waited: Duration) -> Duration {
    (waited / 50).clamp(PROBE_EVERY, PROBE_SELDOM)
}

impl Shell<'_> {
    pub(super) fn abort_probe(&mut self) {
        if let Some(probe) = self.probe.take() {
            probe.abort();
        }
    }

    pub(super) fn spawn_probe(&mut self, generation: bool) {
        self.abort_probe();
        let (events, target) = (self.events.clone(), self.plan.probe.clone());
        let (port, guard) = (self.plan.port, self.guard.pid());
        let within = self.plan.limits.ready;
        self.probe = Some(tokio::spawn(async move {
            let client = match probe::client() {
                Ok(client) => client,
                Err(error) => {
                    let reason = format!("cannot make an HTTP client: {error}");
                    events.send(Event::LoadBroken { reason }).ok();
                    return;
                }
            };
            let began = clock::now();
            loop {
                let event = match listens(port, guard).await {
                    Some(refusal) => refusal,
                    None if generation => match probe::generates(&client, &target, within).await {
                        // Who listens now is who has answered.
                        Ok(()) => listens(port, guard).await.unwrap_or(Event::TokenGenerated),
                        Err(reason) => Event::ProbeFailed { reason },
                    },
                    None => match probe::answers(&client, &target).await {
                        Ok(()) => Event::EndpointAnswered,
                        Err(reason) => Event::ProbeFailed { reason },
                    },
                };
                let done = !matches!(event, Event::ProbeFailed { .. });
                if events.send(event).is_err() || done {
                    return;
                }
                sleep(pause(clock::now().since(began))).await;
            }
        }));
    }

    pub(super) fn spawn_port_check(&self) {
        let (events, port) = (self.events.clone(), self.plan.port);
        tokio::spawn(async move {
            // The machine's own deadline bounds this.
            while !ports::is_free(port) {
                sleep(Duration::from_millis(20)).await;
                if events.is_closed() {
                    return;
                }
            }
            events.send(Event::PortChecked).ok();
        });
    }
}

/// `None` when the port's listener is one of the engine's own processes.
async fn listens(port: u16, guard: Option<i32>) -> Option<Event> {
    let look = || {
        // The cheap question first: while a model is loaded, nobody listens.
        if !ports::takes_connections(port) {
            return Listener::Nobody;
        }
        let ours = guard.map(|guard| tree::descendants(&tree::all(), guard)).unwrap_or_default();
        ports::listener(port, &ours)
    };
    match look() {
        Listener::Ours => None,
        Listener::Nobody => {
            Some(Event::ProbeFailed { reason: format!("nobody listens on port {port} yet") })
        }
        Listener::Foreign => {
            // The snapshots of sockets and processes are not of one instant: look twice.
            sleep(PROBE_EVERY).await;
            (look() == Listener::Foreign).then_some(Event::ForeignListener { port })
        }
    }
}
