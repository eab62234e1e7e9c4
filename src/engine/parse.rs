//! An engine file, checked.

use super::common::{Common, SCHEMA};
use super::def::{
    EffectiveName, Endpoints, EngineDef, EngineSource, HelpProbe, Launch, Outdated, Param, Piece,
    Reader, RequestShape, Slot, Template, VersionProbe,
};
use super::rules::parse::log_rules;
use super::{gpu, inspection, sections};
use crate::form::{self, Fields, Problems, Wrong};
use crate::ids::Name;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Reads the text of an engine file. The name comes from outside: a file does not know its own.
pub(crate) fn parse(
    name: Name,
    source: EngineSource,
    text: &str,
    common: &Common,
) -> Result<EngineDef, Problems> {
    let file = match &source {
        EngineSource::BuiltIn => PathBuf::from(format!("engines/{name}.toml")),
        EngineSource::File(file) => file.clone(),
    };
    form::read(&file, text, |_, fields| {
        fields.schema_is_known(SCHEMA).then_some(())?;
        engine(name, source, fields, common)
    })
}

/// Every section is read before the first one that failed ends the matter.
fn engine(
    name: Name,
    source: EngineSource,
    fields: &Fields<'_>,
    common: &Common,
) -> Option<EngineDef> {
    let simulated = fields.optional("simulated").boolean().unwrap_or(false);
    let program = fields.optional("program").parsed(program);
    let version = fields.optional("version").table().map(|fields| sections::version(&fields));
    let launch = fields.required("launch").table().and_then(|fields| sections::launch(&fields));
    let params = fields.optional("params").table().map(|fields| sections::params(&fields));
    let ready = fields.required("ready").table().and_then(|fields| sections::ready(&fields));
    let endpoints =
        fields.required("endpoints").table().and_then(|fields| sections::endpoints(&fields));
    let request = fields.required("request").table().and_then(|fields| sections::request(&fields));
    let stop = sections::stop(fields.optional("stop").table().as_ref());
    let metrics = fields.optional("metrics").table().map(|fields| sections::metrics(&fields));
    let params = params.unwrap_or_default();
    let inspected = inspected(fields, &params, endpoints.as_ref());
    let log = log_rules(fields);
    let gpu = fields.optional("gpu").table().map(|fields| gpu::gpu(&fields));

    let launch = with_common(launch?, common);
    check_launch(&launch, fields);
    if let (Some(endpoints), Some(request)) = (&endpoints, &request) {
        check_generate(endpoints, request, fields);
    }
    check_flags(&launch.command, &params, fields);
    let Inspected { versions, help, outdated, model_files, effective } = inspected;
    Some(EngineDef {
        name,
        source,
        simulated,
        program,
        version: transpose(version)?,
        versions,
        help: transpose(help)?,
        launch,
        params,
        outdated,
        model_files,
        ready: ready?,
        endpoints: endpoints?,
        request: request?,
        stop,
        metrics: transpose(metrics)?,
        effective,
        log: log.then(&common.log),
        gpu,
    })
}

/// The sections about the installed program.
struct Inspected {
    versions: BTreeMap<String, VersionProbe>,
    help: Option<Option<HelpProbe>>,
    outdated: BTreeMap<String, Outdated>,
    model_files: Vec<String>,
    effective: BTreeMap<EffectiveName, Reader>,
}

fn inspected(
    fields: &Fields<'_>,
    params: &BTreeMap<String, Param>,
    endpoints: Option<&Endpoints>,
) -> Inspected {
    let table = |key| fields.optional(key).table();
    let has_info = endpoints.is_none_or(|endpoints| !endpoints.server_info.is_empty());
    Inspected {
        versions: table("versions").map(|t| inspection::versions(&t)).unwrap_or_default(),
        help: table("help").map(|t| inspection::help(&t)),
        outdated: table("outdated").map(|t| inspection::outdated(&t, params)).unwrap_or_default(),
        model_files: table("model").map(|t| inspection::model_files(&t)).unwrap_or_default(),
        effective: table("effective")
            .map(|t| inspection::effective(&t, params, has_info))
            .unwrap_or_default(),
    }
}

/// A section that is there but wrong leaves no engine; one that is not there leaves no section.
fn transpose<T>(section: Option<Option<T>>) -> Option<Option<T>> {
    match section {
        Some(None) => None,
        Some(Some(section)) => Some(Some(section)),
        None => Some(None),
    }
}

