//! Workloads through the real binary: data sets, what is wrong with them, and rates that ramp.

use crate::harness::{Run, Sandbox, sweep, variant};
use serde_json::{Value, json};
use std::fmt::Write;
use std::fs;

/// The harness's sweep with this workload, and these phases instead of its own.
pub(crate) fn asking(workload: &str, phases: &str, variants: &str) -> String {
    let text = sweep(variants);
    let (head, rest) = text.split_once("[workload]").unwrap();
    let (_, rest) = rest.split_once("[smoke]").unwrap();
    let (smoke, rest) = rest.split_once("[[phases]]").unwrap();
    let (_, tail) = rest.split_once("[deadlines]").unwrap();
    format!("{head}[workload]\n{workload}\n\n[smoke]{smoke}{phases}\n[deadlines]{tail}")
}

/// So many words that the simulated engine's tokenizer knows as a token each.
fn words(from: usize, count: usize) -> String {
    let known: Value =
        serde_json::from_str(&fs::read_to_string(crate::harness::sim_tokenizer()).unwrap())
            .unwrap();
    let vocabulary = known["model"]["vocab"].as_object().unwrap();
    let mut words: Vec<&str> = vocabulary
        .keys()
        .map(String::as_str)
        .filter(|word| word.bytes().all(|b| b.is_ascii_lowercase()))
        .collect();
    words.sort_unstable();
    (0..count).map(|n| words[(from * 7 + n * 11) % words.len()]).collect::<Vec<_>>().join(" ")
}

/// A conversation of so many turns: messages of 8 words, answers of 5.
fn talk(n: usize, turns: usize) -> Value {
    let turn = |turn: usize| {
        let seed = n * 10 + turn;
        [
            json!({ "from": "human", "value": words(seed, 8) }),
            json!({ "from": "gpt", "value": words(seed + 5, 5) }),
        ]
    };
    json!({ "id": n, "conversations": (0..turns).flat_map(turn).collect::<Vec<_>>() })
}

fn phase(run: &Run, name: &str) -> Value {
    let summary = run.json("summary.json");
    let cells = summary["cells"].as_array().unwrap();
    cells.iter().find(|cell| cell["phase"] == name).unwrap().clone()
}

const CLOSED: &str = "[[phases]]\nname = \"a\"\nusers = 2\nmin_requests = 10\n\n\
                      [[phases]]\nname = \"b\"\nusers = 4\nmin_requests = 10\n";

