//! Sweep files with their mistakes, and what comes of the good ones.

use super::*;
use crate::cpus::{CpuSet, Topology};
use crate::engine::def::ParamValue;
use crate::form::host::{FakeHost, PathKind};
use crate::sweep::installed::{Installed, NotAsked};
use std::time::Duration;

/// A sweep of two variants of an engine that exists in these tests only.
pub(crate) const RIGHT: &str = r#"
schema = 1
name = "two-of-turbo"
seed = 42
blocks = 2

[model]
path = "tiny.gguf"

[engines.turbo]
program = "bin/turbo"

[[variants]]
name = "slow"
engine = "turbo"
params = { slots = 1 }

[[variants]]
name = "fast"
engine = "turbo"
params = { slots = 8 }
env = { THREADS = "1" }
env_pass = ["CACHE"]

[sampling]
top_k = 40

[workload]
kind = "random"
prompt_tokens = 128
output_tokens = 256

[[phases]]
users = 10
min_requests = 300
min_duration = "30s"

[[phases]]
name = "thinkers"
users = 10
min_requests = 300
think_time = "2s"

[deadlines]
load = "2min"
"#;

const TURBO: &str = r#"
schema = 1
program = "turbo"
[launch]
command = ["{program}", "--port", "{port}"]
[params.slots]
type = "integer"
min = 1
[ready]
path = "/health"
[endpoints]
completions = "/v1/completions"
[request.sampling]
temperature = "temperature"
top_k = "top_k"
[params.no-cache]
type = "switch"
[outdated.threads-per-slot]
instead = "slots"
[help]
command = ["{program}", "--help"]
abbreviates = true
[model]
files = ["config.json"]
"#;

fn host() -> FakeHost {
    let mut host = FakeHost::default()
        .with(PathKind::File, "/s/tiny.gguf", "")
        .with(PathKind::File, "/s/tokenizer.json", "")
        .with(PathKind::Folder, "/s/folder", "")
        .with(PathKind::File, "/s/folder/tokenizer.json", "")
        .with(PathKind::File, "/s/folder/config.json", "")
        .with(PathKind::Folder, "/s/empty", "")
        .with(PathKind::Program, "/bin/docker", "")
        .with(PathKind::File, "/s/lone/m.gguf", "")
        .with(PathKind::Program, "/s/bin/turbo", "")
        .with(PathKind::File, "/s/lengths.txt", "64\n64\n\n2048\n")
        .with(PathKind::File, "/s/wrong.txt", "64\n0\nten\n")
        .with(PathKind::Program, "/bin/turbo", "")
        .with(PathKind::File, "/s/broken.toml", "schema = 1\nlunch = 2\n")
        .with(PathKind::File, "/s/own.toml", TURBO)
        .with(PathKind::File, "/engines/turbo.toml", TURBO)
        .with(PathKind::File, "/engines/lost.toml", &TURBO.replace("\"turbo\"", "\"lost\""))
        .with(PathKind::File, "/engines/bare.toml", &TURBO.replace("{program}", "x"));
    host.path = vec!["/bin".into()];
    // Four cores of two threads each.
    let set = |text: &str| text.parse::<CpuSet>().unwrap();
    let cores = ["0,4", "1,5", "2,6", "3,7"].map(set).to_vec();
    host.cpus = Some(Topology { online: set("0-7"), allowed: set("0-7"), cores });
    host
}

pub(crate) fn try_sweep(text: &str) -> Result<Sweep, Problems> {
    try_installed(text, &NotAsked)
}

pub(crate) fn try_installed(text: &str, installed: &dyn Installed) -> Result<Sweep, Problems> {
    let library = Library::load(vec!["/engines".into()]).unwrap();
    parse(Path::new("s/sweep.toml"), text, &library, &host(), installed)
}

