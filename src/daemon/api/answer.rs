//! How answers and refusals look on the wire.

use crate::daemon::service::asks::Refused;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.refusal)).into_response()
    }
}

/// Facts as JSON, ending in a newline for whoever looks at them in a terminal.
pub(super) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            ([("content-type", "application/json")], text).into_response()
        }
        Err(error) => Refused::new(500, error.to_string()).into_response(),
    }
}

/// The keeper is gone: sweepd is ending.
pub(super) fn ending() -> Refused {
    Refused::new(503, "sweepd is ending")
}

/// Work on files, off the threads that serve.
pub(super) async fn reading<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Refused::new(500, error.to_string())),
    }
}
