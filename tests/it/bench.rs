//! `sweepd bench` against a server that already runs, whatever that server does.

use crate::harness::{SWEEPD, Sandbox, eventually, repository, sim_tokenizer};
use serde_json::Value;
use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// The fields of a result file that scripts know, one and all, and the one that is our own.
const KEYS: &str = "backend burstiness completed date duration endpoint_type failed label \
    max_concurrency max_concurrent_requests max_output_tokens_per_s mean_e2el_ms mean_itl_ms \
    mean_tpot_ms mean_ttft_ms median_e2el_ms median_itl_ms median_tpot_ms median_ttft_ms model_id \
    num_prompts output_throughput p50_e2el_ms p50_itl_ms p50_tpot_ms p50_ttft_ms p90_e2el_ms \
    p90_itl_ms p90_tpot_ms p90_ttft_ms p95_e2el_ms p95_itl_ms p95_tpot_ms p95_ttft_ms p99_e2el_ms \
    p99_itl_ms p99_tpot_ms p99_ttft_ms request_goodput request_rate request_throughput rtfx \
    std_e2el_ms std_itl_ms std_tpot_ms std_ttft_ms sweepd tokenizer_id total_input_tokens \
    total_output_tokens total_token_throughput";
const DETAILS: &str = "errors input_lens itls output_lens start_times ttfts";

/// A simulated engine of this test's own.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(sandbox: &Sandbox, faults: &[&str]) -> Self {
        let log = sandbox.path().join("server.log");
        let file = fs::File::create(&log).unwrap();
        let mut command = Command::new(SWEEPD);
        command.args(["sim", "--port", "0", "--step-ms", "1"]);
        command.args(faults.iter().flat_map(|fault| ["--fault", *fault]));
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let url = eventually(Duration::from_secs(20), "the server's address", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let at = text.find("http://127.0.0.1:")?;
            let rest = &text[at..];
            let port =
                rest["http://127.0.0.1:".len()..].split(|c: char| !c.is_ascii_digit()).next();
            port.map(|port| format!("http://127.0.0.1:{port}"))
        });
        Self { child, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Twenty requests of four users; what it printed, and its result file.
fn bench(sandbox: &Sandbox, url: &str, more: &[&str]) -> (Output, Value) {
    let file = sandbox.path().join("result.json");
    let mut arguments = vec!["bench", "--url", url, "--model", "sim", "--users", "4"];
    arguments.extend(["--requests", "20", "--prompt-tokens", "32", "--output-tokens", "16"]);
    arguments.extend(["--save-result", file.to_str().unwrap()]);
    arguments.extend(more);
    let output = sandbox.command(&arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{error}: {said}"));
    (output, serde_json::from_str(&text).unwrap())
}

fn keys(result: &Value) -> Vec<&str> {
    result.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_result_file_is_read_by_a_script_that_knows_only_its_fields() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let tokenizer = sim_tokenizer();
    let exact = ["--tokenizer", tokenizer.to_str().unwrap(), "--warmup", "4"];
    let (output, result) = bench(&sandbox, &server.url, &exact);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(keys(&result), KEYS.split_ascii_whitespace().collect::<Vec<_>>());
    assert_eq!((&result["completed"], &result["failed"]), (&20.into(), &0.into()));
    assert_eq!(result["total_output_tokens"], 320);
    assert_eq!(result["total_input_tokens"], 640, "lengths are exact");
    let script = repository().join("tests/python/read_result.py");
    let file = sandbox.path().join("result.json");
    let read = Command::new("python3").arg(script).arg(file).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    assert_eq!(String::from_utf8(read.stdout).unwrap().lines().count(), 2);

    let (output, result) = bench(&sandbox, &server.url, &["--save-detailed", "--endpoint", "chat"]);
    let mut all: Vec<&str> =
        [KEYS, DETAILS].iter().flat_map(|k| k.split_ascii_whitespace()).collect();
    all.sort_unstable();
    assert_eq!(keys(&result), all);
    assert_eq!(result["ttfts"].as_array().unwrap().len(), 20);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("about 32 tokens, without a tokenizer"), "{said}");
    assert_eq!(result["backend"], "openai-chat");
}

#[test]
fn whatever_happens_to_a_stream_all_twenty_are_accounted_for() {
    for (fault, class) in [
        ("cut@request=5", "cut"),
        ("garbage@request=5", "malformed"),
        ("error-event@request=5", "error_event"),
        ("no-done@request=5", "ok"),
        ("http-500@request=5", "http_error"),
        ("slow-header@request=5=3", "stalled"),
        ("hang@request=5", "stalled"),
        ("crash@request=5", "cut"),
    ] {
        let sandbox = Sandbox::new();
        let server = Server::start(&sandbox, &[fault]);
        let (output, result) = bench(&sandbox, &server.url, &["--stall-deadline", "1s"]);
        let count = |key: &str| result[key].as_u64().unwrap();
        let of_class: u64 = result["sweepd"]["failed_by_class"]
            .as_object()
            .unwrap()
            .values()
            .map(|count| count.as_u64().unwrap())
            .sum();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            count("completed") + count("failed"),
            result["sweepd"]["sent"],
            "{fault}: {said}"
        );
        assert_eq!(of_class, count("failed"), "{fault}: {said}");
        let lasting = matches!(class, "stalled") && fault.starts_with("hang")
            || class == "cut" && fault.starts_with("crash");
        if !lasting {
            assert_eq!(result["sweepd"]["sent"], 20, "{fault}: {said}");
        }
        if class == "ok" {
            assert_eq!(count("failed"), 0, "{said}");
        } else {
            let named = result["sweepd"]["failed_by_class"][class].as_u64();
            assert!(named.is_some_and(|count| count >= 1), "{fault}: {said}");
            assert!(said.contains(class), "{said}");
        }
        assert_eq!(output.status.success(), !lasting, "{fault}: {said}");
    }
}

