//! The control API: HTTP/1.1 and JSON over a Unix socket. `docs/openapi.json` is its description.
//!
//! Handlers look at what the keeper shows, or ask it; they change nothing themselves. Invariant:
//! every route that changes something takes a `Changer`, which only somebody with the right has.

mod answer;
mod changing;
mod follow;
mod looking;
mod metrics;
mod patience;
mod peer;
mod serve;
mod why;

pub(crate) use serve::{Door, serve};

use super::service::asks::Ask;
use super::service::config::Config;
use super::service::events::Events;
use super::service::job::Outfit;
use super::service::keeper::View;
use super::service::paths::Paths;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, get, patch, post};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// The description, as it is served and as the repository holds it.
pub(crate) const OPENAPI: &str = include_str!("../../../docs/openapi.json");

/// What handlers have.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) asks: mpsc::Sender<Ask>,
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) events: Arc<Events>,
    pub(crate) config: watch::Receiver<Arc<Config>>,
    pub(crate) paths: Paths,
    pub(crate) outfit: Arc<Outfit>,
    /// Commands for tests are there.
    pub(crate) debug: bool,
}

struct Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "for the comparison with the description"))]
    method: &'static str,
    path: &'static str,
    to: MethodRouter<Api>,
}

fn route(method: &'static str, path: &'static str, to: MethodRouter<Api>) -> Route {
    Route { method, path, to }
}

/// Every documented route, once.
fn routes() -> Vec<Route> {
    vec![
        route("get", "/v1/status", get(looking::status)),
        route("get", "/v1/runs", get(looking::runs)),
        route("post", "/v1/runs", post(changing::submit)),
        route("get", "/v1/runs/{run}", get(looking::run)),
        route("patch", "/v1/runs/{run}", patch(changing::move_run)),
        route("post", "/v1/runs/{run}/cancel", post(changing::cancel)),
        route("post", "/v1/runs/{run}/pause", post(changing::pause)),
        route("post", "/v1/runs/{run}/resume", post(changing::resume)),
        route("post", "/v1/runs/{run}/retry", post(changing::retry)),
        route("get", "/v1/runs/{run}/report", get(looking::report)),
        route("get", "/v1/runs/{run}/summary", get(looking::summary)),
        route("get", "/v1/runs/{run}/why", get(why::why)),
        route("get", "/v1/runs/{run}/trials/{trial}", get(looking::trial)),
        route("get", "/v1/runs/{run}/trials/{trial}/log", get(follow::log)),
        route("post", "/v1/queue/pause", post(changing::pause_queue)),
        route("post", "/v1/queue/resume", post(changing::resume_queue)),
        route("post", "/v1/queue/drain", post(changing::drain)),
        route("get", "/v1/events", get(follow::events)),
        route("get", "/v1/openapi.json", get(looking::openapi)),
        route("get", "/metrics", get(metrics::metrics)),
    ]
}

fn router(api: Api) -> Router {
    let mut router = Router::new();
    for Route { path, to, .. } in routes() {
        router = router.route(path, to);
    }
    if api.debug {
        router = router.route("/v1/debug/stick", post(changing::stick));
    }
    let most = api.config.borrow().limits.body_bytes;
    router.fallback(looking::nothing).layer(DefaultBodyLimit::max(most)).with_state(api)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_description_names_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let mut described = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                if method != "parameters" {
                    assert!(operation["summary"].is_string(), "{method} {path}");
                    assert!(operation["responses"].is_object(), "{method} {path}");
                    described.insert((method.clone(), path.clone()));
                }
            }
        }
        let built: BTreeSet<_> =
            routes().iter().map(|route| (route.method.to_owned(), route.path.to_owned())).collect();
        assert_eq!(described, built);
    }

    #[test]
    fn what_the_description_refers_to_is_there() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let text = OPENAPI;
        for part in text.split("\"#/").skip(1) {
            let pointer = format!("/{}", part.split('"').next().unwrap());
            assert!(document.pointer(&pointer).is_some(), "{pointer}");
        }
    }
}
