//! Plays the scheduler in real time, on a thread of its own.
//!
//! Never decides anything: it sleeps until a step's end and hands out the tokens.
//!
//! Invariant: an event is stamped under the inbox's lock, and at a boundary between steps the
//! thread takes that lock no earlier than the boundary. So every event with a stamp up to the
//! boundary is there by then, and which step sees it depends on its stamp alone. A thread that
//! woke late catches up: steps follow one another in scheduled, not in real, time.

use super::cache::PrefixCache;
use super::clock;
use super::metrics::Histogram;
use super::request::Ask;
use super::schedule::{Costs, Job, JobId, Limits, Load, Scheduler, Token};
use crate::seed::Seed;
use crate::units::MonoNs;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

#[derive(Debug)]
enum Event {
    Arrive(Job, Output),
    Cancel(JobId),
}

/// Where a request's tokens go, and what is done when the first one comes.
#[derive(Debug)]
struct Output {
    sender: UnboundedSender<Token>,
    arrived: MonoNs,
    blocks: Vec<u64>,
}

#[derive(Debug)]
struct State {
    events: VecDeque<(MonoNs, Event)>,
    next_id: JobId,
    /// No more tokens, for ever.
    hung: bool,
    closed: bool,
    /// As of the last boundary.
    load: Load,
    cache: PrefixCache,
    /// Of every request so far, from its arrival to its first token.
    ttft: Histogram,
}

#[derive(Debug)]
struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

/// The engine behind the server. Its thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Engine {
    inbox: Arc<Inbox>,
    limits: Limits,
}

/// A request's place in the engine. Dropping it frees its slot and its KV tokens.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) id: JobId,
    tokens: UnboundedReceiver<Token>,
    inbox: Arc<Inbox>,
    ended: bool,
}

impl Engine {
    /// `cache_blocks`: room of the prefix cache; 0 for none.
    pub(crate) fn start(
        limits: Limits,
        costs: Costs,
        seed: Seed,
        cache_blocks: usize,
    ) -> io::Result<Self> {
        let inbox = Arc::new(Inbox::new(cache_blocks));
        let theirs = Arc::clone(&inbox);
        std::thread::Builder::new()
            .name("sim-engine".to_owned())
            .spawn(move || drive(&theirs, Scheduler::new(limits, costs, seed)))?;
        Ok(Self { inbox, limits })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The caller has checked that the request can fit. Tells the request what of its prompt was in
    /// the cache.
    pub(crate) fn submit(&self, ask: &mut Ask) -> Ticket {
        let (sender, tokens) = unbounded_channel();
        let mut state = self.inbox.lock();
        state.next_id += 1;
        ask.cached_tokens = state.cache.find(&ask.blocks, ask.prompt_tokens);
        let job = Job {
            id: state.next_id,
            prompt_tokens: ask.prompt_tokens,
            cached_tokens: ask.cached_tokens,
            max_tokens: ask.max_tokens,
            output_tokens: ask.output_tokens,
        };
        let arrived = clock::now();
        let output = Output { sender, arrived, blocks: ask.blocks.clone() };
        state.events.push_back((arrived, Event::Arrive(job, output)));
        drop(state);
        self.inbox.changed.notify_all();
        Ticket { id: job.id, tokens, inbox: Arc::clone(&self.inbox), ended: false }
    }

    /// Empties the prefix cache.
    pub(crate) fn flush(&self) {
        self.inbox.lock().cache.clear();
    }

    pub(crate) fn ttft(&self) -> Histogram {
        self.inbox.lock().ttft
    }

    pub(crate) fn hang(&self) {
        self.inbox.lock().hung = true;
    }

    /// Requests that the thread has not seen yet wait too.
    pub(crate) fn load(&self) -> Load {
        let state = self.inbox.lock();
        let unseen = state.events.iter().filter(|(_, event)| matches!(event, Event::Arrive(..)));
        Load { waiting: state.load.waiting + unseen.count(), ..state.load }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.inbox.lock().closed = true;
        self.inbox.changed.notify_all();
    }
}

impl Ticket {
    /// The next token; `None` when the engine is gone.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Token>> {
        let token = self.tokens.poll_recv(context);
        if let Poll::Ready(Some(Token { last: true, .. })) = token {
            self.ended = true;
        }
        token
    }

    pub(crate) async fn next(&mut self) -> Option<Token> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.ended {
            self.inbox.lock().events.push_back((clock::now(), Event::Cancel(self.id)));
            self.inbox.changed.notify_all();
        }
    }
}

impl Inbox {
    fn new(cache_blocks: usize) -> Self {
        let state = State {
            events: VecDeque::new(),
            next_id: 0,
            hung: false,
            closed: false,
            load: Load::default(),
            cache: PrefixCache::new(cache_blocks),
            ttft: Histogram::default(),
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// A panic elsewhere leaves no half-made state: every change is one assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events stamped up to `boundary`.
    fn take(&self, boundary: MonoNs) -> Vec<Event> {
        let mut state = self.lock();
        let mut taken = Vec::new();
        while let Some((_, event)) = state.events.pop_front_if(|(at, _)| *at <= boundary) {
            taken.push(event);
        }
        taken
    }

    /// The stamp of the next event, once there is one; `None` when the engine is gone.
    fn wait(&self) -> Option<MonoNs> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some((at, _)) = state.events.front() {
                return Some(*at);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether tokens may go out. A hung engine waits here until it is gone.
    fn alive(&self) -> bool {
        let mut state = self.lock();
        while state.hung && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.closed
    }
}

fn drive(inbox: &Inbox, mut scheduler: Scheduler) {
    // The kernel may end a sleep late by the slack, 50 us by default. Without it: less exact.
    nix::sys::prctl::set_timerslack(1).ok();
    let mut outputs: HashMap<JobId, Output> = HashMap::new();
    let mut boundary = MonoNs::new(0);
    loop {
        for event in inbox.take(boundary) {
            match event {
                Event::Arrive(job, output) => {
                    scheduler.arrive(job);
                    outputs.insert(job.id, output);
                }
                Event::Cancel(id) => {
                    scheduler.cancel(id);
                    outputs.remove(&id);
                }
            }
        }
        let end = scheduler.begin(boundary);
        inbox.lock().load = scheduler.load();
        if let Some(end) = end {
            clock::sleep_until(end);
            boundary = end;
            if !inbox.alive() {
                return;
            }
            hand_out(&scheduler.finish(), &mut outputs, boundary, inbox);
        } else if let Some(at) = inbox.wait() {
            boundary = boundary.max(at);
        } else {
            return;
        }
    }
}

fn hand_out(tokens: &[Token], outputs: &mut HashMap<JobId, Output>, now: MonoNs, inbox: &Inbox) {
    for token in tokens {
        if let Some(output) = outputs.get(&token.job) {
            if token.index == 0 {
                let mut state = inbox.lock();
                state.cache.keep(&output.blocks);
                state.ttft.add(now.since(output.arrived));
            }
            // A receiver that is gone has sent its cancel already.
            output.sender.send(*token).ok();
        }
        if token.last {
            outputs.remove(&token.job);
        }
    }
}
