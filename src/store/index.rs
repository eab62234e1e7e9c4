//! A table over all run folders, for the queue's start and for queries. It can be thrown away: the
//! run folders are the truth, and it is filled again from them when it is missing or damaged.
//!
//! Invariant: a table of a newer sweepd is refused and left alone; nothing is lost with this file.

use super::files::StoreError;
use crate::ids::{Name, RunId, TrialId};
use crate::units::count_f64;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The layout of the tables.
const VERSION: i64 = 1;
/// Another connection's write is waited for so long.
const BUSY: Duration = Duration::from_secs(5);

const LAYOUT: &str = "
CREATE TABLE runs (
    id TEXT PRIMARY KEY, sweep TEXT NOT NULL, state TEXT NOT NULL, priority INTEGER NOT NULL,
    submitted TEXT, ended TEXT, planned INTEGER NOT NULL, bytes INTEGER
) STRICT;
CREATE TABLE trials (
    run TEXT NOT NULL, block INTEGER NOT NULL, variant TEXT NOT NULL, ending TEXT NOT NULL,
    attempts INTEGER NOT NULL, seconds REAL, PRIMARY KEY (run, block, variant)
) STRICT, WITHOUT ROWID;
CREATE INDEX trials_by_variant ON trials (variant, run);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
";

/// A run as the table knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct IndexedRun {
    pub(crate) id: RunId,
    pub(crate) sweep: Name,
    /// `ended` or `cancelled`: such a run is not read again at a start. Otherwise `open`.
    pub(crate) state: String,
    pub(crate) priority: i32,
    pub(crate) submitted: Option<String>,
    pub(crate) ended: Option<String>,
    pub(crate) planned: u64,
    pub(crate) trials_ended: u64,
    pub(crate) trials_completed: u64,
}

/// A trial that has ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct IndexedTrial {
    pub(crate) trial: TrialId,
    /// The outcome's `ending`.
    pub(crate) ending: String,
    pub(crate) attempts: u32,
    pub(crate) seconds: Option<f64>,
}

/// Why there is no index to work with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("{} has layout {found}; this sweepd reads {VERSION}", .path.display())]
    TooNew { path: PathBuf, found: i64 },
    /// It may be removed and filled again.
    #[error("{} is damaged: {reason}", .path.display())]
    Damaged { path: PathBuf, reason: String },
}

#[derive(Debug)]
pub(crate) struct Index {
    connection: Connection,
    path: PathBuf,
}

/// How an index was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Closed in order: it says what the folders say.
    Clean,
    /// Sweepd died with it open: what is not ended must be read again.
    Unclean,
    /// Empty: everything must be read.
    New,
}

impl Index {
    /// Opens it; a missing one is made.
    pub(crate) fn open(path: &Path) -> Result<(Self, Found), IndexError> {
        let damaged = |error: rusqlite::Error| IndexError::Damaged {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let connection = Connection::open(path).map_err(damaged)?;
        connection.busy_timeout(BUSY).map_err(damaged)?;
        let version: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(damaged)?;
        if version > VERSION {
            return Err(IndexError::TooNew { path: path.to_owned(), found: version });
        }
        connection.pragma_update(None, "journal_mode", "WAL").map_err(damaged)?;
        // It can be filled again, so a power cut may cost its last lines.
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(damaged)?;
        let index = Self { connection, path: path.to_owned() };
        let found = if version == 0 { index.lay_out() } else { index.check() };
        let found = found.map_err(damaged)?;
        let Some(found) = found else {
            let reason = "its check failed".to_owned();
            return Err(IndexError::Damaged { path: path.to_owned(), reason });
        };
        index.set_fact("clean", "no").map_err(damaged)?;
        Ok((index, found))
    }

    /// For queries alone, beside the one that writes.
    pub(crate) fn look(path: &Path) -> Result<Self, StoreError> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = Connection::open_with_flags(path, flags)
            .and_then(|connection| connection.busy_timeout(BUSY).map(|()| connection))
            .map_err(|error| StoreError::damaged(path, error))?;
        Ok(Self { connection, path: path.to_owned() })
    }

    fn lay_out(&self) -> rusqlite::Result<Option<Found>> {
        self.connection
            .execute_batch(&format!("BEGIN; {LAYOUT} PRAGMA user_version = {VERSION}; COMMIT;"))?;
        Ok(Some(Found::New))
    }

    /// `None`: damaged. The long check is only made after an unclean stop.
    fn check(&self) -> rusqlite::Result<Option<Found>> {
        let fact = "SELECT value FROM facts WHERE name = 'clean'";
        let clean: Option<String> =
            self.connection.query_row(fact, [], |row| row.get(0)).optional()?;
        if clean.as_deref() == Some("yes") {
            return Ok(Some(Found::Clean));
        }
        let said: String = self.connection.query_row("PRAGMA quick_check", [], |row| row.get(0))?;
        let filled = "SELECT value FROM facts WHERE name = 'filled'";
        let filled: Option<String> =
            self.connection.query_row(filled, [], |row| row.get(0)).optional()?;
        Ok(match (said == "ok", filled.is_some()) {
            (false, _) => None,
            (true, true) => Some(Found::Unclean),
            // Sweepd died while it was being filled.
            (true, false) => Some(Found::New),
        })
    }

