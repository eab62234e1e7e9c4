//! The engine's own log: lines on stderr, as servers write them.
//!
//! Each line is one write, so that lines of two threads never mix. A log that nobody reads any
//! more is no reason to stop.

use std::io::{self, Write};

pub(crate) fn info(text: &str) {
    line(&format!("INFO:     {text}"));
}

pub(crate) fn error(text: &str) {
    line(&format!("ERROR:    {text}"));
}

/// Text as it is, such as a traceback.
pub(crate) fn line(text: &str) {
    io::stderr().write_all(format!("{text}\n").as_bytes()).ok();
}
