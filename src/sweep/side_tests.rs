//! Which trials run at once: tables, and walks over plans of every shape.

use super::super::parse::tests::{RIGHT, shown, sweep, try_sweep};
use super::*;
use crate::seed::Seed;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// `any2`: any two GPUs; `0+1`: these.
fn wanted(text: &str) -> Wanted {
    match text.strip_prefix("any") {
        Some(count) => Wanted::Count(count.parse().unwrap()),
        None => Wanted::These(
            text.split('+')
                .map(|name| match name.parse() {
                    Ok(index) => GpuName::Index(index),
                    Err(_) => GpuName::Uuid(name.to_owned()),
                })
                .collect(),
        ),
    }
}

fn side(lanes: u32, wants: &[(&str, &str)]) -> SideBySide {
    let wants = wants.iter().map(|(variant, text)| (name(variant), wanted(text)));
    SideBySide { lanes: NonZeroU32::new(lanes).unwrap(), wants: wants.collect() }
}

fn cards(count: u32) -> Vec<Card> {
    (0..count).map(|index| Card { index, uuid: format!("GPU-{index}") }).collect()
}

/// `1a- 1b. 2a` : over, under way, waiting.
fn trials(text: &str) -> Vec<(TrialId, Stand)> {
    let one = |word: &str| {
        let stand = match word.as_bytes()[word.len() - 1] {
            b'-' => Stand::Over,
            b'.' => Stand::UnderWay,
            _ => Stand::Waiting,
        };
        let word = word.trim_end_matches(['-', '.']);
        (TrialId { block: word[..1].parse().unwrap(), variant: name(&word[1..]) }, stand)
    };
    text.split_whitespace().map(one).collect()
}

#[track_caller]
fn check(side: &SideBySide, plan: &str, gpus: Option<u32>, want: Option<usize>) {
    let trials = trials(plan);
    let cards = gpus.map(cards);
    let got = side.next(trials.iter().map(|(trial, stand)| (trial, *stand)), cards.as_deref());
    assert_eq!(got, want, "{plan} on {gpus:?}");
}

#[test]
fn one_at_a_time_goes_down_the_plan() {
    let one = SideBySide::default();
    check(&one, "1a 1b 2b 2a", None, Some(0));
    check(&one, "1a. 1b 2b 2a", Some(4), None);
    check(&one, "1a- 1b 2b 2a", None, Some(1));
    check(&one, "1a- 1b-", None, None);
}

#[test]
fn trials_of_one_block_fill_the_lanes_and_the_next_block_waits() {
    let two = side(2, &[("a", "any1"), ("b", "any1"), ("c", "any1")]);
    check(&two, "1a. 1b 1c 2a 2b 2c", Some(2), Some(1));
    check(&two, "1a. 1b. 1c 2a 2b 2c", Some(2), None);
    check(&two, "1a- 1b. 1c 2a 2b 2c", Some(2), Some(2));
    // The block is not done, and what is free stays so.
    check(&two, "1a- 1b- 1c. 2a 2b 2c", Some(2), None);
    check(&two, "1a- 1b- 1c- 2a 2b 2c", Some(2), Some(3));
    // One that is tried again goes first and alone: it is of another block.
    check(&two, "1a 1b- 1c- 2a. 2b 2c", Some(2), None);
    check(&two, "1a. 1b- 1c- 2a 2b 2c", Some(2), None);
    // The launches before the first block are a block, too.
    check(&two, "0a. 0b 0c 1a", Some(2), Some(1));
}

#[test]
fn without_enough_gpus_or_without_knowing_them_one_runs_at_a_time() {
    let two = side(2, &[("a", "any1"), ("b", "any1")]);
    check(&two, "1a. 1b", Some(1), None);
    check(&two, "1a. 1b", None, None);
    check(&two, "1a 1b", None, Some(0));
    let pairs = side(2, &[("a", "any2"), ("b", "any2")]);
    check(&pairs, "1a. 1b", Some(3), None);
    check(&pairs, "1a. 1b", Some(4), Some(1));
}

#[test]
fn two_that_name_one_gpu_never_meet_and_a_third_goes_first() {
    let two = side(2, &[("a", "0"), ("b", "GPU-0"), ("c", "1")]);
    check(&two, "1a. 1b 1c", Some(2), Some(2));
    check(&two, "1a. 1b 1c.", Some(2), None);
    check(&two, "1a- 1b. 1c", Some(2), Some(2));
    // A GPU that is gone, or not clean, is nobody's to share.
    check(&two, "1a. 1b- 1c", Some(1), None);
}

#[test]
fn who_takes_any_takes_none_that_is_named() {
    let mixed = side(2, &[("a", "0"), ("b", "any1"), ("c", "any2")]);
    check(&mixed, "1a. 1b 1c", Some(2), Some(1));
    check(&mixed, "1b. 1a 1c", Some(2), Some(1));
    check(&mixed, "1c. 1a 1b", Some(2), None);
    check(&mixed, "1c. 1a 1b", Some(3), Some(1));
    check(&mixed, "1b. 1c", Some(3), None);
}

