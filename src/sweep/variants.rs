//! The variants of a sweep: engine, program, model, parameters, environment.

use super::def::{Model, Variant};
use super::gpu;
use super::installed::{self, Installed, Places};
use super::{args, hardware, program};
use crate::engine::common::{variable_name, variable_names};
use crate::engine::def::{EngineDef, Slot};
use crate::engine::library::{Library, LibraryError};
use crate::engine::{containment, params};
use crate::form::host::{Host, PathKind};
use crate::form::{Field, Fields, Wrong, did_you_mean};
use crate::ids::Name;
use crate::physics::gpu::Hardware;
use crate::secrets;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a sweep file stands among.
pub(super) struct Surroundings<'a> {
    /// The sweep file's own, absolute.
    pub(super) folder: PathBuf,
    pub(super) library: &'a Library,
    pub(super) host: &'a dyn Host,
    pub(super) installed: &'a dyn Installed,
    /// What could not be checked.
    pub(super) notes: RefCell<Vec<String>>,
    /// Files that requests are taken from.
    pub(super) data: RefCell<BTreeSet<PathBuf>>,
}

impl Surroundings<'_> {
    /// A path of the sweep file, made absolute.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        self.host.absolute(&self.folder.join(text))
    }

    /// The same of a file that requests are taken from.
    pub(super) fn data_file(&self, text: &str) -> PathBuf {
        let path = self.path(text);
        self.data.borrow_mut().insert(path.clone());
        path
    }
}

pub(super) fn read(fields: &Fields<'_>, around: &Surroundings<'_>) -> Vec<Variant> {
    let settings = engine_settings(&fields.optional("engines"), around);
    let tables = fields.required("variants").tables();
    if fields.optional("variants").is_list() && tables.is_empty() {
        fields.optional("variants").problem("is an empty list", None);
    }
    let each_has_a_model =
        !tables.is_empty() && tables.iter().all(|table| table.optional("model").is_there());
    let model = match each_has_a_model {
        true => fields.optional("model"),
        false => fields.required("model"),
    };
    let model = model.table().and_then(|fields| read_model(&fields, around));

    let hardware = fields.optional("hardware").table();
    let hardware =
        hardware.and_then(|fields| hardware::hardware(&fields, around.library.gpus(), None));
    let of_all = OfAll { model, hardware };
    let mut engines = Engines { settings: &settings, around, found: BTreeMap::new() };
    let mut names: Vec<Name> = Vec::new();
    let mut variants = Vec::new();
    for table in &tables {
        let field = table.required("name");
        let name = field.name();
        if name.as_ref().is_some_and(|name| names.contains(name)) {
            field.problem("another variant has this name", None);
        }
        names.extend(name.clone());
        variants.extend(variant(name, table, &of_all, &mut engines));
    }
    engines.check_unused(fields);
    variants
}

/// What holds for variants that do not say otherwise.
struct OfAll {
    model: Option<Model>,
    hardware: Option<Hardware>,
}

fn variant(
    name: Option<Name>,
    fields: &Fields<'_>,
    of_all: &OfAll,
    engines: &mut Engines<'_, '_>,
) -> Option<Variant> {
    let engine_field = fields.required("engine");
    let engine = engines.of(&engine_field);
    let params_field = fields.optional("params");
    let args_field = fields.optional("args");
    let mut params = match &engine {
        Some(found) => params_field.table().map(|table| params::check(&found.engine, &table)),
        None => None,
    }
    .unwrap_or_default();
    let args = match &engine {
        Some(found) => args::read(&found.engine, &args_field, &mut params),
        None => Vec::new(),
    };
    let env = fields.optional("env").table().map(|table| environment(&table));
    let env_pass = variable_names(&fields.optional("env_pass"));
    let gpus = gpu::wanted(&fields.optional("gpus"));
    let own = fields.optional("model");
    let model = if own.is_there() {
        own.table().and_then(|fields| read_model(&fields, engines.around))
    } else {
        of_all.model.clone()
    };
    let own = fields.optional("hardware").table();
    let (table, of_all) = (engines.around.library.gpus(), of_all.hardware.as_ref());
    let hardware = match own {
        Some(own) => hardware::hardware(&own, table, of_all),
        None => of_all.cloned(),
    };
    let found = engine?;
    let model = model?;
    check_model_files(&model, &found.engine, &engine_field, engines.around);
    let variant = Variant {
        name: name?,
        engine: found.engine,
        program: found.program,
        python: found.python,
        model,
        hardware,
        params,
        args,
        env: env.unwrap_or_default(),
        env_pass,
        gpus,
    };
    let places = Places { engine: &engine_field, params: &params_field, args: &args_field };
    let note = installed::check(&variant, &places, engines.around.installed);
    engines.around.notes.borrow_mut().extend(note);
    Some(variant)
}

