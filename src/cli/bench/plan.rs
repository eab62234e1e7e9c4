//! From the arguments of `bench` to plans for the load generator.

use super::{BenchArguments, key, target, under_tls};
use crate::cli::input::{self, Refused};
use crate::engine::def::{Endpoint, RequestShape};
use crate::engine::request::{self, Draft};
use crate::ids::Name;
use crate::load::message::{LoadPattern, LoadPlan, PromptPlan, RequestPlan};
use crate::load::peer::{Peer, TlsPlan};
use crate::run::record::RequestRecord;
use crate::run::slo::Slo;
use crate::seed::Seed;
use crate::sweep::dataset;
use crate::units::{count_f64, nanoseconds};
use crate::workload::dataset::{AnswerLength, Dataset, Part, Turns};
use crate::workload::schedule::{Arrivals, OpenLoop};
use crate::workload::shape::Shape;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longer than any benchmark by hand.
const PHASE_DEADLINE: Duration = Duration::from_secs(7 * 24 * 3600);

const MEASURED: &str = "bench";
/// Requests in flight in an open loop, where the user does not say.
const OPEN_IN_FLIGHT: u32 = 4096;

/// How long prompts are, and how far that is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PromptLength {
    Exact {
        tokenizer: PathBuf,
    },
    /// Words taken for tokens at this rate; `learnt` from the server's own count.
    Words {
        tokens_per_word: f64,
        learnt: bool,
    },
}

/// What is measured.
#[derive(Clone, Debug)]
pub(super) struct Bench {
    target: target::Target,
    pub(super) key: Option<key::Key>,
    pub(super) tls: Option<TlsPlan>,
    path: String,
    draft: Draft,
    done_marker: bool,
    /// None: a connection for each request.
    pub(super) keep_alive: Duration,
    /// The endpoint by the name that readers of result files know.
    pub(super) backend: String,
    pub(super) model: String,
    pub(super) users: u32,
    loops: u32,
    /// An open loop; `users` is then the most in flight.
    pub(super) open: Option<OpenLoop>,
    pub(super) burstiness: f64,
    pub(super) requests: Option<u32>,
    duration: Duration,
    pub(super) prompt_tokens: u32,
    pub(super) output_tokens: u32,
    /// What is asked, where it is not random words.
    pub(super) dataset: Option<Dataset>,
    /// What goodput is counted by.
    pub(super) slo: Option<Slo>,
    warmup: u32,
    pub(super) length: PromptLength,
    seed: Seed,
    request_deadline: Duration,
    stall: Duration,
}

