//! What the commands read: the environment (here and nowhere else), sweep files, engine folders.

use crate::daemon::installed::Programs;
use crate::daemon::reports::Origin;
use crate::engine::library::Library;
use crate::form::Problems;
use crate::form::host::Disk;
use crate::physics::gpu::GpuTable;
use crate::store::dirs::RunDir;
use crate::sweep::def::Sweep;
use crate::sweep::parse;
use anyhow::Context;
use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

/// The user's input was refused: exit code 2.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0}")]
    Wrong(Problems),
    #[error("cannot read {}: {cause}", .file.display())]
    Unreadable { file: PathBuf, cause: std::io::Error },
    #[error("{name}: {why}")]
    Argument { name: &'static str, why: String },
    #[error("{} is not a run: it has no plan.json", .0.display())]
    NoRun(PathBuf),
    #[error("{0}")]
    Other(String),
}

/// A sweep file, read and checked.
pub(super) struct Input {
    pub(super) sweep: Sweep,
    pub(super) text: String,
    pub(super) origin: Origin,
}

pub(super) fn read_sweep(file: &Path, folders: Vec<PathBuf>) -> anyhow::Result<Input> {
    let text = read_text(file)?;
    // Made absolute for the run, kept as it was typed for messages.
    let absolute = std::path::absolute(file)
        .with_context(|| format!("cannot find the folder of {}", file.display()))?;
    let engine_folders = folders.iter().map(std::path::absolute).collect::<Result<_, _>>();
    let engine_folders = engine_folders.context("cannot find the folders of engine files")?;
    let sweep = check(file, &text, folders)?;
    Ok(Input { sweep, text, origin: Origin { file: absolute, engine_folders } })
}

/// Reads a sweep's text against the engines and the machine. What could not be checked is told.
pub(super) fn check(file: &Path, text: &str, folders: Vec<PathBuf>) -> anyhow::Result<Sweep> {
    let sweepd = env::current_exe().context("cannot find sweepd's own executable")?;
    let cache = base("XDG_CACHE_HOME", ".cache").map(|base| base.join("sweepd/help"));
    let announce = |engine: &str| {
        tell(&format!(
            "asking engine `{engine}` for the flags that it knows (once for each version)"
        ));
    };
    let programs = Programs::new(sweepd, environment(), cache, announce)
        .context("cannot start the runtime")?;
    let sweep = parse::parse(file, text, &library(folders)?, &disk(), &programs);
    let sweep = sweep.map_err(Refused::Wrong)?;
    for note in &sweep.notes {
        tell(&format!("note: {note}"));
    }
    Ok(sweep)
}

#[expect(clippy::print_stderr, reason = "what is asked of programs, and what could not be")]
fn tell(text: &str) {
    eprintln!("{text}");
}

pub(super) fn read_text(file: &Path) -> Result<String, Refused> {
    std::fs::read_to_string(file)
        .map_err(|cause| Refused::Unreadable { file: file.to_owned(), cause })
}

/// A run by its folder or its id.
pub(super) fn find_run(run: &Path, root: &Path) -> Result<RunDir, Refused> {
    let path = if run.is_dir() { run.to_owned() } else { root.join(run) };
    // Absolute, for engines run in another folder.
    let path = std::path::absolute(&path).unwrap_or(path);
    if !path.join("plan.json").exists() {
        return Err(Refused::NoRun(run.to_owned()));
    }
    Ok(RunDir::open(&path))
}

pub(super) fn library(folders: Vec<PathBuf>) -> anyhow::Result<Library> {
    let library = Library::load(folders).map_err(Refused::Wrong)?;
    Ok(match gpu_table()? {
        Some(own) => library.with_gpus(own),
        None => library,
    })
}