/// An engine that does not find what it needs in a folder takes its name for one of a hub's.
fn check_model_files(
    model: &Model,
    engine: &EngineDef,
    field: &Field<'_>,
    around: &Surroundings<'_>,
) {
    if around.host.kind(&model.path) != Some(PathKind::Folder) {
        return;
    }
    let missing = |name: &&String| around.host.kind(&model.path.join(name)).is_none();
    for name in engine.model_files.iter().filter(missing) {
        let message = format!("engine `{}` needs {}", engine.name, model.path.join(name).display());
        let help = "the model's folder is not complete, or it is another folder".to_owned();
        field.problem(message, Some(help));
    }
}

fn environment(fields: &Fields<'_>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for (name, at, field) in fields.each() {
        match variable_name(name) {
            Ok(name) => {
                refuse_secret(&name, &field);
                env.extend(field.any_text().map(|value| (name, value)));
            }
            Err(wrong) => fields.form().problem(at, wrong.message, wrong.help),
        }
    }
    env
}

/// A sweep file is kept with its results and shown around.
fn refuse_secret(name: &str, field: &Field<'_>) {
    let value = field.any_text().unwrap_or_default();
    if !secrets::among([(name, value.as_str())]).is_empty() {
        let help =
            format!("set it in sweepd's own environment and name it: env_pass = [\"{name}\"]");
        field.problem("looks like a secret, and this file is kept with the results", Some(help));
    }
}

fn read_model(fields: &Fields<'_>, around: &Surroundings<'_>) -> Option<Model> {
    let field = fields.required("path");
    let path = field.parsed(|text| model_path(text, around));
    let served_name = fields.optional("served_name").text();
    let tokenizer = fields.optional("tokenizer");
    let (path, kind) = match path {
        Some(found) => found,
        None => {
            // The default would only be wrong once more; a given one is checked still.
            tokenizer.parsed(|text| existing_file(text, around));
            return None;
        }
    };
    let default_name = match kind {
        PathKind::Folder => path.file_name(),
        PathKind::File | PathKind::Program => path.file_stem(),
    };
    let tokenizer = if tokenizer.is_there() {
        tokenizer.parsed(|text| existing_file(text, around))
    } else {
        default_tokenizer(&path, kind, &field, around.host)
    };
    let default_name = default_name.map_or("model".into(), |name| name.to_string_lossy());
    Some(Model {
        served_name: served_name.unwrap_or_else(|| default_name.into_owned()),
        tokenizer: tokenizer?,
        path,
    })
}

fn model_path(text: &str, around: &Surroundings<'_>) -> Result<(PathBuf, PathKind), Wrong> {
    let path = around.path(text);
    if path.to_str().is_none() {
        return Err(Wrong::new("lies in a folder whose name is not UTF-8"));
    }
    match around.host.kind(&path) {
        Some(kind) => Ok((path, kind)),
        None => Err(Wrong::new(format!("{} is not there", path.display()))
            .help("a local file or folder; sweepd downloads nothing")),
    }
}

fn existing_file(text: &str, around: &Surroundings<'_>) -> Result<PathBuf, Wrong> {
    let path = around.path(text);
    match around.host.kind(&path) {
        Some(PathKind::File | PathKind::Program) => Ok(path),
        Some(PathKind::Folder) => Err(Wrong::new(format!("{} is a folder", path.display()))),
        None => Err(Wrong::new(format!("{} is not there", path.display()))),
    }
}

/// In the model's folder.
fn default_tokenizer(
    model: &Path,
    kind: PathKind,
    field: &Field<'_>,
    host: &dyn Host,
) -> Option<PathBuf> {
    let folder = match kind {
        PathKind::Folder => model,
        PathKind::File | PathKind::Program => model.parent().unwrap_or(model),
    };
    let tokenizer = folder.join("tokenizer.json");
    match host.kind(&tokenizer) {
        Some(PathKind::File | PathKind::Program) => Some(tokenizer),
        Some(PathKind::Folder) | None => {
            let help = "prompts of exact length need the model's own: `tokenizer = \"…\"`";
            let message = format!("{} is not there", tokenizer.display());
            field.problem(message, Some(help.to_owned()));
            None
        }
    }
}

