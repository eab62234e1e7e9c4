//! Who runs in which lane of a run, and which trials ran beside which.
//!
//! Invariant: a lane has one trial at a time, and two that were under way at once know of each other.

use crate::ids::TrialId;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lanes of a run that is being worked on.
#[derive(Debug, Default)]
pub(crate) struct Lanes(Mutex<Vec<Option<Occupant>>>);

#[derive(Debug)]
struct Occupant {
    trial: TrialId,
    /// Something may have been launched: until then it is beside nobody.
    launches: bool,
    beside: BTreeSet<TrialId>,
}

/// A trial's place in a lane, until this is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'l> {
    lanes: &'l Lanes,
    /// From 0.
    pub(crate) lane: usize,
    pub(crate) trial: TrialId,
}

impl Lanes {
    /// Takes the first lane that is free.
    pub(crate) fn enter(&self, trial: &TrialId) -> Turn<'_> {
        let mut lanes = self.locked();
        let free = lanes.iter().position(Option::is_none);
        let lane = free.unwrap_or(lanes.len());
        if lane == lanes.len() {
            lanes.push(None);
        }
        let occupant = Occupant { trial: trial.clone(), launches: false, beside: BTreeSet::new() };
        if let Some(place) = lanes.get_mut(lane) {
            *place = Some(occupant);
        }
        Turn { lanes: self, lane, trial: trial.clone() }
    }

    pub(crate) fn is_under_way(&self, trial: &TrialId) -> bool {
        self.locked().iter().flatten().any(|occupant| occupant.trial == *trial)
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Option<Occupant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// It is about to launch something: from here on it is beside whoever else does.
    pub(crate) fn launches(&self) {
        let mut lanes = self.lanes.locked();
        let mut others = BTreeSet::new();
        for (lane, occupant) in lanes.iter_mut().enumerate() {
            let Some(occupant) = occupant.as_mut().filter(|o| lane != self.lane && o.launches)
            else {
                continue;
            };
            occupant.beside.insert(self.trial.clone());
            others.insert(occupant.trial.clone());
        }
        if let Some(Some(own)) = lanes.get_mut(self.lane) {
            own.launches = true;
            own.beside.extend(others);
        }
    }

    /// Those that were under way at the same time, so far.
    pub(crate) fn beside(&self) -> Vec<TrialId> {
        let lanes = self.lanes.locked();
        let own = lanes.get(self.lane).and_then(Option::as_ref);
        own.map(|own| own.beside.iter().cloned().collect()).unwrap_or_default()
    }

    /// Gives the lane back. True for the last one: nobody else is under way.
    pub(crate) fn leave(self) -> bool {
        let mut lanes = self.lanes.locked();
        if let Some(place) = lanes.get_mut(self.lane) {
            *place = None;
        }
        let last = lanes.iter().all(Option::is_none);
        drop(lanes);
        last
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.lanes.locked().get_mut(self.lane)
            && place.as_ref().is_some_and(|occupant| occupant.trial == self.trial)
        {
            *place = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Name;

    fn trial(variant: &str) -> TrialId {
        TrialId { block: 1, variant: Name::new(variant).unwrap() }
    }

    #[test]
    fn the_first_free_lane_is_taken_and_neighbours_know_each_other() {
        let lanes = Lanes::default();
        let (a, b) = (lanes.enter(&trial("a")), lanes.enter(&trial("b")));
        assert_eq!((a.lane, b.lane), (0, 1));
        a.launches();
        assert!(a.beside().is_empty(), "b has launched nothing yet");
        b.launches();
        assert_eq!((a.beside(), b.beside()), (vec![trial("b")], vec![trial("a")]));
        assert!(!a.leave() && !lanes.is_under_way(&trial("a")));
        let c = lanes.enter(&trial("c"));
        assert_eq!(c.lane, 0);
        c.launches();
        assert_eq!((c.beside(), b.beside()), (vec![trial("b")], vec![trial("a"), trial("c")]));
        // One that is skipped is beside nobody.
        let d = lanes.enter(&trial("d"));
        assert_eq!((d.lane, d.beside()), (2, vec![]));
        drop(d);
        assert!(!b.leave());
        assert!(c.leave());
        assert!(!lanes.is_under_way(&trial("c")));
    }
}
