//! Against the machine's own control groups; says what it skipped where there are none.

#![expect(clippy::disallowed_methods, reason = "tests wait for events with a deadline")]

use super::*;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// `sh` that sleeps with a child in a session of its own, inside the groups.
#[expect(unsafe_code, reason = "pre_exec: writes to open files only")]
fn contained(hold: &Hold) -> Child {
    let mut doors = hold.doors().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "setsid sleep 600 & exec sleep 600"]);
    // SAFETY: one write system call for each group.
    unsafe { command.pre_exec(move || doors.enter()) };
    command.spawn().unwrap()
}

#[track_caller]
fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let by = Instant::now() + Duration::from_secs(20);
    while !look() {
        assert!(Instant::now() < by, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn one_write_ends_a_group_with_all_its_sessions_and_the_group_goes() {
    let made = make(None).unwrap();
    let Some(leaf) = made.groups.unified.clone() else {
        eprintln!("skipped: no control group of the unified hierarchy can be made here: {made:?}");
        return;
    };
    assert!(made.populated, "{made:?}");
    let hold = Hold::take(made.groups);
    assert_eq!(hold.populated(), Some(false));
    let mut child = contained(&hold);
    let procs = || fs::read_to_string(leaf.join("cgroup.procs")).unwrap().lines().count();
    eventually("both processes are in the group", || procs() == 2);
    assert!(hold.kill());
    assert!(!child.wait().unwrap().success());
    eventually("the kernel says that the group is empty", || hold.populated() == Some(false));
    assert_eq!(hold.remove(), Vec::<PathBuf>::new());
    assert!(!leaf.exists());
}

#[test]
fn a_leaf_in_use_by_a_guard_is_not_swept_and_one_of_the_dead_is() {
    let Ok(made) = make(None) else { return };
    let Some(leaf) = made.groups.unified.clone() else {
        eprintln!("skipped: no control group of the unified hierarchy can be made here");
        return;
    };
    let base = leaf.parent().unwrap();
    // No process has pid 1 and that start time.
    let dead = base.join(place::leaf_name(1, u64::MAX, 1));
    fs::create_dir(&dead).unwrap();
    let guarded = Hold::take(Groups { unified: Some(dead.clone()), memory_v1: None });
    sweep(base);
    assert!(dead.exists(), "its guard holds it");
    assert!(leaf.exists(), "its maker lives");
    drop(guarded);
    sweep(base);
    assert!(!dead.exists(), "nobody holds it");
    remove_empty(&made.groups);
    assert!(!leaf.exists());
}

#[test]
fn what_the_kernel_killed_for_want_of_memory_is_counted_in_the_group() {
    let made = match make(Some(64 << 20)) {
        Ok(made) => made,
        Err(why) => {
            eprintln!("skipped: {why}");
            return;
        }
    };
    let hold = Hold::take(made.groups);
    let mut doors = hold.doors().unwrap();
    let mut command = Command::new("sh");
    // `tail` keeps a line without an end in memory.
    command.args(["-c", "exec tail /dev/zero"]);
    #[expect(unsafe_code, reason = "pre_exec: writes to open files only")]
    // SAFETY: one write system call for each group.
    unsafe {
        command.pre_exec(move || doors.enter())
    };
    let status = command.spawn().unwrap().wait().unwrap();
    assert!(!status.success());
    let mut evidence = crate::run::containment::KernelEvidence::default();
    hold.read(&mut evidence);
    assert!(evidence.oom_kills.is_some_and(|kills| kills >= 1), "{evidence:?}");
    assert!(evidence.memory_peak_bytes.is_some_and(|bytes| bytes >= 32 << 20), "{evidence:?}");
    assert_eq!(hold.remove(), Vec::<PathBuf>::new());
}