#[test]
fn too_few_gpus_are_told_beforehand() {
    let lacks = |lanes, wants: &[(&str, &str)], gpus| side(lanes, wants).lacks(&cards(gpus));
    let one_each = [("a", "any1"), ("b", "any1"), ("c", "any1")];
    assert!(lacks(1, &one_each, 1).is_empty());
    assert!(lacks(2, &one_each, 2).is_empty() && lacks(3, &one_each, 3).is_empty());
    assert_eq!(lacks(3, &one_each, 2), ["side_by_side: no 3 variants fit at once on 2 GPUs"]);
    assert_eq!(lacks(2, &one_each, 1).len(), 3, "none fits beside another");
    let mixed = [("a", "any1"), ("b", "any1"), ("c", "any2")];
    let said = lacks(2, &mixed, 2);
    assert_eq!(said, ["side_by_side: `c` fits beside no other variant on 2 GPUs"]);
    assert!(lacks(2, &mixed, 3).is_empty());
    assert!(lacks(2, &[("a", "0"), ("b", "0"), ("c", "1")], 2).is_empty());
}

/// Whatever the wishes and whoever ends first: the invariants hold, and every trial has its turn.
#[test]
fn walks_keep_blocks_apart_and_gpus_apart() {
    for seed in 0..300 {
        let mut random = Seed::new(seed).branch("side").stream();
        let kinds = ["any1", "any2", "0", "1", "GPU-1", "0+1", "2"];
        let variants = ["a", "b", "c", "d"];
        let wants: Vec<_> =
            variants.iter().map(|variant| (*variant, kinds[random.below(kinds.len())])).collect();
        let lanes = 1 + u32::try_from(random.below(4)).unwrap();
        let (side, cards) = (side(lanes, &wants), cards(3));
        let mut trials: Vec<(TrialId, Stand)> = Vec::new();
        for block in 0..3 {
            trials.extend(variants.map(|v| (TrialId { block, variant: name(v) }, Stand::Waiting)));
        }
        while trials.iter().any(|(_, stand)| *stand != Stand::Over) {
            let known = random.below(5) > 0;
            let seen = known.then_some(&cards[..]);
            let next = side.next(trials.iter().map(|(trial, stand)| (trial, *stand)), seen);
            let under_way: Vec<usize> =
                (0..trials.len()).filter(|index| trials[*index].1 == Stand::UnderWay).collect();
            match next {
                Some(index) => {
                    let block = trials[index].0.block;
                    assert!(under_way.len() < usize::try_from(lanes).unwrap());
                    assert!(under_way.iter().all(|other| trials[*other].0.block == block));
                    assert!(trials.iter().all(|(t, s)| t.block >= block || *s == Stand::Over));
                    assert!(known || under_way.is_empty());
                    trials[index].1 = Stand::UnderWay;
                }
                // A lane that can be filled is filled before anything ends, if GPUs are known.
                None => trials[under_way[random.below(under_way.len())]].1 = Stand::Over,
            }
        }
    }
}

fn two(section: &str) -> String {
    RIGHT.replace("blocks = 2", "blocks = 2\nside_by_side = 2") + section
}

#[test]
fn a_sweep_says_how_many_and_each_variant_what_it_asks_for() {
    let sweep = sweep(&two("[gpu]\n"));
    assert_eq!(sweep.lanes.count.get(), 2);
    let side = SideBySide::of(sweep.lanes.count, sweep.gpu.as_ref(), &sweep.variants);
    assert_eq!(side, self::side(2, &[("slow", "any1"), ("fast", "any1")]));
    let text = serde_json::to_string(&side).unwrap();
    assert_eq!(serde_json::from_str::<SideBySide>(&text).unwrap(), side);
}

#[test]
fn what_cannot_run_side_by_side_is_told() {
    let mistakes = |text: &str| -> Vec<String> {
        try_sweep(text).unwrap_err().list().iter().map(shown).collect()
    };
    let line = 1 + two("").lines().position(|line| line.starts_with("side_by")).unwrap();
    assert_eq!(
        mistakes(&two("")),
        [format!(
            "{line}: `side_by_side`: no GPUs of its own are asked for by slow, fast | only trials \
             that own their GPUs may run side by side: add a [gpu] section"
        )]
    );
    assert_eq!(
        mistakes(&two("[gpu]\n").replace("side_by_side = 2", "side_by_side = 3")),
        [format!(
            "{line}: `side_by_side`: a block has no 3 trials | a block has 2, one of each variant, \
             and blocks stay in order"
        )]
    );
    assert_eq!(
        mistakes(&two("[gpu]\ndevices = [1, 0]\n")),
        [format!(
            "{line}: `side_by_side`: every variant names GPU 1, so no two trials can run at once | \
             let variants take any (`count`), or name other GPUs for some"
        )]
    );
    let wrong = mistakes(&two("[gpu]\n").replace("side_by_side = 2", "side_by_side = 0"));
    assert!(wrong[0].contains("out of range"), "{wrong:?}");
}