pub(crate) fn sweep(text: &str) -> Sweep {
    try_sweep(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Changes `RIGHT` in one place. `expected`: `line: message | help` of each problem.
#[track_caller]
pub(crate) fn check(from: &str, to: &str, expected: &[&str]) {
    let text = RIGHT.replacen(from, to, 1);
    assert_ne!(text, RIGHT, "{from}");
    let got: Vec<String> = match try_sweep(&text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.list().iter().map(shown).collect(),
    };
    assert_eq!(got, expected, "{from} -> {to}");
}

pub(crate) fn shown(problem: &form::Problem) -> String {
    let help = problem.help.as_ref().map(|help| format!(" | {help}")).unwrap_or_default();
    format!("{}: {}{help}", problem.line, problem.message)
}

#[test]
fn a_right_sweep_is_read_whole() {
    let sweep = sweep(RIGHT);
    assert_eq!(sweep.name.as_str(), "two-of-turbo");
    assert_eq!(sweep.blocks.get(), 2);
    let [slow, fast] = &sweep.variants[..] else { panic!("{:?}", sweep.variants) };
    assert_eq!(slow.program.as_deref(), Some("/s/bin/turbo"));
    assert_eq!(slow.model.path, Path::new("/s/tiny.gguf"));
    assert_eq!(slow.model.served_name, "tiny");
    assert_eq!(slow.model.tokenizer, Path::new("/s/tokenizer.json"));
    assert_eq!(fast.params["slots"], ParamValue::Integer(8));
    assert_eq!(fast.env["THREADS"], "1");
    assert_eq!(fast.env_pass, ["CACHE"]);
    assert_eq!(sweep.sampling.0["temperature"], 0.0);
    assert_eq!(sweep.sampling.0["top_k"], 40.0);
    assert_eq!(sweep.workload.endpoint, Endpoint::Completions);
    assert_eq!((sweep.warmup.requests, sweep.warmup.users.get()), (20, 10));
    let names: Vec<&str> = sweep.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, ["10-users", "thinkers"]);
    assert_eq!(sweep.deadlines.load, Some(Duration::from_secs(120)));
    assert_eq!(sweep.deadlines.stop, None);
    assert_eq!(sweep.deadlines.phase, Duration::from_secs(1800));
}

#[test]
fn ten_mistakes_are_told_at_once_with_line_and_remedy() {
    let text = r#"schema = 1
name = "a b"
sede = 42
[model]
path = "teeny.gguf"
[[variants]]
name = "x"
engine = "trubo"
[[variants]]
name = "y"
engine = "turbo"
params = { slot = 8 }
[[variants]]
name = "y"
engine = "turbo"
params = { slots = "8" }
[workload]
kind = "random"
prompt_tokens = 0
output_tokens = 256
[sampling]
min_p = 0.1
[[phases]]
users = 10
min-requests = 300
min_duration = 30
"#;
    let problems = try_sweep(text).unwrap_err().to_string();
    let engines = "`bare`, `lost`, `turbo`";
    for expected in [
        "s/sweep.toml:2:8: `name`: \"a b\" cannot be a name\n  help: letters, digits, `-`, `_` and `.`, not starting with `.` or `-`, at most 64\n",
        "s/sweep.toml:3:1: unknown key `sede`\n  help: did you mean `seed`? allowed here: ",
        "s/sweep.toml:5:8: `path`: /s/teeny.gguf is not there\n  help: a local file or folder; sweepd downloads nothing\n",
        "s/sweep.toml:8:10: `engine`: there is no engine `trubo`\n  help: did you mean `turbo`? engines: ",
        "s/sweep.toml:12:12: engine `turbo` has no parameter `slot`\n  help: did you mean `slots`? its parameters: `no-cache`, `slots`\n",
        "s/sweep.toml:14:8: `name`: another variant has this name\n",
        "s/sweep.toml:16:20: `slots`: expected a whole number, found text\n  help: write it without quotes: 8\n",
        "s/sweep.toml:19:17: `prompt_tokens`: 0 is out of range\n  help: from 1 to 10000000\n",
        "s/sweep.toml:25:1: unknown key `min-requests` in [[phases]]\n  help: did you mean `min_requests`? allowed here: ",
        "s/sweep.toml:26:16: `min_duration`: expected a span of time, found a whole number\n  help: a number needs its unit: \"30s\"?\n",
        "\n10 problems",
    ] {
        assert!(problems.contains(expected), "{expected}\nis not in\n{problems}");
    }
    assert!(engines.split(", ").all(|engine| problems.contains(engine)), "{problems}");
}

#[test]
fn variants_and_their_engines() {
    check("\"fast\"", "\"slow\"", &["19: `name`: another variant has this name"]);
    check(
        "engine = \"turbo\"",
        "engine = \"lost\"",
        &[
            "15: `engine`: there is no program \"lost\" in PATH | [engines.lost] program = \"path/to/lost\"",
        ],
    );
    check("[engines.turbo]\nprogram = \"bin/turbo\"", "", &[]);
    check("program = \"bin/turbo\"", "program = \"turbo\"", &[]);
    check(
        "program = \"bin/turbo\"",
        "program = \"./tiny.gguf\"",
        &["11: `program`: /s/tiny.gguf may not be run | chmod +x /s/tiny.gguf"],
    );
    check(
        "program = \"bin/turbo\"",
        "file = \"broken.toml\"",
        &[
            "1: missing `endpoints`",
            "1: missing `ready`",
            "1: missing `request`",
            "2: unknown key `lunch` | did you mean `launch`? allowed here: `schema`, `simulated`, \
             `program`, `version`, `launch`, `params`, `ready`, `endpoints`, `request`, `stop`, \
             `metrics`, `versions`, `help`, `outdated`, `model`, `effective`, `failure`, `mark`, \
             `harmless`, `exit`, `gpu`",
        ],
    );
    check(
        "program = \"bin/turbo\"",
        "file = \"none.toml\"",
        &["15: `engine`: cannot read /s/none.toml: entity not found"],
    );
    check("program = \"bin/turbo\"", "file = \"own.toml\"", &[]);
    check(
        "params = { slots = 1 }",
        "env = { \"A-B\" = \"1\" }",
        &[
            "16: \"A-B\" cannot be an environment variable | letters, digits and `_`, not starting with a digit",
        ],
    );
    check(
        "params = { slots = 1 }",
        "env = { A = 1 }",
        &["16: `A`: expected text, found a whole number | write it in quotes: \"1\""],
    );
}

#[test]
fn settings_of_an_engine_that_nobody_can_use() {
    let problems =
        try_sweep(&format!("{RIGHT}\n[engines.trubo]\nprogram = \"turbo\"")).unwrap_err();
    let [problem] = problems.list() else { panic!("{problems}") };
    assert_eq!(problem.message, "there is no engine `trubo`");
    assert!(problem.help.as_ref().unwrap().starts_with("did you mean `turbo`?"), "{problems}");

    let bare =
        RIGHT.replace("turbo\"\nparams", "bare\"\nparams").replace("engines.turbo", "engines.bare");
    let problems = try_sweep(&bare).unwrap_err();
    let [problem] = problems.list() else { panic!("{problems}") };
    assert_eq!(problem.message, "engine `bare` runs no program of its own");
}

#[test]
fn models_and_tokenizers() {
    check("[model]\npath = \"tiny.gguf\"", "", &["1: missing `model`"]);
    check("path = \"tiny.gguf\"", "path = \"folder\"", &[]);
    check(
        "path = \"tiny.gguf\"",
        "path = \"lone/m.gguf\"",
        &[
            "8: `path`: /s/lone/tokenizer.json is not there | prompts of exact length need the model's own: `tokenizer = \"…\"`",
        ],
    );
    check(
        "path = \"tiny.gguf\"",
        "path = \"tiny.gguf\"\ntokenizer = \"t.json\"",
        &["9: `tokenizer`: /s/t.json is not there"],
    );
    check(
        "path = \"tiny.gguf\"",
        "path = \"lone/m.gguf\"\ntokenizer = \"folder/tokenizer.json\"",
        &[],
    );
    let own = RIGHT
        .replace("[model]\npath = \"tiny.gguf\"", "")
        .replace("engine = \"turbo\"", "engine = \"turbo\"\nmodel = { path = \"folder\" }");
    let sweep = sweep(&own);
    assert_eq!(sweep.variants[1].model.served_name, "folder");
}

#[test]
fn the_load() {
    check(
        "kind = \"random\"",
        "kind = \"rnd\"",
        &[
            "29: `kind`: \"rnd\" is not a choice | choices: `random`, `mixed`, `rag`, `conversations`, `dataset`",
        ],
    );
    check(
        "kind = \"random\"",
        "kind = \"random\"\nendpoint = \"chat\"",
        &["30: `endpoint`: engine `turbo` has no endpoint `chat` | it has `completions`"],
    );
    check("top_k = 40", "top_k = 40.5", &["26: `top_k`: expected a whole number"]);
    check(
        "top_k = 40",
        "min_p = 0.5",
        &[
            "26: engine `turbo` has no field for the sampling parameter `min_p` | its file maps: `temperature`, `top_k`",
        ],
    );
    check(
        "top_k = 40",
        "topk = 40",
        &["26: `topk` is no sampling parameter | did you mean `top_k`? sampling parameters: \
         `temperature`, `top_p`, `top_k`, `min_p`, `repetition_penalty`, `presence_penalty`, \
         `frequency_penalty`, `seed`"],
    );
}

#[test]
fn a_sweep_of_nothing_is_no_sweep() {
    let problems = try_sweep("schema = 1\nname = 'x'\nvariants = []\nphases = []\n").unwrap_err();
    let messages: Vec<String> = problems.list().iter().map(shown).collect();
    assert_eq!(
        messages,
        [
            "1: missing `model`",
            "1: missing `workload`",
            "3: `variants`: is an empty list",
            "4: `phases`: is an empty list",
        ]
    );
}

#[test]
fn warm_up_is_twice_the_largest_phase_unless_said_otherwise() {
    for (addition, users, expected) in [
        ("", 4, (8, 4)),
        ("", 500, (64, 64)),
        ("[warmup]\nrequests = 3", 10, (3, 3)),
        ("[warmup]\nrequests = 0", 10, (0, 1)),
        ("[warmup]\nusers = 2", 10, (20, 2)),
    ] {
        let text = RIGHT.replace("users = 10", &format!("users = {users}"));
        let text = text.replace("name = \"thinkers\"\nusers = ", "name = \"t\"\nusers = 1 # ");
        let warmup = sweep(&format!("{text}{addition}")).warmup;
        assert_eq!((warmup.requests, warmup.users.get()), expected, "{addition} {users}");
    }
}

#[test]
fn renaming_an_engine_changes_nothing_but_its_name() {
    let renamed = RIGHT.replace("\"turbo\"", "\"other\"");
    let renamed = renamed.replace("[engines.turbo]", "[engines.other]\nfile = \"own.toml\"");
    let [a, b] = [sweep(RIGHT), sweep(&renamed)];
    let as_text = |sweep: &Sweep, name: &str, file: &str| {
        format!("{sweep:?}").replace(&format!("Name(\"{name}\")"), "NAME").replace(file, "FILE")
    };
    assert_eq!(as_text(&a, "turbo", "/engines/turbo.toml"), as_text(&b, "other", "/s/own.toml"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn no_text_makes_it_panic(at in 0..RIGHT.len(), cut in 0..30_usize, text in "\\PC{0,4}") {
        let end = (at + cut).min(RIGHT.len());
        try_sweep(&format!("{}{text}{}", &RIGHT[..at], &RIGHT[end..])).ok();
    }
}

#[test]
fn open_loops() {
    use crate::sweep::def::Pattern;
    use crate::workload::schedule::{Arrivals, OpenLoop, Stage};
    let phase = |lines: &str| {
        let text = RIGHT.replace("users = 10\nmin_requests = 300\nmin_duration = \"30s\"", lines);
        assert_ne!(text, RIGHT);
        sweep(&text).phases[0].clone()
    };
    let plain = phase("rate = 2.5\nmin_requests = 300");
    assert_eq!((plain.name.as_str(), plain.users.get()), ("2.5-per-s", 4096));
    let want = OpenLoop::Rate {
        arrivals: Arrivals::Poisson,
        rate_per_s: 2.5,
        min_requests: 300,
        min_seconds: 0.0,
    };
    assert_eq!(plain.pattern, Pattern::Open(want));
    let bursts = phase(
        "name = 'bursts'\nstages = [{ rate = 0, to = 4.5, duration = '10s' }, { rate = 4.5, duration = '5s' }]\n\
         arrivals = 'gamma'\nburstiness = 0.25\nmax_in_flight = 100",
    );
    let stages = vec![
        Stage { rate_per_s: 0.0, to_per_s: Some(4.5), seconds: 10.0 },
        Stage { rate_per_s: 4.5, to_per_s: None, seconds: 5.0 },
    ];
    let arrivals = Arrivals::Gamma { shape: 0.25 };
    assert_eq!(bursts.pattern, Pattern::Open(OpenLoop::Stages { arrivals, stages }));
    assert_eq!(bursts.users.get(), 100);
    for (lines, problems) in [
        (
            "rate = 2\nusers = 5\nmin_requests = 3",
            vec![
                "35: `users`: a phase with a rate has no users | a closed loop has `users`, an open loop `rate` or `stages`",
            ],
        ),
        (
            "rate = 2\nburstiness = 0.5\nmin_requests = 3",
            vec![
                "35: `burstiness`: only gamma arrivals have it | write `arrivals = \"gamma\"`: 1 is Poisson, less comes in bursts",
            ],
        ),
        (
            "name = 'x'\nstages = [{ rate = 1, duration = '10s' }]\nmin_requests = 3",
            vec!["36: `min_requests`: `stages` say how long the phase lasts"],
        ),
        ("rate = -1\nmin_requests = 3", vec!["34: `rate`: is out of range"]),
        (
            "name = 'x'\nstages = [{ rate = 0, duration = '10s' }, { rate = 0, to = 0, duration = '5s' }]",
            vec!["35: `rate`: is out of range", "35: `to`: a ramp from 0 to 0 sends nothing"],
        ),
    ] {
        let from = "users = 10\nmin_requests = 300\nmin_duration = \"30s\"";
        let wrong = try_sweep(&RIGHT.replacen(from, lines, 1)).unwrap_err();
        let got: Vec<String> = wrong.list().iter().map(shown).collect();
        for problem in problems {
            assert!(got.iter().any(|line| line.starts_with(problem)), "{got:?}");
        }
    }
}

#[test]
fn workloads() {
    use crate::workload::shape::{Lengths, Shape, Spread};
    let from = "kind = \"random\"\nprompt_tokens = 128";
    let shape = |lines: &str| sweep(&RIGHT.replacen(from, lines, 1)).workload;
    let mixed = shape(
        "kind = 'mixed'\nprompt_tokens = { distribution = 'log_normal', min = 32, max = 900, median = 300, sigma = 0.5 }",
    );
    let spread = Spread::LogNormal { median: 300.0, sigma: 0.5 };
    assert_eq!(mixed.shape, Shape::Mixed(Lengths { min: 32, max: 900, spread }));
    let seen = |lengths: Vec<u32>| {
        Shape::Mixed(Lengths { min: 64, max: 2048, spread: Spread::Empirical { lengths } })
    };
    let empirical =
        |more| format!("kind = 'mixed'\nprompt_tokens = {{ distribution = 'empirical', {more} }}");
    let list = shape(&empirical("lengths = [2048, 64]"));
    assert_eq!((list.shape, list.prompt_tokens.get()), (seen(vec![2048, 64]), 2048));
    assert_eq!(shape(&empirical("file = 'lengths.txt'")).shape, seen(vec![64, 64, 2048]));
    let help = "a whole number from 1 to 10000000";
    check(
        from,
        &empirical("file = 'wrong.txt'"),
        &[
            &format!("30: `file`: /s/wrong.txt, line 2: \"0\" is no length | {help}"),
            &format!("30: `file`: /s/wrong.txt, line 3: \"ten\" is no length | {help}"),
        ],
    );
    check(from, &empirical("lengths = []"), &["30: `lengths`: is an empty list"]);
    check(
        from,
        &empirical("lengths = [3], file = 'lengths.txt'"),
        &[
            "30: `lengths` and `file` are both there | `lengths = [32, 64, 64, 2048]`, or a `file` with one number a line",
        ],
    );
    let rag = shape("kind = 'rag'\nprompt_tokens = 128\nshared = 0.5\ndocuments = 8");
    assert_eq!(rag.shape, Shape::Rag { shared: 0.5, documents: 8 });
    let talk = "kind = 'conversations'\nprompt_tokens = 64\nturns = 5";
    assert_eq!(shape(talk).shape, Shape::Conversations { turns: 5.0 });
    check(from, &talk.replace("turns = 5", ""), &["28: missing `turns` in [workload]"]);
    let users = "users = 10\nmin_requests = 300";
    let wrong = RIGHT.replacen(from, talk, 1).replacen(users, "rate = 5\nmin_requests = 300", 1);
    let wrong = try_sweep(&wrong).unwrap_err();
    assert!(shown(&wrong.list()[0]).contains("conversations need closed loops"));
}