pub(super) fn bench(
    arguments: &BenchArguments,
    folders: Vec<PathBuf>,
    environment: &BTreeMap<String, String>,
) -> anyhow::Result<Bench> {
    let target = target::read(&arguments.url)?;
    let endpoint = endpoint(&arguments.endpoint)?;
    let (mut shape, path) = shape(arguments, endpoint, folders)?;
    if arguments.natural_length {
        shape.force_length.clear();
        if let Some(own) = &mut shape.generate {
            own.force_length.clear();
        }
    }
    let dataset = dataset(arguments)?;
    let longest = dataset.as_ref().map(|set| set.filter);
    let prompt_tokens = arguments.prompt_tokens.or(longest.map(|filter| filter.prompt.max));
    let prompt_tokens = count("--prompt-tokens", prompt_tokens.unwrap_or(0))?.get();
    let output_tokens = arguments.output_tokens.or(longest.map(|filter| filter.answer.max));
    let output_tokens = count("--output-tokens", output_tokens.unwrap_or(0))?;
    if let Some(requests) = arguments.requests {
        count("--requests", requests)?;
    }
    let sampling = BTreeMap::from([("temperature".to_owned(), arguments.temperature)]);
    let engine = arguments.engine.as_deref().unwrap_or("of this server");
    let draft =
        request::draft(engine, &shape, endpoint, &arguments.model, &sampling, output_tokens)
            .map_err(|error| Refused::Argument { name: "--engine", why: error.to_string() })?;
    let tokenizer = arguments.tokenizer.as_deref().map(tokenizer_file).transpose()?;
    Ok(Bench {
        path: target.path(&path),
        tls: under_tls::plan(&target, arguments.ca_file.as_deref(), arguments.insecure)?,
        target,
        key: key::read(&arguments.key, environment)?,
        draft,
        done_marker: shape.done_marker,
        keep_alive: match arguments.connection_per_request {
            true => Duration::ZERO,
            false => shape.keep_alive,
        },
        backend: match (endpoint, &arguments.engine) {
            (Endpoint::Completions, _) => "openai".to_owned(),
            (Endpoint::Chat, _) => "openai-chat".to_owned(),
            (Endpoint::Generate, Some(engine)) => engine.clone(),
            (Endpoint::Generate, None) => "generate".to_owned(),
        },
        model: arguments.model.clone(),
        users: users(arguments)?,
        loops: count("--loops", arguments.loops)?.get(),
        open: open_loop(arguments)?,
        burstiness: arguments.burstiness,
        requests: arguments.requests,
        duration: arguments.duration.unwrap_or_default(),
        prompt_tokens,
        output_tokens: output_tokens.get(),
        dataset,
        slo: slo(&arguments.goodput),
        warmup: arguments.warmup,
        length: match tokenizer {
            Some(tokenizer) => PromptLength::Exact { tokenizer },
            None => PromptLength::Words { tokens_per_word: 1.0, learnt: false },
        },
        seed: Seed::new(arguments.seed),
        request_deadline: arguments.request_deadline,
        stall: arguments.stall_deadline,
    })
}

/// The data set's file, looked through.
fn dataset(arguments: &BenchArguments) -> Result<Option<Dataset>, Refused> {
    let Some(path) = &arguments.dataset else { return Ok(None) };
    let turns = if arguments.whole_conversations { Turns::All } else { Turns::First };
    let length = arguments.output_tokens.map_or(AnswerLength::Recorded, AnswerLength::Fixed);
    let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let set = dataset::usual(&path, &input::disk(), turns, length);
    set.map(Some).map_err(|why| Refused::Argument { name: "--dataset", why })
}

/// A time by its name, and its limit in ms.
pub(super) type Limit = (String, f64);

/// `ttft:500`.
pub(super) fn limit(text: &str) -> Result<Limit, String> {
    let (name, ms) = text.split_once(':').ok_or("such as ttft:500")?;
    let ms: f64 = ms.parse().map_err(|_| format!("{ms:?} is no number of ms"))?;
    if !["ttft", "tpot", "e2el"].contains(&name) {
        return Err(format!("{name:?} is none of ttft, tpot and e2el"));
    }
    if ms.is_finite() && ms > 0.0 {
        Ok((name.to_owned(), ms))
    } else {
        Err("must be above 0".into())
    }
}

fn slo(limits: &[Limit]) -> Option<Slo> {
    // Of one that is given twice the last counts.
    let of = |name: &str| limits.iter().rev().find(|(other, _)| other == name).map(|(_, ms)| *ms);
    let slo = Slo { ttft_ms: of("ttft"), tpot_ms: of("tpot"), e2el_ms: of("e2el") };
    (!limits.is_empty()).then_some(slo)
}

/// Of a closed loop, or the most that an open one may have in flight.
fn users(arguments: &BenchArguments) -> Result<u32, Refused> {
    let users = arguments.users.unwrap_or(OPEN_IN_FLIGHT);
    count("--users", users).map(NonZeroU32::get)
}

