//! `side_by_side`: how many trials run at once, each on GPUs and CPUs of its own. Pure.
//!
//! Blocks stay in order: only trials of one block run beside one another, and the next block begins when
//! all of them have ended. Invariant: two trials that could want the same GPU never run at once.

use super::cpus;
use super::def::Variant;
use super::gpu::{self, GpuName, GpuPlan, Wanted};
use crate::cpus::Topology;
use crate::form::Fields;
use crate::ids::{Name, TrialId};
use crate::run::cpus::TrialCpus;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

const MOST: u32 = 16;

/// Where trials run: each in a lane of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lanes {
    pub(crate) count: NonZeroU32,
    /// What the trial in each lane is bound to; empty: nothing is bound.
    pub(crate) cpus: Vec<TrialCpus>,
}

/// What decides which trials may run at once. Kept with a run's plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SideBySide {
    pub(crate) lanes: NonZeroU32,
    /// The GPUs that each variant's trials ask for; empty where one trial runs at a time.
    pub(crate) wants: BTreeMap<Name, Wanted>,
}

impl Default for SideBySide {
    /// One trial at a time.
    fn default() -> Self {
        Self { lanes: NonZeroU32::MIN, wants: BTreeMap::new() }
    }
}

/// A GPU that trials may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Card {
    pub(crate) index: u32,
    pub(crate) uuid: String,
}

impl Card {
    pub(crate) fn is(&self, name: &GpuName) -> bool {
        match name {
            GpuName::Index(index) => self.index == *index,
            GpuName::Uuid(uuid) => self.uuid == *uuid,
        }
    }
}

/// How far a trial has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    Waiting,
    UnderWay,
    Over,
}

impl SideBySide {
    pub(crate) fn of(lanes: NonZeroU32, gpu: Option<&GpuPlan>, variants: &[Variant]) -> Self {
        let wants = |variant: &Variant| {
            let need = gpu::need(gpu, variant).filter(|need| need.asked)?;
            Some((variant.name.clone(), need.wanted))
        };
        match lanes.get() {
            1 => Self::default(),
            _ => Self { lanes, wants: variants.iter().filter_map(wants).collect() },
        }
    }

    /// Which trial of the plan is to be started now. `cards`: the GPUs that are there and clean; while
    /// nobody knows them, one trial runs at a time.
    pub(crate) fn next<'t>(
        &self,
        trials: impl Iterator<Item = (&'t TrialId, Stand)> + Clone,
        cards: Option<&[Card]>,
    ) -> Option<usize> {
        let under_way: Vec<&TrialId> =
            trials.clone().filter(|(_, s)| *s == Stand::UnderWay).map(|(trial, _)| trial).collect();
        let mut waiting = trials.enumerate().filter(|(_, (_, stand))| *stand == Stand::Waiting);
        let Some(first) = under_way.first() else { return waiting.next().map(|(index, _)| index) };
        if under_way.len() >= usize::try_from(self.lanes.get()).unwrap_or(usize::MAX) {
            return None;
        }
        let cards = cards?;
        // What waits of another block waits for the end of this one.
        let mut beside = waiting.take_while(|(_, (trial, _))| trial.block == first.block);
        let beside = beside.find(|(_, (trial, _))| {
            let all = under_way.iter().chain([trial]).map(|trial| &trial.variant);
            self.fit(&all.collect::<Vec<_>>(), cards)
        });
        beside.map(|(index, _)| index)
    }

    /// Trials of these variants have GPUs apart, whichever they come to take.
    pub(crate) fn fit(&self, variants: &[&Name], cards: &[Card]) -> bool {
        let mut taken: BTreeSet<&str> = BTreeSet::new();
        let mut any = 0;
        for variant in variants {
            match self.wants.get(*variant) {
                None => return false,
                Some(Wanted::Count(count)) => any += count.get(),
                Some(Wanted::These(names)) => {
                    for name in names {
                        let Some(card) = cards.iter().find(|card| card.is(name)) else {
                            return false;
                        };
                        if !taken.insert(&card.uuid) {
                            return false;
                        }
                    }
                }
            }
        }
        let named = self.named();
        let free = cards.iter().filter(|card| !named.iter().any(|name| card.is(name))).count();
        any == 0 || usize::try_from(any).is_ok_and(|any| any <= free)
    }

