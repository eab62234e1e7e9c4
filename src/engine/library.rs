//! Finding an engine by its name: the sweep's own file, then the user's folders, then built in;
//! and GPUs by theirs.
//!
//! A file is read when its engine is asked for: a broken file that nobody uses stops nobody.

use super::common::Common;
use super::def::{EngineDef, EngineSource};
use super::parse::parse;
use super::rules::rule::LogRules;
use crate::form::host::Host;
use crate::form::{Problems, did_you_mean};
use crate::ids::Name;
use crate::physics::gpu::GpuTable;
use std::path::{Path, PathBuf};

// Writes `BUILT_IN: &[(name, text)]` and `COMMON`, from the files in `engines/`.
include!(concat!(env!("OUT_DIR"), "/engines.rs"));

/// The engines and GPUs that can be named.
#[derive(Clone, Debug)]
pub(crate) struct Library {
    /// An engine in an earlier folder hides one of the same name in a later one.
    folders: Vec<PathBuf>,
    common: Common,
    gpus: GpuTable,
}

/// Why there is no engine of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LibraryError {
    #[error("there is no engine `{name}`")]
    Unknown { name: String, help: String },
    #[error("cannot read {}: {reason}", .file.display())]
    Unreadable { file: PathBuf, reason: String },
    #[error("{0}")]
    Wrong(Problems),
}

/// Why a log cannot be read as an engine's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownLog {
    #[error("--engine: there is no engine `{name}`; {help}")]
    Engine { name: String, help: String },
    #[error(transparent)]
    Library(LibraryError),
}

/// Stands for the rules that hold for every program.
const COMMON_NAME: &str = "common";

impl Library {
    pub(crate) fn load(folders: Vec<PathBuf>) -> Result<Self, Problems> {
        let common = Common::parse(Path::new("engines/common.toml"), COMMON)?;
        Ok(Self { folders, common, gpus: GpuTable::built_in()? })
    }

    /// With the GPUs of a user's own table.
    pub(crate) fn with_gpus(self, own: GpuTable) -> Self {
        Self { gpus: self.gpus.and(own), ..self }
    }

    pub(crate) const fn gpus(&self) -> &GpuTable {
        &self.gpus
    }

    /// An engine from the user's folders or built in. `also`: names that would have been right
    /// too, for advice.
    pub(crate) fn find(
        &self,
        name: &str,
        also: &[&str],
        host: &dyn Host,
    ) -> Result<EngineDef, LibraryError> {
        let Some(engine) = Name::new(name) else { return Err(self.unknown(name, also, host)) };
        let files = self.folders.iter().map(|folder| folder.join(format!("{name}.toml")));
        for file in files {
            if host.kind(&file).is_some() {
                return self.read(engine, &file, host);
            }
        }
        match BUILT_IN.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => parse(engine, EngineSource::BuiltIn, text, &self.common)
                .map_err(LibraryError::Wrong),
            None => Err(self.unknown(name, also, host)),
        }
    }

    /// An engine from a file that the sweep names.
    pub(crate) fn read(
        &self,
        name: Name,
        file: &Path,
        host: &dyn Host,
    ) -> Result<EngineDef, LibraryError> {
        let text = host.read(file).map_err(|error| LibraryError::Unreadable {
            file: file.to_owned(),
            reason: error.to_string(),
        })?;
        let source = EngineSource::File(file.to_owned());
        parse(name, source, &text, &self.common).map_err(LibraryError::Wrong)
    }

    /// What an engine's log and end mean, for `sweepd diagnose`. The engine's name is taken in any
    /// spelling; `common` is what holds for every program.
    pub(crate) fn log_rules(&self, name: &str, host: &dyn Host) -> Result<LogRules, UnknownLog> {
        if name == COMMON_NAME {
            return Ok(self.common.log.clone());
        }
        let names = self.names(host);
        let bare = |name: &str| name.replace(['-', '_', '.'], "").to_lowercase();
        let same = |known: &&String| *known == name || bare(known) == bare(name);
        let Some(known) = names.iter().find(|known| *known == name).or(names.iter().find(same))
        else {
            let known: Vec<&str> = names.iter().map(String::as_str).chain([COMMON_NAME]).collect();
            let help = did_you_mean(name, &known, "engines:");
            return Err(UnknownLog::Engine { name: name.to_owned(), help });
        };
        self.find(known, &[], host).map(|engine| engine.log).map_err(UnknownLog::Library)
    }

    /// The names of all engines, each once, in alphabetical order.
    pub(crate) fn names(&self, host: &dyn Host) -> Vec<String> {
        let own = self.folders.iter().flat_map(|folder| host.toml_stems(folder));
        let built_in = BUILT_IN.iter().map(|(name, _)| (*name).to_owned());
        let mut names: Vec<String> =
            own.chain(built_in).filter(|name| Name::new(name).is_some()).collect();
        names.sort();
        names.dedup();
        names
    }

    fn unknown(&self, name: &str, also: &[&str], host: &dyn Host) -> LibraryError {
        let names = self.names(host);
        let mut known: Vec<&str> = names.iter().map(String::as_str).chain(also.to_vec()).collect();
        known.sort_unstable();
        known.dedup();
        let help = format!(
            "{}; `[engines.{name}] file = \"…\"` brings another",
            did_you_mean(name, &known, "engines:")
        );
        LibraryError::Unknown { name: name.to_owned(), help }
    }
}

