//! A daemon of a test's own: started, asked, killed, started again.

use crate::harness::{SWEEPD, Sandbox, eventually};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A daemon under way. It is killed when the test is over.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    home: PathBuf,
}

/// An answer of the API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The command that starts a daemon whose files lie below `home`.
pub(crate) fn daemon_command(home: &Path) -> Command {
    let config = home.join("sweepd.toml");
    if !config.exists() {
        // A test's disk may be small.
        fs::write(&config, "schema = 1\n[retention]\nfree_gib = 0\n").unwrap();
    }
    let mut command = Command::new(SWEEPD);
    command
        .args(["daemon", "--debug-commands", "--engines-as-root", "--config"])
        .arg(&config)
        .arg("--state")
        .arg(home.join("state"))
        .arg("--runtime")
        .arg(home.join("run"))
        .env("SWEEPD_RUNTIME_DIR", home.join("run"))
        .env("SWEEPD_LOG", "info")
        .stdin(Stdio::null());
    command
}

impl Daemon {
    /// Starts one and waits until it answers.
    pub(crate) fn start(sandbox: &Sandbox) -> Self {
        Self::start_in(&sandbox.path().join("daemon"))
    }

    pub(crate) fn start_in(home: &Path) -> Self {
        fs::create_dir_all(home).unwrap();
        let daemon = Self::spawn(home);
        daemon.until_ready();
        daemon
    }

    pub(crate) fn spawn(home: &Path) -> Self {
        Self::spawn_command(home, daemon_command(home))
    }

    pub(crate) fn spawn_command(home: &Path, mut command: Command) -> Self {
        let log = fs::OpenOptions::new().create(true).append(true).open(home.join("log")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { child, home: home.to_owned() }
    }

    #[track_caller]
    pub(crate) fn until_ready(&self) {
        let by = Instant::now() + Duration::from_secs(60);
        loop {
            let status = self.try_ask("GET", "/v1/status", "").map(|answer| answer.json());
            // A stale socket of a dead daemon does not answer.
            if let Some(status) = &status
                && status["pid"] == self.child.id()
                && status["state"] != "starting"
            {
                return;
            }
            assert!(Instant::now() < by, "not ready: {status:?}; {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.home.join("run/sweepd.sock")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.home.join("state")
    }

    pub(crate) fn run_dir(&self, run: &str) -> PathBuf {
        self.state().join("runs").join(run)
    }

    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let answer = self.try_ask(method, path, body);
        answer.unwrap_or_else(|| panic!("no answer to {method} {path}; {}", self.log()))
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str) -> Value {
        let answer = self.ask("POST", path, "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    pub(crate) fn try_ask(&self, method: &str, path: &str, body: &str) -> Option<Answer> {
        ask_at(&self.socket(), method, path, body.as_bytes())
    }

    /// Submits the sweep in `file` with these further fields; the run's id.
    #[track_caller]
    pub(crate) fn submit(&self, file: &Path, more: &Value) -> String {
        let mut body = serde_json::json!({
            "sweep": fs::read_to_string(file).unwrap(), "file": file,
        });
        body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        let answer = self.ask("POST", "/v1/runs", &body.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["run"].as_str().unwrap().to_owned()
    }

    /// `sweepd` as a client of this daemon.
    pub(crate) fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(SWEEPD);
        command.args(arguments).env("SWEEPD_SOCKET", self.socket()).stdin(Stdio::null());
        command
    }

    #[track_caller]
    pub(crate) fn until_ended(&self, run: &str, within: Duration) -> Value {
        let ended = || {
            let detail = self.try_ask("GET", &format!("/v1/runs/{run}"), "")?.json();
            let state = detail["state"].as_str().unwrap_or_default().to_owned();
            let ended = !detail["ended"].is_null() && ["ended", "cancelled"].contains(&&*state);
            ended.then_some(detail)
        };
        eventually(within, &format!("{run} ends"), ended)
    }

    /// Waits until the trial under way is in this state.
    #[track_caller]
    pub(crate) fn until_state(&self, words: &str) {
        let said = || {
            let status = self.try_ask("GET", "/v1/status", "")?.json();
            status["current"]["state"].as_str()?.contains(words).then_some(())
        };
        eventually(Duration::from_secs(60), &format!("the trial is in {words:?}"), said);
    }

    pub(crate) fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let signal = nix::sys::signal::Signal::try_from(signal).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }

    /// SIGKILL, and reaped.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    #[track_caller]
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        let child = &mut self.child;
        eventually(within, "the daemon ends", || child.try_wait().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// One request over the socket; `None` where nobody answers.
pub(crate) fn ask_at(socket: &Path, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: sweepd\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    // Refused bodies may not be read to their end.
    stream.write_all(body).ok();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).ok();
    let text = String::from_utf8_lossy(&text).into_owned();
    let status = text.split_whitespace().nth(1)?.parse().ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunked(body) } else { body.to_owned() };
    Some(Answer { status, body })
}

fn unchunked(mut text: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = text.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        if length == 0 || rest.len() < length {
            break;
        }
        whole.push_str(&rest[..length]);
        text = rest[length..].trim_start_matches("\r\n");
    }
    whole
}
