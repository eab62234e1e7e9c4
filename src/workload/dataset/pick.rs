//! Which entries a phase takes, and in which order. Pure.
//!
//! A shuffle of the whole set, drawn from the seed, is cut into one part for warm-up and one for each
//! phase, so that no phase asks what another has asked. Which of its part's entries fit is only
//! known when they have been counted by the tokenizer, so they are looked at one by one; those that
//! fit get numbers. When a part is used up it begins again.
//!
//! Invariant: the n-th entry that fits is the same whoever asks for it, and whenever.

use super::{Part, PartFacts, Turns};
use crate::seed::Seed;
use crate::units::count_f64;

/// The entries of one phase.
#[derive(Debug)]
pub(crate) struct Picker {
    /// The part's entries, in the order in which they are looked at.
    order: Vec<u32>,
    looked_at: usize,
    /// Those that fit, in the same order.
    fitting: Vec<u32>,
    left_out: super::LeftOut,
}

/// What is known of the n-th entry that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    /// This one.
    Entry(u32),
    /// This one is to be looked at, then asked again.
    LookAt(u32),
    /// Nothing in the part fits.
    Nothing,
}

impl Picker {
    /// `entries`: of the whole set.
    pub(crate) fn new(entries: u32, part: Part) -> Self {
        let mut order: Vec<u32> = (0..entries).collect();
        Seed::new(part.seed).branch("order").stream().shuffle(&mut order);
        let whole = usize::try_from(entries).unwrap_or(0);
        let [from, count, used] =
            [part.from, part.count, part.used].map(|n| usize::try_from(n).unwrap_or(0));
        order.truncate(from.saturating_add(count).min(whole));
        let mut own = order.split_off(from.min(order.len()));
        if !own.is_empty() {
            let used = used % own.len();
            own.rotate_left(used);
        }
        Self { order: own, looked_at: 0, fitting: Vec::new(), left_out: super::LeftOut::new() }
    }

    pub(crate) fn pick(&self, n: u64) -> Pick {
        let known = usize::try_from(n).unwrap_or(usize::MAX);
        if let Some(entry) = self.fitting.get(known) {
            return Pick::Entry(*entry);
        }
        match (self.order.get(self.looked_at), self.fitting.len()) {
            (Some(entry), _) => Pick::LookAt(*entry),
            (None, 0) => Pick::Nothing,
            // All have been looked at: it begins again.
            (None, all) => self.fitting.get(known % all).map_or(Pick::Nothing, |n| Pick::Entry(*n)),
        }
    }

    /// What came of looking at the entry that `pick` named; `Err` has why it does not fit.
    pub(crate) fn looked_at(&mut self, found: Result<(), String>) {
        let Some(entry) = self.order.get(self.looked_at) else { return };
        self.looked_at += 1;
        match found {
            Ok(()) => self.fitting.push(*entry),
            Err(why) => *self.left_out.entry(why).or_default() += 1,
        }
    }

    /// How many are known to fit.
    pub(crate) fn fitting(&self) -> u64 {
        u64::try_from(self.fitting.len()).unwrap_or(u64::MAX)
    }

    pub(crate) fn facts(&self, turns: Turns) -> PartFacts {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        PartFacts {
            turns,
            entries: count(self.order.len()),
            looked_at: count(self.looked_at),
            fitting: count(self.fitting.len()),
            left_out: self.left_out.clone(),
        }
    }
}

