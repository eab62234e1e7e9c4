//! Brings a user's connection up, sends its request, and says what it means when it goes. Edge.
//!
//! A connection is up when TCP has connected and, where the server is asked for by https, the TLS
//! handshake is through; the time of each is a field of its own.
//!
//! Invariant: no byte of a request is handed over before the connection is up.

use super::conn::{Conn, Shake, make_key};
use super::driver::{DriveError, Driver, now, system};
use super::users::{State, User};
use crate::run::record::RequestOutcome;
use crate::units::MonoNs;
use nix::errno::Errno;

/// How a connection went under a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lost<'a> {
    Closed,
    /// Closed, without the word that TLS has for it.
    Truncated,
    Failed(&'a str),
}

impl Driver {
    pub(super) fn connect(&mut self, id: u32, now: MonoNs) -> Result<(), DriveError> {
        let Some(user) = self.users.get_mut(usize::try_from(id).unwrap_or(usize::MAX)) else {
            return Ok(());
        };
        user.conn = None;
        user.generation = user.generation.wrapping_add(1);
        if let Some(flight) = user.flight() {
            flight.connected = false;
            flight.written = 0;
            // Read again: other users may have connected since this turn began.
            flight.began = super::driver::now()?;
        }
        match Conn::open(self.address, &self.epoll, make_key(id, user.generation)) {
            Ok(conn) => {
                user.conn = Some(conn);
                Ok(())
            }
            Err(error @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOSPC)) => {
                Err(system("open a connection")(error))
            }
            Err(error) => self.give_up(id, RequestOutcome::Refused, error.desc(), now),
        }
    }

    /// Something happened on a connection that is not up yet.
    pub(super) fn on_connecting(&mut self, id: u32) -> Result<(), DriveError> {
        let now = now()?;
        let Some(user) = self.users.get_mut(usize::try_from(id).unwrap_or(usize::MAX)) else {
            return Ok(());
        };
        let User { state: State::Flying(flight), conn: Some(conn), .. } = user else {
            return Ok(());
        };
        if !conn.is_tls() {
            if let Err(error) = conn.connect_result() {
                return self.give_up(id, RequestOutcome::Refused, error.desc(), now);
            }
            flight.last_byte = now;
            flight.stream.connected(now.since_ns(flight.began));
            let Some(setup) = &self.tls else {
                flight.connected = true;
                return self.write(id);
            };
            flight.began = now;
            if let Err(why) = conn.begin_tls(setup) {
                return self.no_handshake(id, &why, now);
            }
        }
        match conn.shake(&mut self.buffer) {
            Shake::GoesOn => Ok(()),
            Shake::Failed(why) => self.no_handshake(id, &why, now),
            Shake::Done => {
                // Read again: what was computed is part of the handshake.
                let now = super::driver::now()?;
                flight.connected = true;
                flight.last_byte = now;
                flight.stream.shook_hands(now.since_ns(flight.began));
                if self.protocol.is_none() {
                    self.protocol = conn.protocol();
                }
                self.write(id)
            }
        }
    }

    fn no_handshake(&mut self, id: u32, why: &str, now: MonoNs) -> Result<(), DriveError> {
        let why = format!("TLS handshake: {why}");
        self.give_up(id, RequestOutcome::TlsFailed, &why, now)
    }

    /// Writes as much as the socket takes.
    pub(super) fn write(&mut self, id: u32) -> Result<(), DriveError> {
        let at = now()?;
        let Some(user) = self.users.get_mut(usize::try_from(id).unwrap_or(usize::MAX)) else {
            return Ok(());
        };
        let first = !std::mem::replace(&mut user.has_sent, true);
        let User { state: State::Flying(flight), conn: Some(conn), .. } = user else {
            return Ok(());
        };
        if flight.written == 0 {
            flight.stream.sending(at);
            flight.last_byte = at;
        }
        let mut failed = conn.flush().is_err_and(|error| error != Errno::EAGAIN);
        while let Some(rest) = flight.request.bytes.get(flight.written..).filter(|r| !r.is_empty())
        {
            match conn.send(rest) {
                Ok(sent) => flight.written += sent,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(_) => {
                    // The server may have answered before it closed: reading tells.
                    failed = true;
                    break;
                }
            }
        }
        if first {
            self.not_yet_sent = self.not_yet_sent.saturating_sub(1);
            if self.not_yet_sent == 0 {
                self.full_at = Some(at);
            }
        }
        if failed { self.read(id, true) } else { Ok(()) }
    }

    /// The connection is gone under a request.
    pub(super) fn lost(&mut self, id: u32, how: Lost<'_>, now: MonoNs) -> Result<(), DriveError> {
        let Some(user) = self.users.get_mut(usize::try_from(id).unwrap_or(usize::MAX)) else {
            return Ok(());
        };
        let Some(flight) = user.flight() else { return Ok(()) };
        if flight.stream.may_retry() {
            flight.stream.race_lost();
            return self.connect(id, now);
        }
        match how {
            Lost::Closed => {
                flight.stream.on_eof(now, &self.classifier);
                self.finish(id, false, now)
            }
            Lost::Truncated => {
                let why = "the connection closed without TLS's close_notify: it may be cut off";
                self.give_up(id, RequestOutcome::Cut, why, now)
            }
            Lost::Failed(why) => self.give_up(id, RequestOutcome::Reset, why, now),
        }
    }
}
