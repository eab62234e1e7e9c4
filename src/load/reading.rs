//! Reads a user's connection: what came, and when. Edge.
//!
//! A read has one stamp, so events that wait in the socket together share it. As long as the
//! kernel has not merged their segments (on loopback: until the sender's copy is acknowledged,
//! some 40 ms), reading them one by one gives each its own stamp back. That costs a look ahead, so
//! it is done only while the loop is late and the stream's own pace says that more may be waiting.
//!
//! Invariant: bytes are taken in order, whatever way they are read.

use super::conn::Received;
use super::driver::{DriveError, Driver, now};
use super::link::Lost;
use super::stream::Read;
use super::users::{State, User};

/// A read so long after the arrival says that the loop is late.
pub(super) const LATE_NS: i64 = 3_000_000;

impl Driver {
    /// Reads until the socket is empty; `closing`: until its end.
    pub(super) fn read(&mut self, id: u32, closing: bool) -> Result<(), DriveError> {
        let mut pieces = self.pieces(id, closing)?.into_iter();
        loop {
            let began = now()?;
            let most = pieces.next().unwrap_or(self.buffer.bytes.len());
            let Some(user) = self.users.get_mut(usize::try_from(id).unwrap_or(usize::MAX)) else {
                return Ok(());
            };
            let User { state: State::Flying(flight), conn: Some(conn), .. } = user else {
                return Ok(());
            };
            match conn.receive(&mut self.buffer, most) {
                Received::Bytes { length, stamp_realtime_ns, drained } => {
                    let earliest = flight.stream.earliest_answer();
                    let placed = match stamp_realtime_ns {
                        // Nearly always the stamp lies before the read, and one clock is enough.
                        Some(stamp) => match self.offset.place(stamp, earliest, began) {
                            Some(at) if at < began => Some(at),
                            _ => self.offset.place(stamp, earliest, now()?),
                        },
                        None => None,
                    };
                    self.stamped_reads += u64::from(stamp_realtime_ns.is_some());
                    let at = match placed {
                        Some(at) => at,
                        None => now()?,
                    };
                    // A loop that was stopped while it waited shows only in this.
                    let lag = began.since_ns(at);
                    self.late |= lag > LATE_NS;
                    self.lags.add(lag);
                    self.cost.max_turn_gap_ns = self.cost.max_turn_gap_ns.max(lag);
                    let bytes = self.buffer.bytes.get(..length).unwrap_or_default();
                    let read = Read { bytes, began, at, from_kernel: placed.is_some(), drained };
                    let progress = flight.stream.on_read(&read, &self.classifier);
                    let whole = flight.written >= flight.request.bytes.len();
                    if length > 0 {
                        flight.last_byte = began;
                        self.watch.got_bytes(began);
                    }
                    self.cost.reads += 1;
                    self.cost.coalesced_reads += u64::from(progress.events > 1);
                    self.tick.chunks += u64::from(progress.chunks);
                    if progress.ended {
                        return self.finish(id, whole && !closing, began);
                    }
                    if drained && !closing {
                        return Ok(());
                    }
                }
                Received::Empty if closing => {
                    // The other side will send no more, or sending failed, yet there is no end
                    // to read: nothing more can come of it.
                    return self.lost(id, Lost::Failed("sending failed"), began);
                }
                Received::Empty => {
                    flight.stream.found_empty(began);
                    return Ok(());
                }
                Received::Eof => return self.lost(id, Lost::Closed, began),
                Received::Truncated => return self.lost(id, Lost::Truncated, began),
                Received::Broken(why) => {
                    return self.lost(id, Lost::Failed(&format!("TLS: {why}")), began);
                }
                Received::Failed(error) => {
                    return self.lost(id, Lost::Failed(error.desc()), began);
                }
            }
        }
    }

    /// How much to take at a time; empty: whatever there is.
    fn pieces(&mut self, id: u32, closing: bool) -> Result<Vec<usize>, DriveError> {
        if !self.late || closing {
            return Ok(Vec::new());
        }
        let now = now()?;
        let Some(user) = self.users.get(usize::try_from(id).unwrap_or(usize::MAX)) else {
            return Ok(Vec::new());
        };
        let (State::Flying(flight), Some(conn)) = (&user.state, &user.conn) else {
            return Ok(Vec::new());
        };
        if !flight.stream.may_hold_several(now) {
            return Ok(Vec::new());
        }
        Ok(conn.pieces(&mut self.buffer))
    }
}
