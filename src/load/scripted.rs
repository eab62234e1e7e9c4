//! Small servers that follow a script, and phases against them. For tests.
//!
//! A server here never decides anything: what it says, and when, is the test's.

use super::driver::Stopper;
use super::loops::LoadPhase;
use crate::engine::def::PromptField;
use crate::engine::request::Draft;
use crate::ids::Name;
use crate::load::frames;
use crate::load::message::{LoadEvent, LoadPattern, LoadPlan, PromptPlan, RequestPlan};
use crate::load::peer::Peer as Reached;
use crate::run::phase::{PhaseEnd, PhaseFacts};
use crate::run::record::RequestOutcome as Outcome;
use crate::run::record::RequestRecord;
use crate::workload::prompts::tests as tokenizers;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A plan of one user and one request, with deadlines that only a broken test reaches.
pub(crate) fn plan_for(port: u16) -> LoadPlan {
    LoadPlan {
        phase: Name::new("test").unwrap(),
        host: "127.0.0.1".to_owned(),
        port,
        authority: format!("127.0.0.1:{port}"),
        peer: Reached::default(),
        request: RequestPlan {
            path: "/v1/x".to_owned(),
            draft: Draft {
                body: json!({ "model": "m", "stream": true }).as_object().unwrap().clone(),
                prompt: PromptField::Text("prompt".to_owned()),
                length_at: vec!["max_tokens".to_owned()],
                answer: None,
            },
            output_tokens: 3,
            done_marker: true,
        },
        prompts: PromptPlan::words(8),
        users: 1,
        loops: 1,
        min_requests: 1,
        max_requests: None,
        min_duration_ns: 0,
        pattern: LoadPattern::CLOSED,
        phase_deadline_ns: 20_000 * MS,
        request_deadline_ns: 20_000 * MS,
        stall_ns: 10_000 * MS,
        keep_alive_ns: 60_000 * MS,
        records: PathBuf::new(),
    }
}

/// A client connection as the server sees it.
pub(crate) struct Peer {
    pub(crate) stream: BufReader<TcpStream>,
    pub(crate) number: usize,
}

impl Peer {
    /// The body of the next request; `None` at the end of the connection.
    pub(crate) fn request(&mut self) -> Option<Value> {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        Some(serde_json::from_slice(&body).unwrap())
    }

    pub(crate) fn say(&mut self, text: &str) {
        // The client may have gone; then its record says so.
        self.stream.get_mut().write_all(text.as_bytes()).ok();
    }

    /// Waits until the client closes.
    pub(crate) fn wait_for_close(&mut self) {
        while self.request().is_some() {}
    }
}

/// Starts a server; each connection is handled in a thread of its own.
pub(crate) fn serve(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let script = Arc::new(script);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            let number = count.fetch_add(1, Ordering::SeqCst);
            let script = Arc::clone(&script);
            std::thread::spawn(move || {
                script(&mut Peer { stream: BufReader::new(stream), number })
            });
        }
    });
    (port, accepted)
}

pub(crate) fn chunked(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

pub(crate) fn token(n: usize) -> String {
    chunked(&format!("data: {{\"choices\":[{{\"text\":\" w{n}\",\"finish_reason\":null}}]}}\n\n"))
}

/// What ends a good stream.
pub(crate) fn tail() -> String {
    let finish = "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n";
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}\n\n";
    [chunked(finish), chunked(usage), chunked("data: [DONE]\n\n"), "0\r\n\r\n".to_owned()].concat()
}

pub(crate) fn answer() -> String {
    format!("{HEAD}{}{}{}{}", token(0), token(1), token(2), tail())
}

/// Runs a phase; its facts and its records in order.
pub(crate) struct Phase {
    pub(crate) facts: PhaseFacts,
    pub(crate) records: Vec<RequestRecord>,
}

pub(crate) fn run(port: u16, change: impl FnOnce(&mut LoadPlan)) -> Phase {
    run_until(port, change, |_| {})
}

pub(crate) fn run_until(
    port: u16,
    change: impl FnOnce(&mut LoadPlan),
    give_stopper: impl FnOnce(Stopper),
) -> Phase {
    let (folder, tokenizer) = tokenizers::file(&tokenizers::word_level());
    let mut plan = plan_for(port);
    plan.prompts.tokenizer = Some(tokenizer);
    plan.records = folder.path().join("requests.frames");
    change(&mut plan);
    let path = plan.records.clone();
    let (notes, events) = mpsc::channel();
    let stopper = Stopper::new().unwrap();
    give_stopper(stopper.clone());
    let facts = LoadPhase::prepare(plan, stopper, notes).unwrap().run().unwrap();
    assert_eq!(events.iter().next(), Some(LoadEvent::Started));
    let frames = frames::read(&path).unwrap();
    assert!(!frames.torn);
    let mut records = frames.records;
    records.sort_by_key(|record| record.index);
    let indices: Vec<u32> = records.iter().map(|record| record.index).collect();
    assert_eq!(indices, (0..u32::try_from(records.len()).unwrap()).collect::<Vec<_>>());
    assert_eq!(facts.records, records.len() as u64, "every request leaves one record");
    assert!(facts.started <= facts.stopped_at && facts.stopped_at <= facts.ended);
    Phase { facts, records }
}

/// A phase against a server that answers well, and the requests that it saw.
pub(crate) fn run_recorded(change: impl FnOnce(&mut LoadPlan)) -> (Phase, Vec<Value>) {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&bodies);
    let (port, _) = serve(move |peer| {
        while let Some(body) = peer.request() {
            kept.lock().unwrap().push(body);
            peer.say(&answer());
        }
    });
    let phase = run(port, change);
    let bodies = bodies.lock().unwrap().clone();
    (phase, bodies)
}

/// A phase of so many users that is stopped when each has its first token.
pub(crate) fn run_stopped(users: u32, change: impl FnOnce(&mut LoadPlan)) -> Phase {
    let (began, requests) = mpsc::channel();
    let (port, _) = serve(move |peer| {
        peer.request();
        peer.say(&format!("{HEAD}{}", token(0)));
        began.send(()).unwrap();
        peer.wait_for_close();
    });
    run_until(
        port,
        |plan| {
            plan.users = users;
            change(plan);
        },
        |stopper| {
            std::thread::spawn(move || {
                for () in requests.iter().take(usize::try_from(users).unwrap()) {}
                stopper.stop();
            });
        },
    )
}

impl Phase {
    pub(crate) fn outcomes(&self) -> BTreeMap<Outcome, usize> {
        let mut counts = BTreeMap::new();
        for record in &self.records {
            *counts.entry(record.outcome).or_default() += 1;
        }
        counts
    }

    #[track_caller]
    pub(crate) fn check(&self, end: PhaseEnd, outcomes: &[(Outcome, usize)]) {
        let errors: Vec<_> = self.records.iter().map(|record| &record.error).take(5).collect();
        assert_eq!(self.outcomes(), outcomes.iter().copied().collect(), "{errors:?}");
        assert_eq!(self.facts.end, end);
    }
}

/// Serves good streams on every connection until it closes.
pub(crate) fn good(peer: &mut Peer) {
    while peer.request().is_some() {
        peer.say(&answer());
    }
}
