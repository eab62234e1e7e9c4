//! The commands' side of the control API: finds the daemon's socket, asks, and tells a refusal.

use super::input::{self, Refused};
use crate::daemon::service::paths::socket_in;
use crate::daemon::service::view::Refusal;
use anyhow::{Context, anyhow};
use clap::Args;
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Answers come at once; streams have no such limit.
const WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Args)]
pub(super) struct Target {
    /// The daemon's socket. Default: the user's own daemon, or else the machine's.
    #[arg(long, value_name = "PATH", env = "SWEEPD_SOCKET")]
    pub(super) socket: Option<PathBuf>,
    /// Facts as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(target: &Target) -> anyhow::Result<Self> {
        let socket = target.socket.clone().unwrap_or_else(find_socket);
        let http = reqwest::Client::builder().unix_socket(socket.clone()).build();
        Ok(Self { http: http.context("cannot make an HTTP client")?, socket })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.told(self.request(Method::GET, path).timeout(WITHIN)).await
    }

    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.told(self.request(method, path).json(body).timeout(WITHIN)).await
    }

    /// An answer that is read as it comes.
    pub(super) async fn stream(&self, path: &str) -> anyhow::Result<Response> {
        self.answer(self.request(Method::GET, path)).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://sweepd{path}"))
    }

    async fn told<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let answer = self.answer(request).await?;
        answer.json().await.context("the daemon's answer cannot be read")
    }

    async fn answer(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let answer = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let refusal = answer.json::<Refusal>().await;
        let refusal = refusal.with_context(|| format!("the daemon answered {status}"))?;
        let help = refusal.help.map_or_else(String::new, |help| format!("\n  help: {help}"));
        let text = format!("{}{help}", refusal.error);
        // The asker's mistake or the daemon's.
        if status.is_client_error() { Err(Refused::Other(text).into()) } else { Err(anyhow!(text)) }
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        let socket = self.socket.display();
        let cause = std::iter::successors(std::error::Error::source(&error), |e| e.source());
        let cause = cause.last().map_or_else(|| error.to_string(), ToString::to_string);
        let denied = cause.contains("ermission denied");
        let help = if denied {
            "members of the daemon's group may connect"
        } else {
            "is it running? `sweepd daemon`, or `systemctl start sweepd`"
        };
        anyhow!("cannot reach the daemon at {socket}: {cause}\n  help: {help}")
    }
}

/// The user's own daemon if it is there, or else the machine's.
fn find_socket() -> PathBuf {
    let own = socket_in(&input::runtime_folder());
    if own.exists() { own } else { socket_in(Path::new("/run/sweepd")) }
}

/// Runs a command's questions to their end.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(work)
}
