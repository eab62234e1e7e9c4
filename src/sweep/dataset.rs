//! `kind = "dataset"` of a workload: a file of recorded conversations, looked through once.
//!
//! Invariant: a file with wrong entries is refused, or, where the sweep says `skip_wrong`, its wrong
//! entries are counted and told.

use super::classes;
use super::def::{Pattern, Phase, Sweep, Workload};
use super::load::MOST_TOKENS;
use super::variants::Surroundings;
use crate::engine::def::Endpoint;
use crate::form::host::Host;
use crate::form::{Field, Fields};
use crate::ids::Name;
use crate::run::slo::Class;
use crate::workload::dataset::pick::cut;
use crate::workload::dataset::scan::{Place, scan};
use crate::workload::dataset::talk::{NoTalk, Talk, talk};
use crate::workload::dataset::{AnswerLength, Bounds, Dataset, Filter, LeftOut, Part, Turns};
use crate::workload::shape::Shape;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;

/// Lengths that are taken without other word, as the known tools have them: prompts from 4 to 1024
/// tokens, answers of 4 or more, 1024 more than the longest prompt in all.
const LEAST: u32 = 4;
const PROMPT: Bounds = Bounds { min: LEAST, max: 1024 };
const ANSWER_MAX: u32 = 1024;
/// Turns of a whole conversation for which there is room without other word.
const TURNS: u32 = 4;
/// Wrong entries are told up to this many.
const WRONG_ENTRIES: usize = 20;
/// More different values than this are no classes.
const MOST_CLASSES: usize = 50;
const WRONG: &str = "wrong in the file";

pub(super) fn read(
    fields: &Fields<'_>,
    endpoint: Option<Endpoint>,
    around: &Surroundings<'_>,
    classes: &[Class],
) -> Option<Workload> {
    let field = fields.optional("turns");
    let turns = if field.is_there() { field.choice::<Turns>() } else { Some(Turns::First) };
    if let (Some(Turns::All), Some(Endpoint::Generate)) = (turns, endpoint) {
        let help = "`chat` carries messages, `completions` one text".to_owned();
        let endpoint = fields.optional("endpoint");
        endpoint.problem("conversations need `chat` or `completions`", Some(help));
    }
    let length = answer_length(&fields.required("output_tokens"));
    let filter = filter(fields, length, turns);
    let class_field = classes::field_of(fields, classes);
    let skip = fields.optional("skip_wrong").boolean().unwrap_or(false);
    let file = fields.required("path");
    let path = file.text().map(|text| around.data_file(&text));
    let looked = path
        .as_deref()
        .and_then(|path| look_through(&file, path, skip, around, class_field.as_deref()));
    if let (Some(looked), Some(_)) = (&looked, &class_field) {
        check_classes(looked, classes, &fields.optional("class_field"));
    }
    let (filter, length, looked) = (filter?, length?, looked?);
    let longest = match length {
        AnswerLength::Fixed(tokens) => tokens,
        AnswerLength::Recorded => filter.answer.max,
    };
    Some(Workload {
        endpoint: endpoint?,
        prompt_tokens: NonZeroU32::new(filter.prompt.max)?,
        output_tokens: NonZeroU32::new(longest)?,
        shape: Shape::Dataset(Box::new(Dataset {
            path: path?,
            bytes: looked.bytes,
            entries: looked.entries,
            turns: turns?,
            length,
            filter,
            class_field,
            unusable: looked.unusable,
        })),
    })
}

/// So many tokens, or the word `recorded`.
fn answer_length(field: &Field<'_>) -> Option<AnswerLength> {
    if !field.is_text() {
        return field.count(MOST_TOKENS).map(|tokens| AnswerLength::Fixed(tokens.get()));
    }
    if field.text()? == "recorded" {
        return Some(AnswerLength::Recorded);
    }
    let help = "a number of tokens, or \"recorded\" for as many as the recorded answer has";
    field.problem("is no length", Some(help.to_owned()));
    None
}

fn filter(
    fields: &Fields<'_>,
    length: Option<AnswerLength>,
    turns: Option<Turns>,
) -> Option<Filter> {
    let prompt = bounds(&fields.optional("prompt_tokens"), PROMPT);
    let answers = fields.optional("answer_tokens");
    let total = fields.optional("total_tokens");
    let length = length.unwrap_or(AnswerLength::Recorded);
    let total_max = if total.is_there() {
        total.count(MOST_TOKENS).map(NonZeroU32::get)
    } else {
        let turns = turns.unwrap_or(Turns::First);
        prompt.map(|prompt| total_max(prompt, length, turns))
    };
    let answer = if length == AnswerLength::Recorded {
        bounds(&answers, Bounds { min: LEAST, max: total_max.unwrap_or(MOST_TOKENS) })
    } else {
        if answers.is_there() {
            let help = "`output_tokens = \"recorded\"` makes answers as long as the recorded ones";
            answers.problem("all answers have the one length", Some(help.to_owned()));
        }
        Some(ANY)
    };
    Some(Filter { prompt: prompt?, answer: answer?, total_max: total_max? })
}

