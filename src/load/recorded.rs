//! What people asked, taken from a data set's file. Edge: it reads that file.
//!
//! The file is gone through once, for where its entries stand; after that only the entries that are
//! asked are read, each when its turn comes. What is kept in memory is a few bytes an entry, and
//! the conversations under way.
//!
//! Invariant: what a user asks in a turn depends on the plan alone. The turns of conversations are asked
//! for in their order; single messages in any.

use super::message::PromptPlan;
use super::supply::SupplyError;
use crate::workload::dataset::pick::{Pick, Picker};
use crate::workload::dataset::scan::{self, Place};
use crate::workload::dataset::talk::{self, NoTalk, Talk};
use crate::workload::dataset::{AnswerLength, Dataset, Part, PartFacts, Turns, described};
use crate::workload::prompts::PromptError;
use crate::workload::tokens::Tokens;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::BufReader;
use std::sync::Arc;

/// One message of a conversation, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    text: String,
    tokens: u32,
    output_tokens: u32,
}

/// A conversation that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fitting {
    entry: u32,
    /// Where the endpoint takes messages; else it is in the first text.
    system: Option<String>,
    system_tokens: u32,
    /// What the engine is told before it, wherever that stands: its hash and its tokens.
    told: Option<(u64, u32)>,
    turns: Vec<Said>,
    class: Option<String>,
}

/// What a user says in one turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Utterance {
    /// Of the data set, from 0.
    pub(super) entry: u32,
    pub(super) system: Option<String>,
    pub(super) text: String,
    /// Where in its conversation it stands, from 0; absent where only first messages are asked.
    pub(super) place: Option<u32>,
    /// Of the text, and of what the engine is told before it.
    pub(super) content_tokens: u32,
    pub(super) output_tokens: u32,
    /// What the engine is told before it, where another conversation was told the same.
    pub(super) known_tokens: u32,
    /// What its class field says.
    pub(super) class: Option<String>,
}

/// Where one user stands.
#[derive(Debug)]
struct Cursor {
    talk: Arc<Fitting>,
    /// Which of the user's conversations it is, from 0.
    talks: u64,
    /// Which message comes next.
    next: usize,
}

/// The entries of one phase, as its users ask them.
#[derive(Debug)]
pub(super) struct Recorded {
    file: File,
    places: Vec<Place>,
    dataset: Dataset,
    tokens: Tokens,
    picker: Picker,
    /// Fit, and nobody's yet, by their number.
    ahead: BTreeMap<u64, Fitting>,
    cursors: HashMap<u32, Cursor>,
    /// Users; the n-th conversation of a user is entry `n * lanes + user`.
    lanes: u32,
    /// The endpoint takes messages and not one text.
    messages: bool,
    /// What engines were told before conversations that have begun, by their hashes.
    told: HashSet<u64>,
}

impl Recorded {
    /// `lanes`: users, or 1 for an open loop. `messages`: the endpoint takes those.
    pub(super) fn open(
        dataset: Dataset,
        prompts: &PromptPlan,
        lanes: u32,
        messages: bool,
    ) -> Result<Self, SupplyError> {
        let tokenizer = prompts.tokenizer.as_ref().ok_or(PromptError::NeedsTokenizer)?;
        let tokens = Tokens::load(tokenizer)?;
        let failed = |why: String| SupplyError::Dataset { path: dataset.path.clone(), why };
        let file = File::open(&dataset.path).map_err(|error| failed(error.to_string()))?;
        let bytes = file.metadata().map_err(|error| failed(error.to_string()))?.len();
        let mut places = Vec::new();
        let reader = BufReader::with_capacity(1 << 20, &file);
        scan::scan(reader, |place, _| places.push(place))
            .map_err(|error| failed(error.to_string()))?;
        if bytes != dataset.bytes || u32::try_from(places.len()) != Ok(dataset.entries) {
            let (were, are) = (dataset.entries, places.len());
            let was = dataset.bytes;
            return Err(failed(format!(
                "it has changed since the sweep was read: {were} entries in {was} bytes then, {are} in {bytes} now"
            )));
        }
        let part = prompts.part.unwrap_or(Part::whole(dataset.entries, prompts.seed));
        let picker = Picker::new(dataset.entries, part);
        let (ahead, cursors) = (BTreeMap::new(), HashMap::new());
        let told = HashSet::new();
        Ok(Self { file, places, dataset, tokens, picker, ahead, cursors, lanes, messages, told })
    }

    pub(super) fn facts(&self) -> PartFacts {
        self.picker.facts(self.dataset.turns)
    }

