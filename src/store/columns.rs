//! The columns of `requests.parquet`: one table that the writer and the reader share.
//!
//! Pure. Integers are INT64, so that no reader has to guess; absent is null, never zero. An optional
//! column that a file of an earlier sweepd does not have is absent in all its rows.

use crate::ids::Name;
use crate::run::record::{Chunk, RequestOutcome, RequestRecord};
use crate::units::MonoNs;

/// The message type, in Parquet's own schema language.
pub(crate) const SCHEMA: &str = "message requests {
    required int64 index;
    required int64 user;
    required int64 turn;
    required int64 scheduled_ns;
    optional int64 connect_ns;
    optional int64 tls_ns;
    optional int64 sent_ns;
    optional int64 first_byte_ns;
    optional int64 first_text_chunk;
    required int64 end_ns;
    optional int64 http_status;
    required int64 prompt_tokens_asked;
    optional int64 prompt_tokens_expected;
    optional int64 prompt_tokens_reported;
    optional int64 cached_tokens_reported;
    required int64 output_tokens_asked;
    optional int64 output_tokens_reported;
    required int64 body_bytes;
    required int64 user_space_stamps;
    optional int64 cached_tokens_meant;
    optional int64 dataset_entry;
    required boolean reused_connection;
    required boolean tls;
    required boolean reuse_race;
    required boolean clock_step;
    required binary outcome (STRING);
    optional binary error (STRING);
    optional binary finish_reason (STRING);
    optional binary class (STRING);
    required group chunk_at_ns (LIST) { repeated group list { required int64 element; } }
    required group chunk_earliest_ns (LIST) { repeated group list { required int64 element; } }
}";

/// One column's name, in the schema's order, and how to take it out of a record.
pub(crate) enum Column {
    Integer(fn(&RequestRecord) -> Option<i64>),
    Flag(fn(&RequestRecord) -> bool),
    Text(fn(&RequestRecord) -> Option<&str>),
    List(fn(&Chunk) -> i64),
}

/// In the order of `SCHEMA`.
pub(crate) const COLUMNS: [Column; 31] = [
    Column::Integer(|r| Some(r.index.into())),
    Column::Integer(|r| Some(r.user.into())),
    Column::Integer(|r| Some(r.turn.into())),
    Column::Integer(|r| Some(r.scheduled.get())),
    Column::Integer(|r| r.connect_ns),
    Column::Integer(|r| r.tls_ns),
    Column::Integer(|r| r.sent.map(MonoNs::get)),
    Column::Integer(|r| r.first_byte.map(MonoNs::get)),
    Column::Integer(|r| r.first_text_chunk.map(i64::from)),
    Column::Integer(|r| Some(r.end.get())),
    Column::Integer(|r| r.http_status.map(i64::from)),
    Column::Integer(|r| Some(r.prompt_tokens_asked.into())),
    Column::Integer(|r| r.prompt_tokens_expected.map(i64::from)),
    Column::Integer(|r| r.prompt_tokens_reported.map(i64::from)),
    Column::Integer(|r| r.cached_tokens_reported.map(i64::from)),
    Column::Integer(|r| Some(r.output_tokens_asked.into())),
    Column::Integer(|r| r.output_tokens_reported.map(i64::from)),
    Column::Integer(|r| i64::try_from(r.body_bytes).ok()),
    Column::Integer(|r| Some(r.user_space_stamps.into())),
    Column::Integer(|r| r.cached_tokens_meant.map(i64::from)),
    Column::Integer(|r| r.dataset_entry.map(i64::from)),
    Column::Flag(|r| r.reused_connection),
    Column::Flag(|r| r.tls),
    Column::Flag(|r| r.reuse_race),
    Column::Flag(|r| r.clock_step),
    Column::Text(|r| Some(r.outcome.name())),
    Column::Text(|r| r.error.as_deref()),
    Column::Text(|r| r.finish_reason.as_deref()),
    Column::Text(|r| r.class.as_ref().map(Name::as_str)),
    Column::List(|c| c.at.get()),
    Column::List(|c| c.earliest.get()),
];

/// What was read of each column, by kind and in order.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) integers: Vec<Vec<Option<i64>>>,
    pub(crate) flags: Vec<Vec<bool>>,
    pub(crate) texts: Vec<Vec<Option<String>>>,
    pub(crate) lists: Vec<Vec<Vec<i64>>>,
}

impl Read {
    /// The record in row `row`; `None` when a value is missing or cannot be.
    pub(crate) fn record(&mut self, row: usize) -> Option<RequestRecord> {
        let mut integers = self.integers.iter().map(|column| column.get(row).copied().flatten());
        let mut integer = || integers.next().flatten();
        let mut flags = self.flags.iter().map(|column| column.get(row).copied());
        let mut flag = || flags.next().flatten();
        let mut texts = self.texts.iter_mut().map(|column| column.get_mut(row)?.take());
        let mut text = || texts.next().flatten();
        let mut lists =
            self.lists.iter_mut().map(|column| Some(std::mem::take(column.get_mut(row)?)));
        let at = lists.next().flatten()?;
        let earliest = lists.next().flatten()?;
        let chunk = |(at, earliest)| Chunk { at: MonoNs::new(at), earliest: MonoNs::new(earliest) };
        Some(RequestRecord {
            index: small(integer())?,
            user: small(integer())?,
            turn: small(integer())?,
            scheduled: MonoNs::new(integer()?),
            connect_ns: integer(),
            tls_ns: integer(),
            sent: integer().map(MonoNs::new),
            first_byte: integer().map(MonoNs::new),
            first_text_chunk: small(integer()),
            end: MonoNs::new(integer()?),
            http_status: integer().and_then(|status| u16::try_from(status).ok()),
            prompt_tokens_asked: small(integer())?,
            prompt_tokens_expected: small(integer()),
            prompt_tokens_reported: small(integer()),
            cached_tokens_reported: small(integer()),
            output_tokens_asked: small(integer())?,
            output_tokens_reported: small(integer()),
            body_bytes: u64::try_from(integer()?).ok()?,
            user_space_stamps: small(integer())?,
            cached_tokens_meant: small(integer()),
            dataset_entry: small(integer()),
            reused_connection: flag()?,
            tls: flag()?,
            reuse_race: flag()?,
            clock_step: flag()?,
            outcome: outcome(&text()?)?,
            error: text(),
            finish_reason: text(),
            class: text().and_then(|name| Name::new(&name)),
            chunks: at.into_iter().zip(earliest).map(chunk).collect(),
        })
    }
}

fn small(value: Option<i64>) -> Option<u32> {
    value.and_then(|value| u32::try_from(value).ok())
}

fn outcome(name: &str) -> Option<RequestOutcome> {
    RequestOutcome::ALL.into_iter().find(|outcome| outcome.name() == name)
}
