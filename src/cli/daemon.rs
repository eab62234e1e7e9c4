//! `sweepd daemon`: the queue, its API and the trials, until it is told to end.

use super::{input, signals};
use crate::daemon::api::{self, Api, Door};
use crate::daemon::progress::Watcher;
use crate::daemon::service::config::{self, Config};
use crate::daemon::service::events::Events;
use crate::daemon::service::job::Outfit;
use crate::daemon::service::keeper::Inbox;
use crate::daemon::service::paths::Paths;
use crate::daemon::service::start;
use crate::supervise::user::RunAs;
use anyhow::{Context, bail};
use clap::Args;
use nix::unistd::{Group, chown, geteuid};
use std::fs::{self, Permissions};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Requests to the keeper that wait; more of them make their senders wait.
const ASKS: usize = 64;
/// How nice the thread is that talks to people: a tenth of the weight of what is measured.
const GIVE_WAY: i32 = 10;

#[derive(Debug, Args)]
pub(super) struct DaemonArguments {
    /// The configuration. Default: /etc/sweepd/sweepd.toml for root, else
    /// $XDG_CONFIG_HOME/sweepd/sweepd.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where runs and the queue are kept. Default: $STATE_DIRECTORY, or $XDG_STATE_HOME/sweepd.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Where the socket lies. Default: $RUNTIME_DIRECTORY, or $XDG_RUNTIME_DIR/sweepd.
    #[arg(long, value_name = "DIR")]
    runtime: Option<PathBuf>,
    /// Also take commands that only tests need.
    #[arg(long, hide = true)]
    debug_commands: bool,
    /// Also run engines as root, for tests where everything is root's.
    #[arg(long, hide = true)]
    engines_as_root: bool,
}

pub(super) fn run(arguments: &DaemonArguments) -> anyhow::Result<ExitCode> {
    let absolute = |path: PathBuf| std::path::absolute(&path);
    let paths = Paths {
        state: absolute(arguments.state.clone().unwrap_or_else(input::state_folder))?,
        runtime: absolute(arguments.runtime.clone().unwrap_or_else(input::runtime_folder))?,
    };
    let config_file = arguments.config.clone().unwrap_or_else(input::daemon_config);
    let config = config::read(&config_file)
        .map_err(|error| input::Refused::Other(format!("cannot use the configuration: {error}")))?;
    let outfit = Outfit {
        sweepd: std::env::current_exe().context("cannot find sweepd's own executable")?,
        inherited: input::environment(),
        machine: input::machine()?,
        run_as: engines_user(&config, &config_file, arguments.engines_as_root)?,
        search_path: std::env::var_os("PATH").unwrap_or_default(),
    };
    let signals = signals::daemon_signals()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let talking = talking()?;
    let served = runtime.block_on(async {
        let (config, seen) = watch::channel(Arc::new(config));
        let (asks, asked) = mpsc::channel(ASKS);
        let (watcher, progress) = mpsc::unbounded_channel();
        let events = Arc::new(Events::new());
        // Also when no run is waiting: a GPU may still be as a sweepd that is gone had set it.
        for said in outfit.machine.undo().await {
            tracing::warn!(said, "gpu");
        }
        let (keeper, view) = start::recover(
            paths.clone(),
            config_file,
            config,
            outfit.clone(),
            Watcher::new(watcher),
            events.clone(),
        )
        .context("cannot start")?;
        {
            let _inside = talking.enter();
            let doors = doors(&paths, &seen.borrow())?;
            let debug = arguments.debug_commands;
            let outfit = Arc::new(outfit);
            api::serve(&Api { asks, view, events, config: seen, paths, outfit, debug }, doors);
        }
        let inbox = Inbox { asks: asked, signals, progress };
        keeper.run(inbox).await.context("the index could not be closed")
    });
    // Streams that are still read end here; a blocked thread must not hold up the end.
    talking.shutdown_background();
    runtime.shutdown_background();
    served?;
    Ok(ExitCode::SUCCESS)
}

