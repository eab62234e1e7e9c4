//! When a chunk arrived, as far as one stamp for each read can tell. Pure.
//!
//! The stamp of a read is that of the newest segment it touched, and where the kernel has merged
//! segments, of the newest of those. So of the events of a read only the last can call the stamp
//! its own, only if nothing but line ends followed it, and only until a later read goes on under
//! the same stamp: then that was one segment to the kernel, and the stamp is a later event's.
//!
//! Invariant: the truth lies within a chunk's bounds.

use super::asked::Read;
use crate::run::record::Chunk;
use crate::units::MonoNs;

/// What one read brought to a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brought {
    /// The index of its first chunk.
    pub(super) first: usize,
    pub(super) events: u32,
    /// Its last event was a chunk, and only line ends followed.
    pub(super) ends_with_chunk: bool,
}

/// What is known of a socket's earlier reads.
#[derive(Debug)]
pub(super) struct Censor {
    /// Nothing that is still unread can have arrived before.
    floor: MonoNs,
    /// The stamp of the last read, if that left something behind.
    goes_on_from: Option<MonoNs>,
    /// The chunk that calls this stamp its own.
    owner: Option<usize>,
}

impl Censor {
    pub(super) const fn new(since: MonoNs) -> Self {
        Self { floor: since, goes_on_from: None, owner: None }
    }

    /// The socket was seen to hold nothing.
    pub(super) const fn saw_empty(&mut self, at: MonoNs) {
        *self = Self::new(at);
    }

    /// No byte that comes from now on can have arrived before.
    pub(super) const fn floor(&self) -> MonoNs {
        self.floor
    }

    /// Sets the bounds of the chunks that a read brought.
    pub(super) fn place(&mut self, chunks: &mut [Chunk], brought: Brought, read: &Read<'_>) {
        match self.goes_on_from {
            // Segments come in order, so this one is newer than the one before.
            Some(before) if before != read.at => {
                self.floor = self.floor.max(before);
                self.owner = None;
            }
            Some(_) if brought.events > 0 => {
                if let Some(chunk) = self.owner.take().and_then(|index| chunks.get_mut(index)) {
                    chunk.earliest = self.floor.min(chunk.at);
                }
            }
            Some(_) | None => {}
        }
        let owner = chunks.len().checked_sub(1).filter(|_| brought.ends_with_chunk);
        for (index, chunk) in chunks.iter_mut().enumerate().skip(brought.first) {
            if Some(index) != owner {
                chunk.earliest = self.floor.min(chunk.at);
            }
        }
        if brought.events > 0 {
            self.owner = owner;
        }
        if read.drained {
            self.saw_empty(read.began);
        } else {
            self.goes_on_from = Some(read.at);
        }
    }
}

/// How much to read at a time so that each event but the last has a read of its own: the ends of
/// those events, with the line end that a chunked body puts behind each.
pub(super) fn pieces(bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    let (mut from, mut at) = (0, 0);
    while let Some(found) = memchr::memchr(b'\n', bytes.get(at..).unwrap_or_default()) {
        at += found + 1;
        let blank = match bytes.get(at..).unwrap_or_default() {
            [b'\n', b'\r', b'\n', ..] => 3,
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            _ => continue,
        };
        at += blank;
        lengths.push(at - from);
        from = at;
    }
    // What is behind the last cut is read as it comes.
    lengths.pop();
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_apart_with_their_framing() {
        for (bytes, want) in [
            ("", &[] as &[usize]),
            ("data: a", &[]),
            ("data: a\n\n", &[]),
            ("data: a\n\ndata: b\n\n", &[9]),
            ("data: a\n\ndata: b\n\ndata", &[9]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", &[11]),
            ("9\r\ndata: a\n\n\r\n9\r\ndata: b\n\n\r\n9\r\ndata: c\n\n\r\n", &[14, 14]),
            // The head ends as events do, and may be cut off like one.
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n9\r\ndata: a\n\n\r\n", &[25]),
        ] {
            assert_eq!(pieces(bytes.as_bytes()), want, "{bytes:?}");
        }
    }
}