    pub(super) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// What the user says in this turn.
    pub(super) fn next(&mut self, user: u32, turn: u32) -> Result<Utterance, SupplyError> {
        let lanes = u64::from(self.lanes);
        if self.dataset.turns == Turns::First {
            let number = u64::from(turn) * lanes + u64::from(user);
            let talk = self.conversation(number)?;
            return self.utterance(&talk, 0);
        }
        let over = |cursor: &Cursor| cursor.next >= cursor.talk.turns.len();
        let begun = self.cursors.get(&user).map(|cursor| (cursor.talks, over(cursor)));
        if begun.is_none_or(|(_, over)| over) {
            let talks = begun.map_or(0, |(talks, _)| talks + 1);
            let talk = Arc::new(self.conversation(talks * lanes + u64::from(user))?);
            self.cursors.insert(user, Cursor { talk, talks, next: 0 });
        }
        let at = self.cursors.get_mut(&user).map(|cursor| {
            cursor.next += 1;
            (Arc::clone(&cursor.talk), cursor.next - 1)
        });
        match at {
            Some((talk, place)) => self.utterance(&talk, place),
            None => Err(self.failed("a conversation without a message".to_owned())),
        }
    }

    fn utterance(&mut self, talk: &Fitting, place: usize) -> Result<Utterance, SupplyError> {
        let said = talk.turns.get(place);
        let said =
            said.ok_or_else(|| self.failed("a conversation without a message".to_owned()))?;
        let talks = self.dataset.turns == Turns::All;
        Ok(Utterance {
            entry: talk.entry,
            system: talk.system.clone(),
            text: said.text.clone(),
            place: u32::try_from(place).ok().filter(|_| talks),
            content_tokens: said.tokens + if place == 0 { talk.system_tokens } else { 0 },
            output_tokens: said.output_tokens,
            known_tokens: match talk.told.filter(|_| place == 0) {
                Some((hash, tokens)) if !self.told.insert(hash) => tokens,
                Some(_) | None => 0,
            },
            class: talk.class.clone(),
        })
    }

    fn failed(&self, why: String) -> SupplyError {
        SupplyError::Dataset { path: self.dataset.path.clone(), why }
    }

    /// The conversation of this number, and no other is it.
    fn conversation(&mut self, number: u64) -> Result<Fitting, SupplyError> {
        if let Some(talk) = self.ahead.remove(&number) {
            return Ok(talk);
        }
        loop {
            match self.picker.pick(number) {
                Pick::Entry(entry) => {
                    // Looked at just now, or again because the part has begun again.
                    let found = self.ahead.remove(&number);
                    let talk = found.map_or_else(|| self.look_at(entry), |talk| Ok(Ok(talk)))?;
                    return talk.map_err(|why| self.failed(why));
                }
                Pick::LookAt(entry) => {
                    let found = self.look_at(entry)?;
                    let nth = self.picker.fitting();
                    self.picker.looked_at(found.as_ref().map(|_| ()).map_err(Clone::clone));
                    if let Ok(talk) = found {
                        self.ahead.insert(nth, talk);
                    }
                }
                Pick::Nothing => {
                    let facts = self.facts();
                    let why = described(&facts.left_out);
                    return Err(self.failed(format!(
                        "none of the {} entries of this phase fits: {why}",
                        facts.entries
                    )));
                }
            }
        }
    }

    /// Reads and counts an entry; the inner error is why it does not fit.
    fn look_at(&self, entry: u32) -> Result<Result<Fitting, String>, SupplyError> {
        let place = usize::try_from(entry).ok().and_then(|n| self.places.get(n).copied());
        let place = place.ok_or_else(|| self.failed(format!("there is no entry {entry}")))?;
        let json = scan::entry_at(&self.file, place)
            .map_err(|error| self.failed(format!("line {}: {error}", place.line)))?;
        match talk::talk(&json, self.dataset.class_field.as_deref()) {
            Ok(talk) => self.counted(entry, talk),
            // What the sweep's check let pass.
            Err(NoTalk::Wrong(_)) => Ok(Err("the file is wrong there".to_owned())),
            Err(NoTalk::Unusable(why)) => Ok(Err(why.to_owned())),
        }
    }

