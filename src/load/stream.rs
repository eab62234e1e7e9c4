//! One request's life, from its sending to its record.
//!
//! Pure: bytes and times come in, a record grows. It opens nothing and reads no clock.
//!
//! When is a stream whole? `[DONE]` is always enough. A finish reason is enough if the body then
//! ended properly; an end by closing the connection proves nothing to a server that promises
//! `[DONE]`, so there the marker is needed. Everything else that ends early is `Cut` or `Reset`.
//!
//! Invariant: every chunk of a read gets its bounds before the next read is looked at (`censor`).

pub(crate) use super::asked::{Asked, Progress, Read};
use super::censor::{Brought, Censor};
use super::event::{Classifier, Event, Facts};
use super::http::{self, BodyDecoder, Framing, Piece};
use super::sse::SseParser;
use crate::run::record::{Chunk, RequestOutcome, RequestRecord};
use crate::units::MonoNs;

/// As much of a server's words as goes into a record.
const MAX_SAID: usize = 300;
/// Bodies of errors are read to their end, so that the connection can be used again, up to this.
const MAX_TEXT_BODY: u64 = 1024 * 1024;
/// Room for chunks made ahead at most.
const MAX_RESERVED: u32 = 16 * 1024;

#[derive(Debug)]
enum State {
    /// The head so far.
    Head(Vec<u8>),
    Events {
        decoder: BodyDecoder,
        sse: SseParser,
    },
    /// A body that is no event stream: kept for the reader, up to a bound.
    Text {
        decoder: BodyDecoder,
        said: Vec<u8>,
    },
    Ended,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Stream {
    record: RequestRecord,
    state: State,
    censor: Censor,
    events: u32,
    /// The last event was a chunk.
    ends_with_chunk: bool,
    done: bool,
    done_marker: bool,
    said: Option<String>,
    /// Only the closing of the connection ends the body.
    until_close: bool,
    keep_alive: bool,
}

impl Stream {
    pub(crate) fn new(asked: &Asked) -> Self {
        let room = asked.output_tokens.saturating_add(2).min(MAX_RESERVED);
        Self {
            record: RequestRecord {
                index: asked.index,
                user: asked.user,
                turn: asked.turn,
                scheduled: asked.scheduled,
                connect_ns: None,
                tls_ns: None,
                sent: None,
                first_byte: None,
                first_text_chunk: None,
                chunks: Vec::with_capacity(usize::try_from(room).unwrap_or(0)),
                end: asked.scheduled,
                outcome: RequestOutcome::Cancelled,
                http_status: None,
                error: None,
                finish_reason: None,
                prompt_tokens_asked: asked.prompt_tokens,
                prompt_tokens_expected: asked.prompt_tokens_expected,
                prompt_tokens_reported: None,
                cached_tokens_reported: None,
                cached_tokens_meant: None,
                output_tokens_asked: asked.output_tokens,
                output_tokens_reported: None,
                body_bytes: 0,
                reused_connection: false,
                tls: false,
                reuse_race: false,
                clock_step: false,
                user_space_stamps: 0,
                dataset_entry: None,
                class: None,
            },
            state: State::Head(Vec::new()),
            censor: Censor::new(asked.scheduled),
            events: 0,
            ends_with_chunk: false,
            done: false,
            done_marker: asked.done_marker,
            said: asked.keeps_text.then(String::new),
            until_close: false,
            keep_alive: false,
        }
    }

    pub(crate) fn connected(&mut self, connect_ns: i64) {
        self.record.connect_ns = Some(connect_ns);
    }

    /// The connection is one with TLS: times are those of whole records.
    pub(crate) fn under_tls(&mut self) {
        self.record.tls = true;
    }

    pub(crate) fn shook_hands(&mut self, tls_ns: i64) {
        self.record.tls_ns = Some(tls_ns);
    }

    pub(crate) fn on_reused_connection(&mut self) {
        self.record.reused_connection = true;
    }

    /// The first byte is about to be written: an answer cannot have come before.
    pub(crate) fn sending(&mut self, at: MonoNs) {
        self.record.sent = Some(at);
        self.censor.saw_empty(at);
    }