#[test]
fn nobody_there_and_wrong_words_are_said() {
    let sandbox = Sandbox::new();
    let refused = |arguments: &[&str]| {
        let mut all = vec!["bench", "--model", "m", "--users", "1", "--prompt-tokens", "4"];
        all.extend(["--output-tokens", "2", "--requests", "3"]);
        all.extend(arguments);
        let output = sandbox.command(&all).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (arguments, code, why) in [
        (vec!["--url", "localhost"], 2, "--url"),
        (vec!["--url", "http://127.0.0.1:9", "--endpoint", "chatt"], 2, "did you mean `chat`?"),
        (vec!["--url", "http://127.0.0.1:9", "--endpoint", "generate"], 2, "--engine"),
        (vec!["--url", "http://127.0.0.1:9", "--engine", "simm"], 2, "did you mean `sim`?"),
        (vec!["--url", "http://127.0.0.1:9", "--tokenizer", "/no/such"], 2, "/no/such"),
    ] {
        let (got, said) = refused(&arguments);
        assert_eq!(got, Some(code), "{said}");
        assert!(said.contains(why), "{said}");
    }
    let (code, said) = refused(&["--url", "http://127.0.0.1:9"]);
    assert_eq!(code, Some(1), "a server that is not there is a result, not a mistake: {said}");
}

#[test]
fn a_data_set_is_asked_and_goodput_counted() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let tokenizer = sim_tokenizer();
    let set = repository().join("examples/conversations.jsonl");
    let file = sandbox.path().join("result.json");
    let bench = |more: &[&str]| {
        let mut arguments = vec!["bench", "--url", &server.url, "--model", "sim", "--users", "2"];
        arguments.extend(["--requests", "6", "--warmup", "2", "--endpoint", "chat"]);
        arguments.extend(["--tokenizer", tokenizer.to_str().unwrap()]);
        arguments.extend(["--save-result", file.to_str().unwrap()]);
        arguments.extend(more);
        let output = sandbox.command(&arguments).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), said)
    };
    let set = set.to_str().unwrap();
    let (code, said) = bench(&["--dataset", set, "--goodput", "ttft:60000", "e2el:60000"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("16 entries of conversations.jsonl"), "{said}");
    assert!(said.contains("6 of 6 within TTFT 60000 ms, E2EL 60000 ms"), "{said}");
    let result: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(result["completed"], 6);
    assert_eq!(result["request_goodput"], result["request_throughput"]);
    assert_eq!(result["sweepd"]["tokens"]["output_short"], 0, "{result:#}");
    let (code, said) = bench(&["--dataset", set, "--whole-conversations", "--output-tokens", "5"]);
    assert_eq!(code, Some(0), "{said}");
    let result: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(result["total_output_tokens"], 30);

    let bad = sandbox.write("bad.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": 1}\n");
    let (code, said) = bench(&["--dataset", bad.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("line 2: `prompt` is no text"), "{said}");
    let (code, said) = bench(&["--dataset", set, "--goodput", "itl:5"]);
    assert_eq!((code, said.contains("none of ttft, tpot and e2el")), (Some(2), true), "{said}");
}
