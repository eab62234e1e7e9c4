//! A sandbox for one test: sweeps in, runs out, and proof that nothing is left.
//!
//! Never sleeps to wait for something: it polls for an event with a deadline.

use serde_json::Value;
use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub(crate) const SWEEPD: &str = env!("CARGO_BIN_EXE_sweepd");

/// The repository's own folder.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn sim_tokenizer() -> PathBuf {
    repository().join("examples/sim-tokenizer.json")
}

/// One test's folder.
pub(crate) struct Sandbox {
    dir: tempfile::TempDir,
    variables: RefCell<Vec<(String, OsString)>>,
}

/// A run that has ended.
pub(crate) struct Run {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) dir: PathBuf,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), variables: RefCell::default() }
    }

    /// A variable for every `sweepd` of this sandbox.
    pub(crate) fn set(&self, name: &str, value: impl Into<OsString>) {
        self.variables.borrow_mut().push((name.to_owned(), value.into()));
    }

    /// Those variables.
    pub(crate) fn variables(&self) -> Vec<(String, OsString)> {
        self.variables.borrow().clone()
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// `sweepd` with a home of its own.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(Path::new(SWEEPD), arguments)
    }

    fn command_of(&self, sweepd: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(sweepd);
        command
            .args(arguments)
            .env("XDG_CONFIG_HOME", self.path().join("config"))
            .env("XDG_STATE_HOME", self.path().join("state"))
            .env("SWEEPD_RUNTIME_DIR", self.path().join("runtime"))
            .envs(self.variables.borrow().iter().map(|(name, value)| (name, value)))
            .env("XDG_CACHE_HOME", self.path().join("cache"))
            .stdin(Stdio::null());
        command
    }

    /// Runs the sweep to its end.
    pub(crate) fn run(&self, sweep: &str) -> Run {
        let file = self.write("sweep.toml", sweep);
        self.ended(self.command(&["run", file.to_str().unwrap()]).output().unwrap())
    }

    /// The run that a command has made.
    pub(crate) fn ended(&self, output: std::process::Output) -> Run {
        let run = Run {
            status: output.status,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            dir: self.only_run().unwrap_or_default(),
        };
        assert!(run.dir.exists(), "no run was begun: {}\n{}", run.stdout, run.stderr);
        run
    }

    /// Takes up the only run of this sandbox to its end.
    pub(crate) fn resume(&self) -> Run {
        let dir = self.only_run().unwrap();
        let output = self.command(&["run", "--resume", dir.to_str().unwrap()]).output().unwrap();
        Run {
            status: output.status,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            dir,
        }
    }

    /// Takes up the only run and leaves it running.
    pub(crate) fn start_resume(&self) -> Running<'_> {
        let dir = self.only_run().unwrap();
        self.start_command(self.command(&["run", "--resume", dir.to_str().unwrap()]))
    }

    /// Starts the sweep and leaves it running.
    pub(crate) fn start(&self, sweep: &str) -> Running<'_> {
        self.start_with(Path::new(SWEEPD), sweep)
    }

    /// The same with this executable.
    pub(crate) fn start_with(&self, sweepd: &Path, sweep: &str) -> Running<'_> {
        let file = self.write("sweep.toml", sweep);
        self.start_command(self.command_of(sweepd, &["run", file.to_str().unwrap()]))
    }

    fn start_command(&self, mut command: Command) -> Running<'_> {
        let stderr = fs::File::create(self.path().join("stderr")).unwrap();
        let stdout = fs::File::create(self.path().join("stdout")).unwrap();
        let child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
        Running { sandbox: self, child }
    }

    /// The one run of this sandbox, if it has begun.
    pub(crate) fn only_run(&self) -> Option<PathBuf> {
        let runs = fs::read_dir(self.path().join("state/sweepd/runs")).ok()?;
        let runs: Vec<_> = runs.flatten().map(|entry| entry.path()).collect();
        assert!(runs.len() <= 1, "more runs than one: {runs:?}");
        runs.into_iter().next()
    }
}

/// A `sweepd run` that is under way.
pub(crate) struct Running<'s> {
    sandbox: &'s Sandbox,
    pub(crate) child: Child,
}

impl Running<'_> {
    /// Waits until progress has said this.
    pub(crate) fn until_it_says(&mut self, words: &str) {
        let said = || {
            let text = fs::read_to_string(self.sandbox.path().join("stderr")).unwrap_or_default();
            text.contains(words).then_some(())
        };
        eventually(Duration::from_secs(60), &format!("progress says {words:?}"), said);
    }

    pub(crate) fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let signal = nix::sys::signal::Signal::try_from(signal).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }

    /// The guard that is at work.
    pub(crate) fn guard(&self) -> i32 {
        let is_guard = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|l| l.contains("__guard"))
        };
        let look = || {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).ok()?;
            let children = tasks.flatten().map(|task| task.path().join("children"));
            let children: String =
                children.filter_map(|path| fs::read_to_string(path).ok()).collect();
            children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is_guard)
        };
        eventually(Duration::from_secs(10), "a guard is at work", look)
    }

    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        let child = &mut self.child;
        eventually(within, "sweepd ends", || child.try_wait().unwrap())
    }

    pub(crate) fn run(self, status: ExitStatus) -> Run {
        let read = |name| fs::read_to_string(self.sandbox.path().join(name)).unwrap();
        let dir = self.sandbox.only_run().unwrap();
        Run { status, stdout: read("stdout"), stderr: read("stderr"), dir }
    }
}

