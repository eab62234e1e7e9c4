//! The guard's socket to sweepd: what it says, and the orders that come in pieces.

use super::message::{GuardEvent, GuardOrder};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// The way to sweepd. Gone is gone: writing to a dead supervisor is not an error.
pub(super) struct Voice {
    pub(super) socket: Option<UnixStream>,
}

impl Voice {
    pub(super) fn say(&mut self, event: &GuardEvent) {
        let Some(socket) = &mut self.socket else { return };
        let sent = serde_json::to_string(event)
            .map_err(io::Error::from)
            .and_then(|line| socket.write_all(format!("{line}\n").as_bytes()));
        if sent.is_err() {
            self.socket = None;
        }
    }
}

/// What came from sweepd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Order(GuardOrder),
    /// End of file: sweepd is gone.
    Nobody,
}

/// Lines from sweepd that came in pieces.
pub(super) struct Orders {
    pub(super) pending: Vec<u8>,
}

impl Orders {
    /// What is new on the socket.
    pub(super) fn read(&mut self, mut socket: &UnixStream) -> Vec<Heard> {
        let mut buffer = [0; 512];
        let mut heard = Vec::new();
        match socket.read(&mut buffer) {
            Ok(0) => heard.push(Heard::Nobody),
            Ok(count) => self.pending.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => heard.push(Heard::Nobody),
        }
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            // An order that cannot be read is a broken supervisor: everything ends.
            heard.push(Heard::Order(serde_json::from_slice(&line).unwrap_or(GuardOrder::Kill)));
        }
        heard
    }
}
