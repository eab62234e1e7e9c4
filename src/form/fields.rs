//! A file as a form: tables whose keys are asked for, and the list of what is wrong with them.

use super::field::Field;
use super::problem::{Problem, Problems};
use super::spelling::{did_you_mean, nearest};
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Reads `text` with `reader`. The reader returns `None` where it could not make its value; it
/// may also report problems about values that it did make.
pub(crate) fn read<T>(
    file: &Path,
    text: &str,
    reader: impl FnOnce(&Form<'_>, &Fields<'_>) -> Option<T>,
) -> Result<T, Problems> {
    let (root, syntax) = DeTable::parse_recoverable(text);
    let form = Form::new(file, text);
    let value = {
        let fields = Fields::new(&form, String::new(), root.get_ref(), 0);
        reader(&form, &fields)
    };
    form.finish(value, &syntax)
}

/// The file that is read, and what was found wrong with it so far.
pub(crate) struct Form<'t> {
    file: PathBuf,
    text: &'t str,
    found: RefCell<Vec<Found>>,
}

struct Found {
    problem: Problem,
    /// A key that is not there: said of a file with broken syntax, this may be untrue.
    is_absence: bool,
}

impl<'t> Form<'t> {
    fn new(file: &Path, text: &'t str) -> Self {
        Self { file: file.to_owned(), text, found: RefCell::default() }
    }

    /// Notes a mistake at byte `at`.
    pub(crate) fn problem(&self, at: usize, message: impl Into<String>, help: Option<String>) {
        self.note(at, message.into(), help, false);
    }

    /// Notes that something is not there.
    pub(crate) fn absence(&self, at: usize, message: impl Into<String>, help: Option<String>) {
        self.note(at, message.into(), help, true);
    }

    /// Takes over what was found wrong with another file that this one refers to.
    pub(crate) fn adopt(&self, problems: &Problems) {
        let others = problems.list().iter().cloned();
        self.found.borrow_mut().extend(others.map(|problem| Found { problem, is_absence: false }));
    }

    fn note(&self, at: usize, message: String, help: Option<String>, is_absence: bool) {
        let problem = self.make(at, message, help);
        self.found.borrow_mut().push(Found { problem, is_absence });
    }

    fn make(&self, at: usize, message: String, help: Option<String>) -> Problem {
        let (line, column) = place(self.text, at);
        Problem { file: self.file.clone(), line, column, message, help }
    }

    fn finish<T>(self, value: Option<T>, syntax: &[toml::de::Error]) -> Result<T, Problems> {
        let mut problems: Vec<Problem> = syntax.iter().map(|error| self.syntax(error)).collect();
        let found = self.found.take();
        problems.extend(self.believable(found, &problems));
        match (value, Problems::from_list(problems)) {
            (Some(value), None) => Ok(value),
            (_, Some(problems)) => Err(problems),
            // A reader that gives up without a reason is sweepd's mistake, but still no value.
            (None, None) => {
                Err(Problems::new(self.make(0, "cannot be used as it is".to_owned(), None), []))
            }
        }
    }

    fn syntax(&self, error: &toml::de::Error) -> Problem {
        let at = error.span().map_or(0, |span| span.start);
        self.make(at, format!("not TOML: {}", error.message()), None)
    }

    /// Where the syntax is broken, what follows from the break is not told as a mistake of its own.
    fn believable(&self, found: Vec<Found>, syntax: &[Problem]) -> Vec<Problem> {
        let broken: Vec<usize> = syntax.iter().map(|problem| problem.line).collect();
        let header_broken = broken.iter().any(|line| self.is_header(*line));
        found
            .into_iter()
            .filter(|found| {
                broken.is_empty()
                    || found.problem.file != self.file
                    || !(header_broken || found.is_absence || broken.contains(&found.problem.line))
            })
            .map(|found| found.problem)
            .collect()
    }

    /// A broken header moves all keys below it into another table.
    fn is_header(&self, line: usize) -> bool {
        let text = self.text.lines().nth(line.saturating_sub(1));
        text.is_some_and(|text| text.trim_start().starts_with('['))
    }
}