fn open_loop(arguments: &BenchArguments) -> Result<Option<OpenLoop>, Refused> {
    let Some(rate) = arguments.rate else { return Ok(None) };
    let positive = |name, number: f64| {
        let why = "must be a number above 0".to_owned();
        let fits = number.is_finite() && number > 0.0;
        if fits { Ok(number) } else { Err(Refused::Argument { name, why }) }
    };
    let shape = positive("--burstiness", arguments.burstiness)?;
    let poisson = (shape - 1.0).abs() < f64::EPSILON;
    Ok(Some(OpenLoop::Rate {
        arrivals: if poisson { Arrivals::Poisson } else { Arrivals::Gamma { shape } },
        rate_per_s: positive("--rate", rate)?,
        min_requests: arguments.requests.unwrap_or(0),
        min_seconds: arguments.duration.unwrap_or_default().as_secs_f64(),
    }))
}

fn count(name: &'static str, number: u32) -> Result<NonZeroU32, Refused> {
    let why = || Refused::Argument { name, why: "must be at least 1".to_owned() };
    NonZeroU32::new(number).ok_or_else(why)
}

fn endpoint(name: &str) -> Result<Endpoint, Refused> {
    let known = Endpoint::ALL.map(Endpoint::name);
    Endpoint::ALL.into_iter().find(|endpoint| endpoint.name() == name).ok_or_else(|| {
        let help = crate::form::did_you_mean(name, &known, "endpoints:");
        Refused::Argument { name: "--endpoint", why: format!("there is no {name:?}; {help}") }
    })
}

/// The shape of requests and the endpoint's path.
fn shape(
    arguments: &BenchArguments,
    endpoint: Endpoint,
    folders: Vec<PathBuf>,
) -> anyhow::Result<(RequestShape, String)> {
    let refused = |name, why| Refused::Argument { name, why };
    let Some(name) = &arguments.engine else {
        let path = match endpoint {
            Endpoint::Completions => "/v1/completions",
            Endpoint::Chat => "/v1/chat/completions",
            Endpoint::Generate => {
                let why = "is needed for `generate`: its file says how requests are written";
                return Err(refused("--engine", why.to_owned()).into());
            }
        };
        return Ok((request::common_shape(), path.to_owned()));
    };
    let found = input::library(folders)?.find(name, &[], &input::disk());
    let engine = found.map_err(|error| {
        let help = error.help().map_or_else(String::new, |help| format!("; {help}"));
        refused("--engine", format!("{error}{help}"))
    })?;
    let path = engine.endpoints.path(endpoint).map(str::to_owned).ok_or_else(|| {
        refused("--endpoint", format!("engine `{name}` has no `{}`", endpoint.name()))
    })?;
    Ok((engine.request, path))
}

fn tokenizer_file(path: &Path) -> Result<PathBuf, Refused> {
    let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
    match std::fs::File::open(&file) {
        Ok(_) => Ok(file),
        Err(cause) => Err(Refused::Unreadable { file, cause }),
    }
}

impl Bench {
    /// Requests a second of an open loop.
    pub(super) fn rate(&self) -> Option<f64> {
        match self.open {
            Some(OpenLoop::Rate { rate_per_s, .. }) => Some(rate_per_s),
            Some(OpenLoop::Stages { .. } | OpenLoop::Trace { .. }) | None => None,
        }
    }

    /// What the user should know before anything is sent.
    pub(super) fn notes(&self) -> Vec<String> {
        let insecure = self.tls.as_ref().is_some_and(|tls| tls.insecure);
        let anyone = insecure.then(|| under_tls::UNVERIFIED.to_owned());
        let note = self.key.as_ref().and_then(|key| key.note.clone());
        let far = !self.target.address.ip().is_loopback();
        let clear = (self.key.is_some() && self.tls.is_none() && far).then(|| {
            format!("the API key goes to {} in clear text: its URL is http", self.target.authority)
        });
        [anyone, note, clear].into_iter().flatten().collect()
    }

    /// The warm-up; without a tokenizer one request at least, to learn how the server counts.
    pub(super) fn warmup(&self, scratch: &Path) -> Option<LoadPlan> {
        let learns = matches!(self.length, PromptLength::Words { .. });
        let requests = self.warmup.max(u32::from(learns));
        (requests > 0).then(|| LoadPlan {
            users: self.users.min(requests),
            pattern: LoadPattern::CLOSED,
            min_requests: requests,
            max_requests: Some(requests),
            min_duration_ns: 0,
            ..self.plan("warmup", scratch)
        })
    }