    fn counted(&self, entry: u32, mut talk: Talk) -> Result<Result<Fitting, String>, SupplyError> {
        let mut system = talk.system.take();
        let told_tokens = system.as_ref().map_or(Ok(0), |text| self.tokens.content(text))?;
        let told = system.as_ref().map(|text| (hashed(text), told_tokens));
        if !self.messages
            && let (Some(before), Some((first, _))) = (&system, talk.turns.first_mut())
        {
            *first = format!("{before}\n\n{first}");
            system = None;
        }
        if self.dataset.turns == Turns::First {
            talk.turns.truncate(1);
        }
        let system_tokens = if system.is_some() { told_tokens } else { 0 };
        let mut turns = Vec::with_capacity(talk.turns.len());
        let mut lengths = Vec::with_capacity(talk.turns.len());
        for (place, (text, answer)) in talk.turns.into_iter().enumerate() {
            let tokens = self.tokens.content(&text)?;
            let known = talk.output_tokens.filter(|_| place == 0);
            let output_tokens = match (self.dataset.length, known, answer) {
                (AnswerLength::Fixed(tokens), _, _) => tokens,
                (AnswerLength::Recorded, Some(tokens), _) => tokens,
                (AnswerLength::Recorded, None, Some(answer)) => self.tokens.content(&answer)?,
                // The last message of a conversation may have no answer; the ones before count.
                (AnswerLength::Recorded, None, None) if place > 0 => break,
                (AnswerLength::Recorded, None, None) => {
                    return Ok(Err("its answer is not known".to_owned()));
                }
            };
            lengths.push((tokens + if place == 0 { system_tokens } else { 0 }, output_tokens));
            turns.push(Said { text, tokens, output_tokens });
        }
        Ok(match self.dataset.filter.refuses(&lengths) {
            Some(why) => Err(why.to_owned()),
            None => Ok(Fitting { entry, system, system_tokens, told, turns, class: talk.class }),
        })
    }
}

