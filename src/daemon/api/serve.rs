//! Connections: accepted, limited in number and patience, served until sweepd ends.

use super::patience::Patient;
use super::peer::Peer;
use super::{Api, router};
use crate::daemon::service::asks::Refused;
use axum::Router;
use axum::http::{Request, header};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tower_service::Service;

const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
/// After an error of accepting, which is mostly a lack of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Where connections come in.
#[derive(Debug)]
pub(crate) enum Door {
    Unix(UnixListener),
    /// On loopback; every request must bring the token.
    Tcp {
        listener: TcpListener,
        token: String,
    },
}

/// All that is open.
pub(crate) type Doors = Vec<Door>;

/// Serves each door in a task of its own.
pub(crate) fn serve(api: &Api, doors: Doors) {
    let places = Arc::new(Semaphore::new(api.config.borrow().limits.clients));
    for door in doors {
        tokio::spawn(keep(door, router(api.clone()), api.clone(), places.clone()));
    }
}

async fn keep(door: Door, router: Router, api: Api, places: Arc<Semaphore>) {
    loop {
        let accepted = match &door {
            Door::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| match peer(&stream) {
                    Ok(peer) => take(stream, Rights::Known(peer), &router, &api, &places),
                    Err(error) => tracing::warn!(%error, "a client cannot be identified"),
                })
            }
            Door::Tcp { listener, token } => listener.accept().await.map(|(stream, _)| {
                take(stream, Rights::ByToken(token.clone()), &router, &api, &places);
            }),
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "a client could not be accepted");
            sleep(ACCEPT_AGAIN).await;
        }
    }
}

fn peer(stream: &UnixStream) -> io::Result<Peer> {
    let found = stream.peer_cred()?;
    Ok(Peer::Local { uid: found.uid(), gid: found.gid(), pid: found.pid() })
}

/// How a connection's requests show what they may.
#[derive(Clone, Debug)]
enum Rights {
    Known(Peer),
    ByToken(String),
}

/// Gives the connection a task, or turns it away when the house is full.
fn take<S>(mut stream: S, rights: Rights, router: &Router, api: &Api, places: &Arc<Semaphore>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let patience = api.config.borrow().limits.patience;
    let Ok(place) = places.clone().try_acquire_owned() else {
        tokio::spawn(async move {
            timeout(patience, stream.write_all(FULL)).await.ok();
        });
        return;
    };
    let router = router.clone();
    tokio::spawn(async move {
        let stream = TokioIo::new(Patient::new(stream, patience));
        let service = service_fn(move |request: Request<Incoming>| {
            answer(request, rights.clone(), router.clone(), patience)
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .serve_connection(stream, service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection ended early");
        }
        drop(place);
    });
}

async fn answer(
    mut request: Request<Incoming>,
    rights: Rights,
    mut router: Router,
    patience: Duration,
) -> Result<axum::response::Response, Infallible> {
    let peer = match &rights {
        Rights::Known(peer) => *peer,
        Rights::ByToken(token) if has_token(&request, token) => Peer::Token,
        Rights::ByToken(_) => {
            return Ok(Refused::new(401, "the token is missing or wrong").into_response());
        }
    };
    request.extensions_mut().insert(peer);
    // Up to the head of the answer: a body that comes slowly is bounded, a stream of events is not.
    match timeout(patience, router.call(request)).await {
        Ok(response) => response,
        Err(_) => Ok(Refused::new(408, "the request took too long").into_response()),
    }
}

fn has_token(request: &Request<Incoming>, token: &str) -> bool {
    let header = request.headers().get(header::AUTHORIZATION);
    let given = header.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    given.is_some_and(|given| is_equal(given.trim().as_bytes(), token.as_bytes()))
}

/// In a time that does not depend on where they differ.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}