impl LibraryError {
    /// The problems of the engine's own file, where that is what is wrong.
    pub(crate) fn own_problems(&self) -> Option<&Problems> {
        match self {
            Self::Wrong(problems) => Some(problems),
            Self::Unknown { .. } | Self::Unreadable { .. } => None,
        }
    }

    pub(crate) fn help(&self) -> Option<String> {
        match self {
            Self::Unknown { help, .. } => Some(help.clone()),
            Self::Unreadable { .. } | Self::Wrong(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::parse::tests::MINIMAL;
    use crate::form::host::{FakeHost, PathKind};

    fn library(folders: &[&str]) -> Library {
        let folders = folders.iter().map(PathBuf::from).collect();
        Library::load(folders).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn every_built_in_engine_is_right_and_says_where_its_rules_come_from() {
        let host = FakeHost::default();
        assert!(BUILT_IN.len() >= 2);
        for (name, _) in BUILT_IN {
            let engine =
                library(&[]).find(name, &[], &host).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(engine.name.as_str(), *name);
            for rule in &engine.log.failures {
                assert!(rule.advice.is_some() && rule.origin.is_some(), "{name}: {rule:?}");
            }
            for param in engine.params.values() {
                assert!(param.about.is_some(), "{name}: {param:?}");
            }
        }
    }

    #[test]
    fn an_earlier_folder_hides_a_later_one_and_the_built_in() {
        let built_in = BUILT_IN[0].0;
        let simulated = format!("simulated = true{MINIMAL}");
        let host = FakeHost::default()
            .with(PathKind::File, "/u/mine.toml", &simulated)
            .with(PathKind::File, "/v/mine.toml", MINIMAL)
            .with(PathKind::File, &format!("/v/{built_in}.toml"), MINIMAL);
        let library = library(&["/absent", "/u", "/v"]);
        assert!(library.find("mine", &[], &host).unwrap().simulated);
        let hidden = library.find(built_in, &[], &host).unwrap();
        assert_eq!(hidden.source, EngineSource::File(format!("/v/{built_in}.toml").into()));
        assert!(library.names(&host).contains(&"mine".to_owned()));
    }

    #[test]
    fn an_engine_that_is_not_there_is_told_with_the_nearest_one() {
        let host = FakeHost::default().with(PathKind::File, "/u/turbo-serve.toml", MINIMAL);
        let error = library(&["/u"]).find("turbo_serve", &[], &host).unwrap_err();
        assert_eq!(error.to_string(), "there is no engine `turbo_serve`");
        assert!(error.help().unwrap().starts_with("did you mean `turbo-serve`? engines: "));
    }

    #[test]
    fn a_broken_file_is_told_with_its_path_and_only_when_asked_for() {
        let host = FakeHost::default()
            .with(PathKind::File, "/u/broken.toml", "schema = 1\n[launch]\n")
            .with(PathKind::File, "/u/right.toml", MINIMAL);
        let library = library(&["/u"]);
        assert!(library.find("right", &[], &host).is_ok());
        let error = library.find("broken", &[], &host).unwrap_err();
        assert!(error.to_string().contains("/u/broken.toml:2:1: missing `command`"), "{error}");
    }
}
