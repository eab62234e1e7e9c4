//! The daemon's configuration file: who may do what, as whom engines run, what is kept.
//!
//! Everything has a default; a file that is not there is an empty one.

use crate::form::{self, Fields, Problems, Wrong};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SCHEMA: i64 = 1;
const DAY: Duration = Duration::from_secs(24 * 3600);
const KEEP: RangeInclusive<Duration> = DAY..=Duration::from_secs(100 * 365 * 24 * 3600);
const GIB: u64 = 1 << 30;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The user that engines run as when sweepd is root.
    pub(crate) run_as: Option<String>,
    /// Its members may connect, look and change.
    pub(crate) group: Option<String>,
    /// Everybody on this machine may connect and look.
    pub(crate) everyone_reads: bool,
    pub(crate) limits: Limits,
    pub(crate) retention: Retention,
    pub(crate) hooks: Hooks,
    pub(crate) tcp: Option<Tcp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) clients: usize,
    pub(crate) body_bytes: usize,
    /// A request's head must be there so soon, and a slow reader may block so long.
    pub(crate) patience: Duration,
}

/// Which ended runs are kept. Only what exceeds one of these is removed, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retention {
    pub(crate) age: Option<Duration>,
    pub(crate) runs: Option<usize>,
    pub(crate) bytes: Option<u64>,
    /// No trial is started with less free space than this.
    pub(crate) free_bytes: u64,
}

/// Who is told when a run ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hooks {
    /// A program and its arguments; it gets the message on stdin.
    pub(crate) command: Vec<String>,
    pub(crate) webhook: Option<String>,
}

/// The same API on loopback, for whoever has the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tcp {
    pub(crate) port: u16,
    pub(crate) token_file: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            run_as: None,
            group: None,
            everyone_reads: false,
            limits: Limits { clients: 512, body_bytes: 1 << 20, patience: Duration::from_secs(30) },
            retention: Retention { free_bytes: GIB, ..Retention::default() },
            hooks: Hooks::default(),
            tcp: None,
        }
    }
}

/// Completes "cannot use the configuration: …".
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("{0}")]
    Wrong(Problems),
    #[error("cannot read {}: {cause}", .file.display())]
    Unreadable { file: PathBuf, cause: std::io::Error },
}

/// Reads the file; none is an empty one.
pub(crate) fn read(file: &Path) -> Result<Config, ConfigError> {
    match std::fs::read_to_string(file) {
        Ok(text) => parse(file, &text).map_err(ConfigError::Wrong),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(Config::default()),
        Err(cause) => Err(ConfigError::Unreadable { file: file.to_owned(), cause }),
    }
}

/// Reads the file's text; every mistake at once.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Config, Problems> {
    form::read(file, text, |_, fields| {
        fields.schema_is_known(SCHEMA).then_some(())?;
        let plain = Config::default();
        Some(Config {
            run_as: fields.optional("run_as").text(),
            group: fields.optional("group").text(),
            everyone_reads: fields.optional("everyone_reads").boolean().unwrap_or(false),
            limits: limits(fields.optional("limits").table().as_ref(), plain.limits),
            retention: retention(fields.optional("retention").table().as_ref(), plain.retention),
            hooks: hooks(fields.optional("hooks").table().as_ref()),
            tcp: fields.optional("tcp").table().and_then(|table| tcp(&table)),
        })
    })
}

fn limits(fields: Option<&Fields<'_>>, plain: Limits) -> Limits {
    let Some(fields) = fields else { return plain };
    let number = |key, most| {
        let value = fields.optional(key).integer(1..=most);
        value.and_then(|value| usize::try_from(value).ok())
    };
    let patience = Duration::from_secs(1)..=Duration::from_secs(3600);
    Limits {
        clients: number("clients", 100_000).unwrap_or(plain.clients),
        body_bytes: number("body_bytes", 64 << 20).unwrap_or(plain.body_bytes),
        patience: fields.optional("patience").duration(patience).unwrap_or(plain.patience),
    }
}

