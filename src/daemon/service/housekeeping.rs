//! Space: what is left of it, what is removed to have more, and whether the disk answers at all.

use super::config::Retention;
use super::paths::Paths;
use crate::ids::RunId;
use crate::sample::room::free_bytes;
use crate::store::files::StoreError;
use crate::store::index::{Index, IndexedRun};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

/// What a trial's small files need to be worth a try after a full disk.
const PROBE_BYTES: usize = 256 << 10;

/// Why no trial may be started; `None` when there is space. After a full disk some is really written.
pub(crate) fn lacking(folder: &Path, floor: u64, was_full: bool) -> Option<String> {
    let mib = |bytes: u64| bytes >> 20;
    if let Some(free) = free_bytes(folder).filter(|free| *free < floor) {
        let place = folder.display();
        return Some(format!(
            "{place} has {} MiB free, {} MiB are asked for before a trial",
            mib(free),
            mib(floor)
        ));
    }
    if !was_full {
        return None;
    }
    let path = folder.join("space.tmp");
    let written = fs::File::create(&path).and_then(|mut file| {
        file.write_all(&vec![1; PROBE_BYTES])?;
        file.sync_all()
    });
    fs::remove_file(&path).ok();
    written.err().map(|error| format!("cannot write in {}: {error}", folder.display()))
}

/// Proves that the state folder can be written. A full disk answers, too; one that hangs does not.
pub(crate) fn heartbeat(state: &Path) -> Result<(), StoreError> {
    let path = state.join("heartbeat");
    let written = OpenOptions::new().write(true).create(true).truncate(false).open(&path).and_then(
        |mut file| {
            // In place and always as long: no new block is needed.
            file.write_all(crate::clock::wall_time().as_bytes())?;
            file.sync_data()
        },
    );
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::StorageFull => {
            Err(StoreError::io("write", &path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes ended runs that exceed what is to be kept, the oldest first. Which ones.
pub(crate) fn clean(
    paths: &Paths,
    index: &Index,
    retention: &Retention,
) -> Result<Vec<RunId>, StoreError> {
    remove_leftovers(paths);
    if retention.age.is_none() && retention.runs.is_none() && retention.bytes.is_none() {
        return Ok(Vec::new());
    }
    let mut ended = index.runs(Some("ended"), u32::MAX)?;
    ended.extend(index.runs(Some("cancelled"), u32::MAX)?);
    ended.sort_by(|a, b| b.ended.cmp(&a.ended));
    let size = |run: &IndexedRun| folder_bytes(&paths.run(&run.id.0));
    let sizes: Vec<u64> = match retention.bytes {
        Some(_) => ended.iter().map(size).collect(),
        None => Vec::new(),
    };
    let mut removed = Vec::new();
    for run in exceeding(&ended, &sizes, retention, crate::clock::system_time()) {
        remove(&paths.run(&run.id.0))?;
        index.remove_run(&run.id)?;
        removed.push(run.id.clone());
    }
    Ok(removed)
}

/// The runs to be removed of `ended`, newest first, with their sizes where those matter. Pure.
fn exceeding<'r>(
    ended: &'r [IndexedRun],
    sizes: &[u64],
    retention: &Retention,
    now: SystemTime,
) -> Vec<&'r IndexedRun> {
    let mut total = 0_u64;
    let too_much = |(position, run): &(usize, &IndexedRun)| {
        total += sizes.get(*position).copied().unwrap_or(0);
        let age = run.ended.as_deref().and_then(|text| humantime::parse_rfc3339(text).ok());
        let age = age.and_then(|ended| now.duration_since(ended).ok());
        retention.runs.is_some_and(|most| *position >= most)
            || retention.bytes.is_some_and(|most| total > most)
            || retention.age.is_some_and(|most| age.is_some_and(|age| age > most))
    };
    ended.iter().enumerate().filter(too_much).map(|(_, run)| run).collect()
}

/// Aside first, so that a crash leaves no half of a run.
fn remove(folder: &Path) -> Result<(), StoreError> {
    let aside = folder.with_extension("removed");
    fs::rename(folder, &aside).map_err(StoreError::io("remove", folder))?;
    fs::remove_dir_all(&aside).map_err(StoreError::io("remove", &aside))
}

fn remove_leftovers(paths: &Paths) {
    for entry in fs::read_dir(paths.runs()).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "removed") {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

fn folder_bytes(folder: &Path) -> u64 {
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(facts) if facts.is_dir() => folder_bytes(&entry.path()),
        Ok(facts) => facts.len(),
        Err(_) => 0,
    };
    fs::read_dir(folder).into_iter().flatten().flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Name;
    use std::time::Duration;

    fn run(id: &str, ended: &str) -> IndexedRun {
        IndexedRun {
            id: RunId(id.into()),
            sweep: Name::new("s").unwrap(),
            state: "ended".into(),
            priority: 0,
            submitted: None,
            ended: Some(ended.into()),
            planned: 1,
            trials_ended: 1,
            trials_completed: 1,
        }
    }

    #[track_caller]
    fn check(retention: &Retention, expected: &[&str]) {
        let ended = [
            run("new", "2026-11-25T00:00:00Z"),
            run("old", "2026-11-20T00:00:00Z"),
            run("older", "2026-10-01T00:00:00Z"),
        ];
        let now = humantime::parse_rfc3339("2026-11-26T00:00:00Z").unwrap();
        let removed = exceeding(&ended, &[10, 10, 10], retention, now);
        let removed: Vec<_> = removed.into_iter().map(|run| run.id.0.as_str()).collect();
        assert_eq!(removed, expected);
    }

    #[test]
    fn only_what_exceeds_is_removed_and_the_oldest_first() {
        let day = Duration::from_secs(24 * 3600);
        let nothing = Retention::default();
        check(&nothing, &[]);
        check(&Retention { runs: Some(2), ..nothing.clone() }, &["older"]);
        check(&Retention { runs: Some(0), ..nothing.clone() }, &["new", "old", "older"]);
        check(&Retention { bytes: Some(20), ..nothing.clone() }, &["older"]);
        check(&Retention { bytes: Some(19), ..nothing.clone() }, &["old", "older"]);
        check(&Retention { age: Some(30 * day), ..nothing.clone() }, &["older"]);
        check(&Retention { age: Some(day * 11 / 2), ..nothing }, &["old", "older"]);
    }

    #[test]
    fn a_floor_above_what_there_is_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(lacking(dir.path(), 0, true), None);
        assert!(lacking(dir.path(), u64::MAX, false).unwrap().contains("MiB free"));
        heartbeat(dir.path()).unwrap();
    }
}