impl Run {
    #[track_caller]
    pub(crate) fn expect_exit(self, code: i32) -> Self {
        let seen = format!("{}\n{}", self.stdout, self.stderr);
        assert_eq!(self.status.code(), Some(code), "{seen}");
        self
    }

    pub(crate) fn json(&self, path: &str) -> Value {
        let path = self.dir.join(path);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn trial(&self, trial: &str) -> Value {
        self.json(&format!("trials/{trial}/outcome.json"))
    }

    /// The attempt that ended the trial.
    pub(crate) fn attempt(&self, trial: &str) -> Value {
        let last = self.trial(trial)["attempts"].clone();
        self.json(&format!("trials/{trial}/attempt-{last}/outcome.json"))
    }

    pub(crate) fn log(&self, trial: &str) -> String {
        fs::read_to_string(self.dir.join(format!("trials/{trial}/attempt-1/engine.log"))).unwrap()
    }

    pub(crate) fn report(&self) -> String {
        fs::read_to_string(self.dir.join("report.md")).unwrap()
    }

    /// No process and no port of this run is left.
    #[track_caller]
    pub(crate) fn expect_nothing_left(&self) {
        let left = left_of(&self.dir);
        assert!(left.is_empty(), "left behind: {left:?}");
    }

    /// The trial was measured: every phase has its records and its classes add up.
    #[track_caller]
    pub(crate) fn expect_measured(&self, trial: &str) {
        let outcome = self.trial(trial);
        assert_eq!(outcome["ending"], "completed", "{outcome:#}");
        let attempt = self.attempt(trial);
        assert_eq!(attempt["teardown"]["verdict"], "clean", "{outcome:#}");
        assert!(attempt["failed_phase"].is_null(), "{attempt:#}");
        let summary = self.json("summary.json");
        let variant = outcome["variant"].as_str().unwrap();
        let cells: Vec<_> = summary["cells"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|cell| cell["variant"] == variant)
            .collect();
        assert!(!cells.is_empty(), "{summary:#}");
        for cell in cells {
            let requests = &cell["requests"];
            let sent = requests["sent"].as_u64().unwrap();
            let failed = requests["failed_by_class"].as_object().unwrap();
            let failed: u64 = failed.values().map(|count| count.as_u64().unwrap()).sum();
            assert!(sent > 0, "{cell:#}");
            let ok = requests["ok"].as_u64().unwrap();
            assert_eq!(sent, ok + failed, "sent = ok + failed by class: {cell:#}");
            assert_eq!(requests["lost"], 0, "{cell:#}");
        }
    }
}

/// Processes that carry a marker of this run, and ports of it that someone listens on.
pub(crate) fn left_of(run: &Path) -> Vec<String> {
    let manifests: Vec<Value> = walk(run)
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name == "manifest.json"))
        .map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
        .collect();
    assert!(!manifests.is_empty(), "no attempt was made in {}", run.display());
    let mut left = Vec::new();
    for manifest in manifests {
        left.extend(marked(manifest["marker"].as_str().unwrap()));
        let port = manifest["port"].as_u64().unwrap();
        if listens(port) {
            left.push(format!("port {port}"));
        }
    }
    left
}

/// The processes of one attempt's engine.
pub(crate) fn marked_pids(marker: &str) -> Vec<i32> {
    let variable = format!("SWEEPD_ATTEMPT={marker}");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let carries = |entry: &fs::DirEntry| {
        fs::read(entry.path().join("environ")).is_ok_and(|environment| {
            environment.split(|byte| *byte == 0).any(|pair| pair == variable.as_bytes())
        })
    };
    processes.filter(carries).filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn marked(marker: &str) -> Vec<String> {
    let shown = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        format!("{pid}: {}", String::from_utf8_lossy(&line))
    };
    marked_pids(marker).into_iter().map(shown).collect()
}

fn listens(port: u64) -> bool {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.len() > 3 && fields[1].ends_with(&format!(":{port:04X}")) && fields[3] == "0A"
    })
}

/// Every file below a folder.
pub(crate) fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// The value that `look` finds at last; fails the test when the deadline passes first.
#[track_caller]
pub(crate) fn eventually<T>(
    within: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let by = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < by, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A sweep of simulated engines: `variants` is TOML, one table a variant.
pub(crate) fn sweep(variants: &str) -> String {
    let tokenizer = sim_tokenizer();
    let tokenizer = tokenizer.display();
    format!(
        r#"schema = 1
name = "it"
seed = 7
blocks = 1

[model]
path = "{tokenizer}"
served_name = "sim"
tokenizer = "{tokenizer}"

[workload]
kind = "random"
endpoint = "completions"
prompt_tokens = 16
output_tokens = 8

[smoke]
first = false

[warmup]
requests = 2
users = 2

[[phases]]
users = 2
min_requests = 12
min_duration = "200ms"

[[phases]]
users = 4
min_requests = 12
min_duration = "200ms"

[deadlines]
launch = "10s"
load = "5s"
ready = "3s"
warmup = "20s"
phase = "30s"
request = "10s"
stall = "2s"
stop = "2s"
verify = "5s"

{variants}
"#
    )
}

/// A variant of the simulated engine with quick steps and these faults.
pub(crate) fn variant(name: &str, faults: &[&str]) -> String {
    let faults = faults.iter().map(|fault| format!("{fault:?}")).collect::<Vec<_>>().join(", ");
    format!(
        "[[variants]]\nname = \"{name}\"\nengine = \"sim\"\n\
         params = {{ step-ms = 1.0, fault = [{faults}] }}\n\n"
    )
}

/// `SplitMix64`'s mixing: spreads small numbers over the whole range.
pub(crate) fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}