/// Cuts a set into parts, each as large as what it is for needs of the whole. A set with fewer
/// entries than parts is everybody's.
pub(crate) fn cut(entries: u32, needs: &[f64]) -> Vec<(u32, u32)> {
    let sum: f64 = needs.iter().sum();
    if u32::try_from(needs.len()).unwrap_or(u32::MAX) > entries || sum <= 0.0 {
        return needs.iter().map(|_| (0, entries)).collect();
    }
    let least = count_f64(u64::try_from(needs.len()).unwrap_or(0));
    let spare = f64::from(entries) - least;
    let mut parts = Vec::with_capacity(needs.len());
    let (mut from, mut passed) = (0, 0.0);
    for need in needs {
        // One for each, the rest by need; of the running sum, so that nothing is lost to rounding.
        passed += 1.0 + spare * need / sum;
        let to = format!("{:.0}", passed.floor()).parse().unwrap_or(entries).min(entries);
        parts.push((from, to - from));
        from = to;
    }
    if let Some((from, count)) = parts.last_mut() {
        *count = entries - *from;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn part(seed: u64, from: u32, count: u32) -> Part {
        Part { seed, from, count, used: 0 }
    }

    /// The first `n` picks, where every third entry does not fit.
    fn picks(picker: &mut Picker, n: u64) -> Vec<u32> {
        let one = |n: u64, picker: &mut Picker| {
            loop {
                match picker.pick(n) {
                    Pick::Entry(entry) => return entry,
                    Pick::LookAt(entry) => {
                        let fits = if entry % 3 == 0 { Err("third".to_owned()) } else { Ok(()) };
                        picker.looked_at(fits);
                    }
                    Pick::Nothing => panic!("nothing fits"),
                }
            }
        };
        (0..n).map(|n| one(n, picker)).collect()
    }

    #[test]
    fn the_order_is_the_seeds_and_asking_elsewhere_first_changes_nothing() {
        let all = picks(&mut Picker::new(90, part(1, 10, 40)), 20);
        assert_eq!(picks(&mut Picker::new(90, part(1, 10, 40)), 20), all);
        assert_ne!(picks(&mut Picker::new(90, part(2, 10, 40)), 20), all);
        let mut late = Picker::new(90, part(1, 10, 40));
        while let Pick::LookAt(entry) = late.pick(15) {
            late.looked_at(if entry % 3 == 0 { Err("third".to_owned()) } else { Ok(()) });
        }
        assert_eq!(picks(&mut late, 20), all);
    }

    #[test]
    fn parts_have_nothing_in_common_and_all_of_it_together() {
        let parts = cut(90, &[20.0, 300.0, 600.0]);
        assert_eq!(parts.iter().map(|(_, count)| count).sum::<u32>(), 90);
        let mut seen = BTreeSet::new();
        for (from, count) in parts {
            let picker = Picker::new(90, part(7, from, count));
            assert_eq!(picker.order.len(), usize::try_from(count).unwrap());
            assert!(picker.order.iter().all(|entry| seen.insert(*entry)), "{from} {count}");
        }
        assert_eq!(seen.len(), 90);
    }

    #[test]
    fn a_part_is_as_large_as_its_need_and_never_empty() {
        assert_eq!(cut(1000, &[100.0, 900.0]), [(0, 100), (100, 900)]);
        assert_eq!(cut(10, &[0.0, 1.0, 1e9]), [(0, 1), (1, 1), (2, 8)]);
        assert_eq!(cut(2, &[5.0, 5.0, 5.0]), [(0, 2), (0, 2), (0, 2)]);
        assert_eq!(cut(5, &[0.0]), [(0, 5)]);
        assert_eq!(cut(0, &[1.0]), [(0, 0)]);
    }

    #[test]
    fn a_part_that_is_used_up_begins_again_and_says_so() {
        let mut picker = Picker::new(9, part(1, 0, 9));
        let picked = picks(&mut picker, 15);
        assert_eq!(picked[..6], picked[6..12], "six of nine fit");
        let facts = picker.facts(Turns::First);
        assert_eq!((facts.entries, facts.looked_at, facts.fitting), (9, 9, 6));
        assert_eq!(facts.left_out.get("third"), Some(&3));
        // The next run of a search goes on where this one was.
        let whole = Picker::new(9, part(1, 0, 9)).order;
        let later = Picker::new(9, Part { used: 4, ..part(1, 0, 9) }).order;
        assert_eq!(later[..5], whole[4..]);
        assert_eq!(later[5..], whole[..4]);
    }

    #[test]
    fn a_part_in_which_nothing_fits_is_no_endless_search() {
        let mut picker = Picker::new(3, part(1, 0, 3));
        for _ in 0..3 {
            assert!(matches!(picker.pick(0), Pick::LookAt(_)));
            picker.looked_at(Err("no".to_owned()));
        }
        assert_eq!(picker.pick(0), Pick::Nothing);
        assert_eq!(Picker::new(0, part(1, 0, 0)).pick(0), Pick::Nothing);
    }
}
