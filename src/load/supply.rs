//! Requests ready to be sent, ahead of the users who will send them.
//!
//! Tokenising takes longer than sending, so it happens before the phase, and after that in a
//! thread of low priority that follows each user's turns. It never makes a prompt in the loop: a
//! user whose next request is not there waits, and the wait shows between scheduled and sent.
//!
//! Invariant: a user's requests come in the order of turns, each once.

use super::loops::Share;
use super::message::{LoadPattern, LoadPlan};
use super::recorded::Recorded;
use super::request::{History, RequestTemplate};
use crate::engine::def::PromptField;
use crate::ids::Name;
use crate::run::slo::{Class, class_of};
use crate::seed::Seed;
use crate::workload::dataset::PartFacts;
use crate::workload::prompts::{PromptError, Prompter};
use crate::workload::schedule::OpenLoop;
use crate::workload::shape::Shape;
use nix::sys::eventfd::EventFd;
use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

/// Requests that are made before the phase begins, at most.
const MAX_AHEAD: u32 = 4096;

/// Why requests could not be made. Each message completes "cannot make requests: …".
#[derive(Debug, thiserror::Error)]
pub(crate) enum SupplyError {
    #[error("cannot make prompts: {0}")]
    Prompt(#[from] PromptError),
    #[error("cannot write the request as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot use the data set {}: {why}", .path.display())]
    Dataset { path: PathBuf, why: String },
    #[error("cannot start the thread that makes prompts: {0}")]
    Thread(std::io::Error),
}

/// One request, ready to be sent.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) turn: u32,
    pub(crate) bytes: Vec<u8>,
    /// What the user says, where it may be a turn of a conversation, and where in it, from 0.
    pub(crate) said: Option<(u32, String)>,
    /// What the engine is told before the conversation.
    pub(crate) system: Option<String>,
    /// Which entry of the data set it asks.
    pub(crate) dataset_entry: Option<u32>,
    pub(crate) class: Option<Name>,
    /// Prompt tokens that an earlier request had, as far as is known.
    pub(crate) cached_tokens_meant: Option<u32>,
    pub(crate) output_tokens: u32,
    pub(crate) prompt_tokens: u32,
    /// Absent where the server's own template is around the prompt.
    pub(crate) prompt_tokens_expected: Option<u32>,
}

/// Where prompts come from.
enum Source {
    Made(Box<Prompter>),
    /// Shared with whoever asks how far it has come.
    Recorded(Arc<Mutex<Recorded>>),
}

struct Maker {
    source: Source,
    template: RequestTemplate,
    prompt: PromptField,
    output_tokens: u32,
    /// An open loop may have lengths of its own for each request.
    schedule: Option<OpenLoop>,
    classes: Vec<Class>,
    seed: Seed,
    /// Documents that some prompt has begun with.
    documents: Mutex<HashSet<u64>>,
}

impl Maker {
    fn make(&self, user: u32, turn: u32) -> Result<Prepared, SupplyError> {
        match &self.source {
            Source::Made(prompter) => self.made(prompter, user, turn),
            // A lock that is poisoned is one whose holder has already failed the phase.
            Source::Recorded(recorded) => self.recorded(
                &mut recorded.lock().unwrap_or_else(PoisonError::into_inner),
                user,
                turn,
            ),
        }
    }

    /// `said`: what the entry's own field says.
    fn class(&self, user: u32, turn: u32, said: Option<&str>) -> Option<Name> {
        let scheduled = self.schedule.as_ref().and_then(|schedule| schedule.class(turn));
        let scheduled = scheduled.and_then(|class| self.classes.get(class));
        let seed = self.seed.nth(user.into()).nth(turn.into());
        let class = scheduled.or_else(|| class_of(&self.classes, said, seed));
        class.map(|class| class.name.clone())
    }

    /// A message that someone once wrote.
    fn recorded(
        &self,
        recorded: &mut Recorded,
        user: u32,
        turn: u32,
    ) -> Result<Prepared, SupplyError> {
        let said = recorded.next(user, turn)?;
        let (expected, ids) = match self.prompt {
            PromptField::Text(_) => (Some(recorded.tokens().total(&said.text)?), Vec::new()),
            PromptField::TokenIds(_) => {
                let ids = recorded.tokens().ids(&said.text)?;
                (u32::try_from(ids.len()).ok(), ids)
            }
            PromptField::Messages(_) => (None, Vec::new()),
        };
        let system = said.system.as_deref();
        let bytes = if system.is_some() {
            self.template.carrying_on(system, &History::new(), &said.text, said.output_tokens)?
        } else {
            self.template.bytes(&said.text, &ids, said.output_tokens)?
        };
        Ok(Prepared {
            turn,
            bytes,
            output_tokens: said.output_tokens,
            prompt_tokens: said.content_tokens,
            prompt_tokens_expected: expected,
            dataset_entry: Some(said.entry),
            class: self.class(user, turn, said.class.as_deref()),
            cached_tokens_meant: Some(said.known_tokens),
            said: said.place.map(|place| (place, said.text)),
            system: said.system,
        })
    }

