//! One record for every request that was sent or should have been.

use crate::ids::Name;
use crate::units::MonoNs;
use serde::{Deserialize, Serialize};

/// How one request ended. The classes are disjoint and every request has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RequestOutcome {
    /// The stream came whole: a finish reason or the end marker was seen.
    Ok,
    /// The server answered with a status other than 200.
    HttpError,
    /// An error event inside a stream that began with status 200.
    ErrorEvent,
    /// The connection ended before the stream did.
    Cut,
    /// No byte for longer than the stall deadline.
    Stalled,
    /// The request outlived its deadline although bytes still came.
    TimedOut,
    /// The answer was not HTTP, not an event stream, or not the JSON it should be.
    Malformed,
    /// No connection could be made.
    Refused,
    /// The connection was there, and TLS was not: the handshake failed or the certificate was refused.
    TlsFailed,
    /// The connection was reset, or failed in another way, while in use.
    Reset,
    /// sweepd itself ended the request: the phase or the run was stopped.
    Cancelled,
}

impl RequestOutcome {
    pub(crate) const ALL: [Self; 11] = [
        Self::Ok,
        Self::HttpError,
        Self::ErrorEvent,
        Self::Cut,
        Self::Stalled,
        Self::TimedOut,
        Self::Malformed,
        Self::Refused,
        Self::TlsFailed,
        Self::Reset,
        Self::Cancelled,
    ];

    pub(crate) fn is_ok(self) -> bool {
        self == Self::Ok
    }

    /// Nothing was asked, for there was nobody to be asked.
    pub(crate) const fn is_unasked(self) -> bool {
        matches!(self, Self::Refused | Self::TlsFailed)
    }

    /// The name in files and reports; the same as in JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::HttpError => "http_error",
            Self::ErrorEvent => "error_event",
            Self::Cut => "cut",
            Self::Stalled => "stalled",
            Self::TimedOut => "timed_out",
            Self::Malformed => "malformed",
            Self::Refused => "refused",
            Self::TlsFailed => "tls_failed",
            Self::Reset => "reset",
            Self::Cancelled => "cancelled",
        }
    }
}

/// One event of a stream that carried a choice, and when it arrived.
///
/// A chunk is not a token: servers merge tokens and hold back unfinished UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chunk {
    /// The kernel's receive stamp, or the latest possible arrival when censored.
    pub(crate) at: MonoNs,
    /// Equal to `at` when the stamp is the chunk's own; otherwise the last time
    /// the socket was known to be empty: the truth lies in `[earliest, at]`.
    pub(crate) earliest: MonoNs,
}

impl Chunk {
    pub(crate) fn is_censored(self) -> bool {
        self.earliest != self.at
    }
}

/// What one request asked for and what came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RequestRecord {
    /// Order of sending within the phase, from 0.
    pub(crate) index: u32,
    pub(crate) user: u32,
    /// The user's how-manieth request, from 0.
    pub(crate) turn: u32,
    /// When the load pattern wanted it sent.
    pub(crate) scheduled: MonoNs,
    /// Nanoseconds for TCP to connect; absent on a reused connection.
    pub(crate) connect_ns: Option<i64>,
    /// Nanoseconds from there to the end of the TLS handshake; absent where there was none.
    pub(crate) tls_ns: Option<i64>,
    /// Taken just before the first byte was written; absent if none was.
    pub(crate) sent: Option<MonoNs>,
    /// First byte of the response.
    pub(crate) first_byte: Option<MonoNs>,
    /// Which chunk first carried generated text.
    pub(crate) first_text_chunk: Option<u32>,
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) end: MonoNs,
    pub(crate) outcome: RequestOutcome,
    pub(crate) http_status: Option<u16>,
    /// What went wrong, for a reader; the server's own words where it gave any.
    pub(crate) error: Option<String>,
    pub(crate) finish_reason: Option<String>,
    /// Content tokens of the prompt, without special tokens or template.
    pub(crate) prompt_tokens_asked: u32,
    /// What the server should count: content plus the tokenizer's special tokens.
    /// Absent for chat, whose template is the server's own.
    pub(crate) prompt_tokens_expected: Option<u32>,
    pub(crate) prompt_tokens_reported: Option<u32>,
    pub(crate) cached_tokens_reported: Option<u32>,
    /// Prompt tokens that an earlier request of the phase had, so that a prefix cache may know them;
    /// absent where that is not known.
    pub(crate) cached_tokens_meant: Option<u32>,
    pub(crate) output_tokens_asked: u32,
    pub(crate) output_tokens_reported: Option<u32>,
    /// Bytes of the response body.
    pub(crate) body_bytes: u64,
    pub(crate) reused_connection: bool,
    /// Under TLS: a chunk's time is that of the packet that completed its TLS record.
    pub(crate) tls: bool,
    /// Sent twice because a reused connection closed before any response byte.
    pub(crate) reuse_race: bool,
    /// The wall clock was stepped while this request was under way.
    pub(crate) clock_step: bool,
    /// Chunks stamped in user space because the kernel gave no stamp.
    pub(crate) user_space_stamps: u32,
    /// Which entry of the data set it asks, from 0.
    pub(crate) dataset_entry: Option<u32>,
    /// Its class, where the sweep names classes.
    pub(crate) class: Option<Name>,
}
