//! Which GPUs a trial may have. Pure.

use crate::gpu::facts::{Gpu, Inventory};
use crate::sweep::gpu::{GpuName, Wanted};
use crate::sweep::side::Card;

/// What to lease, by UUID and in the one order in which leases are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    These(Vec<String>),
    /// As many of them as the number says.
    Of(usize, Vec<String>),
}

/// GPUs that answer and that this sweepd may use. `visible`: the value of `CUDA_VISIBLE_DEVICES` that it
/// was given, as by a job scheduler.
pub(super) fn cards(inventory: &Inventory, visible: Option<&str>) -> Vec<Card> {
    let usable =
        inventory.gpus.iter().filter(|gpu| is_visible(gpu, visible) && gpu.error.is_none());
    let card = |gpu: &Gpu| Some(Card { index: gpu.index, uuid: gpu.uuid.clone()? });
    usable.filter_map(card).collect()
}

/// `named`: what others name, of which a trial that takes any takes none.
pub(super) fn choose(
    wanted: &Wanted,
    inventory: &Inventory,
    visible: Option<&str>,
    named: &[&GpuName],
) -> Result<Choice, String> {
    match wanted {
        Wanted::Count(count) => {
            let count = usize::try_from(count.get()).unwrap_or(usize::MAX);
            let is_named = |card: &Card| named.iter().any(|name| card.is(name));
            let free = cards(inventory, visible).into_iter().filter(|card| !is_named(card));
            let mut uuids: Vec<String> = free.map(|card| card.uuid).collect();
            uuids.sort();
            if uuids.len() < count {
                let of = if visible.is_some() { " that this sweepd may use" } else { "" };
                return Err(format!("{count} GPUs are wanted, and {} answer{of}", uuids.len()));
            }
            Ok(if uuids.len() == count { Choice::These(uuids) } else { Choice::Of(count, uuids) })
        }
        Wanted::These(names) => {
            let there = |gpu: &&Gpu| gpu.uuid.is_some() && is_visible(gpu, visible);
            let usable: Vec<&Gpu> = inventory.gpus.iter().filter(there).collect();
            let mut uuids = Vec::new();
            for name in names {
                let found = usable.iter().find(|gpu| is_named(gpu, name));
                let uuid = found.and_then(|gpu| gpu.uuid.clone());
                uuids.push(uuid.ok_or_else(|| no_such(name, &usable))?);
            }
            uuids.sort();
            uuids.dedup();
            Ok(Choice::These(uuids))
        }
    }
}

fn is_named(gpu: &Gpu, name: &GpuName) -> bool {
    match name {
        GpuName::Index(index) => gpu.index == *index,
        GpuName::Uuid(uuid) => gpu.uuid.as_ref() == Some(uuid),
    }
}

fn no_such(name: &GpuName, usable: &[&Gpu]) -> String {
    let there: Vec<String> = usable
        .iter()
        .map(|gpu| format!("{} ({})", gpu.index, gpu.uuid.as_deref().unwrap_or("?")))
        .collect();
    let name = match name {
        GpuName::Index(index) => index.to_string(),
        GpuName::Uuid(uuid) => uuid.clone(),
    };
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    format!("there is no GPU {name} here; there are: {there}")
}

/// CUDA's own rule: the list ends at the first entry that means nothing.
fn is_visible(gpu: &Gpu, visible: Option<&str>) -> bool {
    let Some(list) = visible else { return true };
    list.split(',').map(str::trim).any(|entry| {
        entry.parse() == Ok(gpu.index)
            || (!entry.is_empty() && gpu.uuid.as_ref().is_some_and(|uuid| uuid.starts_with(entry)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn inventory() -> Inventory {
        let gpu =
            |index: u32, uuid: &str| Gpu { index, uuid: Some(uuid.to_owned()), ..Gpu::default() };
        let gpus = vec![gpu(0, "GPU-c"), gpu(1, "GPU-a"), gpu(2, "GPU-b")];
        Inventory { gpus, ..Inventory::default() }
    }

    fn count(count: u32) -> Wanted {
        Wanted::Count(NonZeroU32::new(count).unwrap())
    }

    fn uuids<const N: usize>(uuids: [&str; N]) -> Vec<String> {
        uuids.map(ToOwned::to_owned).to_vec()
    }

    #[test]
    fn leases_are_taken_in_one_order_whatever_the_names() {
        let names = [GpuName::Index(0), GpuName::Uuid("GPU-b".into())];
        let got = choose(&Wanted::These(names.to_vec()), &inventory(), None, &[]);
        assert_eq!(got, Ok(Choice::These(uuids(["GPU-b", "GPU-c"]))));
        let all = choose(&count(3), &inventory(), None, &[]);
        assert_eq!(all, Ok(Choice::These(uuids(["GPU-a", "GPU-b", "GPU-c"]))));
        let two = choose(&count(2), &inventory(), None, &[]);
        assert_eq!(two, Ok(Choice::Of(2, uuids(["GPU-a", "GPU-b", "GPU-c"]))));
    }

    #[test]
    fn who_takes_any_takes_none_that_others_name() {
        let names = [GpuName::Index(1), GpuName::Uuid("GPU-b".into())];
        let named: Vec<&GpuName> = names.iter().collect();
        let got = choose(&count(1), &inventory(), None, &named);
        assert_eq!(got, Ok(Choice::These(uuids(["GPU-c"]))));
        assert!(choose(&count(2), &inventory(), None, &named).is_err());
        let own = choose(&Wanted::These(names.to_vec()), &inventory(), None, &named);
        assert_eq!(own, Ok(Choice::These(uuids(["GPU-a", "GPU-b"]))));
    }

    #[test]
    fn what_a_scheduler_gave_is_not_exceeded() {
        let got = choose(&count(1), &inventory(), Some("2"), &[]);
        assert_eq!(got, Ok(Choice::These(uuids(["GPU-b"]))));
        let got = choose(&count(2), &inventory(), Some("GPU-a, 0"), &[]);
        assert_eq!(got, Ok(Choice::These(uuids(["GPU-a", "GPU-c"]))));
        assert!(choose(&count(1), &inventory(), Some(""), &[]).is_err());
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        let error =
            choose(&Wanted::These(vec![GpuName::Index(7)]), &inventory(), None, &[]).unwrap_err();
        assert!(error.contains("no GPU 7") && error.contains("GPU-a"), "{error}");
        assert!(choose(&count(4), &inventory(), None, &[]).unwrap_err().contains("3 answer"));
    }
}