fn hashed(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::def::PromptField;
    use crate::load::message::LoadPlan;
    use crate::load::scripted::{Phase, run_recorded};
    use crate::run::phase::PhaseEnd;
    use crate::run::record::RequestOutcome as Outcome;
    use crate::workload::dataset::{Bounds, Filter};
    use crate::workload::shape::Shape;
    use serde_json::{Value, json};
    use std::fmt::Write;

    const FILTER: Filter = Filter {
        prompt: Bounds { min: 1, max: 100 },
        answer: Bounds { min: 1, max: 100 },
        total_max: 1000,
    };

    /// So many words of three letters, none of which another entry begins with.
    fn words(entry: usize, count: usize) -> String {
        let letter = |n: usize| char::from(b'a' + u8::try_from(n % 26).unwrap());
        let word = |n: usize| -> String { [entry / 26, entry, n].map(letter).iter().collect() };
        (0..count).map(word).collect::<Vec<_>>().join(" ")
    }

    /// Twenty conversations of three turns, whose n-th has messages of n + 1 words; every fifth entry
    /// is one that cannot be used.
    fn file() -> (tempfile::TempDir, Dataset) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.jsonl");
        let mut text = String::new();
        for n in 0..25_usize {
            let say = |role: &str, place: usize| json!({ "role": role, "content": words(n * 7 + place, n + 1) });
            let talk: Vec<Value> = if n % 5 == 4 {
                vec![say("assistant", 0)]
            } else {
                let turn = |place: usize| [say("user", 2 * place), say("assistant", 2 * place + 1)];
                let told = std::iter::once(json!({ "role": "system", "content": "abc abc" }));
                told.chain((0..3).flat_map(turn)).collect()
            };
            writeln!(text, "{}", json!({ "messages": talk })).unwrap();
        }
        std::fs::write(&path, &text).unwrap();
        let dataset = Dataset {
            path,
            bytes: text.len() as u64,
            entries: 25,
            turns: Turns::First,
            length: AnswerLength::Recorded,
            filter: FILTER,
            class_field: None,
            unusable: std::collections::BTreeMap::new(),
        };
        (folder, dataset)
    }

    /// A phase of this set, and the requests that a recording server saw.
    fn asked(dataset: Dataset, change: impl FnOnce(&mut LoadPlan)) -> (Phase, Vec<Value>) {
        run_recorded(|plan| {
            plan.prompts.shape = Shape::Dataset(Box::new(dataset));
            change(plan);
        })
    }

    #[test]
    fn every_entry_that_fits_is_asked_once_with_its_own_length() {
        let (_folder, dataset) = file();
        let (phase, bodies) = asked(dataset, |plan| {
            (plan.min_requests, plan.max_requests) = (20, Some(20));
        });
        phase.check(PhaseEnd::Finished, &[(Outcome::Ok, 20)]);
        let mut entries: Vec<u32> =
            phase.records.iter().map(|r| r.dataset_entry.unwrap()).collect();
        entries.sort_unstable();
        assert_eq!(entries, (0..25).filter(|n| n % 5 != 4).collect::<Vec<_>>());
        for record in &phase.records {
            let own = record.dataset_entry.unwrap() + 1;
            // Two tokens of what the engine is told, and the tokenizer's own one around it all.
            assert_eq!(record.prompt_tokens_asked, own + 2);
            assert_eq!(record.prompt_tokens_expected, Some(own + 3));
            assert_eq!(record.output_tokens_asked, own);
        }
        // All are told the same two words before.
        let known = phase.records.iter().map(|record| record.cached_tokens_meant);
        assert_eq!(known.collect::<Vec<_>>()[..3], [Some(0), Some(2), Some(2)]);
        let lengths = bodies.iter().map(|body| body["max_tokens"].as_u64().unwrap());
        assert_eq!(
            lengths.sum::<u64>(),
            (0..25).filter(|n| n % 5 != 4).map(|n| n + 1).sum::<u64>()
        );
        assert!(bodies.iter().all(|b| b["prompt"].as_str().unwrap().starts_with("abc abc\n\n")));
        let facts = phase.facts.dataset.unwrap();
        assert_eq!((facts.entries, facts.looked_at, facts.fitting), (25, 25, 20));
        assert_eq!(facts.left_out.get("the user does not begin"), Some(&5));
    }

    #[test]
    fn whole_conversations_carry_the_real_answers_and_what_the_engine_was_told() {
        let (_folder, mut dataset) = file();
        dataset.turns = Turns::All;
        let (phase, bodies) = asked(dataset, |plan| {
            plan.request.draft.prompt = PromptField::Messages("messages".to_owned());
            (plan.min_requests, plan.max_requests) = (9, Some(9));
        });
        phase.check(PhaseEnd::Finished, &[(Outcome::Ok, 9)]);
        for (body, record) in bodies.iter().zip(&phase.records) {
            let messages = body["messages"].as_array().unwrap();
            let place = usize::try_from(record.turn % 3).unwrap();
            assert_eq!(messages.len(), 2 + 2 * place, "{body}");
            assert_eq!(messages[0], json!({ "role": "system", "content": "abc abc" }));
            for turn in 0..place {
                let said = json!({ "role": "assistant", "content": " w0 w1 w2" });
                assert_eq!(messages[2 + 2 * turn], said, "what the server really said");
            }
            let entry = usize::try_from(record.dataset_entry.unwrap()).unwrap();
            let own = words(entry * 7 + 2 * place, entry + 1);
            assert_eq!(messages.last().unwrap(), &json!({ "role": "user", "content": own }));
            assert_eq!(body["max_tokens"], entry + 1, "a later turn has its own length, too");
            assert_eq!(record.prompt_tokens_expected, None);
            // The server says that each turn was 9 tokens and 3 were answered.
            let known = if place > 0 { 12 } else { u32::from(record.turn > 0) * 2 };
            assert_eq!(record.cached_tokens_meant, Some(known));
        }
    }

    #[test]
    fn every_pace_asks_the_same_and_bounds_are_kept() {
        let (_folder, mut dataset) = file();
        dataset.filter.prompt.max = 12;
        let texts = |users: u32| {
            let (phase, _) = asked(dataset.clone(), |plan| {
                (plan.users, plan.min_requests, plan.max_requests) = (users, 24, Some(24));
            });
            let mut all: Vec<(u32, u32, Option<u32>)> = phase
                .records
                .iter()
                .map(|r| (r.turn * users + r.user, r.prompt_tokens_asked, r.dataset_entry))
                .collect();
            all.sort_unstable();
            let facts = phase.facts.dataset.unwrap();
            assert_eq!((facts.looked_at, facts.fitting), (25, 8), "{facts:?}");
            assert_eq!(facts.left_out.get("its prompt is too long"), Some(&12));
            all
        };
        let (one, four) = (texts(1), texts(4));
        assert!(one.iter().all(|(_, tokens, _)| *tokens <= 12));
        // Whoever asks the n-th, and whenever, asks the same; what is used up begins again.
        let of =
            |all: &[(u32, u32, Option<u32>)], n: u32| all.iter().find(|(m, _, _)| *m == n).copied();
        for n in 0..8 {
            assert_eq!(of(&one, n), of(&four, n));
            assert_eq!(of(&one, n).map(|(_, _, e)| e), of(&one, n + 8).map(|(_, _, e)| e));
        }
    }

    #[test]
    fn a_file_that_has_changed_is_not_asked() {
        let (_folder, mut dataset) = file();
        dataset.bytes += 1;
        let prompts = PromptPlan::words(8);
        let none = Recorded::open(dataset.clone(), &prompts, 1, false).unwrap_err();
        assert!(none.to_string().contains("need a tokenizer"), "{none}");
        let (_other, tokenizer) =
            crate::workload::prompts::tests::file(&crate::workload::prompts::tests::word_level());
        let prompts = PromptPlan { tokenizer: Some(tokenizer), ..prompts };
        let changed = Recorded::open(dataset, &prompts, 1, false).unwrap_err().to_string();
        assert!(changed.contains("has changed since the sweep was read"), "{changed}");
    }
}
