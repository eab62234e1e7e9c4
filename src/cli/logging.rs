//! Where sweepd's own words go: stderr, or the journal where a service manager connected it.

use std::env;
use std::io::{IsTerminal, stderr};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// By `SWEEPD_LOG`. A command is silent by default, for its progress is shown otherwise; a daemon
/// tells what it does.
pub(super) fn start(is_daemon: bool) {
    let level = if is_daemon { LevelFilter::INFO } else { LevelFilter::WARN };
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .with_env_var("SWEEPD_LOG")
        .from_env_lossy();
    let registry = tracing_subscriber::registry().with(filter);
    // The journal's own variable says that stderr leads there: its fields are better than lines.
    let journal = env::var_os("JOURNAL_STREAM")
        .filter(|_| is_daemon)
        .and_then(|_| tracing_journald::layer().ok())
        .map(|layer| layer.with_field_prefix(None).with_syslog_identifier("sweepd".to_owned()));
    match journal {
        Some(journal) => registry.with(journal).init(),
        None => {
            let lines = fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
            registry.with(lines).init();
        }
    }
}
