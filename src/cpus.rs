//! Sets of CPUs: read and written as the kernel does, and given to threads.
//!
//! The one place where CPU affinity enters. Invariants: a set is never empty, and an affinity that
//! was set was read back, for the kernel leaves out what a control group forbids and says nothing.

use nix::sched::{CpuSet as Mask, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Numbers of CPUs. Written as the kernel lists them: `0-3,8`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct CpuSet(BTreeSet<u32>);

impl CpuSet {
    /// `None` for no CPU at all.
    pub(crate) fn of(cpus: impl IntoIterator<Item = u32>) -> Option<Self> {
        let cpus: BTreeSet<u32> = cpus.into_iter().collect();
        (!cpus.is_empty()).then_some(Self(cpus))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// What both hold; `None` where they are apart.
    pub(crate) fn shared(&self, other: &Self) -> Option<Self> {
        Self::of(self.0.intersection(&other.0).copied())
    }

    /// What only this one holds.
    pub(crate) fn without(&self, other: &Self) -> Option<Self> {
        Self::of(self.0.difference(&other.0).copied())
    }

    /// Those on which the calling thread may run.
    pub(crate) fn of_this_thread() -> nix::Result<Self> {
        let mask = sched_getaffinity(Pid::from_raw(0))?;
        let inside = |cpu: &usize| mask.is_set(*cpu).unwrap_or(false);
        let cpus = (0..Mask::count()).filter(inside).filter_map(|cpu| u32::try_from(cpu).ok());
        Self::of(cpus).ok_or(nix::errno::Errno::EINVAL)
    }

    /// Binds the calling thread to exactly these; what it starts from now on inherits that.
    /// Completes "cannot …".
    pub(crate) fn pin_this_thread(&self) -> Result<(), String> {
        let cannot = |why: String| Err(format!("be bound to CPUs {self}: {why}"));
        let mut mask = Mask::new();
        for cpu in self.iter() {
            if usize::try_from(cpu).map_or(true, |cpu| mask.set(cpu).is_err()) {
                return cannot(format!("no kernel has a CPU {cpu}"));
            }
        }
        if let Err(error) = sched_setaffinity(Pid::from_raw(0), &mask) {
            return cannot(format!("{} (a control group or the machine lacks them)", error.desc()));
        }
        match Self::of_this_thread() {
            Ok(found) if found == *self => Ok(()),
            Ok(found) => cannot(format!("of them only {found} may be used here")),
            Err(error) => cannot(error.desc().to_owned()),
        }
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for cpu in self.iter() {
            match ranges.last_mut().filter(|(_, last)| last.checked_add(1) == Some(cpu)) {
                Some((_, last)) => *last = cpu,
                None => ranges.push((cpu, cpu)),
            }
        }
        for (place, (first, last)) in ranges.into_iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl From<CpuSet> for String {
    fn from(set: CpuSet) -> Self {
        set.to_string()
    }
}

impl TryFrom<String> for CpuSet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The kernel's list: numbers, ranges, and ranges of which each group's first few are meant:
/// `0-31:2/8` is 0,1,8,9,16,17,24,25. An error completes "CPUs …".
impl FromStr for CpuSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut cpus = BTreeSet::new();
        for part in text.trim().split(',') {
            cpus.extend(one_part(part.trim()).ok_or_else(|| no_list(part, text))?);
        }
        Self::of(cpus).ok_or_else(|| no_list("", text))
    }
}

fn no_list(part: &str, text: &str) -> String {
    if text.trim().is_empty() {
        return "must not be empty".to_owned();
    }
    format!("{text:?} is no list of CPUs: {part:?} is neither a number nor a range")
}

fn one_part(part: &str) -> Option<Vec<u32>> {
    let most = u32::try_from(Mask::count()).ok()?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u32>().ok().filter(|number| digits && *number < most)
    };
    let (range, groups) = match part.split_once(':') {
        Some((range, groups)) => (range, Some(groups.split_once('/')?)),
        None => (part, None),
    };
    let (first, last) = match range.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None if groups.is_none() => (number(range)?, number(range)?),
        None => return None,
    };
    let (used, group) = match groups {
        Some((used, group)) => (number(used)?, number(group)?),
        None => (1, 1),
    };
    let is_right = first <= last && 0 < used && used <= group;
    is_right.then(|| (first..=last).filter(|cpu| (cpu - first) % group < used).collect())
}

/// The CPUs of a machine, as far as whoever divides them needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topology {
    pub(crate) online: CpuSet,
    /// On which sweepd itself may run.
    pub(crate) allowed: CpuSet,
    /// Those that are threads of one core, for each core, in the order of their first one.
    pub(crate) cores: Vec<CpuSet>,
}