/// The user's own GPUs, if there are any.
fn gpu_table() -> Result<Option<GpuTable>, Refused> {
    let Some(file) = base("XDG_CONFIG_HOME", ".config").map(|base| base.join("sweepd/gpus.toml"))
    else {
        return Ok(None);
    };
    if !file.exists() {
        return Ok(None);
    }
    GpuTable::parse(&file, &read_text(&file)?).map(Some).map_err(Refused::Wrong)
}

pub(super) fn disk() -> Disk {
    Disk::new(&env::var_os("PATH").unwrap_or_default())
}

/// The user's folders of engine files, in the order in which they are searched.
pub(super) fn engine_folders(given: Vec<PathBuf>) -> Vec<PathBuf> {
    let own = base("XDG_CONFIG_HOME", ".config").map(|base| base.join("sweepd/engines"));
    given.into_iter().chain(own).collect()
}

/// Where runs are kept unless the user says otherwise.
pub(super) fn runs_folder() -> PathBuf {
    own_folder().join("runs")
}

/// What is sweepd's own and stays.
pub(super) fn own_folder() -> PathBuf {
    base("XDG_STATE_HOME", ".local/state").unwrap_or_default().join("sweepd")
}

/// The driver's library, where it is not to be the system's.
pub(super) fn nvml() -> crate::gpu::client::Nvml {
    let library = env::var_os("SWEEPD_NVML_LIBRARY").filter(|path| !path.is_empty());
    crate::gpu::client::Nvml { library: library.map(PathBuf::from) }
}

/// How trials reach the machine's GPUs.
pub(super) fn machine() -> anyhow::Result<crate::daemon::gpu::Machine> {
    let cards = GpuTable::built_in().map_err(Refused::Wrong)?;
    let cards = match gpu_table()? {
        Some(own) => cards.and(own),
        None => cards,
    };
    Ok(crate::daemon::gpu::Machine { nvml: nvml(), shared: shared_folder(), cards })
}

/// What all of this machine's sweepds share while it is up: leases of GPUs, things to be undone.
/// Root's is the machine's; another user's is that user's own.
pub(super) fn shared_folder() -> PathBuf {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(given) = absolute("SWEEPD_RUNTIME_DIR") {
        return given;
    }
    let user = nix::unistd::geteuid();
    match absolute("XDG_RUNTIME_DIR") {
        _ if user.is_root() => PathBuf::from("/run/sweepd"),
        Some(own) => own.join("sweepd"),
        None => env::temp_dir().join(format!("sweepd-{user}")),
    }
}

/// The daemon's own: a service manager names one; else beside the user's runs, not among them.
pub(super) fn state_folder() -> PathBuf {
    let given = env::var_os("STATE_DIRECTORY").map(PathBuf::from);
    given.unwrap_or_else(|| own_folder().join("daemon"))
}

/// Where the socket lies: a service manager names the folder; else what all sweeps share.
pub(super) fn runtime_folder() -> PathBuf {
    env::var_os("RUNTIME_DIRECTORY").map_or_else(shared_folder, PathBuf::from)
}

pub(super) fn daemon_config() -> PathBuf {
    let system = || PathBuf::from("/etc/sweepd/sweepd.toml");
    match nix::unistd::geteuid().is_root() {
        true => system(),
        false => base("XDG_CONFIG_HOME", ".config")
            .map_or_else(system, |base| base.join("sweepd/sweepd.toml")),
    }
}

/// An XDG base directory: the variable if it is absolute, as the specification asks, or its default.
fn base(variable: &str, default: &str) -> Option<PathBuf> {
    let given = env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    given.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(default)))
}

/// A new folder of this process for what need not last; whoever asks removes it.
pub(super) fn scratch_folder(name: &str) -> std::io::Result<PathBuf> {
    let folder = env::temp_dir().join(format!("{name}-{}", std::process::id()));
    match std::fs::remove_dir_all(&folder) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    std::fs::create_dir(&folder).map(|()| folder)
}

/// sweepd's own environment. Variables that are not text cannot be named in an allow-list.
pub(super) fn environment() -> BTreeMap<String, String> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
