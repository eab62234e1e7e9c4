//! The load generator: a process of its own that drives streams and stamps them. Edge.
//!
//! One line of JSON in (`LoadPlan`), lines of JSON out (`LoadEvent`), records into a file of
//! frames. `stream`, `rules` and the parsers under them decide; `driver`, `users`, `link` and `conn` do.

mod arrivals;
mod asked;
mod censor;
mod clock;
mod conn;
mod driver;
mod event;
pub(crate) mod frames;
pub(crate) mod handle;
mod http;
mod joint;
mod lag;
mod link;
mod loops;
pub(crate) mod message;
mod native;
pub(crate) mod null;
pub(crate) mod peer;
mod priority;
mod process;
mod reading;
mod recorded;
mod request;
mod rules;
#[cfg(test)]
mod scripted;
mod sse;
mod stream;
mod supply;
mod talk;
pub(crate) mod tls;
mod users;

pub(crate) use process::main;
