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

/// What a request of `class` may take, and what the simulated engine takes: 8 steps of 5 ms or more.
const CLASSES: &str = "[[classes]]\nname = \"quick\"\nshare = 0.5\nslo = { e2el = \"1ms\" }\n\n\
                       [[classes]]\nname = \"slow\"\nshare = 0.5\nslo = { ttft = \"20s\", e2el = \"60s\" }\n\n";

#[test]
fn each_class_has_its_goodput_and_its_requests_are_named() {
    let sandbox = Sandbox::new();
    let text = format!("{}{CLASSES}", sweep(&variant("good", &[])));
    let run = sandbox.run(&text).expect_exit(0);
    for name in ["2-users", "4-users"] {
        let cell = phase(&run, name);
        let groups = cell["groups"].as_array().unwrap();
        assert_eq!(groups.len(), 2, "{cell:#}");
        let of = |class: &str| {
            groups.iter().find(|group| group["key"]["class"] == class).unwrap().clone()
        };
        let (quick, slow) = (of("quick"), of("slow"));
        let sent = |group: &Value| group["sent"].as_u64().unwrap();
        assert_eq!(sent(&quick) + sent(&slow), cell["requests"]["sent"].as_u64().unwrap());
        assert!(sent(&slow) > 0, "{slow:#}");
        // No answer of eight tokens comes within a millisecond, and none takes a minute.
        assert_eq!((&quick["met"], &slow["met"]), (&json!(0), &slow["sent"]), "{cell:#}");
        assert_eq!(slow["met_share"], 1.0, "{slow:#}");
        let seconds = cell["whole"]["duration_s"]["mean"].as_f64().unwrap();
        let goodput = slow["goodput_per_s"]["mean"].as_f64().unwrap();
        let want = f64::from(u32::try_from(sent(&slow)).unwrap()) / seconds;
        assert!((goodput / want - 1.0).abs() < 1e-9, "{goodput}, not {want}");
    }
    let report = run.report();
    assert!(
        report.contains("## Classes of requests") && report.contains("TTFT 20000 ms"),
        "{report}"
    );
}

#[test]
fn a_field_of_what_is_asked_names_the_class() {
    let sandbox = Sandbox::new();
    let lines = (0..40).map(|n| {
        let tier = if n % 4 == 0 { "gold" } else { "basic" };
        format!("{}\n", json!({ "prompt": words(n, 8), "output_tokens": 5, "tier": tier }))
    });
    sandbox.write("set.jsonl", &lines.collect::<String>());
    let rows = (0..20).map(|n| format!("{n},9,3,{}\n", if n % 5 == 0 { "gold" } else { "basic" }));
    let head = "Timestamp,Request tokens,Response tokens,Log Type\n".to_owned();
    sandbox.write("trace.csv", &std::iter::once(head).chain(rows).collect::<String>());
    let classes = "[[classes]]\nname = \"first\"\nvalue = \"gold\"\nslo = { ttft = \"20s\" }\n\n\
                   [[classes]]\nname = \"basic\"\nslo = { ttft = \"20s\" }\n\n";
    let dataset = "kind = \"dataset\"\npath = \"set.jsonl\"\noutput_tokens = \"recorded\"\nclass_field = \"tier\"";
    let one = "[[phases]]\nname = \"a\"\nusers = 2\nmin_requests = 10\n\n";
    let text = format!("{}{classes}", asking(dataset, one, &variant("good", &[])));
    let run = sandbox.run(&text).expect_exit(0);
    let cell = phase(&run, "a");
    let sent = |cell: &Value, n: usize| cell["groups"][n]["sent"].as_u64().unwrap();
    assert_eq!(sent(&cell, 0) + sent(&cell, 1), cell["requests"]["sent"].as_u64().unwrap());
    assert!(sent(&cell, 0) < sent(&cell, 1), "a quarter is gold: {cell:#}");

    let other = Sandbox::new();
    other.write("trace.csv", &fs::read_to_string(sandbox.path().join("trace.csv")).unwrap());
    let random = "kind = \"random\"\nprompt_tokens = 16\noutput_tokens = 8";
    let played = "[[phases]]\nname = \"a\"\ntrace = \"trace.csv\"\nspeed_up = 20\nclass_field = \"Log Type\"\n\n";
    let text = format!("{}{classes}", asking(random, played, &variant("good", &[])));
    let file = other.write("played.toml", &text);
    let done = other.command(&["check"]).arg(&file).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(said.contains("class first: where it says \"gold\", within TTFT 20000 ms"), "{said}");
    let run = other.run(&text).expect_exit(0);
    let cell = phase(&run, "a");
    assert_eq!((sent(&cell, 0), sent(&cell, 1)), (4, 16), "{cell:#}");

    let unnamed = format!("{}{classes}", asking(random, one, &variant("good", &[])));
    let file = other.write("sweep.toml", &unnamed);
    let done = other.command(&["check"]).arg(&file).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("nothing says of which class a request of phase `a` is"), "{said}");
}

