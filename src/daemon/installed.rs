//! Asks installed programs for the flags that they know, and keeps the answers.
//!
//! A Python engine takes half a minute to print its help, so an answer is kept in a file, by
//! everything that it depends on: command, version, environment, and the program file itself.
//!
//! Invariant: an answer is never used for another version of the program.

use super::{ask, version};
use crate::engine::def::EngineDef;
use crate::engine::help::Help;
use crate::engine::launch::{self, OwnEnvironment, Slots};
use crate::store::files;
use crate::sweep::installed::{Asked, Installed};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A cold start of a large Python engine from a slow disk.
const WITHIN: Duration = Duration::from_secs(180);

type Answer = Result<Option<Arc<Help>>, String>;

/// The real machine's programs.
pub(crate) struct Programs {
    sweepd: PathBuf,
    inherited: BTreeMap<String, String>,
    /// Where answers are kept; nowhere when there is no such place.
    cache: Option<PathBuf>,
    runtime: tokio::runtime::Runtime,
    /// By what decides them.
    answers: RefCell<BTreeMap<String, Answer>>,
    /// Told before a program is asked that may take long.
    announce: fn(&str),
}

impl Programs {
    pub(crate) fn new(
        sweepd: PathBuf,
        inherited: BTreeMap<String, String>,
        cache: Option<PathBuf>,
        announce: fn(&str),
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { sweepd, inherited, cache, runtime, answers: RefCell::default(), announce })
    }

    fn ask(&self, asked: Asked<'_>) -> Answer {
        let Some(probe) = &asked.engine.help else { return Ok(None) };
        let slots = Slots {
            program: asked.program,
            model: Path::new(""),
            served_name: "",
            host: "",
            port: 0,
            gpus: Some(""),
            sweepd: &self.sweepd,
            python: asked.python,
        };
        let argv = launch::expanded(&probe.command, &slots).map_err(|error| error.to_string())?;
        let env = self.environment(asked, &slots)?;
        let version = self.runtime.block_on(async {
            match &asked.engine.version {
                Some(probe) => version::asked(probe, &slots, &env, None).await,
                None => None,
            }
        });
        let key = key(&argv, version.as_deref(), asked);
        if let Some(known) = self.answers.borrow().get(&key) {
            return known.clone();
        }
        let answer = self.read_or_run(&key, &argv, &env, asked.engine, version.is_some());
        self.answers.borrow_mut().insert(key, answer.clone());
        answer
    }

    fn environment(
        &self,
        asked: Asked<'_>,
        slots: &Slots<'_>,
    ) -> Result<BTreeMap<String, String>, String> {
        let own = OwnEnvironment { env: asked.env, env_pass: asked.env_pass };
        launch::environment(asked.engine, own, &self.inherited, slots)
            .map_err(|error| error.to_string())
    }

    /// Only an answer whose version is known may be kept.
    fn read_or_run(
        &self,
        key: &str,
        argv: &[String],
        env: &BTreeMap<String, String>,
        engine: &EngineDef,
        may_keep: bool,
    ) -> Answer {
        let file = self.cache.as_ref().map(|cache| cache.join(format!("{key}.txt")));
        let kept = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        if let Some(help) = kept.map(|text| Help::parse(&text)).filter(|help| !help.is_empty()) {
            return Ok(Some(Arc::new(help)));
        }
        (self.announce)(engine.name.as_str());
        let text = self.runtime.block_on(ask::output(argv, env, None, WITHIN))?;
        let help = Help::parse(&text);
        if help.is_empty() {
            return Err(format!("`{}` names no flags", argv.join(" ")));
        }
        if let Some(file) = file.filter(|_| may_keep) {
            let folder = file.parent().unwrap_or(Path::new("/"));
            // A cache that cannot be written only costs time.
            if std::fs::create_dir_all(folder).is_ok() {
                drop(files::write(&file, text.as_bytes()));
            }
        }
        Ok(Some(Arc::new(help)))
    }
}

impl Installed for Programs {
    fn help(&self, asked: Asked<'_>) -> Answer {
        self.ask(asked)
    }
}

/// Everything that decides what the program prints.
fn key(argv: &[String], version: Option<&str>, asked: Asked<'_>) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    };
    argv.iter().for_each(|word| add(word));
    add(version.unwrap_or_default());
    for (name, value) in asked.env {
        add(name);
        add(value);
    }
    let file = argv.first().and_then(|program| std::fs::metadata(program).ok());
    let stamp = file.map(|file| (file.len(), file.modified().ok()));
    add(&format!("{stamp:?}"));
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