/// `{ min = 4, max = 1024 }`, either of which may be left out.
fn bounds(field: &Field<'_>, usual: Bounds) -> Option<Bounds> {
    if !field.is_there() {
        return Some(usual);
    }
    let fields = field.table()?;
    let one = |key, usual| {
        let field = fields.optional(key);
        if field.is_there() { field.count(MOST_TOKENS).map(NonZeroU32::get) } else { Some(usual) }
    };
    let (min, max) = (one("min", usual.min), one("max", usual.max));
    let (min, max) = (min?, max?);
    if min > max {
        field.problem(format!("`min` is {min} and `max` {max}"), None);
        return None;
    }
    Some(Bounds { min, max })
}

/// What a look through the whole file found.
#[derive(Default)]
struct Looked {
    bytes: u64,
    entries: u32,
    unusable: LeftOut,
    /// With their lines.
    wrong: Vec<(u64, String)>,
    wrong_in_all: u64,
    /// What the class field says, each with how often and where first; none says nothing.
    classes: BTreeMap<Option<String>, (u64, u64)>,
}

impl Looked {
    fn at(&mut self, place: Place, found: Result<Talk, NoTalk>) {
        self.entries = self.entries.saturating_add(1);
        match found {
            Ok(talk) => {
                let known = self.classes.len() < MOST_CLASSES;
                if known || self.classes.contains_key(&talk.class) {
                    let found = self.classes.entry(talk.class).or_insert((0, place.line));
                    found.0 += 1;
                }
            }
            Err(NoTalk::Unusable(why)) => *self.unusable.entry(why.to_owned()).or_default() += 1,
            Err(NoTalk::Wrong(why)) => {
                self.wrong_in_all += 1;
                if self.wrong.len() < WRONG_ENTRIES {
                    self.wrong.push((place.line, why));
                }
            }
        }
    }

    fn usable(&self) -> u64 {
        u64::from(self.entries) - self.wrong_in_all - self.unusable.values().sum::<u64>()
    }
}

fn scanned(path: &Path, host: &dyn Host, class_field: Option<&str>) -> Result<Looked, String> {
    let mut looked = Looked::default();
    let failed = |why: String| format!("the data set {}: {why}", path.display());
    let (bytes, reader) = host.open(path).map_err(|error| failed(error.to_string()))?;
    looked.bytes = bytes;
    scan(reader, |place, json| looked.at(place, talk(json, class_field)))
        .map_err(|error| failed(error.to_string()))?;
    Ok(looked)
}

/// A data set with the usual lengths, for whoever has no sweep; why it cannot be used, with its lines.
pub(crate) fn usual(
    path: &Path,
    host: &dyn Host,
    turns: Turns,
    length: AnswerLength,
) -> Result<Dataset, String> {
    let looked = scanned(path, host, None)?;
    if looked.wrong_in_all > 0 {
        let each = looked.wrong.iter().map(|(line, why)| format!("line {line}: {why}"));
        let (all, of) = (looked.wrong_in_all, looked.entries);
        let lines = each.collect::<Vec<_>>().join("\n  ");
        return Err(format!("{}: {all} of {of} entries are wrong\n  {lines}", path.display()));
    }
    if looked.usable() == 0 {
        return Err(format!("the data set {}: no entry can be used", path.display()));
    }
    let total_max = total_max(PROMPT, length, turns);
    let answer = match length {
        AnswerLength::Fixed(_) => ANY,
        AnswerLength::Recorded => Bounds { min: LEAST, max: total_max },
    };
    Ok(Dataset {
        path: path.to_owned(),
        bytes: looked.bytes,
        entries: looked.entries,
        turns,
        length,
        filter: Filter { prompt: PROMPT, answer, total_max },
        class_field: None,
        unusable: looked.unusable,
    })
}

const ANY: Bounds = Bounds { min: 1, max: MOST_TOKENS };

/// Without other word.
fn total_max(prompt: Bounds, length: AnswerLength, turns: Turns) -> u32 {
    let answer = match length {
        AnswerLength::Fixed(tokens) => tokens.max(ANSWER_MAX),
        AnswerLength::Recorded => ANSWER_MAX,
    };
    let talks = match turns {
        Turns::First => 1,
        Turns::All => TURNS,
    };
    prompt.max.saturating_add(answer).saturating_mul(talks).min(MOST_TOKENS)
}

