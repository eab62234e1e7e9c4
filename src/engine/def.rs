//! The checked engine definition: only what can be true.

pub(crate) use super::effective::{EffectiveName, Reader};
pub(crate) use super::exposition::{MetricName, Selector};
use super::rules::rule::LogRules;
pub(crate) use super::shape::{AnswerShape, Endpoint, PromptField};
use crate::ids::Name;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// An engine, as `engines/NAME.toml` describes it. Its name is the file's name.
#[derive(Clone, Debug)]
pub(crate) struct EngineDef {
    pub(crate) name: Name,
    pub(crate) source: EngineSource,
    /// Results of this engine are no measurements and are labelled so everywhere.
    pub(crate) simulated: bool,
    /// What `{program}` stands for where the sweep does not say: a bare name or an absolute path.
    pub(crate) program: Option<String>,
    pub(crate) version: Option<VersionProbe>,
    /// Versions of what the engine stands on, by name: `python`, `torch`.
    pub(crate) versions: BTreeMap<String, VersionProbe>,
    /// How the installed program tells the flags that it knows.
    pub(crate) help: Option<HelpProbe>,
    pub(crate) launch: Launch,
    pub(crate) params: BTreeMap<String, Param>,
    /// Names that a sweep may still write, and what to write today.
    pub(crate) outdated: BTreeMap<String, Outdated>,
    /// Files that must be there when the model is a folder.
    pub(crate) model_files: Vec<String>,
    pub(crate) ready: Ready,
    pub(crate) endpoints: Endpoints,
    pub(crate) request: RequestShape,
    pub(crate) stop: Stop,
    pub(crate) metrics: Option<Metrics>,
    /// How to read back what really ran, by our names.
    pub(crate) effective: BTreeMap<EffectiveName, Reader>,
    /// What its log and its end say; own rules first, then those of `common.toml`.
    pub(crate) log: LogRules,
    /// There where it runs on GPUs.
    pub(crate) gpu: Option<EngineGpu>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EngineSource {
    BuiltIn,
    File(PathBuf),
}

/// A command that prints the engine's version.
#[derive(Clone, Debug)]
pub(crate) struct VersionProbe {
    pub(crate) command: Vec<Template>,
    /// Its first group is the version.
    pub(crate) pattern: Regex,
}

/// A command that prints the flags that the installed program knows.
#[derive(Clone, Debug)]
pub(crate) struct HelpProbe {
    pub(crate) command: Vec<Template>,
    /// The program takes any unique beginning of a flag for the whole of it.
    pub(crate) abbreviates: bool,
}

/// A parameter of another time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outdated {
    /// The parameter that took its place, if one did.
    pub(crate) instead: Option<String>,
    pub(crate) why: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// A list, never a shell line. The parameters' flags are appended.
    pub(crate) command: Vec<Template>,
    pub(crate) env: BTreeMap<String, Template>,
    /// Variables passed on from sweepd's own environment; all others are dropped.
    pub(crate) env_pass: Vec<String>,
}

/// One argument with `{program} {model} {served_name} {host} {port} {gpus}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(pub(crate) Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Slot(Slot),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The sweep's `program` for this engine, or the file's own `program`.
    Program,
    Model,
    ServedName,
    Host,
    Port,
    Gpus,
    /// sweepd's own executable: for the simulated engine.
    Sweepd,
    /// The interpreter that runs `{program}`, where that is a Python script.
    Python,
    /// A port of the engine's own, so many above `{port}`.
    InternalPort(u16),
}

/// A parameter that a sweep may set.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Param {
    pub(crate) flag: String,
    pub(crate) kind: ParamKind,
    pub(crate) list: ListStyle,
    pub(crate) about: Option<String>,
}

impl Param {
    /// It is written with this flag, on or off.
    pub(crate) fn is_flag(&self, flag: &str) -> bool {
        self.flag == flag
            || matches!(&self.kind, ParamKind::Switch { off: Some(off) } if off == flag)
    }
}

/// How several values of one parameter are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ListStyle {
    /// It takes one value.
    #[default]
    None,
    /// The flag is repeated for each value.
    Repeat,
    /// The values follow one flag.
    Spread,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ParamKind {
    Integer {
        min: Option<i64>,
        max: Option<i64>,
    },
    Float {
        min: Option<f64>,
        max: Option<f64>,
    },
    Text,
    Choice(Vec<String>),
    /// The bare flag or nothing: it never takes a value.
    Switch {
        /// What says no aloud; without it, false writes nothing.
        off: Option<String>,
    },
}

