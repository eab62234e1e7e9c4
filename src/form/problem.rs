//! What is wrong with a file, where, and what would be right.

use std::fmt;
use std::path::PathBuf;

/// One mistake. Line and column count from 1; a column is a character, not a byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) message: String,
    /// What is allowed, or what to do.
    pub(crate) help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// Every mistake that was found: at least one, sorted by file and place, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    /// `first` makes it certain that there is one.
    pub(crate) fn new(first: Problem, others: impl IntoIterator<Item = Problem>) -> Self {
        let mut all: Vec<Problem> = std::iter::once(first).chain(others).collect();
        all.sort();
        all.dedup();
        Self(all)
    }

    /// `None` for an empty list.
    pub(crate) fn from_list(list: Vec<Problem>) -> Option<Self> {
        let mut list = list.into_iter();
        list.next().map(|first| Self::new(first, list))
    }

    pub(crate) fn list(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        match self.0.len() {
            1 => write!(f, "1 problem"),
            count => write!(f, "{count} problems"),
        }
    }
}

impl std::error::Error for Problems {}