    pub(super) fn measured(&self, scratch: &Path) -> LoadPlan {
        self.plan(MEASURED, scratch)
    }

    /// Takes from the server's own counts how many tokens a word makes.
    pub(super) fn learn(&mut self, records: &[RequestRecord]) {
        let PromptLength::Words { tokens_per_word, learnt } = &mut self.length else { return };
        let (mut tokens, mut words) = (0_u64, 0_u64);
        for record in records {
            if let Some(reported) = record.prompt_tokens_reported {
                tokens += u64::from(reported);
                words += u64::from(record.prompt_tokens_asked);
            }
        }
        if tokens > 0 && words > 0 {
            *tokens_per_word *= count_f64(tokens) / count_f64(words);
            *learnt = true;
        }
    }

    fn plan(&self, name: &str, scratch: &Path) -> LoadPlan {
        let phase = Name::new(name).unwrap_or_else(Name::warmup);
        LoadPlan {
            host: self.target.address.ip().to_string(),
            port: self.target.address.port(),
            authority: self.target.authority.clone(),
            peer: Peer { key: self.key.as_ref().map(|key| key.key.clone()), tls: self.tls.clone() },
            request: RequestPlan {
                path: self.path.clone(),
                draft: self.draft.clone(),
                output_tokens: self.output_tokens,
                done_marker: self.done_marker,
            },
            prompts: PromptPlan {
                tokenizer: match &self.length {
                    PromptLength::Exact { tokenizer } => Some(tokenizer.clone()),
                    PromptLength::Words { .. } => None,
                },
                prompt_tokens: self.words(),
                shape: match &self.dataset {
                    Some(set) => Shape::Dataset(Box::new(set.clone())),
                    None => Shape::Random,
                },
                seed: self.seed.branch(name).value(),
                part: self.dataset.as_ref().map(|set| self.part(set.entries, name)),
                classes: Vec::new(),
            },
            users: self.users.min(self.requests.unwrap_or(u32::MAX)),
            loops: self.loops,
            min_requests: self.requests.unwrap_or(0),
            max_requests: self.requests,
            min_duration_ns: nanoseconds(self.duration),
            pattern: self.pattern(name, scratch),
            phase_deadline_ns: nanoseconds(PHASE_DEADLINE),
            request_deadline_ns: nanoseconds(self.request_deadline),
            stall_ns: nanoseconds(self.stall),
            keep_alive_ns: nanoseconds(self.keep_alive),
            records: scratch.join(format!("{name}.frames")),
            phase,
        }
    }

    /// The warm-up's own entries, or all others.
    fn part(&self, entries: u32, name: &str) -> Part {
        let warm = self.warmup.min(entries / 2);
        let (from, count) =
            if name == MEASURED { (warm, entries - warm) } else { (0, warm.max(1)) };
        Part { seed: self.seed.branch("dataset").value(), from, count, used: 0 }
    }

    fn pattern(&self, name: &str, scratch: &Path) -> LoadPattern {
        match &self.open {
            Some(schedule) if name == MEASURED => LoadPattern::Open {
                schedule: schedule.clone(),
                seed: self.seed.branch(name).value(),
                kept: scratch.join("schedule.csv"),
            },
            Some(_) | None => LoadPattern::CLOSED,
        }
    }

    /// Tokens where they can be counted, else the words that should make as many.
    fn words(&self) -> u32 {
        match self.length {
            PromptLength::Exact { .. } => self.prompt_tokens,
            PromptLength::Words { tokens_per_word, .. } => {
                let words = (f64::from(self.prompt_tokens) / tokens_per_word).round();
                // From text, for a cast would hide what does not fit.
                format!("{words:.0}").parse::<u32>().unwrap_or(self.prompt_tokens).max(1)
            }
        }
    }
}