    /// A read found nothing.
    pub(crate) const fn found_empty(&mut self, at: MonoNs) {
        self.censor.saw_empty(at);
    }

    /// At its pace so far, more than one chunk may have arrived by now.
    pub(crate) fn may_hold_several(&self, now: MonoNs) -> bool {
        match self.record.chunks.as_slice() {
            [.., before, last] if !before.is_censored() && !last.is_censored() => {
                now.since_ns(last.at) > last.at.since_ns(before.at) / 2 * 3
            }
            _ => true,
        }
    }

    /// The reused connection was closed before any response byte: it is sent once more.
    pub(crate) fn race_lost(&mut self) {
        self.record.reuse_race = true;
        self.record.reused_connection = false;
        self.record.sent = None;
    }

    pub(crate) fn clock_stepped(&mut self) {
        self.record.clock_step = true;
    }

    pub(crate) fn may_retry(&self) -> bool {
        self.record.reused_connection && !self.record.reuse_race && self.record.first_byte.is_none()
    }

    pub(crate) const fn got_bytes(&self) -> bool {
        self.record.first_byte.is_some()
    }

    /// No byte of the answer can have arrived before this.
    pub(crate) fn earliest_answer(&self) -> MonoNs {
        self.record.sent.unwrap_or(self.record.scheduled)
    }

    /// The connection may carry another request. Asked after the end.
    pub(crate) const fn leaves_connection_usable(&self) -> bool {
        self.keep_alive
    }

    /// What the answer said, if that was wanted; once ended.
    pub(crate) fn take_text(&mut self) -> Option<String> {
        self.said.take()
    }

    /// The record, once ended.
    pub(crate) fn into_record(self) -> RequestRecord {
        self.record
    }

    pub(crate) fn on_read(&mut self, read: &Read<'_>, classifier: &Classifier) -> Progress {
        if self.record.first_byte.is_none() && !read.bytes.is_empty() {
            self.record.first_byte = Some(read.at);
        }
        let first_new = self.record.chunks.len();
        let events_before = self.events;
        let tail = self.consume(read, classifier);
        let events = self.events - events_before;
        let chunks = self.record.chunks.len().saturating_sub(first_new);
        if !read.from_kernel {
            let count = u32::try_from(chunks).unwrap_or(u32::MAX);
            self.record.user_space_stamps = self.record.user_space_stamps.saturating_add(count);
        }
        let only_line_ends = tail.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        let ends_with_chunk = events > 0 && self.ends_with_chunk && only_line_ends;
        let brought = Brought { first: first_new, events, ends_with_chunk };
        self.censor.place(&mut self.record.chunks, brought, read);
        Progress {
            events,
            chunks: u32::try_from(chunks).unwrap_or(u32::MAX),
            ended: matches!(self.state, State::Ended),
        }
    }