impl Topology {
    /// Equal parts of whole cores, neighbours together, of those that sweepd may use. What does not
    /// come out even is in no part. `None`: there are fewer cores than parts.
    pub(crate) fn divide(&self, parts: usize) -> Option<Vec<CpuSet>> {
        let cores: Vec<CpuSet> =
            self.cores.iter().filter_map(|core| core.shared(&self.allowed)).collect();
        let each = cores.len().checked_div(parts).filter(|each| *each > 0)?;
        let part = |cores: &[CpuSet]| CpuSet::of(cores.iter().flat_map(CpuSet::iter));
        cores.chunks(each).take(parts).map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CpuSet {
        text.parse().unwrap()
    }

    #[test]
    fn a_list_is_read_and_written_as_the_kernel_does() {
        for (text, want) in [
            ("0", "0"),
            ("2-7,10", "2-7,10"),
            (" 3, 1 ,2 ", "1-3"),
            ("0-3,2-5", "0-5"),
            ("7-7", "7"),
            ("0-31:2/8", "0-1,8-9,16-17,24-25"),
            ("1023", "1023"),
        ] {
            assert_eq!(set(text).to_string(), want, "{text}");
            assert_eq!(set(&set(text).to_string()), set(text));
        }
        for wrong in ["", " ", "a", "1-", "-1", "3-1", "1,,2", "1024", "0-3:0/2", "0-3:3/2", "+1"] {
            assert!(wrong.parse::<CpuSet>().is_err(), "{wrong:?}");
        }
        assert_eq!(serde_json::to_string(&set("0-3,8")).unwrap(), "\"0-3,8\"");
        assert_eq!(serde_json::from_str::<CpuSet>("\"0-3,8\"").unwrap(), set("0-3,8"));
        assert!(serde_json::from_str::<CpuSet>("\"\"").is_err());
    }

    #[test]
    fn what_two_sets_share_and_what_one_has_alone() {
        assert_eq!(set("0-3").shared(&set("2-5")), Some(set("2-3")));
        assert_eq!(set("0-3").shared(&set("4-5")), None);
        assert_eq!(set("0-3").without(&set("2-5")), Some(set("0-1")));
        assert_eq!(set("2-3").without(&set("2-5")), None);
    }

    #[test]
    fn a_machine_is_divided_by_whole_cores() {
        let machine = |cores: &[&str], allowed: &str| Topology {
            online: set("0-63"),
            allowed: set(allowed),
            cores: cores.iter().map(|core| set(core)).collect(),
        };
        let check = |machine: Topology, parts, want: &[&str]| {
            let got = machine.divide(parts).unwrap_or_default();
            assert_eq!(got.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
        };
        let threads = || machine(&["0,4", "1,5", "2,6", "3,7"], "0-7");
        check(threads(), 1, &["0-7"]);
        check(threads(), 2, &["0-1,4-5", "2-3,6-7"]);
        check(threads(), 3, &["0,4", "1,5", "2,6"]);
        check(threads(), 5, &[]);
        check(machine(&["0", "1"], "0-1"), 2, &["0", "1"]);
        check(machine(&["0-1"], "0-1"), 2, &[]);
        // A control group or its starter has taken cores away from sweepd.
        check(machine(&["0,4", "1,5", "2,6", "3,7"], "2-3,6"), 2, &["2,6", "3"]);
    }

    /// In a thread of its own, which takes its affinity with it.
    #[test]
    fn a_bound_thread_is_there_and_nowhere_else() {
        std::thread::spawn(|| {
            let all = CpuSet::of_this_thread().unwrap();
            let last = CpuSet::of(all.iter().last()).unwrap();
            last.pin_this_thread().unwrap();
            assert_eq!(CpuSet::of_this_thread(), Ok(last.clone()));
            let inherited = std::thread::spawn(CpuSet::of_this_thread).join().unwrap();
            assert_eq!(inherited, Ok(last));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_the_machine_lacks_is_an_error_also_where_the_kernel_lets_a_part_pass() {
        std::thread::spawn(|| {
            let error = set("1023").pin_this_thread().unwrap_err();
            assert!(error.starts_with("be bound to CPUs 1023: Invalid argument"), "{error}");
            let mine = CpuSet::of_this_thread().unwrap();
            let beyond = CpuSet::of(mine.iter().chain([1023])).unwrap();
            let error = beyond.pin_this_thread().unwrap_err();
            assert!(error.ends_with(&format!("of them only {mine} may be used here")), "{error}");
        })
        .join()
        .unwrap();
    }
}
