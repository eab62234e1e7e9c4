//! The OpenAI-compatible server in front of the engine.
//!
//! Never waits for one client on behalf of another: each stream is its own task. A client that
//! goes away drops its `Ticket`, and with it the request's slot and KV tokens.

use super::engine::{Engine, Ticket};
use super::fault::{Fault, StreamFault};
use super::options::Settings;
use super::reply::{self, Part, Reply};
use super::request::{Ask, Endpoint, Refusal};
use super::{clock, log, metrics, process};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use futures_core::Stream;
use serde_json::json;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Sleep;

#[derive(Debug)]
pub(crate) struct App {
    settings: Settings,
    engine: Engine,
    /// Generation requests so far, refused ones too: what faults count by.
    requests: AtomicU64,
    started_unix_s: i64,
}

impl App {
    pub(crate) fn start(settings: Settings) -> io::Result<Self> {
        let Settings { limits, costs, ability, cache_blocks, .. } = &settings;
        let engine = Engine::start(*limits, *costs, ability.seed, *cache_blocks)?;
        let started_unix_s = clock::unix_seconds();
        Ok(Self { settings, engine, requests: AtomicU64::new(0), started_unix_s })
    }
}

/// Serves until it is dropped; dropping the runtime then cuts what is in flight.
pub(crate) async fn serve(listener: TcpListener, app: App) -> io::Result<()> {
    // Without it the kernel may hold a token back until the one before is acknowledged.
    let listener = listener.tap_io(|stream| {
        stream.set_nodelay(true).ok();
    });
    axum::serve(listener, router(app)).await
}

fn router(app: App) -> Router {
    Router::new()
        .route("/health", get(async || Json(json!({ "status": "ok", "simulated": true }))))
        .route("/v1/models", get(models))
        .route("/metrics", get(show_metrics))
        .route("/server_info", get(async |State(app): Shared| Json(app.settings.describe())))
        .route(
            "/flush_cache",
            post(async |State(app): Shared| {
                app.engine.flush();
                Json(json!({ "flushed": true }))
            }),
        )
        .route(
            "/v1/completions",
            post(async |State(app): Shared, body| generate(app, Endpoint::Completions, body).await),
        )
        .route(
            "/v1/chat/completions",
            post(async |State(app): Shared, body| generate(app, Endpoint::Chat, body).await),
        )
        .fallback(async || refuse(404, "not_found_error", "not_found", "no such path"))
        // A prompt of the largest context is far larger than the default limit.
        .layer(DefaultBodyLimit::max(256 << 20))
        .with_state(Arc::new(app))
}

type Shared = State<Arc<App>>;

async fn models(State(app): Shared) -> Response {
    Json(json!({ "object": "list", "data": [{
        "id": app.settings.ability.model,
        "object": "model",
        "created": app.started_unix_s,
        "owned_by": "sweepd-sim",
        "max_model_len": app.settings.ability.context,
    }] }))
    .into_response()
}