    /// Words, drawn by the seed.
    fn made(&self, prompter: &Prompter, user: u32, turn: u32) -> Result<Prepared, SupplyError> {
        let own = self.schedule.as_ref().and_then(|schedule| schedule.lengths(turn));
        let (prompt, output_tokens) = match own {
            Some([prompt, output]) => (prompter.prompt_of(user, turn, prompt)?, output),
            None => (prompter.prompt(user, turn)?, self.output_tokens),
        };
        let known = match prompter.document_of(user, turn) {
            Some((document, tokens)) => {
                let mut seen = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.insert(document) { 0 } else { tokens.min(prompt.content_tokens) }
            }
            None => 0,
        };
        let said = prompter.place(user, turn).map(|at| (at, prompt.text.clone()));
        let (expected, ids) = match self.prompt {
            PromptField::Text(_) => (prompt.total_tokens, Vec::new()),
            PromptField::TokenIds(_) => (prompt.total_tokens, prompter.token_ids(&prompt.text)?),
            PromptField::Messages(_) => (None, Vec::new()),
        };
        Ok(Prepared {
            turn,
            said,
            system: None,
            dataset_entry: None,
            class: self.class(user, turn, None),
            cached_tokens_meant: Some(known),
            bytes: self.template.bytes(&prompt.text, &ids, output_tokens)?,
            output_tokens,
            prompt_tokens: prompt.content_tokens,
            prompt_tokens_expected: expected,
        })
    }
}

type Made = Result<(u32, Prepared), SupplyError>;

/// The requests of all loops: a lane for each user, or one for all requests of a schedule.
pub(crate) struct Supplies {
    maker: Arc<Maker>,
    /// Made before the phase, and not dealt out yet.
    ready: Vec<VecDeque<Prepared>>,
    ahead: u32,
    is_open: bool,
    recorded: Option<Arc<Mutex<Recorded>>>,
}

/// The requests of one loop: its users' lanes, or its part of the one lane.
#[derive(Debug)]
pub(crate) struct Supply {
    ready: Vec<VecDeque<Prepared>>,
    /// Asks the thread for a lane's turn. It ends when this is dropped.
    ask: mpsc::Sender<(u32, u32)>,
    made: mpsc::Receiver<Made>,
    /// How many turns each lane is kept ahead.
    ahead: u32,
}

impl Supplies {
    /// Makes the first requests.
    /// `scheduled`: the requests of an open loop, which all come from one lane.
    pub(crate) fn new(
        plan: &LoadPlan,
        scheduled: Option<usize>,
        loops: u32,
    ) -> Result<Self, SupplyError> {
        let (lanes, requests) = match scheduled {
            Some(all) => (1, u32::try_from(all).unwrap_or(u32::MAX)),
            None => (plan.users, plan.min_requests),
        };
        let source = source(plan, lanes)?;
        let recorded = match &source {
            Source::Recorded(recorded) => Some(Arc::clone(recorded)),
            Source::Made(_) => None,
        };
        let maker = Maker {
            source,
            template: RequestTemplate::new(plan)?,
            prompt: plan.request.draft.prompt.clone(),
            output_tokens: plan.request.output_tokens,
            schedule: match &plan.pattern {
                LoadPattern::Open { schedule, .. } => Some(schedule.clone()),
                LoadPattern::Closed { .. } => None,
            },
            classes: plan.prompts.classes.clone(),
            seed: Seed::new(plan.prompts.seed),
            documents: Mutex::default(),
        };
        // Of a lane that loops share, each loop is as many turns ahead as the others.
        let ahead = turns_ahead(lanes, requests).next_multiple_of(loops.max(1));
        let ready = first_ready(&maker, lanes, ahead)?;
        let is_open = scheduled.is_some();
        Ok(Self { maker: Arc::new(maker), ready, ahead, is_open, recorded })
    }