/// For whoever looks at the daemon: a thread of its own, which gives way to engines and load, so that
/// a crowd moves no figure.
fn talking() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(8)
        .thread_name("talking")
        .on_thread_start(|| {
            // Of the calling thread alone. Where it is refused, the thread is like any other.
            rustix::process::setpriority_process(None, GIVE_WAY).ok();
        })
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// A sweep names the programs that are run: root's rights are not for them.
fn engines_user(config: &Config, file: &Path, as_root: bool) -> anyhow::Result<Option<String>> {
    let user = config.run_as.as_deref().map(RunAs::find).transpose();
    let user = user.map_err(|why| input::Refused::Other(format!("`run_as` {why}")))?;
    let is_root = user.as_ref().map_or(geteuid().is_root(), |user| user.uid == 0);
    if is_root && !as_root {
        let file = file.display();
        return Err(input::Refused::Other(format!(
            "engines must not run as root: name a user for them in {file}, such as run_as = \"nobody\""
        ))
        .into());
    }
    Ok(user.map(|user| user.name))
}

/// The sockets that the service manager hands over, or our own; and TCP where that is asked for.
fn doors(paths: &Paths, config: &Config) -> anyhow::Result<Vec<Door>> {
    let handed = sd_notify::listen_fds().context("cannot take over sockets")?;
    let mut doors = Vec::new();
    for fd in handed {
        // SAFETY: the service manager passed this descriptor to this process, and nobody else has
        // taken it: `listen_fds` removes the variables that name it.
        #[expect(unsafe_code, reason = "a number from the environment becomes a descriptor")]
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        doors.push(door(UnixListener::from(fd))?);
    }
    if doors.is_empty() {
        doors.push(door(bind(&paths.socket(), config)?)?);
    }
    if let Some(tcp) = &config.tcp {
        let file = &tcp.token_file;
        let token = fs::read_to_string(file);
        let token = token.with_context(|| format!("cannot read the token {}", file.display()))?;
        let token = token.trim().to_owned();
        if token.len() < 16 {
            bail!("the token in {} has fewer than 16 characters", file.display());
        }
        let listener = std::net::TcpListener::bind(("127.0.0.1", tcp.port));
        let listener = listener.with_context(|| format!("cannot listen on port {}", tcp.port))?;
        listener.set_nonblocking(true)?;
        doors.push(Door::Tcp { listener: tokio::net::TcpListener::from_std(listener)?, token });
    }
    Ok(doors)
}

fn door(listener: UnixListener) -> anyhow::Result<Door> {
    listener.set_nonblocking(true)?;
    Ok(Door::Unix(tokio::net::UnixListener::from_std(listener)?))
}

/// Binds under another name, sets the rights, and only then moves it to where clients look.
fn bind(path: &Path, config: &Config) -> anyhow::Result<UnixListener> {
    if let Ok(facts) = fs::symlink_metadata(path) {
        if !facts.file_type().is_socket() {
            bail!("{} is no socket: it is left alone", path.display());
        }
        if UnixStream::connect(path).is_ok() {
            bail!("somebody listens on {} already", path.display());
        }
    }
    let temporary = path.with_extension("new");
    fs::remove_file(&temporary).ok();
    let listener = UnixListener::bind(&temporary);
    let listener = listener.with_context(|| format!("cannot listen on {}", path.display()))?;
    let mode = if config.everyone_reads { 0o666 } else { 0o660 };
    fs::set_permissions(&temporary, Permissions::from_mode(mode))?;
    if let Some(name) = &config.group {
        let group = Group::from_name(name).ok().flatten();
        let group = group.with_context(|| format!("there is no group `{name}` on this machine"))?;
        let changed = chown(&temporary, None, Some(group.gid));
        if geteuid().is_root() {
            changed.context("cannot give the socket to its group")?;
        }
    }
    fs::rename(&temporary, path)?;
    Ok(listener)
}