/// A relative path would mean something else for every sweep that uses the engine.
fn program(text: &str) -> Result<String, Wrong> {
    if text.contains('/') && !Path::new(text).is_absolute() {
        return Err(Wrong::new(format!("{text:?} is a relative path"))
            .help("a bare name, looked up in PATH, or an absolute path"));
    }
    Ok(text.to_owned())
}

fn with_common(mut launch: Launch, common: &Common) -> Launch {
    let own = std::mem::take(&mut launch.env_pass);
    for name in common.env_pass.iter().cloned().chain(own) {
        if !launch.env_pass.contains(&name) {
            launch.env_pass.push(name);
        }
    }
    launch
}

/// An engine that is not told its port cannot take a fresh one for every attempt.
fn check_launch(launch: &Launch, fields: &Fields<'_>) {
    let mut places = launch.command.iter().chain(launch.env.values());
    if !places.any(|place| place.uses(Slot::Port)) {
        fields.optional("launch").problem(
            "neither `command` nor `env` uses `{port}`",
            Some("every attempt takes a fresh port; the engine has to be told it".to_owned()),
        );
    }
}

/// The engine's own endpoint needs both its path and its shape.
fn check_generate(endpoints: &Endpoints, request: &RequestShape, fields: &Fields<'_>) {
    match (&endpoints.generate, &request.generate) {
        (Some(_), None) => fields.optional("endpoints").problem(
            "`generate` is there and [request.generate] is not",
            Some("its requests and answers are the engine's own: describe them".to_owned()),
        ),
        (None, Some(_)) => fields
            .optional("request")
            .problem("`generate` is described and [endpoints] has no path for it", None),
        (Some(_), Some(_)) | (None, None) => {}
    }
}