#[test]
fn a_data_set_is_asked_with_its_own_lengths_and_no_phase_asks_what_another_has() {
    let sandbox = Sandbox::new();
    let mut entries: Vec<Value> = (0..80).map(|n| talk(n, 1)).collect();
    entries.push(json!({ "conversations": [{ "from": "gpt", "value": "hello" }] }));
    sandbox.write("set.json", &serde_json::to_string_pretty(&entries).unwrap());
    let workload = "kind = \"dataset\"\npath = \"set.json\"\noutput_tokens = \"recorded\"";
    let text = asking(workload, CLOSED, &variant("good", &[]));
    let run = sandbox.run(&text).expect_exit(0);
    run.expect_measured("01-good");
    let mut asked = 0;
    for name in ["a", "b"] {
        let cell = phase(&run, name);
        let ok = cell["requests"]["ok"].as_u64().unwrap();
        assert_eq!(cell["requests"]["failed"], 0, "{cell:#}");
        assert_eq!(cell["tokens"]["output"].as_u64().unwrap(), 5 * ok, "{cell:#}");
        assert_eq!(cell["tokens"]["prompt_mismatched"], 0, "{cell:#}");
        assert_eq!(cell["tokens"]["prompt_compared"].as_u64().unwrap(), ok, "{cell:#}");
        let used = &cell["trials"][0]["dataset"];
        assert_eq!((&used["begun"], &used["repeated"]), (&cell["requests"]["sent"], &json!(0)));
        asked += used["part"]["entries"].as_u64().unwrap();
    }
    // The warm-up has the rest.
    assert!((70..81).contains(&asked), "{asked} of 81 entries");
    let report = run.report();
    for part in [
        "## Data set",
        "81 entries of set.json",
        "cannot be used: 1 (the user does not begin)",
        "| data file",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert!(run.json("provenance.json")["data"][0]["files"][0]["sampled_sha256"].is_string());
    run.expect_nothing_left();
}

#[test]
fn whole_conversations_are_carried_on_and_a_small_set_repeats_and_says_so() {
    let sandbox = Sandbox::new();
    let lines: String = (0..6).fold(String::new(), |mut text, n| {
        let turns = |m: usize| json!({ "role": if m.is_multiple_of(2) { "user" } else { "assistant" }, "content": words(n * 9 + m, 6) });
        let messages: Vec<Value> = (0..6).map(turns).collect();
        writeln!(text, "{}", json!({ "messages": messages })).unwrap();
        text
    });
    sandbox.write("chat.jsonl", &lines);
    let workload = "kind = \"dataset\"\npath = \"chat.jsonl\"\nendpoint = \"chat\"\nturns = \"all\"\noutput_tokens = 4";
    let phases = "[[phases]]\nname = \"a\"\nusers = 2\nmin_requests = 40\n";
    let run = sandbox.run(&asking(workload, phases, &variant("good", &[]))).expect_exit(0);
    let cell = phase(&run, "a");
    let ok = cell["requests"]["ok"].as_u64().unwrap();
    assert_eq!(cell["tokens"]["output"].as_u64().unwrap(), 4 * ok, "{cell:#}");
    // Three turns of six words each, with the answers between: more is sent than was new.
    assert!(cell["tokens"]["prompt"].as_u64().unwrap() > 10 * ok, "{cell:#}");
    let used = &cell["trials"][0]["dataset"];
    let begun = used["begun"].as_u64().unwrap();
    assert!((13..=20).contains(&begun), "{used:#}");
    assert!(used["repeated"].as_u64().unwrap() >= begun - 6, "{used:#}");
    assert!(run.report().contains("dataset_repeats"), "{}", run.report());
}

#[test]
fn what_is_wrong_with_a_data_set_is_told_with_its_lines() {
    let sandbox = Sandbox::new();
    let check = |workload: &str| {
        let text = asking(workload, CLOSED, &variant("good", &[]));
        let file = sandbox.write("sweep.toml", &text);
        let done = sandbox.command(&["check"]).arg(&file).output().unwrap();
        (done.status.code(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
    };
    let good = talk(1, 1).to_string();
    sandbox.write("bad.jsonl", &format!("{good}\n{{\"prompt\": 3}}\n\n{good}\n{{\"messages\"\n"));
    let base = "kind = \"dataset\"\noutput_tokens = 8\n";
    let (code, said) = check(&format!("{base}path = \"bad.jsonl\""));
    assert_eq!(code, Some(2), "{said}");
    for part in [
        "bad.jsonl, line 2: `prompt` is no text",
        "bad.jsonl, line 5: ",
        "2 of 4 entries are wrong",
        "skip_wrong = true",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (code, said) = check(&format!("{base}path = \"bad.jsonl\"\nskip_wrong = true"));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("cannot be used: 2 (wrong in the file)"), "{said}");
    assert!(said.contains("they will repeat"), "{said}");
    sandbox.write("cut.json", &format!("[{good},\n{{\"prompt\": \"a"));
    for (more, want) in [
        ("path = \"none.jsonl\"", "No such file"),
        ("path = \"cut.json\"", "line 2: the entry that begins here has no end"),
        ("path = \".\"", "is a directory"),
        ("path = \"bad.jsonl\"\nturns = \"some\"", "choices: `first`, `all`"),
        ("path = \"bad.jsonl\"\nprompt_tokens = { min = 9, max = 3 }", "`min` is 9 and `max` 3"),
        ("path = \"bad.jsonl\"\nanswer_tokens = { min = 9 }", "all answers have the one length"),
    ] {
        let (code, said) = check(&format!("{base}{more}"));
        assert_eq!((code, said.contains(want)), (Some(2), true), "{more}: {said}");
    }
    let talks = "[[phases]]\nrate = 5\nmin_requests = 9\n";
    let text = asking(
        &format!("{base}path = \"bad.jsonl\"\nskip_wrong = true\nturns = \"all\""),
        talks,
        &variant("good", &[]),
    );
    let file = sandbox.write("sweep.toml", &text);
    let done = sandbox.command(&["check"]).arg(&file).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("conversations need closed loops"), "{said}");
}

#[test]
fn a_part_in_which_nothing_fits_ends_the_trial_with_the_reason() {
    let sandbox = Sandbox::new();
    let lines: String = (0..9).map(|n| format!("{}\n", talk(n, 1))).collect();
    sandbox.write("set.jsonl", &lines);
    let workload = "kind = \"dataset\"\npath = \"set.jsonl\"\noutput_tokens = 8\nprompt_tokens = { min = 500 }";
    let run = sandbox.run(&asking(workload, CLOSED, &variant("good", &[]))).expect_exit(1);
    let attempt = run.attempt("01-good").to_string();
    assert!(attempt.contains("fits") && attempt.contains("its prompt is too short"), "{attempt}");
    run.expect_nothing_left();
}
