//! The whole engine in this process, asked over a real connection.

use super::super::options::tests::parse;
use super::*;
use serde_json::Value;
use std::net::SocketAddr;

/// A server on a free port; it ends with the test's runtime.
async fn start(arguments: &str) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = App::start(parse(arguments).unwrap().settings()).unwrap();
    tokio::spawn(async move { serve(listener, app).await });
    address
}

async fn post_json(address: SocketAddr, path: &str, body: &Value) -> reqwest::Response {
    let client = reqwest::Client::new();
    client.post(format!("http://{address}{path}")).json(body).send().await.unwrap()
}

async fn get_text(address: SocketAddr, path: &str) -> (u16, String) {
    let response = reqwest::get(format!("http://{address}{path}")).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// The `data` of all events, and whether the stream ended properly.
async fn events(mut response: reqwest::Response) -> (Vec<String>, bool) {
    let mut text = String::new();
    let whole = loop {
        match response.chunk().await {
            Ok(Some(bytes)) => text += std::str::from_utf8(&bytes).unwrap(),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    let data = |event: &str| event.strip_prefix("data: ").unwrap().to_owned();
    (text.split_terminator("\n\n").map(data).collect(), whole)
}

fn forced(tokens: u32) -> Value {
    json!({
        "model": "sim", "prompt": "one two three", "max_tokens": tokens, "ignore_eos": true,
        "stream": true, "stream_options": { "include_usage": true },
    })
}

#[tokio::test]
async fn a_completion_streams_its_tokens_and_its_usage() {
    let address = start("--step-ms 1").await;
    let response = post_json(address, "/v1/completions", &forced(20)).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");

    let (events, whole) = events(response).await;
    assert!(whole);
    assert_eq!(events.len(), 22, "20 tokens, usage, the end: {events:?}");
    assert_eq!(events[21], "[DONE]");
    let chunks: Vec<Value> =
        events[..21].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    assert_eq!(chunks[18]["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(chunks[19]["choices"][0]["finish_reason"], "length");
    assert_eq!(chunks[20]["choices"], json!([]));
    assert_eq!(chunks[20]["usage"]["completion_tokens"], 20);
    assert_eq!(chunks[20]["usage"]["prompt_tokens"], 3);

    // The last event may be read before the engine's thread has let go of the request.
    let idle = async {
        loop {
            let (status, metrics) = get_text(address, "/metrics").await;
            assert_eq!(status, 200);
            if metrics.contains("requests_running{model_name=\"sim\"} 0") {
                return metrics;
            }
            tokio::task::yield_now().await;
        }
    };
    let metrics = tokio::time::timeout(Duration::from_secs(10), idle).await.unwrap();
    let line = "generation_tokens_total{model_name=\"sim\"} 20";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn a_chat_and_a_whole_answer_agree_with_its_stream() {
    let address = start("--step-ms 0").await;
    let mut body = json!({
        "messages": [{ "role": "user", "content": "hello" }],
        "max_tokens": 8, "ignore_eos": true, "stream": true,
    });
    let response = post_json(address, "/v1/chat/completions", &body).await;
    let (events, _) = events(response).await;
    let streamed: String = events[..9]
        .iter()
        .map(|event| serde_json::from_str::<Value>(event).unwrap())
        .map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap().to_owned())
        .collect();
    body["stream"] = json!(false);
    let response = post_json(address, "/v1/chat/completions", &body).await;
    let whole: Value = response.json().await.unwrap();
    assert_eq!(whole["choices"][0]["message"]["content"], streamed);
    assert_eq!(whole["usage"]["completion_tokens"], 8);
}

#[tokio::test]
async fn the_server_shows_what_it_is_and_refuses_in_the_shape_of_the_api() {
    let address = start("--model m --kv-tokens 50").await;
    let (status, health) = get_text(address, "/health").await;
    assert!(status == 200 && health.contains("simulated"));
    let models: Value = serde_json::from_str(&get_text(address, "/v1/models").await.1).unwrap();
    assert_eq!(models["data"][0]["id"], "m");
    let info: Value = serde_json::from_str(&get_text(address, "/server_info").await.1).unwrap();
    assert_eq!(info["kv_tokens"], 50);
    assert_eq!(get_text(address, "/nothing").await.0, 404);

    let unknown = post_json(address, "/v1/completions", &forced(1)).await;
    assert_eq!(unknown.status(), 404);
    let error: Value = unknown.json().await.unwrap();
    assert_eq!(error["error"]["code"], "model_not_found");
    let mut never_fits = forced(60);
    never_fits["model"] = json!("m");
    assert_eq!(post_json(address, "/v1/completions", &never_fits).await.status(), 400);
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_slot() {
    // The first answer would take longer than any test: the second ends only in its place.
    let address = start("--max-running 1 --step-ms 100 --context 100000").await;
    let mut first = post_json(address, "/v1/completions", &forced(50_000)).await;
    first.chunk().await.unwrap().unwrap();
    drop(first);
    let (events, whole) = events(post_json(address, "/v1/completions", &forced(2)).await).await;
    assert!(whole);
    assert_eq!(events.len(), 4);
}

#[tokio::test]
async fn faults_come_at_their_request() {
    let faults = "--step-ms 0 --fault http-500@request=2 --fault cut@request=3 \
                  --fault no-done@request=4 --fault slow-header@request=5=0.01";
    let address = start(faults).await;
    let ask = async || post_json(address, "/v1/completions", &forced(4)).await;
    assert_eq!(events(ask().await).await.0.len(), 6);
    assert_eq!(ask().await.status(), 500);
    let (cut, whole) = events(ask().await).await;
    assert!(!whole && cut.len() <= 2, "{cut:?}");
    let (no_done, whole) = events(ask().await).await;
    assert!(whole && no_done.len() == 5, "{no_done:?}");
    assert_eq!(events(ask().await).await.0.len(), 6);
}

#[tokio::test]
async fn a_hung_engine_is_healthy_and_silent() {
    let address = start("--fault hang@request=2").await;
    assert_eq!(events(post_json(address, "/v1/completions", &forced(2)).await).await.0.len(), 4);
    let mut silent = post_json(address, "/v1/completions", &forced(2)).await;
    assert_eq!(silent.status(), 200);
    assert_eq!(get_text(address, "/health").await.0, 200);
    // Long past the time of both tokens.
    let wait = tokio::time::timeout(Duration::from_millis(200), silent.chunk()).await;
    assert!(wait.is_err(), "a token came: {wait:?}");
}

#[tokio::test]
async fn a_stalled_stream_is_alone_with_its_silence() {
    let address = start("--step-ms 0 --fault stall@request=1").await;
    let mut silent = post_json(address, "/v1/completions", &forced(4)).await;
    let silence = async { while silent.chunk().await.unwrap().is_some() {} };
    let wait = tokio::time::timeout(Duration::from_millis(200), silence).await;
    assert!(wait.is_err(), "the stream ended");
    assert_eq!(events(post_json(address, "/v1/completions", &forced(4)).await).await.0.len(), 6);
}

#[tokio::test]
async fn what_is_served_is_told_and_not_what_was_asked() {
    let address = start("--max-running 8 --fault clamp=2").await;
    let info: Value = serde_json::from_str(&get_text(address, "/server_info").await.1).unwrap();
    assert_eq!(info["max_running"], 2);
}

#[tokio::test]
async fn an_engine_may_be_deaf_to_lengths_and_silent_about_them() {
    let address = start("--step-ms 0 --fault short-answers --fault no-usage").await;
    let (events, whole) = events(post_json(address, "/v1/completions", &forced(200)).await).await;
    assert!(whole && events.len() < 201, "{} events of 200 tokens and the end", events.len());
    assert!(!events.iter().any(|event| event.contains("completion_tokens")));
}

#[tokio::test]
async fn a_prefix_is_computed_once_until_the_cache_is_emptied() {
    let address = start("--step-ms 0 --prefix-cache").await;
    let shared: Vec<String> = (0..40).map(|n| format!("w{n}")).collect();
    let cached = async |last: &str| {
        let prompt = format!("{} {last}", shared.join(" "));
        let body = json!({ "prompt": prompt, "max_tokens": 2, "ignore_eos": true });
        let answer = post_json(address, "/v1/completions", &body).await;
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    assert_eq!((cached("a").await, cached("b").await), (0, 32));
    let (_, metrics) = get_text(address, "/metrics").await;
    for line in [
        "cached_tokens_total{model_name=\"sim\"} 32",
        "to_first_token_seconds_count{model_name=\"sim\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert_eq!(post_json(address, "/flush_cache", &json!({})).await.status(), 200);
    assert_eq!(cached("c").await, 0);
}