/// No flag is written twice on one command line.
fn check_flags(command: &[Template], params: &BTreeMap<String, Param>, fields: &Fields<'_>) {
    let mut seen: Vec<&str> = Vec::new();
    for (name, param) in params {
        let flag = param.flag.as_str();
        let in_command = command.iter().any(|item| item.0 == [Piece::Text(flag.to_owned())]);
        let place = if in_command {
            "`launch.command`"
        } else if seen.contains(&flag) {
            "another parameter"
        } else {
            seen.push(flag);
            continue;
        };
        let message = format!("the flag `{flag}` of `{name}` is already set by {place}");
        fields.optional("params").problem(message, None);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::engine::def::{ListStyle, ParamKind};
    use crate::engine::rules::rule::RuleRole;
    use crate::run::outcome::FailureKind;

    /// The least that an engine file can say. It ends in `[request.sampling]`.
    pub(crate) const MINIMAL: &str = r#"
schema = 1
[launch]
command = ["{program}", "--port", "{port}"]
[ready]
path = "/health"
[endpoints]
completions = "/v1/completions"
[request.sampling]
temperature = "temperature"
"#;

    pub(crate) fn try_engine(name: &str, text: &str) -> Result<EngineDef, Problems> {
        let common = Common { env_pass: vec!["PATH".to_owned()], ..Common::default() };
        parse(Name::new(name).unwrap(), EngineSource::BuiltIn, text, &common)
    }

    /// An engine named `made-up`.
    pub(crate) fn engine(text: &str) -> EngineDef {
        try_engine("made-up", text).unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// `expected`: `line: message` of each problem.
    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let got: Vec<String> = match try_engine("made-up", text) {
            Ok(_) => Vec::new(),
            Err(problems) => {
                problems.list().iter().map(|p| format!("{}: {}", p.line, p.message)).collect()
            }
        };
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn the_least_file_is_filled_with_defaults() {
        let engine = engine(MINIMAL);
        assert!(!engine.simulated);
        assert_eq!(engine.launch.env_pass, ["PATH"]);
        assert_eq!(engine.ready.within.as_secs(), 900);
        assert_eq!(engine.stop.signal, libc::SIGTERM);
        assert_eq!(engine.stop.grace.as_secs(), 30);
        assert_eq!(engine.request.max_tokens, "max_tokens");
        assert!(engine.request.done_marker);
        assert_eq!(engine.request.keep_alive.as_secs(), 5);
        assert!(engine.metrics.is_none() && engine.version.is_none() && engine.params.is_empty());
    }

    /// Every section and every key, but those of native endpoints.
    const FULL: &str = r#"
schema = 1
simulated = true
program = "serve"
[version]
command = ["{program}", "--version"]
pattern = "v(.+)"
[launch]
command = ["{program}", "--port={port}"]
env = { GPUS = "{gpus}" }
env_pass = ["HOME", "PATH"]
[params.max-running]
type = "integer"
min = 1
about = "slots"
[params.policy]
flag = "--schedule_policy"
type = "choice"
choices = ["fcfs", "lpm"]
list = "repeat"
[ready]
path = "/ready"
within = "5min"
[endpoints]
chat = "/v1/chat/completions"
models = "/v1/models"
[request]
max_tokens = "max_completion_tokens"
done_marker = false
keep_alive = "2s"
force_length = { ignore_eos = true }
extra = { cache = false }
sampling = { temperature = "temperature" }
[stop]
signal = "INT"
grace = "1min"
[metrics]
path = "/metrics"
names = { requests_running = "x:running" }
[help]
command = ["{program}", "--help"]
abbreviates = true
[versions.python]
command = ["{python}", "-V"]
pattern = 'Python (.+)'
[outdated.policies]
instead = "policy"
[model]
files = ["config.json"]
[[failure]]
kind = "host_oom"
pattern = "no memory"
role = "cascade"
advice = "buy some"
origin = "x.log"
"#;

    #[test]
    fn a_full_file_is_read_whole() {
        let engine = engine(FULL);
        assert!(engine.simulated);
        assert_eq!(engine.program.as_deref(), Some("serve"));
        assert_eq!(engine.launch.env_pass, ["PATH", "HOME"]);
        assert_eq!(engine.params["max-running"].flag, "--max-running");
        assert_eq!(engine.params["policy"].flag, "--schedule_policy");
        assert_eq!(engine.params["policy"].list, ListStyle::Repeat);
        assert_eq!(
            engine.params["max-running"].kind,
            ParamKind::Integer { min: Some(1), max: None }
        );
        assert_eq!((engine.stop.signal, engine.stop.grace.as_secs()), (libc::SIGINT, 60));
        assert_eq!(engine.outdated["policies"].instead.as_deref(), Some("policy"));
        assert!(engine.help.is_some_and(|help| help.abbreviates));
        assert_eq!(engine.model_files, ["config.json"]);
        assert!(engine.versions.contains_key("python"));
        assert_eq!(engine.log.failures[0].kind, FailureKind::HostOom);
        assert_eq!(engine.log.failures[0].role, RuleRole::Cascade);
    }

    #[test]
    fn the_name_is_not_the_files_business() {
        let mut one = try_engine("one", MINIMAL).unwrap();
        let two = try_engine("two", MINIMAL).unwrap();
        assert_ne!(one.name, two.name);
        one.name = two.name.clone();
        assert_eq!(format!("{one:?}"), format!("{two:?}"));
    }

    #[test]
    fn mistakes_in_single_sections() {
        for (addition, expected) in [
            ("name = 'x'", "1: unknown key `name`"),
            ("program = 'bin/serve'", "1: `program`: \"bin/serve\" is a relative path"),
            (
                "version = { command = ['{port}'], pattern = 'v(.)' }",
                "1: `command[0]`: `{port}` means nothing here",
            ),
            (
                "version = { command = ['x'], pattern = 'v' }",
                "1: `pattern`: has no group for the version",
            ),
            ("params = { A_b = { type = 'text' } }", "1: `A_b` cannot be a parameter's name"),
            ("params = { a = { type = 'txt' } }", "1: `type`: \"txt\" is not a choice"),
            ("params = { a = { type = 'text', min = 1 } }", "1: unknown key `min` in [a]"),
            (
                "params = { a = { type = 'integer', min = 2, max = 1 } }",
                "1: `max`: is less than `min`",
            ),
            (
                "params = { a = { type = 'choice', choices = [] } }",
                "1: `choices`: is an empty list",
            ),
            ("params = { a = { type = 'text', flag = 'a' } }", "1: `flag`: \"a\" is no flag"),
            (
                "params = { port = { type = 'text' } }",
                "1: `params`: the flag `--port` of `port` is already set by `launch.command`",
            ),
            (
                "params = { a = { type = 'text', flag = '-x' }, b = { type = 'text', flag = '-x' } }",
                "1: `params`: the flag `-x` of `b` is already set by another parameter",
            ),
            ("stop = { signal = 'TREM' }", "1: `signal`: \"TREM\" is not a signal"),
            (
                "metrics = { path = '/m', names = { running = 'x' } }",
                "1: `running` is no name of a metric",
            ),
            (
                "metrics = { path = '/m', names = { requests_running = 'a b' } }",
                "1: `requests_running`: \"a b\" names no series",
            ),
            ("help = { command = ['{model}'] }", "1: `command[0]`: `{model}` means nothing here"),
            ("outdated = { a = {} }", "1: says nothing about `a`"),
            (
                "outdated = { a = { instead = 'b' } }",
                "1: `instead`: \"b\" is no parameter of this file",
            ),
            ("effective = { speed = { log = [] } }", "1: `speed` is nothing that is read back"),
            ("effective = { dtype = {} }", "1: has no source"),
            ("effective = { dtype = { info = '/d' } }", "1: `info`: nothing says where to ask"),
            (
                "effective = { dtype = { log = [{ pattern = 'd' }] } }",
                "1: `pattern`: has no group for the value",
            ),
            ("metrics = { path = 'metrics' }", "1: `path`: \"metrics\" does not begin with `/`"),
            ("failure = [{ kind = 'oom', pattern = 'x' }]", "1: `kind`: \"oom\" is not a choice"),
            (
                "failure = [{ kind = 'host_oom', pattern = '(' }]",
                "1: `pattern`: \"(\" is no regular expression: unclosed group",
            ),
            (
                "failure = [{ kind = 'host_oom', pattern = 'x*' }]",
                "1: `pattern`: \"x*\" matches every line",
            ),
        ] {
            check(&format!("{addition}{MINIMAL}"), &[expected]);
        }
    }

    #[test]
    fn mistakes_in_the_necessary_sections() {
        for (from, to, expected) in [
            ("[ready]\npath = \"/health\"", "", "1: missing `ready`"),
            (
                "\"--port\", \"{port}\"",
                "",
                "3: `launch`: neither `command` nor `env` uses `{port}`",
            ),
            ("{port}", "{prot}{port}", "4: `command[2]`: unknown slot `{prot}`"),
            (
                "completions = \"/v1/completions\"",
                "",
                "7: none of `completions`, `chat` and `generate` in [endpoints]",
            ),
            ("temperature = \"temperature\"", "", "9: missing `temperature` in [sampling]"),
            (
                "temperature = \"",
                "heat = 'h'\ntemperature = \"",
                "10: `heat` is no sampling parameter",
            ),
            (
                "[request.sampling]",
                "[request.extra]\nmodel = 'x'\n[request.sampling]",
                "10: `model` is a field that sweepd writes itself",
            ),
            ("schema = 1", "schema = 9", "2: `schema`: this file has schema 9"),
            (
                "completions = \"",
                "generate = '/g'\ncompletions = \"",
                "7: `endpoints`: `generate` is there and [request.generate] is not",
            ),
            (
                "[request.sampling]",
                "[request.generate]\nprompt = 'text'\nanswer = { text = '/t', finish_reason = '/f' }\n\
                 [request.sampling]",
                "9: `request`: `generate` is described and [endpoints] has no path for it",
            ),
            (
                "[request.sampling]",
                "[request.generate]\nprompt = 'text'\nanswer = { text = 't', finish_reason = '/f' }\n\
                 [request.sampling]",
                "11: `text`: \"t\" is no JSON pointer",
            ),
            (
                "[request.sampling]",
                "[request.generate]\nanswer = { text = '/t', finish_reason = '/f' }\n[request.sampling]",
                "9: neither `prompt` nor `token_ids` in [generate]",
            ),
        ] {
            let text = MINIMAL.replace(from, to);
            assert_ne!(text, MINIMAL, "{from}");
            check(&text, &[expected]);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(at in 0..MINIMAL.len(), cut in 0..20_usize, text in "\\PC{0,4}") {
            let end = (at + cut).min(MINIMAL.len());
            let broken = format!("{}{text}{}", &MINIMAL[..at], &MINIMAL[end..]);
            try_engine("made-up", &broken).ok();
        }
    }
}