    /// Deals a loop its part, and leaves what comes later to a thread, which writes `wake` whenever
    /// it made one.
    pub(crate) fn deal(&mut self, share: Share, wake: Arc<EventFd>) -> Result<Supply, SupplyError> {
        let ready = if self.is_open {
            let mine = |request: &Prepared| request.turn % share.of == share.number;
            let (given, kept) = self.ready.drain(..).flatten().partition(mine);
            self.ready = vec![kept];
            vec![given]
        } else {
            let lanes =
                (0..).zip(&mut self.ready).filter(|(nth, _)| nth % share.of == share.number);
            lanes.map(|(_, lane)| std::mem::take(lane)).collect()
        };
        let (maker, is_open) = (Arc::clone(&self.maker), self.is_open);
        let user = move |lane: u32| if is_open { 0 } else { share.nth(lane) };
        let (ask, asked) = mpsc::channel();
        let (send, made) = mpsc::channel();
        std::thread::Builder::new()
            .name("prompts".to_owned())
            .spawn(move || refill(&maker, user, &asked, &send, &wake))
            .map_err(SupplyError::Thread)?;
        Ok(Supply { ready, ask, made, ahead: self.ahead })
    }

    /// How the phase has used its part of the data set; absent where there is none.
    pub(crate) fn part_facts(&self) -> Option<PartFacts> {
        let recorded = self.recorded.as_ref()?;
        Some(recorded.lock().unwrap_or_else(PoisonError::into_inner).facts())
    }
}

impl Supply {
    /// The user's next request, if it is there.
    pub(crate) fn take(&mut self, user: u32) -> Option<Prepared> {
        let queue = self.ready.get_mut(usize::try_from(user).ok()?)?;
        let next = queue.pop_front()?;
        // A thread that is gone has sent its error, which `collect` hands on.
        let _: Result<(), mpsc::SendError<_>> = self.ask.send((user, next.turn + self.ahead));
        Some(next)
    }

    /// Takes in what the thread has made; the users who got something.
    pub(crate) fn collect(&mut self) -> Result<Vec<u32>, SupplyError> {
        let mut users = Vec::new();
        for made in self.made.try_iter() {
            let (user, prepared) = made?;
            if let Some(queue) =
                usize::try_from(user).ok().and_then(|user| self.ready.get_mut(user))
            {
                queue.push_back(prepared);
                users.push(user);
            }
        }
        Ok(users)
    }
}

fn source(plan: &LoadPlan, lanes: u32) -> Result<Source, SupplyError> {
    let prompts = &plan.prompts;
    if let Shape::Dataset(dataset) = &prompts.shape {
        let messages = matches!(plan.request.draft.prompt, PromptField::Messages(_));
        let recorded = Recorded::open((**dataset).clone(), prompts, lanes, messages)?;
        return Ok(Source::Recorded(Arc::new(Mutex::new(recorded))));
    }
    let seed = Seed::new(prompts.seed);
    let prompter = match &prompts.tokenizer {
        Some(path) => Prompter::load(path, prompts.prompt_tokens, seed)?,
        None => Prompter::of_words(prompts.prompt_tokens, seed),
    };
    Ok(Source::Made(Box::new(prompter.shaped(prompts.shape.clone()))))
}

/// Turn by turn, which is the order in which they are sent: what is taken from a file is then read
/// once.
fn first_ready(
    maker: &Maker,
    lanes: u32,
    ahead: u32,
) -> Result<Vec<VecDeque<Prepared>>, SupplyError> {
    let mut ready: Vec<VecDeque<Prepared>> = (0..lanes).map(|_| VecDeque::new()).collect();
    for turn in 0..ahead {
        for (user, queue) in (0..).zip(&mut ready) {
            queue.push_back(maker.make(user, turn)?);
        }
    }
    Ok(ready)
}

/// Enough for every user's first turn and, spread evenly, for the requests that are asked for.
fn turns_ahead(users: u32, min_requests: u32) -> u32 {
    let users = users.max(1);
    let wanted = min_requests.div_ceil(users).saturating_add(1);
    wanted.min(MAX_AHEAD / users).max(1)
}

fn refill(
    maker: &Maker,
    user: impl Fn(u32) -> u32,
    asked: &mpsc::Receiver<(u32, u32)>,
    send: &mpsc::Sender<Made>,
    wake: &EventFd,
) {
    // On Linux this is the thread's own priority. Without it the loop shares its CPU more evenly.
    let _: Result<i32, rustix::io::Errno> = rustix::process::nice(10);
    for (lane, turn) in asked {
        let made = maker.make(user(lane), turn).map(|prepared| (lane, prepared));
        let failed = made.is_err();
        if send.send(made).is_err() || wake.write(1).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_covers_the_phase_within_its_bound() {
        for (users, min_requests, want) in
            [(1, 0, 1), (10, 100, 11), (50, 60, 3), (1, 100_000, 4096), (5000, 10_000, 1)]
        {
            assert_eq!(turns_ahead(users, min_requests), want, "{users} users");
        }
    }
}
