//! Any bytes as an answer, split anywhere: the record must not depend on the splits.
//!
//! The first bytes choose where to split and how the stream is read; the rest is what the server
//! said. It takes the parsers' own files, not the crate: a build of seconds instead of minutes.

#![no_main]
#![allow(dead_code, unused_imports, unexpected_cfgs, reason = "only part of each file is used here")]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/units.rs"]
mod units;

#[path = "."]
mod run {
    #[path = "../../src/run/record.rs"]
    pub mod record;
}

#[path = "."]
mod engine {
    #[path = "../../src/engine/shape.rs"]
    pub mod def;
}

#[path = "."]
mod load {
    #[path = "../../src/load/asked.rs"]
    pub mod asked;
    #[path = "../../src/load/censor.rs"]
    pub mod censor;
    #[path = "../../src/load/event.rs"]
    pub mod event;
    #[path = "../../src/load/http.rs"]
    pub mod http;
    #[path = "../../src/load/native.rs"]
    pub mod native;
    #[path = "../../src/load/sse.rs"]
    pub mod sse;
    #[path = "../../src/load/stream.rs"]
    pub mod stream;
}

use engine::def::AnswerShape;
use load::event::Classifier;
use load::stream::{Asked, Read, Stream};
use run::record::{RequestOutcome, RequestRecord};
use units::MonoNs;

fn classifier(native: bool) -> Classifier {
    let at = |text: &str| Some(text.to_owned());
    let shape = AnswerShape {
        text: "/text".to_owned(),
        cumulative: true,
        finish_reason: "/meta/finish".to_owned(),
        prompt_tokens: at("/meta/prompt"),
        output_tokens: at("/meta/output"),
        cached_tokens: None,
    };
    Classifier::new(native.then_some(&shape))
}

/// The record of an answer that came in these parts, and was then closed.
fn record(parts: &[&[u8]], classifier: &Classifier, done_marker: bool) -> RequestRecord {
    let mut stream = Stream::new(&Asked {
        index: 0,
        user: 0,
        turn: 0,
        scheduled: MonoNs::new(50),
        prompt_tokens: 8,
        prompt_tokens_expected: None,
        output_tokens: 4,
        done_marker,
        keeps_text: false,
    });
    stream.sending(MonoNs::new(100));
    let mut ended = false;
    for part in parts.iter().filter(|part| !part.is_empty()) {
        let read = Read {
            bytes: part,
            began: MonoNs::new(1_000),
            at: MonoNs::new(900),
            from_kernel: true,
            drained: true,
        };
        ended = stream.on_read(&read, classifier).ended;
        if ended {
            break;
        }
    }
    if !ended {
        stream.on_eof(MonoNs::new(2_000), classifier);
    }
    stream.into_record()
}

fn gist(record: &RequestRecord) -> (RequestOutcome, usize, Option<u32>, Option<String>, Option<u32>) {
    (
        record.outcome,
        record.chunks.len(),
        record.first_text_chunk,
        record.finish_reason.clone(),
        record.output_tokens_reported,
    )
}

fuzz_target!(|data: &[u8]| {
    let Some((&[mode, cut], rest)) = data.split_first_chunk::<2>().map(|(a, b)| (a, b)) else { return };
    let classifier = classifier(mode & 1 == 1);
    let done_marker = mode & 2 == 2;
    // Half of all inputs need not find a head first.
    let head: &[u8] = if mode & 4 == 4 {
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    } else if mode & 8 == 8 {
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    } else {
        b""
    };
    let whole = [head, rest].concat();
    let once = record(&[&whole], &classifier, done_marker);
    let at = usize::from(cut) * whole.len() / 255;
    let (before, after) = whole.split_at(at.min(whole.len()));
    let twice = record(&[before, after], &classifier, done_marker);
    assert_eq!(gist(&once), gist(&twice), "split at byte {at}");
    let bytes: Vec<&[u8]> = whole.chunks(1 + usize::from(cut & 7)).collect();
    assert_eq!(gist(&once), gist(&record(&bytes, &classifier, done_marker)), "in small parts");
    for chunk in &once.chunks {
        assert!(chunk.earliest <= chunk.at, "bounds in order");
    }
});
