//! Asks a running engine for its metrics and for its effective configuration. Edge.
//!
//! Asking costs the engine a little, so it is done when someone asks for it (once a second) and never twice at a time. No
//! answer is a sample too: that an engine is silent is worth knowing.

use crate::clock;
use crate::engine::def::{EngineDef, Metrics, ParamValue};
use crate::engine::effective::{self, Told};
use crate::engine::exposition;
use crate::run::effective::EffectiveConfig;
use crate::run::engine_sample::EngineSample;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

/// A busy engine may answer late; a late sample says when it was asked for.
const WITHIN: Duration = Duration::from_secs(5);
/// As much of a log as is read for what it says of the configuration.
const LOG_BYTES: u64 = 16 << 20;

fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(WITHIN)
        .build()
}

/// Who asks one engine for its metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metered {
    client: reqwest::Client,
    url: String,
    metrics: Metrics,
}

impl Metered {
    pub(crate) fn new(base: &str, metrics: Metrics) -> reqwest::Result<Self> {
        Ok(Self { client: client()?, url: format!("{base}{}", metrics.path), metrics })
    }

    /// One sample, now.
    pub(crate) async fn sample(&self) -> EngineSample {
        let at = clock::now();
        let text = text(&self.client, &self.url).await;
        let names = &self.metrics.names;
        EngineSample {
            at,
            took_ns: clock::now().since_ns(at),
            answered: text.is_some(),
            figures: text.map(|text| exposition::figures(&text, names)).unwrap_or_default(),
        }
    }

    /// A sample each time that it is asked for, until the receiver is gone.
    pub(crate) async fn watch(self, asked: Arc<Notify>, out: UnboundedSender<EngineSample>) {
        loop {
            asked.notified().await;
            if out.send(self.sample().await).is_err() {
                return;
            }
        }
    }
}

/// The body of an answer of 200.
async fn text(client: &reqwest::Client, url: &str) -> Option<String> {
    let response = client.get(url).send().await.ok()?;
    if response.status() != reqwest::StatusCode::OK {
        return None;
    }
    response.text().await.ok()
}

/// What the engine really runs with, from all that its file names as a source.
pub(crate) async fn effective(
    base: &str,
    engine: &EngineDef,
    params: &BTreeMap<String, ParamValue>,
    log: &Path,
) -> EffectiveConfig {
    let client = client().ok();
    let ask = async |path: &str| text(client.as_ref()?, &format!("{base}{path}")).await;
    let mut info = Vec::new();
    for path in &engine.endpoints.server_info {
        info.extend(ask(path).await.and_then(|text| document(&text)));
    }
    let metrics = match &engine.metrics {
        Some(metrics) => ask(&metrics.path).await,
        None => None,
    };
    let log = log.to_owned();
    let log = tokio::task::spawn_blocking(move || beginning(&log)).await.ok().flatten();
    let told = Told { info: &info, log: log.as_deref(), metrics: metrics.as_deref() };
    effective::read_back(engine, params, &told)
}

/// An answer as JSON. Some engines send a document as a text within a document.
fn document(text: &str) -> Option<Value> {
    match serde_json::from_str(text).ok()? {
        Value::String(inner) => serde_json::from_str(&inner).ok(),
        value => Some(value),
    }
}

fn beginning(path: &Path) -> Option<String> {
    let file = std::fs::File::open(path).ok()?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, LOG_BYTES), &mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Empties the engine's prefix cache. The error completes "its prefix cache was not emptied: …".
pub(crate) async fn reset_cache(base: &str, path: &str) -> Result<(), String> {
    let client = client().map_err(|error| error.to_string())?;
    let request = client.post(format!("{base}{path}")).json(&serde_json::json!({}));
    let response = request.send().await.map_err(|error| {
        if error.is_timeout() { "no answer in time".to_owned() } else { error.to_string() }
    })?;
    match response.status() {
        reqwest::StatusCode::OK => Ok(()),
        status => {
            let said = response.text().await.unwrap_or_default();
            let said = said.lines().next().unwrap_or_default();
            Err(format!("{path} answered {status}: {said}"))
        }
    }
}
