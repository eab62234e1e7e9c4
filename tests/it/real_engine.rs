//! The whole line with a real engine: llama.cpp's own server with a small model of random weights.

use crate::harness::Sandbox;
use std::env;

#[test]
fn a_real_engine_is_swept_in_two_tunings() {
    let variable = |name| env::var(name).ok();
    let (Some(server), Some(model), Some(tokenizer)) = (
        variable("SWEEPD_TEST_LLAMA_SERVER"),
        variable("SWEEPD_TEST_MODEL"),
        variable("SWEEPD_TEST_TOKENIZER"),
    ) else {
        eprintln!("skipped: no real engine is set up; scripts/test sets one up");
        return;
    };
    let text = format!(
        r#"schema = 1
name = "real"
seed = 3
blocks = 1
[model]
path = "{model}"
served_name = "tiny"
tokenizer = "{tokenizer}"
[engines.llama-cpp]
program = "{server}"
[[variants]]
name = "one-slot"
engine = "llama-cpp"
params = {{ parallel = 1, ctx-size = 1024, threads = 1 }}
[[variants]]
name = "four-slots"
engine = "llama-cpp"
params = {{ parallel = 4, ctx-size = 4096, threads = 1 }}
[workload]
kind = "random"
endpoint = "completions"
prompt_tokens = 32
output_tokens = 16
[warmup]
requests = 2
users = 1
[[phases]]
users = 4
min_requests = 16
min_duration = "1s"
[deadlines]
load = "60s"
"#
    );
    for endpoint in ["completions", "chat"] {
        let sandbox = Sandbox::new();
        let text = text.replace("endpoint = \"completions\"", &format!("endpoint = {endpoint:?}"));
        let run = sandbox.run(&text).expect_exit(0);
        for trial in ["01-one-slot", "01-four-slots"] {
            run.expect_measured(trial);
        }
        run.expect_nothing_left();
        let summary = run.json("summary.json");
        for cell in summary["cells"].as_array().unwrap() {
            let requests = &cell["requests"];
            assert_eq!(requests["ok"], requests["sent"], "{endpoint}: {cell:#}");
            // Tokens are the server's own count, and they are what was asked for.
            let tokens = &cell["tokens"];
            for fault in ["usage_missing", "prompt_mismatched", "output_short"] {
                assert_eq!(tokens[fault], 0, "{endpoint}: {fault}: {cell:#}");
            }
        }
    }
}
