//! An engine's log: bounded in size, head and tail kept, every line seen once as it passes.
//!
//! Writing never fails outwards: an engine must not die or block because the disk is full. What
//! could not be written is counted. While the engine runs, the tail lies in two segment files that
//! replace each other; `finish` joins them to the head.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Longest line kept; the rest of a longer one is cut with a mark.
const LINE_CAP: usize = 16 * 1024;

/// Cuts a byte stream into lines: `\n` ends one; a `\r` not followed by `\n` starts it over, as a
/// progress bar does on a terminal.
#[derive(Debug, Default)]
pub(crate) struct LineCutter {
    line: Vec<u8>,
    cut_bytes: usize,
    after_return: bool,
}

impl LineCutter {
    pub(crate) fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(String)) {
        for &byte in bytes {
            if byte == b'\n' {
                self.after_return = false;
                take(self.end());
                continue;
            }
            if self.after_return {
                self.after_return = false;
                self.line.clear();
                self.cut_bytes = 0;
            }
            match byte {
                b'\r' => self.after_return = true,
                _ if self.line.len() < LINE_CAP => self.line.push(byte),
                _ => self.cut_bytes += 1,
            }
        }
    }

    /// The unfinished last line, if there is one.
    pub(crate) fn rest(&mut self) -> Option<String> {
        (!self.line.is_empty()).then(|| self.end())
    }

    fn end(&mut self) -> String {
        let mut text = String::from_utf8_lossy(&self.line).into_owned();
        if self.cut_bytes > 0 {
            text.push_str(&format!(" [{} bytes cut]", self.cut_bytes));
        }
        self.line.clear();
        self.cut_bytes = 0;
        text
    }
}

/// The file with its limits.
#[derive(Debug)]
pub(crate) struct BoundedLog {
    path: PathBuf,
    head: File,
    head_left: u64,
    segment: Option<File>,
    segment_bytes: u64,
    segment_cap: u64,
    old_bytes: u64,
    pub(crate) elided_bytes: u64,
    pub(crate) lost_bytes: u64,
    pub(crate) lines: u64,
    recent: VecDeque<(u64, String)>,
}

/// How many of the last lines are kept in memory as evidence.
const RECENT: usize = 12;

impl BoundedLog {
    pub(crate) fn create(path: &Path, head_bytes: u64, tail_bytes: u64) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            head: File::create(path)?,
            head_left: head_bytes,
            segment: None,
            segment_bytes: 0,
            segment_cap: (tail_bytes / 2).max(1),
            old_bytes: 0,
            elided_bytes: 0,
            lost_bytes: 0,
            lines: 0,
            recent: VecDeque::new(),
        })
    }

    /// Writes one line with its prefix and returns its number, from 1.
    pub(crate) fn line(&mut self, prefix: &str, text: &str) -> u64 {
        self.lines += 1;
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((self.lines, text.to_owned()));
        let whole = format!("{prefix}{text}\n");
        let bytes = whole.len() as u64;
        if bytes <= self.head_left {
            self.head_left -= bytes;
            if self.head.write_all(whole.as_bytes()).is_err() {
                self.lost_bytes += bytes;
            }
        } else {
            self.head_left = 0;
            self.tail(whole.as_bytes());
        }
        self.lines
    }

    pub(crate) fn recent(&self) -> impl Iterator<Item = &(u64, String)> {
        self.recent.iter()
    }

    fn tail(&mut self, bytes: &[u8]) {
        if self.segment_bytes >= self.segment_cap || self.segment.is_none() {
            self.next_segment();
        }
        let written = self.segment.as_mut().is_some_and(|file| file.write_all(bytes).is_ok());
        if written {
            self.segment_bytes += bytes.len() as u64;
        } else {
            self.lost_bytes += bytes.len() as u64;
        }
    }

    fn next_segment(&mut self) {
        if self.segment.take().is_some() {
            // The older segment is replaced: what it held is elided.
            self.elided_bytes += self.old_bytes;
            self.old_bytes = 0;
            if fs::rename(self.segment_path("new"), self.segment_path("old")).is_ok() {
                self.old_bytes = self.segment_bytes;
            }
        }
        self.segment_bytes = 0;
        self.segment = File::create(self.segment_path("new")).ok();
    }

    fn segment_path(&self, which: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{which}"));
        PathBuf::from(name)
    }

    /// Joins head and tail into the one file.
    pub(crate) fn finish(&mut self) {
        if self.segment.take().is_some() {
            if self.elided_bytes > 0 {
                let mark = format!("[... {} bytes elided ...]\n", self.elided_bytes);
                self.append(mark.as_bytes());
            }
            for which in ["old", "new"] {
                if let Ok(bytes) = fs::read(self.segment_path(which)) {
                    self.append(&bytes);
                    // A leftover segment loses nothing: the join has succeeded.
                    fs::remove_file(self.segment_path(which)).ok();
                }
            }
        }
        // What a failed write lost was counted there.
        self.head.sync_all().ok();
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.head.write_all(bytes).is_err() {
            self.lost_bytes += bytes.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stream: &str, lines: &[&str]) {
        for cut in 0..=stream.len() {
            let (head, tail) = stream.as_bytes().split_at(cut);
            let (mut cutter, mut got) = (LineCutter::default(), Vec::new());
            cutter.feed(head, |line| got.push(line));
            cutter.feed(tail, |line| got.push(line));
            got.extend(cutter.rest());
            assert_eq!(got, lines, "split at byte {cut}");
        }
    }

    #[test]
    fn lines_end_at_newlines_and_progress_bars_collapse() {
        check("a\nb\r\nc", &["a", "b", "c"]);
        check("10%\r50%\r100%\nend\n", &["100%", "end"]);
        check("\n\n", &["", ""]);
    }

    #[test]
    fn a_long_line_is_cut_and_says_so() {
        let (mut cutter, mut got) = (LineCutter::default(), Vec::new());
        cutter.feed(&vec![b'x'; LINE_CAP + 5], |line| got.push(line));
        cutter.feed(b"\n", |line| got.push(line));
        assert!(got[0].ends_with(" [5 bytes cut]"));
    }

    #[test]
    fn head_and_tail_are_kept_and_the_middle_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.log");
        let mut log = BoundedLog::create(&path, 40, 40).unwrap();
        for n in 0..100 {
            log.line("", &format!("line {n:03}"));
        }
        log.finish();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("line 000\n"), "{text}");
        assert!(text.ends_with("line 099\n"), "{text}");
        assert!(text.contains("bytes elided"), "{text}");
        assert!(text.len() < 160, "{text}");
        let kept = text.lines().filter(|l| l.starts_with("line")).count() as u64;
        assert_eq!(kept * 9 + log.elided_bytes, 900, "every byte is kept or counted: {text}");
        assert_eq!(log.lines, 100);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_is_counted_and_not_fatal() {
        let mut log = BoundedLog::create(Path::new("/dev/full"), 1 << 20, 1 << 20).unwrap();
        assert_eq!(log.line("", "lost"), 1);
        assert_eq!(log.lost_bytes, 5);
    }
}