    /// Takes all bytes in; what followed the end of the last event.
    fn consume<'a>(&mut self, read: &Read<'a>, classifier: &Classifier) -> &'a [u8] {
        let mut input = read.bytes;
        let mut tail = read.bytes;
        while !matches!(self.state, State::Ended) {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Head(head) => match self.on_head(head, input, read.at) {
                    Some(rest) => input = rest,
                    None => break,
                },
                State::Events { mut decoder, mut sse } => {
                    let (used, piece) = match decoder.next(input) {
                        Ok(step) => step,
                        Err(error) => {
                            self.fail(RequestOutcome::Malformed, &error.to_string(), read.at);
                            break;
                        }
                    };
                    input = input.get(used..).unwrap_or_default();
                    let ended = match piece {
                        Piece::Data(data) => self
                            .on_event_bytes(data, input, &mut tail, &mut sse, read.at, classifier),
                        Piece::End => {
                            self.on_clean_end(&mut sse, input.is_empty(), read.at, classifier);
                            true
                        }
                        Piece::NeedMore => {
                            self.state = State::Events { decoder, sse };
                            break;
                        }
                    };
                    if !ended {
                        self.state = State::Events { decoder, sse };
                    }
                }
                State::Text { decoder, said } => {
                    self.on_text(decoder, said, input, read.at);
                    break;
                }
                State::Ended => break,
            }
        }
        tail
    }

    /// Head bytes; what follows the head once it is whole.
    fn on_head<'a>(&mut self, mut kept: Vec<u8>, input: &'a [u8], at: MonoNs) -> Option<&'a [u8]> {
        let kept_before = kept.len();
        // Nearly always the head comes in one read and is parsed where it lies.
        let parsed = if kept.is_empty() {
            http::parse_head(input)
        } else {
            kept.extend_from_slice(input);
            http::parse_head(&kept)
        };
        let (head, length) = match parsed {
            Ok(Some(found)) => found,
            Ok(None) => {
                if kept_before == 0 {
                    kept.extend_from_slice(input);
                }
                self.state = State::Head(kept);
                return None;
            }
            Err(error) => {
                self.fail(RequestOutcome::Malformed, &error.to_string(), at);
                return None;
            }
        };
        self.record.http_status = Some(head.status);
        self.keep_alive = head.keep_alive;
        self.until_close = head.framing == Framing::UntilClose;
        let decoder = BodyDecoder::new(head.framing);
        self.state = if head.status == 200 && head.event_stream {
            State::Events { decoder, sse: SseParser::default() }
        } else {
            State::Text { decoder, said: Vec::new() }
        };
        input.get(length - kept_before..)
    }

    /// Bytes of events; whether the stream is over.
    fn on_event_bytes<'a>(
        &mut self,
        data: &[u8],
        after: &'a [u8],
        tail: &mut &'a [u8],
        sse: &mut SseParser,
        at: MonoNs,
        classifier: &Classifier,
    ) -> bool {
        self.record.body_bytes += data.len() as u64;
        let mut rest = data;
        while !rest.is_empty() {
            let step = match sse.next(rest) {
                Ok(step) => step,
                Err(error) => {
                    self.fail(RequestOutcome::Malformed, &error.to_string(), at);
                    return true;
                }
            };
            rest = rest.get(step.used..).unwrap_or_default();
            if let Some(event) = step.data {
                // Bytes of the body behind the event, or else of the framing, count as its tail.
                *tail = if rest.is_empty() { after } else { b"more" };
                if self.on_event(event, at, classifier) {
                    return true;
                }
            }
        }
        false
    }

    /// One event; whether it ends the request.
    fn on_event(&mut self, data: &[u8], at: MonoNs, classifier: &Classifier) -> bool {
        let nth = self.events;
        self.events = nth.saturating_add(1);
        let chunks = self.record.chunks.len();
        let text_seen = self.record.first_text_chunk.is_some();
        match classifier.classify(data, nth, text_seen, self.said.is_some()) {
            Ok(Event::Plain) => self.push_chunk(at),
            Ok(Event::Done) => self.done = true,
            Ok(Event::Parsed(facts)) => self.on_facts(facts, at),
            Ok(Event::Error(said)) => {
                self.fail(RequestOutcome::ErrorEvent, &said, at);
                return true;
            }
            Err(error) => {
                let shown = String::from_utf8_lossy(data.get(..80).unwrap_or(data)).into_owned();
                self.fail(RequestOutcome::Malformed, &format!("{error}: {shown}"), at);
                return true;
            }
        }
        self.ends_with_chunk = self.record.chunks.len() > chunks;
        false
    }

    fn on_facts(&mut self, facts: Facts, at: MonoNs) {
        if facts.has_text && self.record.first_text_chunk.is_none() {
            self.record.first_text_chunk = u32::try_from(self.record.chunks.len()).ok();
        }
        if facts.has_choice {
            self.push_chunk(at);
        }
        if let (Some(said), Some(text)) = (&mut self.said, &facts.text) {
            said.push_str(text);
        }
        if facts.finish_reason.is_some() {
            self.record.finish_reason = facts.finish_reason;
        }
        if let Some(usage) = facts.usage {
            self.record.prompt_tokens_reported = usage.prompt_tokens;
            self.record.output_tokens_reported = usage.completion_tokens;
            self.record.cached_tokens_reported = usage.cached_tokens;
        }
    }

    fn push_chunk(&mut self, at: MonoNs) {
        self.record.chunks.push(Chunk { at, earliest: at });
    }

    /// A body that is no event stream.
    fn on_text(&mut self, mut decoder: BodyDecoder, mut said: Vec<u8>, input: &[u8], at: MonoNs) {
        let mut input = input;
        loop {
            match decoder.next(input) {
                Ok((used, Piece::Data(data))) => {
                    input = input.get(used..).unwrap_or_default();
                    self.record.body_bytes += data.len() as u64;
                    let room = MAX_SAID.saturating_sub(said.len()).min(data.len());
                    said.extend_from_slice(data.get(..room).unwrap_or_default());
                    if self.record.body_bytes > MAX_TEXT_BODY {
                        self.keep_alive = false;
                        return self.end_text(&said, at);
                    }
                }
                Ok((_, Piece::NeedMore)) => {
                    self.state = State::Text { decoder, said };
                    return;
                }
                Ok((used, Piece::End)) => {
                    self.keep_alive &= input.len() == used;
                    return self.end_text(&said, at);
                }
                Err(_) => {
                    self.keep_alive = false;
                    return self.end_text(&said, at);
                }
            }
        }
    }

    fn end_text(&mut self, said: &[u8], at: MonoNs) {
        let text = String::from_utf8_lossy(said).trim().to_owned();
        let status = self.record.http_status.unwrap_or(0);
        self.record.error = Some(if status == 200 {
            format!("not an event stream: {text}")
        } else if text.is_empty() {
            format!("status {status}")
        } else {
            text
        });
        self.end(
            if status == 200 { RequestOutcome::Malformed } else { RequestOutcome::HttpError },
            at,
        );
    }

    /// The body ended where its framing says.
    fn on_clean_end(
        &mut self,
        sse: &mut SseParser,
        nothing_follows: bool,
        at: MonoNs,
        classifier: &Classifier,
    ) {
        self.keep_alive &= nothing_follows;
        if let Some(left) = sse.finish()
            && self.on_event(left, at, classifier)
        {
            return;
        }
        let finished = self.record.finish_reason.is_some();
        if self.done || (finished && !(self.until_close && self.done_marker)) {
            self.end(RequestOutcome::Ok, at);
        } else if finished {
            self.fail(RequestOutcome::Cut, "the connection closed before the end marker", at);
        } else {
            self.fail(RequestOutcome::Cut, "the stream ended without a finish reason", at);
        }
    }

    /// The server closed the connection.
    pub(crate) fn on_eof(&mut self, at: MonoNs, classifier: &Classifier) {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Events { decoder, mut sse } if decoder.may_close() => {
                let first_new = self.record.chunks.len();
                self.on_clean_end(&mut sse, true, at, classifier);
                for chunk in self.record.chunks.get_mut(first_new..).unwrap_or_default() {
                    chunk.earliest = self.censor.floor().min(at);
                }
                self.keep_alive = false;
            }
            state => {
                self.state = state;
                self.give_up(RequestOutcome::Cut, "the connection closed in mid-answer", at);
            }
        }
    }

    /// Ends the request from outside, unless what came already says more.
    pub(crate) fn give_up(&mut self, outcome: RequestOutcome, why: &str, at: MonoNs) {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Text { said, .. } => self.end_text(&said, at),
            State::Events { .. } if self.done => self.end(RequestOutcome::Ok, at),
            State::Head(_) | State::Events { .. } => self.fail(outcome, why, at),
            State::Ended => {}
        }
        self.keep_alive = false;
    }

    fn fail(&mut self, outcome: RequestOutcome, why: &str, at: MonoNs) {
        let end = why.floor_char_boundary(MAX_SAID);
        self.record.error = Some(why.get(..end).unwrap_or(why).to_owned());
        self.keep_alive = false;
        self.end(outcome, at);
    }

    fn end(&mut self, outcome: RequestOutcome, at: MonoNs) {
        self.record.outcome = outcome;
        self.record.end = at;
        self.state = State::Ended;
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