/// A parameter's value, already of the right kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ParamValue {
    Integer(i64),
    Float(f64),
    Text(String),
    Switch(bool),
    /// Of values of one kind, never of lists.
    List(Vec<ParamValue>),
}

impl fmt::Display for ParamValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value}"),
            Self::Switch(value) => write!(f, "{value}"),
            Self::List(values) => {
                let shown: Vec<String> = values.iter().map(Self::to_string).collect();
                write!(f, "{}", shown.join(", "))
            }
        }
    }
}

/// When the engine counts as ready: the endpoint answers 200 and, always, one token was generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) path: String,
    /// From launch to the first answer of 200.
    pub(crate) within: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub(crate) completions: Option<String>,
    pub(crate) chat: Option<String>,
    /// There if and only if the requests' shape has a `generate`.
    pub(crate) generate: Option<String>,
    /// Lists the served models; the served name must be among them.
    pub(crate) models: Option<String>,
    /// Tells the effective configuration as JSON.
    pub(crate) server_info: Vec<String>,
    /// A POST to it empties the prefix cache.
    pub(crate) reset_cache: Option<String>,
}

impl Endpoints {
    pub(crate) fn path(&self, endpoint: Endpoint) -> Option<&str> {
        let path = match endpoint {
            Endpoint::Completions => &self.completions,
            Endpoint::Chat => &self.chat,
            Endpoint::Generate => &self.generate,
        };
        path.as_deref()
    }
}

/// How a request is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RequestShape {
    /// The field that bounds the output length: `max_tokens`.
    pub(crate) max_tokens: String,
    /// Fields that force the whole output length: `ignore_eos = true`.
    pub(crate) force_length: serde_json::Map<String, serde_json::Value>,
    /// Fields that every request carries.
    pub(crate) extra: serde_json::Map<String, serde_json::Value>,
    /// Our name of a sampling parameter -> the engine's field.
    pub(crate) sampling: BTreeMap<String, String>,
    /// Streams end with `data: [DONE]`.
    pub(crate) done_marker: bool,
    /// An idle connection is not reused beyond this.
    pub(crate) keep_alive: Duration,
    /// How the engine's own endpoint differs from all that.
    pub(crate) generate: Option<GenerateShape>,
}

/// How a request to the engine's own endpoint is written, and its answer read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GenerateShape {
    pub(crate) prompt: PromptField,
    /// The object that takes length and sampling; `None`: they stand beside the prompt.
    pub(crate) params: Option<String>,
    pub(crate) max_tokens: String,
    pub(crate) force_length: serde_json::Map<String, serde_json::Value>,
    /// Fields beside the prompt that every request carries.
    pub(crate) extra: serde_json::Map<String, serde_json::Value>,
    pub(crate) sampling: BTreeMap<String, String>,
    pub(crate) answer: AnswerShape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// Signal number sent to the leader alone.
    pub(crate) signal: i32,
    pub(crate) grace: Duration,
}

/// How the engine is told which GPUs are its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineGpu {
    pub(crate) pin: PinStyle,
    /// The variable that holds the list.
    pub(crate) env: String,
    /// It opens more than one CUDA context on a GPU, so that exclusive-process mode would break it.
    pub(crate) several_contexts: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PinStyle {
    Uuid,
    /// With `CUDA_DEVICE_ORDER=PCI_BUS_ID`, which makes an index mean the same everywhere.
    Index,
}

impl Default for EngineGpu {
    fn default() -> Self {
        let env = "CUDA_VISIBLE_DEVICES".to_owned();
        Self { pin: PinStyle::Uuid, env, several_contexts: false }
    }
}

impl EngineDef {
    /// As its file says; any engine can be pinned by the variable that CUDA itself reads.
    pub(crate) fn pin(&self) -> EngineGpu {
        self.gpu.clone().unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metrics {
    pub(crate) path: String,
    /// Our name -> theirs.
    pub(crate) names: BTreeMap<MetricName, Selector>,
}