    /// What of these GPUs is too little for what the sweep wants at once.
    pub(crate) fn lacks(&self, cards: &[Card]) -> Vec<String> {
        let lanes = usize::try_from(self.lanes.get()).unwrap_or(usize::MAX);
        if lanes == 1 {
            return Vec::new();
        }
        let all: Vec<&Name> = self.wants.keys().collect();
        let has = cards.len();
        let together =
            |name: &Name, other: &&&Name| **other != name && self.fit(&[name, other], cards);
        let alone = all.iter().filter(|name| !all.iter().any(|other| together(name, &other)));
        let mut lacks: Vec<String> = alone
            .map(|name| {
                format!("side_by_side: `{name}` fits beside no other variant on {has} GPUs")
            })
            .collect();
        if lacks.is_empty() && !self.some_fit(&mut Vec::new(), &all, lanes, cards) {
            lacks.push(format!("side_by_side: no {lanes} variants fit at once on {has} GPUs"));
        }
        lacks
    }

    /// So many of these variants fit beside the chosen ones.
    fn some_fit<'n>(
        &self,
        chosen: &mut Vec<&'n Name>,
        from: &[&'n Name],
        lanes: usize,
        cards: &[Card],
    ) -> bool {
        if chosen.len() == lanes {
            return true;
        }
        from.iter().enumerate().any(|(place, name)| {
            chosen.push(name);
            let rest = from.get(place + 1..).unwrap_or_default();
            let fits = self.fit(chosen, cards) && self.some_fit(chosen, rest, lanes, cards);
            chosen.pop();
            fits
        })
    }

    /// GPUs that a variant names: where trials run side by side, one that takes any takes none of them.
    pub(crate) fn named(&self) -> Vec<&GpuName> {
        let names = self.wants.values().filter_map(|wanted| match wanted {
            Wanted::These(names) => Some(names),
            Wanted::Count(_) => None,
        });
        names.flatten().collect()
    }
}

impl Lanes {
    /// What the trial in this lane is bound to; lanes count from 0.
    pub(crate) fn cpus(&self, lane: usize) -> Option<&TrialCpus> {
        self.cpus.get(lane)
    }
}

/// Reads `side_by_side` and `[cpus]`. Wrong ones are reported, and give one lane.
pub(super) fn lanes(
    fields: &Fields<'_>,
    variants: &[Variant],
    gpu: Option<&GpuPlan>,
    machine: Option<&Topology>,
) -> Lanes {
    let field = fields.optional("side_by_side");
    let count = field.count(MOST).unwrap_or(NonZeroU32::MIN);
    let lanes = usize::try_from(count.get()).unwrap_or(1);
    if lanes > 1 {
        check(fields, count, variants, gpu);
    }
    let cpus = match fields.optional("cpus").table() {
        Some(section) => cpus::cpus(&section, lanes, machine),
        None if lanes > 1 => cpus::divided(&field, lanes, machine),
        None => Vec::new(),
    };
    Lanes { count, cpus }
}

/// What stands in the way of several trials at once, as far as the file tells.
fn check(fields: &Fields<'_>, count: NonZeroU32, variants: &[Variant], gpu: Option<&GpuPlan>) {
    let field = fields.optional("side_by_side");
    let all = u32::try_from(variants.len()).unwrap_or(u32::MAX);
    if all > 0 && all < count.get() {
        let help = format!("a block has {all}, one of each variant, and blocks stay in order");
        field.problem(format!("a block has no {count} trials"), Some(help));
    }
    let owns = |variant: &&Variant| gpu::need(gpu, variant).is_some_and(|need| need.asked);
    let without: Vec<&str> =
        variants.iter().filter(|v| !owns(v)).map(|v| v.name.as_str()).collect();
    if !without.is_empty() {
        let message = format!("no GPUs of its own are asked for by {}", without.join(", "));
        let help = "only trials that own their GPUs may run side by side: add a [gpu] section";
        field.problem(message, Some(help.to_owned()));
        return;
    }
    let side = SideBySide::of(count, gpu, variants);
    let named: Vec<&GpuName> = side.named();
    let alone = |name: &&GpuName| {
        side.wants.values().all(|w| matches!(w, Wanted::These(own) if own.contains(name)))
    };
    if let Some(name) = named.into_iter().find(alone) {
        let name = match name {
            GpuName::Index(index) => index.to_string(),
            GpuName::Uuid(uuid) => uuid.clone(),
        };
        let message = format!("every variant names GPU {name}, so no two trials can run at once");
        let help = "let variants take any (`count`), or name other GPUs for some".to_owned();
        field.problem(message, Some(help));
    }
}

#[cfg(test)]
#[path = "side_tests.rs"]
mod tests;