    fn set_fact(&self, name: &str, value: &str) -> rusqlite::Result<()> {
        let text = "INSERT OR REPLACE INTO facts (name, value) VALUES (?1, ?2)";
        self.connection.execute(text, params![name, value])?;
        Ok(())
    }

    fn error(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let path = self.path.clone();
        move |error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => StoreError::Io {
                action: "write",
                path: path.clone(),
                cause: std::io::ErrorKind::StorageFull.into(),
            },
            _ => StoreError::damaged(&path, error),
        }
    }

    /// Everything that the folders hold is in it now.
    pub(crate) fn filled(&self) -> Result<(), StoreError> {
        self.set_fact("filled", "yes").map_err(self.error())
    }

    /// The last act of a sweepd that ends in order.
    pub(crate) fn close(self) -> Result<(), StoreError> {
        self.set_fact("clean", "yes").map_err(self.error())
    }

    /// Puts a run with its ended trials in place of what was known of it.
    pub(crate) fn put(
        &mut self,
        run: &IndexedRun,
        trials: &[IndexedTrial],
    ) -> Result<(), StoreError> {
        let error = self.error();
        let mut work = || {
            let transaction = self.connection.transaction()?;
            transaction.execute("DELETE FROM trials WHERE run = ?1", params![run.id.0])?;
            put_run(&transaction, run)?;
            for trial in trials {
                put_trial(&transaction, &run.id, trial)?;
            }
            transaction.commit()
        };
        work().map_err(error)
    }

    pub(crate) fn put_run(&self, run: &IndexedRun) -> Result<(), StoreError> {
        put_run(&self.connection, run).map_err(self.error())
    }

    pub(crate) fn put_trial(&self, run: &RunId, trial: &IndexedTrial) -> Result<(), StoreError> {
        put_trial(&self.connection, run, trial).map_err(self.error())
    }

    pub(crate) fn remove_trial(&self, run: &RunId, trial: &TrialId) -> Result<(), StoreError> {
        let text = "DELETE FROM trials WHERE run = ?1 AND block = ?2 AND variant = ?3";
        let values = params![run.0, trial.block, trial.variant.as_str()];
        self.connection.execute(text, values).map(|_| ()).map_err(self.error())
    }

    pub(crate) fn remove_run(&self, run: &RunId) -> Result<(), StoreError> {
        let work = || {
            self.connection.execute("DELETE FROM trials WHERE run = ?1", params![run.0])?;
            self.connection.execute("DELETE FROM runs WHERE id = ?1", params![run.0])
        };
        work().map(|_| ()).map_err(self.error())
    }

    /// The newest runs, ended ones too; of one state where that is asked.
    pub(crate) fn runs(
        &self,
        state: Option<&str>,
        most: u32,
    ) -> Result<Vec<IndexedRun>, StoreError> {
        let text = "SELECT r.id, r.sweep, r.state, r.priority, r.submitted, r.ended, r.planned,
              (SELECT count(*) FROM trials t WHERE t.run = r.id),
              (SELECT count(*) FROM trials t WHERE t.run = r.id AND t.ending = 'completed')
            FROM runs r WHERE ?1 IS NULL OR r.state = ?1
            ORDER BY coalesce(r.ended, r.submitted, '') DESC, r.id LIMIT ?2";
        let work = || {
            let mut statement = self.connection.prepare_cached(text)?;
            let rows = statement.query_map(params![state, most], read_run)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        Ok(work().map_err(self.error())?.into_iter().flatten().collect())
    }

    /// Ids of all runs that are not read again at a start.
    pub(crate) fn closed(&self) -> Result<Vec<RunId>, StoreError> {
        let work = || {
            let mut statement =
                self.connection.prepare("SELECT id FROM runs WHERE state <> 'open'")?;
            let rows = statement.query_map([], |row| Ok(RunId(row.get(0)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        work().map_err(self.error())
    }

    /// The mean duration of a variant's completed trials, over all runs of its sweep. Smoke launches are no
    /// trials of that length.
    pub(crate) fn mean_duration(
        &self,
        sweep: &Name,
        variant: &Name,
    ) -> Result<Option<Duration>, StoreError> {
        let text = "SELECT avg(t.seconds) FROM trials t JOIN runs r ON r.id = t.run
            WHERE t.variant = ?1 AND r.sweep = ?2 AND t.ending = 'completed' AND t.block > 0";
        let mean: Option<f64> = self
            .connection
            .query_row(text, params![variant.as_str(), sweep.as_str()], |row| row.get(0))
            .map_err(self.error())?;
        Ok(mean.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
    }
}

fn put_run(connection: &Connection, run: &IndexedRun) -> rusqlite::Result<()> {
    let text = "INSERT OR REPLACE INTO runs (id, sweep, state, priority, submitted, ended, planned)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let planned = i64::try_from(run.planned).unwrap_or(i64::MAX);
    connection.prepare_cached(text)?.execute(params![
        run.id.0,
        run.sweep.as_str(),
        run.state,
        run.priority,
        run.submitted,
        run.ended,
        planned
    ])?;
    Ok(())
}

fn put_trial(connection: &Connection, run: &RunId, trial: &IndexedTrial) -> rusqlite::Result<()> {
    let text = "INSERT OR REPLACE INTO trials (run, block, variant, ending, attempts, seconds)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    connection.prepare_cached(text)?.execute(params![
        run.0,
        trial.trial.block,
        trial.trial.variant.as_str(),
        trial.ending,
        trial.attempts,
        trial.seconds
    ])?;
    Ok(())
}

/// `None` for a row that this sweepd did not write.
fn read_run(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<IndexedRun>> {
    let Some(sweep) = Name::new(&row.get::<_, String>(1)?) else { return Ok(None) };
    let count = |column| row.get::<_, i64>(column).map(|n| u64::try_from(n).unwrap_or(0));
    Ok(Some(IndexedRun {
        id: RunId(row.get(0)?),
        sweep,
        state: row.get(2)?,
        priority: row.get(3)?,
        submitted: row.get(4)?,
        ended: row.get(5)?,
        planned: count(6)?,
        trials_ended: count(7)?,
        trials_completed: count(8)?,
    }))
}

/// The seconds between two times as they stand in outcomes.
pub(crate) fn seconds_between(started: &str, ended: &str) -> Option<f64> {
    let read = |text| humantime::parse_rfc3339(text).ok();
    let span = read(ended)?.duration_since(read(started)?).ok()?;
    Some(count_f64(u64::try_from(span.as_millis()).ok()?) / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn run(id: &str, state: &str) -> IndexedRun {
        IndexedRun {
            id: RunId(id.into()),
            sweep: name("night"),
            state: state.into(),
            priority: 0,
            submitted: Some("2026-11-25T19:00:00.000Z".into()),
            ended: None,
            planned: 4,
            trials_ended: 0,
            trials_completed: 0,
        }
    }

    fn trial(block: u32, ending: &str, seconds: f64) -> IndexedTrial {
        let trial = TrialId { block, variant: name("a") };
        IndexedTrial { trial, ending: ending.into(), attempts: 1, seconds: Some(seconds) }
    }

    fn open(path: &Path) -> (Index, Found) {
        Index::open(path).unwrap()
    }

    #[test]
    fn it_knows_whether_it_was_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sweepd.db");
        let (index, found) = open(&path);
        assert_eq!(found, Found::New);
        drop(index); // Died before it was filled.
        let (index, found) = open(&path);
        assert_eq!(found, Found::New);
        index.filled().unwrap();
        drop(index);
        let (index, found) = open(&path);
        assert_eq!(found, Found::Unclean);
        index.close().unwrap();
        assert_eq!(open(&path).1, Found::Clean);
    }

    #[test]
    fn a_newer_one_is_refused_and_a_damaged_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sweepd.db");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let before = std::fs::read(&path).unwrap();
        let error = Index::open(&path).unwrap_err();
        assert!(matches!(error, IndexError::TooNew { found: 99, .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        std::fs::write(&path, b"this is no database at all, but long enough to be looked at")
            .unwrap();
        let error = Index::open(&path).unwrap_err();
        assert!(matches!(error, IndexError::Damaged { .. }), "{error}");
    }

    #[test]
    fn durations_are_learned_from_completed_trials() {
        let dir = tempfile::tempdir().unwrap();
        let (mut index, _) = open(&dir.path().join("sweepd.db"));
        let trials = [trial(1, "completed", 10.0), trial(2, "completed", 20.0)];
        index.put(&run("r1", "ended"), &trials).unwrap();
        index.put(&run("r2", "open"), &[trial(1, "engine_failed", 1.0)]).unwrap();
        let mean = |variant| index.mean_duration(&name("night"), &name(variant)).unwrap();
        assert_eq!(mean("a"), Some(Duration::from_secs(15)));
        assert_eq!(mean("b"), None);
        assert_eq!(index.closed().unwrap(), [RunId("r1".into())]);
        let runs = index.runs(Some("ended"), 10).unwrap();
        assert_eq!((runs[0].trials_ended, runs[0].trials_completed), (2, 2));
        assert_eq!(index.runs(None, 10).unwrap().len(), 2);
    }
}