async fn show_metrics(State(app): Shared) -> Response {
    let requests = app.requests.load(Ordering::Relaxed);
    let (load, ttft) = (app.engine.load(), app.engine.ttft());
    let model = &app.settings.ability.model;
    let text = metrics::text(model, &load, app.engine.limits(), &ttft, requests);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn generate(app: Arc<App>, endpoint: Endpoint, body: Bytes) -> Response {
    let number = app.requests.fetch_add(1, Ordering::Relaxed) + 1;
    if app.settings.log_requests {
        log::info(&format!("request {number}: {endpoint:?}, {} bytes", body.len()));
    }
    let mut faults = Happening::default();
    for fault in app.settings.faults.at_request(number) {
        faults.happen(fault, &app.engine);
    }
    if faults.http_500 || app.settings.faults.always(Fault::HealthyNoGenerate) {
        return fail();
    }
    let mut ask = match Ask::read(endpoint, &body, &app.settings.ability) {
        Ok(ask) => ask,
        Err(Refusal { status, kind, code, message }) => {
            return refuse(status, kind, code, &message);
        }
    };
    if faults.in_stream == Some(StreamFault::ErrorAtOnce) && !ask.stream {
        return fail();
    }
    let ticket = app.engine.submit(&mut ask);
    if let Some(delay) = faults.slow_header {
        tokio::time::sleep(delay).await;
    }
    let stream = ask.stream;
    let identity = (ticket.id, clock::unix_seconds());
    let model = &app.settings.ability.model;
    let reply = Reply::new(endpoint, ask, identity, model, faults.in_stream);
    if stream { Events::new(reply, ticket).into_response() } else { whole(reply, ticket).await }
}

/// The faults of one request.
#[derive(Debug, Default)]
struct Happening {
    http_500: bool,
    slow_header: Option<Duration>,
    in_stream: Option<StreamFault>,
}

impl Happening {
    /// Some do not return.
    fn happen(&mut self, fault: Fault, engine: &Engine) {
        match fault {
            Fault::Http500 => self.http_500 = true,
            Fault::SlowHeader(delay) => self.slow_header = Some(delay),
            Fault::InStream(fault) => self.in_stream = Some(fault),
            Fault::WorkerLost => self.in_stream = Some(StreamFault::ErrorAtOnce),
            Fault::Hang => engine.hang(),
            Fault::Die(death) => process::die(death),
            // Of the whole life: they never come at a request.
            Fault::SlowStart(_)
            | Fault::NeverReady
            | Fault::IgnoreSigterm
            | Fault::HealthyNoGenerate
            | Fault::LogFlood(_)
            | Fault::SetsidChild
            | Fault::HoldPort
            | Fault::Clamp(_)
            | Fault::ShortAnswers
            | Fault::LongAnswers
            | Fault::NoUsage => {}
        }
    }
}

fn fail() -> Response {
    let message = "the simulated engine failed on purpose";
    refuse(500, "internal_server_error", "simulated_fault", message)
}

fn refuse(status: u16, kind: &str, code: &str, message: &str) -> Response {
    let body = Json(reply::error(status, kind, code, message));
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, body).into_response()
}

/// Waits for the last token.
async fn whole(reply: Reply, mut ticket: Ticket) -> Response {
    while let Some(token) = ticket.next().await {
        if token.last {
            return Json(reply.whole()).into_response();
        }
    }
    refuse(500, "internal_server_error", "engine_gone", "the engine's thread has ended")
}

/// The body of a stream: each token an event of its own, as soon as it is there.
#[derive(Debug)]
struct Events {
    reply: Reply,
    ticket: Ticket,
    parts: VecDeque<Part>,
    /// Runs before the connection is cut.
    cutting: Option<Pin<Box<Sleep>>>,
}

/// What was written before a cut has left by then: an idle body makes the server flush, an error
/// in it drops what is still buffered, and a cut in mid-answer would look like no answer.
const FLUSH: Duration = Duration::from_millis(20);

impl Events {
    fn new(reply: Reply, ticket: Ticket) -> Self {
        let parts = reply.opening().into();
        Self { reply, ticket, parts, cutting: None }
    }

    /// An error in the body makes the server close the connection.
    fn poll_cut(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let sleep = self.cutting.get_or_insert_with(|| Box::pin(tokio::time::sleep(FLUSH)));
        sleep.as_mut().poll(context).map(|()| Some(Err(io::Error::other("cut"))))
    }
}

impl Stream for Events {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match this.parts.pop_front() {
                Some(Part::Event(text)) => return Poll::Ready(Some(Ok(Bytes::from(text)))),
                Some(Part::End) => return Poll::Ready(None),
                // Woken by nothing: only the client's going away ends this.
                Some(Part::Silence) => {
                    this.parts.push_front(Part::Silence);
                    return Poll::Pending;
                }
                Some(Part::Cut) => {
                    this.parts.push_front(Part::Cut);
                    return this.poll_cut(context);
                }
                None => match this.ticket.poll_next(context) {
                    Poll::Ready(Some(_)) => this.parts.extend(this.reply.token()),
                    Poll::Ready(None) => this.parts.push_back(Part::Cut),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }
}

impl IntoResponse for Events {
    fn into_response(self) -> Response {
        let mut response = Body::from_stream(self).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