/// `[engines.NAME]` of the sweep.
#[derive(Debug)]
struct EngineSettings {
    name: Name,
    /// Of the key, for problems.
    at: usize,
    file: Option<PathBuf>,
    program: Program,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Program {
    Unsaid,
    /// The mistake was reported.
    Wrong,
    /// Where the value stands and the absolute path that it leads to.
    At(usize, String),
}

fn engine_settings(field: &Field<'_>, around: &Surroundings<'_>) -> Vec<EngineSettings> {
    let Some(fields) = field.table() else { return Vec::new() };
    let settings = fields.each().filter_map(|(name, at, field)| {
        let table = field.table()?;
        let file = table.optional("file").text().map(|text| around.path(&text));
        let program = table.optional("program");
        let program = match (program.is_there(), program.parsed(|text| program::find(text, around)))
        {
            (false, _) => Program::Unsaid,
            (true, None) => Program::Wrong,
            (true, Some(path)) => Program::At(program.at(), path),
        };
        let Some(name) = Name::new(name) else {
            fields.form().problem(at, format!("`{name}` cannot be an engine's name"), None);
            return None;
        };
        Some(EngineSettings { name, at, file, program })
    });
    settings.collect()
}

/// The engines that variants have asked for so far.
struct Engines<'a, 's> {
    settings: &'a [EngineSettings],
    around: &'a Surroundings<'s>,
    /// By name; `None` where the mistake was reported.
    found: BTreeMap<String, Option<Found>>,
}

#[derive(Clone)]
struct Found {
    engine: Arc<EngineDef>,
    program: Option<String>,
    python: Option<String>,
}

impl Engines<'_, '_> {
    /// The engine that a variant names. What is wrong with it is told once, not for every variant.
    fn of(&mut self, field: &Field<'_>) -> Option<Found> {
        let name = field.text()?;
        if let Some(known) = self.found.get(&name) {
            return known.clone();
        }
        let found = self.find(&name, field);
        self.found.insert(name, found.clone());
        found
    }

    fn find(&self, name: &str, field: &Field<'_>) -> Option<Found> {
        let settings = self.settings.iter().find(|settings| settings.name.as_str() == name);
        let engine = match self.definition(name, settings) {
            Ok(engine) => engine,
            Err(error) => {
                match error.own_problems() {
                    Some(problems) => field.adopt(problems),
                    None => field.problem(error.to_string(), error.help()),
                }
                return None;
            }
        };
        let program = self.program(&engine, settings, field)?;
        if let Some((message, help)) =
            containment::refused(&engine.launch.command, program.as_deref())
        {
            field.problem(message, Some(help));
            return None;
        }
        let python = program.as_deref().and_then(|path| program::python(path, self.around.host));
        Some(Found { engine: Arc::new(engine), program, python })
    }

    fn definition(
        &self,
        name: &str,
        settings: Option<&EngineSettings>,
    ) -> Result<EngineDef, LibraryError> {
        let Surroundings { library, host, .. } = self.around;
        match settings.and_then(|settings| Some((settings, settings.file.as_ref()?))) {
            Some((settings, file)) => library.read(settings.name.clone(), file, *host),
            None => library.find(name, &self.brought(), *host),
        }
    }

    /// Names of engines whose definition the sweep brings.
    fn brought(&self) -> Vec<&str> {
        let brought = self.settings.iter().filter(|settings| settings.file.is_some());
        brought.map(|settings| settings.name.as_str()).collect()
    }

    /// What `{program}` stands for: `None` where there should be one and is none.
    fn program(
        &self,
        engine: &EngineDef,
        settings: Option<&EngineSettings>,
        field: &Field<'_>,
    ) -> Option<Option<String>> {
        let is_used = engine.launch.command.iter().any(|item| item.uses(Slot::Program));
        let said = settings.map_or(&Program::Unsaid, |settings| &settings.program);
        match (said, &engine.program) {
            (Program::At(at, path), _) => {
                if !is_used {
                    let message = format!("engine `{}` runs no program of its own", engine.name);
                    let help = "its launch command has no `{program}`".to_owned();
                    field.form().problem(*at, message, Some(help));
                }
                Some(Some(path.clone()))
            }
            (Program::Wrong, _) => None,
            (Program::Unsaid, _) if !is_used => Some(None),
            (Program::Unsaid, Some(default)) => match program::find(default, self.around) {
                Ok(path) => Some(Some(path)),
                Err(wrong) => {
                    let help = format!("[engines.{}] program = \"path/to/{default}\"", engine.name);
                    let help = if default.contains('/') { None } else { Some(help) };
                    field.problem(wrong.message, help);
                    None
                }
            },
            (Program::Unsaid, None) => {
                let message = format!("engine `{}` has no program of its own", engine.name);
                let help = format!("[engines.{}] program = \"…\"", engine.name);
                field.problem(message, Some(help));
                None
            }
        }
    }

    /// Settings for an engine that does not exist are most likely a slip of the pen.
    fn check_unused(&self, fields: &Fields<'_>) {
        let names = self.around.library.names(self.around.host);
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        for settings in self.settings {
            let name = settings.name.as_str();
            let is_known = settings.file.is_some() || known.contains(&name);
            if !is_known && !self.found.contains_key(name) {
                let message = format!("there is no engine `{name}`");
                let help = did_you_mean(name, &known, "engines:");
                fields.form().problem(settings.at, message, Some(help));
            }
        }
    }
}
