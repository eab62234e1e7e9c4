//! Tables for the queue's decisions, and random walks over its invariants.

use super::*;
use crate::seed::Seed;
use crate::store::control::By;
use crate::sweep::gpu::Wanted;
use std::num::NonZeroU32;

fn by() -> By {
    By { uid: Some(0), pid: None }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn id(text: &str) -> RunId {
    RunId(text.into())
}

fn entry(blocks: u32, priority: i32, rank: f64) -> Entry {
    let trials = (1..=blocks)
        .flat_map(|block| ["a", "b"].map(|variant| TrialId { block, variant: name(variant) }));
    let mut entry = Entry::new(name("s"), trials);
    entry.schedule = Schedule { priority, rank, ..Schedule::default() };
    entry
}

fn queue(runs: Vec<(&str, Entry)>) -> Queue {
    Queue {
        runs: runs.into_iter().map(|(run, entry)| (id(run), entry)).collect(),
        ..Queue::default()
    }
}

fn unknown(_: &Entry, _: &Name) -> Option<Duration> {
    None
}

/// The GPUs are not known.
fn nobody(_: &RunId) -> Option<Vec<Card>> {
    None
}

/// So many, and clean.
fn cards(count: u32) -> impl Fn(&RunId) -> Option<Vec<Card>> {
    move |_| Some((0..count).map(|index| Card { index, uuid: format!("GPU-{index}") }).collect())
}

/// Two at once, each on any one GPU.
fn side_by_side(mut entry: Entry) -> Entry {
    let wants = ["a", "b"].map(|variant| (name(variant), Wanted::Count(NonZeroU32::MIN)));
    entry.side = SideBySide { lanes: NonZeroU32::new(2).unwrap(), wants: wants.into() };
    entry
}

#[track_caller]
fn starts(queue: &Queue, run: &str, index: usize) {
    assert_eq!(queue.decide(0, unknown, nobody), Decision::Start { run: id(run), index });
}

#[test]
fn priority_comes_before_rank_and_what_was_interrupted_before_both() {
    let mut queue = queue(vec![("x", entry(1, 0, 1.0)), ("y", entry(1, 0, 2.0))]);
    starts(&queue, "x", 0);
    queue.runs.get_mut(&id("y")).unwrap().schedule.priority = 5;
    starts(&queue, "y", 0);
    queue.runs.get_mut(&id("x")).unwrap().interrupted = true;
    starts(&queue, "x", 0);
}

#[test]
fn a_run_that_has_begun_goes_on_before_another_of_its_priority() {
    let mut queue = queue(vec![("x", entry(1, 0, 1.0)), ("y", entry(1, 0, 2.0))]);
    let slots = &mut queue.runs.get_mut(&id("y")).unwrap().slots;
    slots[0].state = SlotState::Ended("completed".into());
    starts(&queue, "y", 1);
    queue.runs.get_mut(&id("x")).unwrap().schedule.priority = 1;
    starts(&queue, "x", 0);
}

#[test]
fn what_is_paused_held_or_too_early_waits() {
    let mut queue = queue(vec![("x", entry(1, 0, 1.0)), ("y", entry(1, 0, 2.0))]);
    queue.runs.get_mut(&id("x")).unwrap().paused = true;
    starts(&queue, "y", 0);
    let y = queue.runs.get_mut(&id("y")).unwrap();
    y.schedule.not_before = Some("1970-01-01T00:00:10Z".into());
    assert_eq!(queue.decide(0, unknown, nobody), Decision::Wait { until: Some(10_000) });
    assert_eq!(queue.decide(10_000, unknown, nobody), Decision::Start { run: id("y"), index: 0 });
    queue.paused = true;
    assert_eq!(queue.decide(10_000, unknown, nobody), Decision::Wait { until: None });
}

#[test]
fn what_cannot_end_in_time_is_left_out_with_the_reason() {
    let mut queue = queue(vec![("x", entry(1, 0, 1.0))]);
    let x = queue.runs.get_mut(&id("x")).unwrap();
    x.schedule.finish_by = Some("1970-01-01T00:01:00Z".into());
    let takes = |_: &Entry, _: &Name| Some(Duration::from_secs(20));
    assert_eq!(queue.decide(40_000, takes, nobody), Decision::Start { run: id("x"), index: 0 });
    let Decision::LeaveOut { reason, .. } = queue.decide(40_001, takes, nobody) else { panic!() };
    assert!(reason.contains("about 20s") && reason.contains("00:01:00"), "{reason}");
    // Without experience it is tried, until the time has passed.
    assert_eq!(queue.decide(59_999, unknown, nobody), Decision::Start { run: id("x"), index: 0 });
    assert!(matches!(queue.decide(60_000, unknown, nobody), Decision::LeaveOut { .. }));
    let x = queue.runs.get_mut(&id("x")).unwrap();
    x.apply(&Change::LeftOut { reason }, "");
    assert_eq!(queue.decide(0, takes, nobody), Decision::WriteDown { run: id("x"), index: 0 });
}

#[test]
fn a_cancelled_run_writes_down_its_trials_and_closes() {
    let mut queue = queue(vec![("x", entry(1, 0, 1.0))]);
    let x = queue.runs.get_mut(&id("x")).unwrap();
    x.slots[0].state = SlotState::Ended("completed".into());
    x.apply(&Change::Cancelled { by: by(), trial: None }, "");
    assert_eq!(queue.decide(0, unknown, nobody), Decision::WriteDown { run: id("x"), index: 1 });
    let x = queue.runs.get_mut(&id("x")).unwrap();
    x.slots[1].state = SlotState::Ended("cancelled".into());
    assert_eq!(queue.decide(0, unknown, nobody), Decision::Close { run: id("x") });
}

#[test]
fn a_lane_that_is_free_is_filled_from_the_same_block() {
    let mut queue = queue(vec![("x", side_by_side(entry(2, 0, 1.0)))]);
    let run = |queue: &mut Queue, index: usize, state: SlotState| {
        queue.runs.get_mut(&id("x")).unwrap().slots[index].state = state;
    };
    let start = |index| Decision::Start { run: id("x"), index };
    assert_eq!(queue.decide(0, unknown, cards(2)), start(0));
    run(&mut queue, 0, SlotState::Running);
    assert_eq!(queue.decide(0, unknown, nobody), Decision::Wait { until: None });
    assert_eq!(queue.decide(0, unknown, cards(1)), Decision::Wait { until: None });
    assert_eq!(queue.decide(0, unknown, cards(2)), start(1));
    run(&mut queue, 1, SlotState::Running);
    assert_eq!(queue.decide(0, unknown, cards(4)), Decision::Wait { until: None });
    run(&mut queue, 0, SlotState::Ended("completed".into()));
    assert_eq!(queue.decide(0, unknown, cards(4)), Decision::Wait { until: None });
    run(&mut queue, 1, SlotState::Ended("completed".into()));
    assert_eq!(queue.decide(0, unknown, cards(4)), start(2));
}

#[test]
fn whatever_stops_a_run_stops_its_free_lane() {
    let with = |change: &dyn Fn(&mut Queue)| {
        let mut queue = queue(vec![("x", side_by_side(entry(1, 0, 1.0))), ("y", entry(1, 0, 2.0))]);
        queue.runs.get_mut(&id("x")).unwrap().slots[0].state = SlotState::Running;
        change(&mut queue);
        queue.decide(0, unknown, cards(2))
    };
    fn x(queue: &mut Queue) -> &mut Entry {
        queue.runs.get_mut(&id("x")).unwrap()
    }
    let waits = Decision::Wait { until: None };
    assert_eq!(with(&|_| {}), Decision::Start { run: id("x"), index: 1 });
    assert_eq!(with(&|queue| queue.paused = true), waits);
    assert_eq!(with(&|queue| x(queue).paused = true), waits);
    assert_eq!(with(&|queue| x(queue).held = Some("why".into())), waits);
    // Another run that comes first has its turn when the lanes are empty.
    let first = |queue: &mut Queue| queue.runs.get_mut(&id("y")).unwrap().schedule.priority = 1;
    assert_eq!(with(&first), waits);
    // It comes first only if it can begin.
    let held = |queue: &mut Queue| {
        let y = queue.runs.get_mut(&id("y")).unwrap();
        (y.schedule.priority, y.paused) = (1, true);
    };
    assert_eq!(with(&held), Decision::Start { run: id("x"), index: 1 });
    // A run that is over is closed when nothing is measured any more.
    let over = |queue: &mut Queue| {
        for slot in &mut queue.runs.get_mut(&id("y")).unwrap().slots {
            slot.state = SlotState::Ended("cancelled".into());
        }
        x(queue).slots[1].state = SlotState::Running;
    };
    assert_eq!(with(&over), waits);
}

#[test]
fn times_are_read_with_and_without_fractions() {
    assert_eq!(wall_ms("1970-01-01T00:00:01Z"), Some(1000));
    assert_eq!(wall_ms("1970-01-01T00:00:01.250Z"), Some(1250));
    assert_eq!(wall_ms("soon"), None);
}

/// One random step; what is started is noted.
struct Walk {
    queue: Queue,
    now: WallMs,
    ended: BTreeMap<(RunId, TrialId), u32>,
    allowed: BTreeMap<(RunId, TrialId), u32>,
}

impl Walk {
    fn follow(&mut self, pick: u64) {
        match self.queue.decide(self.now, |_, _| Some(Duration::from_secs(5)), cards(2)) {
            Decision::Start { run, index } => {
                assert!(!self.queue.paused);
                let elsewhere = self.queue.runs.iter().filter(|(other, _)| **other != run);
                assert!(elsewhere.into_iter().all(|(_, entry)| !entry.is_under_way()), "one run");
                let entry = self.queue.runs.get_mut(&run).unwrap();
                assert!(!entry.paused && entry.held.is_none());
                let running = entry.slots.iter().filter(|slot| slot.state == SlotState::Running);
                let block = entry.slots[index].trial.block;
                assert!(running.clone().all(|slot| slot.trial.block == block), "one block");
                assert!(running.count() < usize::try_from(entry.side.lanes.get()).unwrap());
                let earlier = &entry.slots[..index];
                assert!(earlier.iter().all(|slot| slot.state != SlotState::Waiting), "in order");
                let key = (run, entry.slots[index].trial.clone());
                let ended = self.ended.get(&key).copied().unwrap_or(0);
                let allowed = self.allowed.get(&key).copied().unwrap_or(0);
                assert!(ended <= allowed, "{key:?} is started again without a retry");
                entry.slots[index].state = SlotState::Running;
            }
            Decision::WriteDown { run, index } => self.end(&run, index, "cancelled"),
            Decision::LeaveOut { run, reason } => {
                let by = self.queue.runs[&run].schedule.finish_by.clone();
                assert!(by.is_some_and(|by| self.now + 5000 > wall_ms(&by).unwrap()));
                let entry = self.queue.runs.get_mut(&run).unwrap();
                entry.apply(&Change::LeftOut { reason }, "");
            }
            Decision::Close { run } => {
                let entry = self.queue.runs.remove(&run).unwrap();
                let ended = |slot: &Slot| matches!(slot.state, SlotState::Ended(_));
                assert!(entry.slots.iter().all(ended));
            }
            Decision::Wait { .. } => self.finish_running(pick),
        }
    }

    fn end(&mut self, run: &RunId, index: usize, how: &str) {
        let slot = &mut self.queue.runs.get_mut(run).unwrap().slots[index];
        slot.state = SlotState::Ended(how.into());
        *self.ended.entry((run.clone(), slot.trial.clone())).or_default() += 1;
    }

    /// One of the trials under way ends, or sweepd dies and all of them wait again.
    fn finish_running(&mut self, pick: u64) {
        let under_way = self.queue.runs.iter().find(|(_, entry)| entry.is_under_way());
        let Some(run) = under_way.map(|(run, _)| run.clone()) else { return };
        let entry = self.queue.runs.get_mut(&run).unwrap();
        let running = |slot: &&mut Slot| slot.state == SlotState::Running;
        if pick.is_multiple_of(3) {
            entry.slots.iter_mut().filter(running).for_each(|s| s.state = SlotState::Waiting);
            entry.interrupted = true;
        } else {
            let ends = |(_, slot): &(usize, &Slot)| slot.state == SlotState::Running;
            let running: Vec<usize> =
                entry.slots.iter().enumerate().filter(ends).map(|(index, _)| index).collect();
            let ends = running[usize::try_from(pick / 3).unwrap() % running.len()];
            self.end(&run, ends, "completed");
        }
    }

    fn disturb(&mut self, pick: u64) {
        let nth = usize::try_from(pick / 16).unwrap() % self.queue.runs.len().max(1);
        let Some(run) = self.queue.runs.keys().nth(nth).cloned() else { return };
        let entry = self.queue.runs.get_mut(&run).unwrap();
        let trial = entry.slots[usize::try_from(pick / 64).unwrap() % entry.slots.len()].clone();
        match pick % 16 {
            0 => entry.apply(&Change::Paused { by: by() }, ""),
            1 | 2 => entry.apply(&Change::Continued { by: by() }, ""),
            3 => entry.apply(&Change::Cancelled { by: by(), trial: Some(trial.trial) }, ""),
            4 => {
                if matches!(trial.state, SlotState::Ended(_)) {
                    let key = (run, trial.trial.clone());
                    let ended = self.ended.get(&key).copied().unwrap_or(0);
                    self.allowed.insert(key, ended);
                    let retrial = Retrial { trial: trial.trial, after_attempt: 1 };
                    entry.apply(&Change::Retried { by: by(), trials: vec![retrial] }, "");
                }
            }
            5 => self.queue.apply(&Change::Paused { by: by() }),
            6 | 7 => self.queue.apply(&Change::Continued { by: by() }),
            8 => entry.held = Some("it cannot be opened".into()),
            9 if pick.is_multiple_of(7) => {
                entry.apply(&Change::Cancelled { by: by(), trial: None }, "");
            }
            10 => entry.schedule.priority += 1,
            11 => self.now += 1000,
            _ => {}
        }
    }
}

#[test]
fn random_walks_keep_the_invariants_and_end() {
    for seed in 0..500 {
        let mut random = Seed::new(seed).branch("queue").stream();
        let mut runs = vec![
            ("x", side_by_side(entry(3, 0, 1.0))),
            ("y", entry(2, 0, 2.0)),
            ("z", entry(1, 3, 3.0)),
        ];
        runs[1].1.schedule.finish_by = Some("1970-01-01T00:00:20Z".into());
        runs[2].1.schedule.not_before = Some("1970-01-01T00:00:05Z".into());
        let mut walk =
            Walk { queue: queue(runs), now: 0, ended: BTreeMap::new(), allowed: BTreeMap::new() };
        for _ in 0..300 {
            let pick = random.next_u64();
            walk.disturb(pick);
            walk.follow(pick);
        }
        // Once nobody disturbs it, everything ends.
        walk.now = 100_000;
        walk.queue.apply(&Change::Continued { by: by() });
        for entry in walk.queue.runs.values_mut() {
            entry.apply(&Change::Continued { by: by() }, "");
        }
        for _ in 0..100 {
            walk.follow(1);
        }
        assert!(walk.queue.runs.is_empty(), "seed {seed}: {:?}", walk.queue);
    }
}
