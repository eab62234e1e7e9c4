//! Why a trial under way is to stop: the user cancels it, or sweepd ends and will run it again.

use super::attempt::StopRequests;
use crate::run::outcome::Ending;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// What a stopped trial comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    Cancelled(String),
    Interrupted(String),
}

/// Stops trials, and knows why.
#[derive(Clone, Debug)]
pub(crate) struct Stopping {
    requests: StopRequests,
    meaning: Arc<Mutex<Meaning>>,
}

impl Stopping {
    /// For a foreground run: who asks is its user.
    pub(crate) fn by_the_user(requests: StopRequests) -> Self {
        let meaning = Meaning::Cancelled("stopped by the user".to_owned());
        Self { requests, meaning: Arc::new(Mutex::new(meaning)) }
    }

    /// For one trial of the daemon's.
    pub(crate) fn pair() -> (Stopper, Self) {
        let (count, requests) = watch::channel(0);
        let stopping = Self::by_the_user(requests);
        (Stopper { count, meaning: stopping.meaning.clone() }, stopping)
    }

    pub(crate) fn requests(&self) -> &StopRequests {
        &self.requests
    }

    pub(crate) fn is_asked(&self) -> bool {
        *self.requests.borrow() > 0
    }

    /// A trial that was stopped ends in the words of whoever stopped it.
    pub(crate) fn in_its_words(&self, ending: Ending) -> Ending {
        let meaning = self.meaning.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (ending, meaning) {
            (Ending::Cancelled { .. }, Meaning::Cancelled(reason)) => Ending::Cancelled { reason },
            (Ending::Cancelled { .. }, Meaning::Interrupted(reason)) => {
                Ending::Interrupted { reason }
            }
            (other, _) => other,
        }
    }
}

/// The other end.
#[derive(Debug)]
pub(crate) struct Stopper {
    count: watch::Sender<u32>,
    meaning: Arc<Mutex<Meaning>>,
}

impl Stopper {
    /// The trial ends here and counts as cancelled.
    pub(crate) fn cancel(&self, reason: String) {
        self.ask(Meaning::Cancelled(reason));
    }

    /// The trial ends here and will be run again.
    pub(crate) fn interrupt(&self, reason: String) {
        self.ask(Meaning::Interrupted(reason));
    }

    fn ask(&self, meaning: Meaning) {
        *self.meaning.lock().unwrap_or_else(PoisonError::into_inner) = meaning;
        self.count.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_trial_ends_in_the_words_of_whoever_stopped_it() {
        let (stopper, stopping) = Stopping::pair();
        assert!(!stopping.is_asked());
        stopper.interrupt("sweepd ends".into());
        assert!(stopping.is_asked());
        let cancelled = || Ending::Cancelled { reason: "stopped by the user".into() };
        let interrupted = Ending::Interrupted { reason: "sweepd ends".into() };
        assert_eq!(stopping.in_its_words(cancelled()), interrupted);
        assert_eq!(stopping.in_its_words(Ending::Completed), Ending::Completed);
        stopper.cancel("uid 7".into());
        assert_eq!(
            stopping.in_its_words(cancelled()),
            Ending::Cancelled { reason: "uid 7".into() }
        );
    }
}
