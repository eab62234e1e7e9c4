//! Takes the leases of a trial's GPUs, waiting where another sweep holds them.
//!
//! No deadlock: named GPUs are taken in one order on the whole machine; where any of several will do,
//! nothing is held while waiting.

use super::choose::Choice;
use crate::gpu::lease::{Holder, Lease, Leases, Taken};
use std::io;
use std::time::Duration;

/// Between two looks at a lease that another holds.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// One look: what could be taken more. `None`: everything is held.
pub(super) fn advance(
    leases: &Leases,
    choice: &Choice,
    holder: &Holder,
    held: &mut Vec<Lease>,
) -> io::Result<Option<String>> {
    match choice {
        Choice::These(uuids) => in_order(leases, uuids, holder, held),
        Choice::Of(count, uuids) => any(leases, *count, uuids, holder, held),
    }
}

fn in_order(
    leases: &Leases,
    uuids: &[String],
    holder: &Holder,
    held: &mut Vec<Lease>,
) -> io::Result<Option<String>> {
    while let Some(uuid) = uuids.get(held.len()) {
        match leases.take(uuid, holder)? {
            Taken::Lease(lease) => held.push(lease),
            Taken::Held(who) => return Ok(Some(waits_for(uuid, who))),
        }
    }
    Ok(None)
}

/// Clean ones first; all or nothing.
fn any(
    leases: &Leases,
    count: usize,
    uuids: &[String],
    holder: &Holder,
    held: &mut Vec<Lease>,
) -> io::Result<Option<String>> {
    let (suspect, clean): (Vec<_>, Vec<_>) =
        uuids.iter().partition(|uuid| leases.quarantined(uuid).is_some());
    let mut waits = None;
    for uuid in clean.into_iter().chain(suspect) {
        if held.len() == count {
            break;
        }
        match leases.take(uuid, holder)? {
            Taken::Lease(lease) => held.push(lease),
            Taken::Held(who) => waits = Some(waits_for(uuid, who)),
        }
    }
    if held.len() == count {
        return Ok(None);
    }
    held.clear();
    Ok(waits.or_else(|| Some("too few GPUs can be had".to_owned())))
}

fn waits_for(uuid: &str, who: Option<Holder>) -> String {
    let who = who.map_or("another sweepd".to_owned(), |who| who.to_string());
    format!("{uuid} is leased by {who}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn holder(name: &str) -> Holder {
        Holder { run: name.into(), trial: name.into(), pid: 1, since: "now".into() }
    }

    fn uuids(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("GPU-{n}")).collect()
    }

    /// Sweeps with crossing wishes look at random times; every one gets its turn.
    #[test]
    fn crossing_wishes_never_lock_each_other_out() {
        for seed in 0..50 {
            let dir = tempfile::tempdir().unwrap();
            let leases = Leases::at(dir.path());
            let wishes = [
                Choice::These(vec!["GPU-0".into(), "GPU-1".into()]),
                Choice::These(vec!["GPU-1".into(), "GPU-2".into()]),
                Choice::These(vec!["GPU-0".into(), "GPU-2".into()]),
                Choice::Of(3, uuids(4)),
                Choice::Of(2, uuids(3)),
            ];
            let mut held: Vec<Vec<Lease>> = wishes.iter().map(|_| Vec::new()).collect();
            let mut done = [false; 5];
            let mut stream = Seed::new(seed).stream();
            let mut looks = 0;
            while done.iter().any(|done| !done) {
                looks += 1;
                assert!(looks < 10_000, "seed {seed}: {done:?}");
                let who = stream.below(5);
                if done[who] {
                    continue;
                }
                let name = holder(&who.to_string());
                if advance(&leases, &wishes[who], &name, &mut held[who]).unwrap().is_none() {
                    done[who] = true;
                    held[who].clear();
                }
            }
        }
    }

    #[test]
    fn a_quarantined_gpu_is_the_last_choice() {
        let dir = tempfile::tempdir().unwrap();
        let leases = Leases::at(dir.path());
        let why = crate::gpu::lease::Quarantine {
            since: "now".into(),
            run: "r".into(),
            trial: "t".into(),
            diagnosis: "d".into(),
        };
        leases.quarantine("GPU-0", &why).unwrap();
        let mut held = Vec::new();
        let wish = Choice::Of(1, uuids(2));
        assert_eq!(advance(&leases, &wish, &holder("a"), &mut held).unwrap(), None);
        assert_eq!(held[0].uuid, "GPU-1");
    }
}