#[test]
fn a_ramp_is_followed_and_each_stage_has_its_figures() {
    let sandbox = Sandbox::new();
    let random = "kind = \"random\"\nprompt_tokens = 16\noutput_tokens = 4";
    let phases = "[[phases]]\nname = \"a\"\narrivals = \"constant\"\n\
                  stages = [{ rate = 0, to = 40, duration = \"1s\" }, { rate = 40, duration = \"2s\" }]\n";
    let run = sandbox.run(&asking(random, phases, &variant("good", &[]))).expect_exit(0);
    let cell = phase(&run, "a");
    let groups = cell["groups"].as_array().unwrap();
    let seen: Vec<(&str, u64)> = groups
        .iter()
        .map(|group| (group["what"].as_str().unwrap(), group["sent"].as_u64().unwrap()))
        .collect();
    // Half of forty in the ramp; evenly spaced, so one more or less at an edge.
    assert_eq!((seen[0].0, seen[1].0), ("0 to 40 in 1 s", "40 for 2 s"));
    assert!((18..=21).contains(&seen[0].1) && (78..=81).contains(&seen[1].1), "{seen:?}");
    let parts = &cell["trials"][0]["parts"];
    assert!(parts["ramp_s"].as_f64().unwrap() >= 1.0, "the ramp is no part of it: {parts:#}");
    assert!(run.report().contains("Stages of open loops"), "{}", run.report());
}

#[test]
fn what_a_cache_knows_is_set_against_what_it_was_meant_to_know() {
    let sandbox = Sandbox::new();
    let rag = "kind = \"rag\"\nprompt_tokens = 128\nshared = 0.5\ndocuments = 2\noutput_tokens = 4";
    let phases = "[[phases]]\nname = \"a\"\nusers = 2\nmin_requests = 40\n";
    let cached = "[[variants]]\nname = \"cached\"\nengine = \"sim\"\n\
                  params = { step-ms = 1.0, prefix-cache = true }\n\n";
    let text = asking(rag, phases, cached);
    let run = sandbox.run(&text).expect_exit(0);
    let cell = phase(&run, "a");
    let tokens = &cell["tokens"];
    let [cached, meant, prompt] = ["cached", "cached_meant", "prompt"]
        .map(|key| f64::from(u32::try_from(tokens[key].as_u64().unwrap()).unwrap()));
    // Half of a prompt is its document, but for the first of each; an engine keeps whole blocks.
    assert!((0.44..0.51).contains(&(meant / prompt)), "{tokens:#}");
    assert!(cached <= meant && cached > 0.7 * meant, "{tokens:#}");
    assert_eq!(tokens["prompt_mismatched"], 0, "{tokens:#}");
    assert!(tokens["prompt_compared"].as_u64() == cell["requests"]["ok"].as_u64(), "{tokens:#}");
    let report = run.report();
    assert!(report.contains("## Tokens") && !report.contains("prefix_cache_hits"), "{report}");
}