fn look_through(
    field: &Field<'_>,
    path: &Path,
    skip_wrong: bool,
    around: &Surroundings<'_>,
    class_field: Option<&str>,
) -> Option<Looked> {
    let shown = path.display();
    let mut looked = match scanned(path, around.host, class_field) {
        Ok(looked) => looked,
        Err(why) => {
            field.problem(why, None);
            return None;
        }
    };
    if skip_wrong {
        if looked.wrong_in_all > 0 {
            looked.unusable.insert(WRONG.to_owned(), looked.wrong_in_all);
        }
        looked.wrong_in_all = 0;
    } else {
        tell_wrong(field, path, &looked);
    }
    if looked.wrong_in_all == 0 && looked.usable() == 0 {
        let why = crate::workload::dataset::described(&looked.unusable);
        field.problem(format!("the data set {shown}: no entry can be used: {why}"), None);
        return None;
    }
    (looked.wrong_in_all == 0).then_some(looked)
}

/// Where no shares are drawn, every entry must name a class that is there.
fn check_classes(looked: &Looked, classes: &[Class], field: &Field<'_>) {
    if classes.iter().all(|class| class.share.is_some()) {
        return;
    }
    for (said, (count, line)) in &looked.classes {
        let message = match said {
            Some(said) if classes.iter().any(|class| class.value == *said) => continue,
            Some(said) => {
                format!("{count} entries are of class {said:?}, the first in line {line}")
            }
            None => format!("{count} entries name no class, the first in line {line}"),
        };
        let known: Vec<&str> = classes.iter().map(|class| class.value.as_str()).collect();
        let help =
            format!("[[classes]] has {}; with a `share` each these are drawn", known.join(", "));
        field.problem(message, Some(help));
    }
}

fn tell_wrong(field: &Field<'_>, path: &Path, looked: &Looked) {
    let (all, of) = (looked.wrong_in_all, looked.entries);
    let help = format!("{all} of {of} entries are wrong; `skip_wrong = true` leaves them out");
    let told = u64::try_from(looked.wrong.len()).unwrap_or(u64::MAX);
    for (place, (line, why)) in looked.wrong.iter().enumerate() {
        let help = (place == 0).then(|| help.clone());
        field.problem(format!("{}, line {line}: {why}", path.display()), help);
    }
    if all > told {
        field.problem(format!("{} more entries are wrong", all - told), None);
    }
}

/// What each load of a trial takes from the data set, so that none asks what another has asked;
/// empty without a data set.
pub(crate) fn parts(sweep: &Sweep, block: u32) -> BTreeMap<Name, Part> {
    let Shape::Dataset(set) = &sweep.workload.shape else { return BTreeMap::new() };
    let seed = sweep.seed.branch("dataset").nth(block.into()).value();
    let warmup = (Name::warmup(), f64::from(sweep.warmup.requests));
    let phases = sweep.phases.iter().map(|phase| (phase.name.clone(), needed(phase)));
    let (names, needs): (Vec<Name>, Vec<f64>) =
        std::iter::once(warmup).filter(|(_, need)| *need > 0.0).chain(phases).unzip();
    let parts = cut(set.entries, &needs).into_iter();
    names.into_iter().zip(parts.map(|(from, count)| Part { seed, from, count, used: 0 })).collect()
}

/// A user of a closed loop is taken to ask something every other second; what a phase really asks
/// depends on the engine.
const ASKS_PER_S: f64 = 0.5;

/// About how many requests a phase sends.
fn needed(phase: &Phase) -> f64 {
    let users = f64::from(phase.users.get());
    let closed = || {
        let turns = (phase.min_duration.as_secs_f64() * ASKS_PER_S).max(2.0);
        f64::from(phase.min_requests).max(users * turns)
    };
    match &phase.pattern {
        Pattern::Closed { .. } => closed(),
        Pattern::Open(schedule) => schedule.expected_requests(),
        Pattern::Search(search) => closed() * f64::from(search.usual_runs()),
    }
}

/// Phases that will ask more than their part holds, for the reader.
pub(super) fn notes(sweep: &Sweep) -> Vec<String> {
    let Shape::Dataset(set) = &sweep.workload.shape else { return Vec::new() };
    let parts = parts(sweep, 1);
    let note = |phase: &Phase| {
        let asks = match &phase.pattern {
            Pattern::Closed { .. } => f64::from(phase.min_requests),
            Pattern::Open(schedule) => schedule.expected_requests(),
            Pattern::Search(_) => return None,
        };
        let part = parts.get(&phase.name)?;
        let repeats = set.turns == Turns::First && asks > f64::from(part.count);
        repeats.then(|| {
            format!(
                "phase {}: it asks {asks:.0} or more, and {} of the data set's {} entries are its own: they will \
                 repeat, and a prefix cache knows them then",
                phase.name, part.count, set.entries
            )
        })
    };
    sweep.phases.iter().filter_map(note).collect()
}
