//! What the service manager is told: ready, status, alive, stopping. Silent where there is none.

use sd_notify::NotifyState;
use std::time::Duration;

/// How often the control loop proves itself where no watchdog asks for more.
const BEAT: Duration = Duration::from_secs(5);
/// While a trial is torn down, the service manager is asked for so much more time, again and again.
const MORE_TIME: Duration = Duration::from_secs(60);

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

pub(crate) fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// The control loop has proved itself.
pub(crate) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
    more_time();
}

pub(crate) fn more_time() {
    let microseconds = u32::try_from(MORE_TIME.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
}

/// Half of what the watchdog allows.
pub(crate) fn beat() -> Duration {
    sd_notify::watchdog_enabled().map_or(BEAT, |allowed| (allowed / 2).min(BEAT))
}
