//! What goes on while somebody reads: events as SSE, an engine's log as text.
//!
//! Both are pulled by their reader: one that does not read costs its connection and nothing else.

use super::Api;
use super::answer::reading;
use super::looking::{begun_trial, folder};
use crate::daemon::service::asks::Refused;
use crate::daemon::service::events::{Event, Events, Gap};
use crate::ids::RunId;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::convert::Infallible;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

const AT_ONCE: usize = 64;
/// A comment now and then shows both ends that the other is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const LOG_AGAIN: Duration = Duration::from_millis(250);
const LOG_AT_ONCE: u64 = 64 << 10;

#[derive(Debug, Deserialize)]
pub(super) struct From {
    /// Everything after this number; without it, what comes from now on.
    after: Option<u64>,
    /// End when there is nothing more to read.
    #[serde(default)]
    once: bool,
}

pub(super) async fn events(
    State(api): State<Api>,
    Query(from): Query<From>,
    headers: HeaderMap,
) -> Response {
    let header = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let follower = Follower {
        seen: from.after.or(header).unwrap_or_else(|| api.events.latest()),
        changed: api.events.subscribe(),
        events: api.events,
        once: from.once,
    };
    let stream = futures_util::stream::unfold(follower, |mut follower| async {
        let text = follower.next().await?;
        Some((Ok::<_, Infallible>(text), follower))
    });
    let headers = [("content-type", "text/event-stream"), ("cache-control", "no-store")];
    (headers, Body::from_stream(stream)).into_response()
}

struct Follower {
    events: Arc<Events>,
    changed: watch::Receiver<u64>,
    seen: u64,
    once: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<String> {
        self.changed.borrow_and_update();
        let since = self.events.since(self.seen, AT_ONCE);
        if since.events.is_empty() {
            if self.once {
                return None;
            }
            return match timeout(KEEP_ALIVE, self.changed.changed()).await {
                Ok(Ok(())) => Some(String::new()),
                Ok(Err(_)) => None,
                Err(_) => Some(": nothing new\n\n".to_owned()),
            };
        }
        let mut text = String::new();
        match since.gap {
            Gap::Nothing => {}
            Gap::Events(count) => {
                text.push_str(&format!("event: gap\ndata: {{\"missed\":{count}}}\n\n"));
            }
            Gap::Unknown => text.push_str("event: gap\ndata: {\"missed\":null}\n\n"),
        }
        for event in &since.events {
            self.seen = event.id;
            text.push_str(&sse(event));
        }
        Some(text)
    }
}

fn sse(event: &Event) -> String {
    // JSON has no line breaks of its own.
    let data = serde_json::to_string(event).unwrap_or_default();
    format!("id: {}\nevent: {}\ndata: {data}\n\n", event.id, event.event)
}

#[derive(Debug, Deserialize)]
pub(super) struct Log {
    /// The last attempt, if no other is named.
    attempt: Option<u32>,
    #[serde(default)]
    follow: bool,
    /// From here on.
    #[serde(default)]
    offset: u64,
}

pub(super) async fn log(
    State(api): State<Api>,
    Path((run, trial)): Path<(RunId, String)>,
    Query(log): Query<Log>,
) -> Result<Response, Refused> {
    let paths = api.paths.clone();
    let (attempt, named) = (log.attempt, trial.clone());
    let path = reading(move || {
        let dir = folder(&paths, &run)?;
        let id = begun_trial(&dir, &run, &named)?;
        let last = dir.last_attempt(&id).map_err(|error| Refused::store(&error))?;
        let path = dir.attempt(&id, attempt.unwrap_or(last)).log();
        if path.exists() {
            return Ok(path);
        }
        Err(Refused::new(404, format!("trial {named} has no such log"))
            .help("an attempt has one from its launch on"))
    });
    let path = path.await?;
    let reader = LogReader { path, offset: log.offset, follow: log.follow };
    let stream = futures_util::stream::unfold(reader, |mut reader| async {
        let bytes = reader.next().await?;
        Some((Ok::<_, Infallible>(bytes), reader))
    });
    let headers = [("content-type", "text/plain; charset=utf-8")];
    Ok((headers, Body::from_stream(stream)).into_response())
}

struct LogReader {
    path: PathBuf,
    offset: u64,
    follow: bool,
}

impl LogReader {
    /// The next piece; `None` at the end, or when the attempt has ended and all is read.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            // Looked at before reading: what was written before the end is read after it.
            let ended = self.path.with_file_name("outcome.json").exists();
            let piece = piece(&self.path, self.offset).ok()?;
            if !piece.is_empty() {
                self.offset += piece.len() as u64;
                return Some(piece);
            }
            if !self.follow || ended {
                return None;
            }
            sleep(LOG_AGAIN).await;
        }
    }
}

fn piece(path: &std::path::Path, offset: u64) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(LOG_AT_ONCE).read_to_end(&mut bytes)?;
    Ok(bytes)
}
