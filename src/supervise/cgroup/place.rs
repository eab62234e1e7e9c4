//! Where control groups may be made: read from the kernel's tables. Pure.

use std::path::{Path, PathBuf};

/// A hierarchy as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) mount: PathBuf,
    /// This process's own group, below the mount point. Equal to it at the root.
    pub(super) own: PathBuf,
}

impl Hierarchy {
    pub(super) fn at_root(&self) -> bool {
        self.own == self.mount
    }
}

/// The unified hierarchy, from `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub(super) fn unified(mounts: &str, groups: &str) -> Option<Hierarchy> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    hierarchy(mounts, own, |kind, _| kind == "cgroup2")
}

/// The older hierarchy that has the memory controller.
pub(super) fn memory_v1(mounts: &str, groups: &str) -> Option<Hierarchy> {
    let own = groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == "memory").then_some(path)
    })?;
    hierarchy(mounts, own, |kind, options| {
        kind == "cgroup" && options.split(',').any(|option| option == "memory")
    })
}

/// A line is `id parent dev root mount options [fields] - type source super-options`.
fn hierarchy(mounts: &str, own: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<Hierarchy> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1).unwrap_or_default());
        if !wanted(kind, options) {
            return None;
        }
        let mut left = left.split(' ').skip(3);
        let (root, mount) = (left.next()?, PathBuf::from(left.next()?));
        // A mount may show a part of the hierarchy only, as in a container.
        let below = Path::new(own).strip_prefix(root).ok()?;
        let own = if below.as_os_str().is_empty() { mount.clone() } else { mount.join(below) };
        Some(Hierarchy { mount, own })
    })
}

/// The owner in a leaf's name: pid and start time of the sweepd that made it.
pub(super) fn leaf_name(pid: i32, start_ticks: u64, nth: u64) -> String {
    format!("sweepd-{pid}-{start_ticks}-{nth}")
}

pub(super) fn owner(name: &str) -> Option<(i32, u64)> {
    let mut parts = name.strip_prefix("sweepd-")?.split('-');
    let owner = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next()?.parse::<u64>().ok()?;
    parts.next().is_none().then_some(owner)
}

/// `key value` lines, as in `memory.events`.
pub(super) fn flat_keyed(text: &str) -> std::collections::BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:26 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw,mode=755\n\
32 31 0:27 / /sys/fs/cgroup/unified rw,relatime shared:7 - cgroup2 cgroup2 rw\n\
40 31 0:35 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n";

    #[track_caller]
    fn check(got: Option<Hierarchy>, mount: &str, own: &str) {
        let got = got.unwrap();
        assert_eq!((got.mount.as_path(), got.own.as_path()), (Path::new(mount), Path::new(own)));
    }

    #[test]
    fn both_hierarchies_are_found_where_both_are() {
        let groups = "5:cpu,cpuacct:/a\n4:memory:/b/c\n0::/\n";
        check(unified(HYBRID, groups), "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified");
        check(memory_v1(HYBRID, groups), "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/b/c");
        assert!(unified(HYBRID, groups).unwrap().at_root());
    }

    #[test]
    fn a_pure_machine_has_no_older_hierarchy() {
        let mounts = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let groups = "0::/user.slice/run-u1.scope\n";
        check(unified(mounts, groups), "/sys/fs/cgroup", "/sys/fs/cgroup/user.slice/run-u1.scope");
        assert_eq!(memory_v1(mounts, groups), None);
    }

    #[test]
    fn a_mount_of_a_part_is_resolved_and_of_another_part_refused() {
        let mounts = "29 23 0:26 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        check(unified(mounts, "0::/docker/x/y\n"), "/sys/fs/cgroup", "/sys/fs/cgroup/y");
        assert_eq!(unified(mounts, "0::/elsewhere\n"), None);
        assert_eq!(unified("", "0::/\n"), None);
    }

    #[test]
    fn a_leaf_names_its_owner_and_nothing_else_is_a_leaf() {
        assert_eq!(owner(&leaf_name(12, 345, 6)), Some((12, 345)));
        for name in ["sweepd", "sweepd-1-2", "sweepd-1-2-3-4", "sweepd-x-2-3", "other-1-2-3"] {
            assert_eq!(owner(name), None, "{name}");
        }
    }

    #[test]
    fn events_are_keys_and_counts() {
        let events = flat_keyed("low 0\noom 2\noom_kill 1\nbroken\n");
        assert_eq!(events.get("oom_kill"), Some(&1));
        assert_eq!(events.len(), 3);
    }
}