/// Line and column of byte `at`.
fn place(text: &str, at: usize) -> (usize, usize) {
    let mut end = at.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// One table. When it goes, keys that nobody asked for are reported.
pub(crate) struct Fields<'f> {
    form: &'f Form<'f>,
    /// For messages: `[model]`, or nothing for the file itself.
    title: String,
    entries: Vec<Entry<'f>>,
    at: usize,
    asked: RefCell<Vec<&'static str>>,
    missing: RefCell<Vec<&'static str>>,
    any_key: Cell<bool>,
}

struct Entry<'f> {
    key: &'f str,
    key_at: usize,
    item: &'f Spanned<DeValue<'f>>,
}

impl<'f> Fields<'f> {
    pub(super) fn new(
        form: &'f Form<'f>,
        title: String,
        table: &'f DeTable<'f>,
        at: usize,
    ) -> Self {
        let entry = |(key, item): (&'f Spanned<_>, _)| {
            let name: &std::borrow::Cow<'f, str> = key.get_ref();
            Entry { key: name.as_ref(), key_at: key.span().start, item }
        };
        Self {
            form,
            title,
            entries: table.iter().map(entry).collect(),
            at,
            asked: RefCell::default(),
            missing: RefCell::default(),
            any_key: Cell::new(false),
        }
    }

    /// A key that may be left out.
    pub(crate) fn optional(&self, key: &'static str) -> Field<'f> {
        self.asked.borrow_mut().push(key);
        let entry = self.entries.iter().find(|entry| entry.key == key);
        Field::new(self.form, key.to_owned(), entry.map(|entry| entry.item), self.at)
    }

    /// A key that must be there.
    pub(crate) fn required(&self, key: &'static str) -> Field<'f> {
        let field = self.optional(key);
        if !field.is_there() {
            self.missing.borrow_mut().push(key);
        }
        field
    }

    /// Every key with its value, for tables whose keys are the user's own.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'f str, usize, Field<'f>)> + '_ {
        self.any_key.set(true);
        self.entries.iter().map(|entry| {
            let field = Field::new(self.form, entry.key.to_owned(), Some(entry.item), entry.key_at);
            (entry.key, entry.key_at, field)
        })
    }

    /// Keys that nobody asked for are let pass.
    pub(crate) fn ignore_unknown(&self) {
        self.any_key.set(true);
    }

    /// Nothing more is said about this table's keys.
    pub(crate) fn ignore_rest(&self) {
        self.any_key.set(true);
        self.missing.borrow_mut().clear();
    }

    /// True if the file's `schema` is one that this build reads. If it is newer, nothing else
    /// about the file is worth saying.
    pub(crate) fn schema_is_known(&self, newest: i64) -> bool {
        let field = self.required("schema");
        let version = field.integer(1..=i64::MAX);
        if version.is_some_and(|version| version > newest) {
            self.ignore_rest();
            field.problem(
                format!("this file has schema {}", version.unwrap_or_default()),
                Some(format!("this sweepd reads up to schema {newest}: take a newer sweepd")),
            );
            return false;
        }
        true
    }

    /// Where the table begins, for problems about the whole of it.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn form(&self) -> &'f Form<'f> {
        self.form
    }

    fn place_name(&self) -> String {
        if self.title.is_empty() { String::new() } else { format!(" in {}", self.title) }
    }
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        let mut asked = self.asked.take();
        // A key may have been asked for twice.
        let mut seen = std::collections::HashSet::new();
        asked.retain(|key| seen.insert(*key));
        let mut missing = self.missing.take();
        if !self.any_key.get() {
            for entry in self.entries.iter().filter(|entry| !asked.contains(&entry.key)) {
                let message = format!("unknown key `{}`{}", entry.key, self.place_name());
                let free =
                    asked.iter().copied().filter(|key| !self.entries.iter().any(|e| e.key == *key));
                // A misspelt required key is one mistake, not two.
                if let Some(meant) = nearest(entry.key, free) {
                    missing.retain(|key| *key != meant);
                }
                let help = did_you_mean(entry.key, &asked, "allowed here:");
                self.form.problem(entry.key_at, message, Some(help));
            }
        }
        for key in missing {
            self.form.absence(self.at, format!("missing `{key}`{}", self.place_name()), None);
        }
    }
}
