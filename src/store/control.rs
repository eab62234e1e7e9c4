//! `control.jsonl`: what was decided about a run, one fsynced line each, in order.
//!
//! A line that ends in a newline counts; what a crash left behind the last newline was never
//! acknowledged and is dropped by the next writer. A line of a newer format is refused.
//!
//! Invariant: lines are only added.

use super::files::{self, StoreError};
use crate::clock;
use crate::ids::{Name, TrialId};
use crate::run::FORMAT;
use crate::secrets;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// One decision, when it was made and by whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ControlLine {
    pub(crate) format: u32,
    /// RFC 3339, UTC.
    pub(crate) at: String,
    #[serde(flatten)]
    pub(crate) change: Change,
}

/// Who decided it, as the kernel knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct By {
    /// Absent for one who came over TCP with the token.
    pub(crate) uid: Option<u32>,
    pub(crate) pid: Option<i32>,
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.uid, self.pid) {
            (Some(uid), Some(pid)) => write!(f, "uid {uid} (pid {pid})"),
            (Some(uid), None) => write!(f, "uid {uid}"),
            (None, _) => f.write_str("a holder of the token"),
        }
    }
}

/// A trial and the last attempt that had been made when it was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Retrial {
    #[serde(flatten)]
    pub(crate) trial: TrialId,
    pub(crate) after_attempt: u32,
}

/// When a run may, must or should be worked on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Schedule {
    /// The highest first.
    pub(crate) priority: i32,
    /// Among runs of one priority the lowest first: when it was submitted, unless it was moved.
    pub(crate) rank: f64,
    /// RFC 3339, UTC.
    pub(crate) not_before: Option<String>,
    pub(crate) finish_by: Option<String>,
}

/// What was decided, about a run or, in the daemon's own file, about the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub(crate) enum Change {
    Submitted {
        by: By,
        schedule: Schedule,
    },
    Moved {
        by: By,
        schedule: Schedule,
    },
    Paused {
        by: By,
    },
    Continued {
        by: By,
    },
    /// No new runs are taken.
    Drained {
        by: By,
    },
    /// One trial, or all that have not ended.
    Cancelled {
        by: By,
        trial: Option<TrialId>,
    },
    /// Ended trials are to be run again.
    Retried {
        by: By,
        trials: Vec<Retrial>,
    },
    /// What was left out, and why; its trials are skipped.
    LeftOut {
        reason: String,
    },
    /// Every trial has ended and the last report is made.
    Ended {},
    /// Work began, with these versions of the variants' engines.
    Began {
        sweepd: String,
        versions: BTreeMap<Name, String>,
    },
    /// Work went on after sweepd had ended in between.
    Resumed {
        sweepd: String,
        versions: BTreeMap<Name, String>,
        interrupted: u32,
    },
}

/// Adds a line; when this returns, it is on the disk.
pub(crate) fn append(path: &Path, change: Change) -> Result<ControlLine, StoreError> {
    let line = ControlLine { format: FORMAT, at: clock::wall_time(), change };
    let text = serde_json::to_vec(&line).map_err(|error| StoreError::damaged(path, error))?;
    let mut text = secrets::redacted_bytes(&text).into_owned();
    text.push(b'\n');
    let is_new = !path.exists();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(StoreError::io("open", path))?;
    let end = whole_length(&mut file).map_err(StoreError::io("read", path))?;
    let written = write_at(&mut file, end, &text);
    if written.is_err() {
        // A full disk: the line was not acknowledged, so none of it may stay.
        file.set_len(end).ok();
    }
    written.map_err(StoreError::io("write", path))?;
    if is_new && let Some(folder) = path.parent() {
        files::sync_folder(folder)?;
    }
    Ok(line)
}

fn write_at(file: &mut File, end: u64, text: &[u8]) -> std::io::Result<()> {
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    file.write_all(text)?;
    file.sync_all()
}

/// Up to and with the last newline.
fn whole_length(file: &mut File) -> std::io::Result<u64> {
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    Ok(whole as u64)
}

/// Every line, in order; none where there is no file.
pub(crate) fn read(path: &Path) -> Result<Vec<ControlLine>, StoreError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    let whole = text.rfind('\n').map_or("", |newline| &text[..newline]);
    whole.lines().enumerate().map(|(index, line)| parse(path, index + 1, line)).collect()
}

fn parse(path: &Path, number: usize, line: &str) -> Result<ControlLine, StoreError> {
    let damaged =
        |error: serde_json::Error| StoreError::damaged(path, format!("line {number}: {error}"));
    let value: serde_json::Value = serde_json::from_str(line).map_err(damaged)?;
    files::check_format(path, value.get("format").and_then(serde_json::Value::as_u64))?;
    serde_json::from_value(value).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(interrupted: u32) -> Change {
        Change::Resumed { sweepd: "1".into(), versions: BTreeMap::new(), interrupted }
    }

    #[test]
    fn lines_come_back_in_order_and_a_torn_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.jsonl");
        assert!(read(&path).unwrap().is_empty());
        append(&path, change(1)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        // Killed at any byte of the second line: the first stays, the next append is whole.
        append(&path, change(2)).unwrap();
        let both = std::fs::read(&path).unwrap();
        for cut in whole.len()..both.len() {
            std::fs::write(&path, &both[..cut]).unwrap();
            assert_eq!(read(&path).unwrap().len(), 1, "cut at {cut}");
            append(&path, change(3)).unwrap();
            let changes: Vec<_> = read(&path).unwrap().into_iter().map(|l| l.change).collect();
            assert_eq!(changes, [change(1), change(3)], "cut at {cut}");
        }
    }

    #[test]
    fn a_newer_line_is_refused_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.jsonl");
        std::fs::write(&path, "{\"format\": 99, \"at\": \"\", \"change\": \"odd\"}\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("format 99"));
        append(&path, change(1)).unwrap();
        assert!(read(&path).is_err(), "what was there is not overwritten");
        std::fs::write(&path, "\n{}\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("line 1"));
    }
}
