//! The engine's two pipes: cut into lines, written to the log, matched against the rules.
//!
//! Reading never waits for anything else, so the engine never blocks on a full pipe. Secrets are
//! hidden before a line is written, matched or reported.

use super::message::{GuardEvent, GuardSpec};
use super::voice::Voice;
use crate::engine::rules::rule::LogPhase;
use crate::engine::rules::scan::{Hit, Scanner};
use crate::run::outcome::EvidenceLine;
use crate::secrets;
use crate::supervise::log::{BoundedLog, LineCutter};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ChildStderr, ChildStdout};
use std::time::Instant;

pub(super) struct Output {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    cutters: [LineCutter; 2],
    pub(super) log: BoundedLog,
    scanner: Scanner,
    started: Instant,
}

impl Output {
    pub(super) fn new(spec: &GuardSpec, child: &mut Child, started: Instant) -> io::Result<Self> {
        let log = BoundedLog::create(&spec.log, spec.log_head_bytes, spec.log_tail_bytes)
            .or_else(|_| BoundedLog::create("/dev/null".as_ref(), 0, 0))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let pipes = [stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
        for pipe in pipes.into_iter().flatten() {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self {
            stdout,
            stderr,
            cutters: [LineCutter::default(), LineCutter::default()],
            log,
            scanner: Scanner::new(spec.scan.clone(), LogPhase::Starting),
            started,
        })
    }

    pub(super) fn pipes(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [self.stdout.as_ref().map(AsFd::as_fd), self.stderr.as_ref().map(AsFd::as_fd)]
    }

    /// Takes what is there.
    pub(super) fn read(&mut self, voice: &mut Voice) {
        let mut out = self.stdout.take();
        let mut err = self.stderr.take();
        if !drain(&mut out, |bytes| self.take_bytes(0, bytes, voice)) {
            out = None;
        }
        if !drain(&mut err, |bytes| self.take_bytes(1, bytes, voice)) {
            err = None;
        }
        (self.stdout, self.stderr) = (out, err);
    }

    /// The last lines, which need no newline, and the file as one.
    pub(super) fn finish(&mut self, voice: &mut Voice) {
        for source in 0..self.cutters.len() {
            if let Some(rest) = self.cutters.get_mut(source).and_then(LineCutter::rest) {
                self.take_line(source, &rest, voice);
            }
        }
        tell(self.scanner.finish(), voice);
        self.log.finish();
    }

    fn take_bytes(&mut self, source: usize, bytes: &[u8], voice: &mut Voice) {
        let mut lines = Vec::new();
        if let Some(cutter) = self.cutters.get_mut(source) {
            cutter.feed(bytes, |line| lines.push(line));
        }
        for line in lines {
            self.take_line(source, &line, voice);
        }
    }

    fn take_line(&mut self, source: usize, text: &str, voice: &mut Voice) {
        let text = secrets::redacted(text);
        let elapsed = self.started.elapsed().as_secs_f64();
        let name = if source == 0 { "out" } else { "err" };
        let number = self.log.line(&format!("[{elapsed:10.3} {name}] "), &text);
        let hits = self.scanner.read(number, &text);
        tell(hits, voice);
    }

    pub(super) fn tail(&self) -> Vec<EvidenceLine> {
        let line = |(line, text): &(u64, String)| EvidenceLine { line: *line, text: text.clone() };
        self.log.recent().map(line).collect()
    }
}

fn tell(hits: Vec<Hit>, voice: &mut Voice) {
    for (rule, EvidenceLine { line, text }) in hits {
        voice.say(&GuardEvent::Matched { rule, line, text });
    }
}

/// Reads what is there, up to a bound so that a flood cannot starve the rest. False at the end.
fn drain(source: &mut Option<impl Read>, mut take: impl FnMut(&[u8])) -> bool {
    let Some(reader) = source else { return false };
    let mut buffer = [0; 64 * 1024];
    for _ in 0..16 {
        match reader.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => take(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}