fn retention(fields: Option<&Fields<'_>>, plain: Retention) -> Retention {
    let Some(fields) = fields else { return plain };
    let gib = |key, least| {
        let value = fields.optional(key).integer(least..=1 << 20);
        value.and_then(|value| u64::try_from(value).ok()).map(|value| value * GIB)
    };
    let runs = fields.optional("runs").integer(0..=i64::from(u32::MAX));
    Retention {
        age: fields.optional("age").duration(KEEP),
        runs: runs.and_then(|runs| usize::try_from(runs).ok()),
        bytes: gib("gib", 1),
        free_bytes: gib("free_gib", 0).unwrap_or(plain.free_bytes),
    }
}

fn hooks(fields: Option<&Fields<'_>>) -> Hooks {
    let Some(fields) = fields else { return Hooks::default() };
    let command = fields.optional("command");
    let words = if command.is_there() { command.texts().unwrap_or_default() } else { Vec::new() };
    if words.first().is_some_and(|program| !program.starts_with('/')) {
        let help = Some("no shell and no PATH is used".to_owned());
        command.problem("must begin with an absolute path", help);
    }
    let webhook = fields.optional("webhook").parsed(|text| {
        let is_url = text.starts_with("http://");
        is_url.then(|| text.to_owned()).ok_or_else(|| {
            Wrong::new("is no http:// address").help("TLS is not built in: name a relay of yours")
        })
    });
    Hooks { command: words, webhook }
}

fn tcp(fields: &Fields<'_>) -> Option<Tcp> {
    let port = fields.required("port").integer(1..=65535);
    let token_file = fields.required("token_file").text();
    Some(Tcp { port: u16::try_from(port?).ok()?, token_file: token_file?.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, Problems> {
        parse(Path::new("sweepd.toml"), text)
    }

    #[test]
    fn the_documented_file_is_right_and_says_what_holds_anyway() {
        let text = include_str!("../../../docs/sweepd.toml");
        assert_eq!(read(text).unwrap(), Config::default());
        // Every commented setting is one, too.
        let open = text.lines().map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.contains(" = ") || setting.starts_with('[') => setting,
            _ => line,
        });
        let open = open.filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        let config = read(&open).unwrap_or_else(|problems| panic!("{problems}\n{open}"));
        assert!(config.group.is_some() && config.tcp.is_some() && config.hooks.webhook.is_some());
        assert!(config.retention.bytes.is_some() && !config.hooks.command.is_empty());
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(read("schema = 1").unwrap(), Config::default());
    }

    #[test]
    fn everything_can_be_said() {
        let config = read(
            "schema = 1\nrun_as = 'bench'\ngroup = 'sweepd'\neveryone_reads = true\n\
             [limits]\nclients = 10\nbody_bytes = 1000\npatience = '5s'\n\
             [retention]\nage = '30d'\nruns = 100\ngib = 200\nfree_gib = 5\n\
             [hooks]\ncommand = ['/usr/bin/mail', 'me']\nwebhook = 'http://127.0.0.1:9/x'\n\
             [tcp]\nport = 7433\ntoken_file = '/etc/sweepd/token'\n",
        )
        .unwrap();
        assert_eq!(config.run_as.as_deref(), Some("bench"));
        assert_eq!(config.retention.age, Some(30 * DAY));
        assert_eq!(config.retention.free_bytes, 5 * GIB);
        assert_eq!(config.hooks.command, ["/usr/bin/mail", "me"]);
        assert_eq!(config.tcp.unwrap().port, 7433);
    }

    #[test]
    fn mistakes_are_told_together() {
        let wrong = "schema = 1\nrunas = 'x'\n[hooks]\ncommand = ['mail']\nwebhook = 'ftp://x'\n";
        let said = read(wrong).unwrap_err().to_string();
        for part in ["`run_as`", "absolute path", "no http:// address", "3 problems"] {
            assert!(said.contains(part), "{part} in\n{said}");
        }
    }
}
