//! Streams as servers send them, split as the network likes.

use super::*;
use crate::load::native;
use crate::run::record::RequestOutcome as Outcome;
use std::path::{Path, PathBuf};

const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn asked() -> Asked {
    Asked {
        index: 3,
        user: 2,
        turn: 1,
        scheduled: MonoNs::new(50),
        prompt_tokens: 8,
        prompt_tokens_expected: Some(9),
        output_tokens: 4,
        done_marker: true,
        keeps_text: false,
    }
}

fn sent(asked: &Asked) -> Stream {
    let mut stream = Stream::new(asked);
    stream.sending(MonoNs::new(100));
    stream
}

fn chunked(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

fn token(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"text\":\"{text}\",\"finish_reason\":null}}]}}\n\n")
}

const FINISH: &str = "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const LAST: &str = "0\r\n\r\n";

/// The n-th read begins at 1000 n, with a stamp 100 before it.
fn read(n: i64, bytes: &[u8]) -> Read<'_> {
    Read {
        bytes,
        began: MonoNs::new(1000 * n),
        at: MonoNs::new(1000 * n - 100),
        from_kernel: true,
        drained: true,
    }
}

fn feed(stream: &mut Stream, parts: &[&[u8]]) -> bool {
    feed_by(&Classifier::new(None), stream, parts)
}

fn feed_by(classifier: &Classifier, stream: &mut Stream, parts: &[&[u8]]) -> bool {
    let mut ended = false;
    for (n, part) in (1..).zip(parts) {
        assert!(!ended || part.is_empty(), "bytes after the end");
        ended = !part.is_empty() && stream.on_read(&read(n, part), classifier).ended || ended;
    }
    ended
}

/// What does not depend on how the bytes were split.
fn gist(record: &RequestRecord) -> (Outcome, usize, Option<u32>, Option<String>, Option<u32>, u64) {
    (
        record.outcome,
        record.chunks.len(),
        record.first_text_chunk,
        record.finish_reason.clone(),
        record.output_tokens_reported,
        record.body_bytes,
    )
}

/// Fed whole, at every split and byte by byte, then closed: all must agree.
#[track_caller]
fn check(response: &str, asked: &Asked, outcome: Outcome, chunks: usize) -> RequestRecord {
    let run = |parts: &[&[u8]]| {
        let mut stream = sent(asked);
        if !feed(&mut stream, parts) {
            stream.on_eof(MonoNs::new(900_000), &Classifier::new(None));
        }
        stream.into_record()
    };
    let bytes = response.as_bytes();
    let whole = run(&[bytes]);
    assert_eq!((whole.outcome, whole.chunks.len()), (outcome, chunks), "{:?}", whole.error);
    for cut in 1..bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        assert_eq!(gist(&run(&[head, tail])), gist(&whole), "split at byte {cut}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(gist(&run(&single)), gist(&whole), "byte by byte");
    whole
}

#[test]
fn a_whole_stream_is_ok() {
    let parts = [&token("a"), &token("b"), FINISH, USAGE, DONE].map(chunked).concat();
    let record = check(&format!("{HEAD}{parts}{LAST}"), &asked(), Outcome::Ok, 3);
    assert_eq!(record.first_text_chunk, Some(0));
    assert_eq!(record.finish_reason.as_deref(), Some("length"));
    assert_eq!(record.output_tokens_reported, Some(2));
    assert_eq!(record.prompt_tokens_reported, Some(9));
    assert_eq!(record.cached_tokens_reported, None);
    assert_eq!((record.index, record.user, record.turn), (3, 2, 1));
    assert_eq!(record.http_status, Some(200));
}

#[test]
fn how_a_stream_may_end() {
    let a = chunked(&token("a"));
    let [finish, done] = [FINISH, DONE].map(chunked);
    let unpromised = Asked { done_marker: false, ..asked() };
    let close = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let plain = token("a");
    for (response, asked, outcome) in [
        // Chunked: the last chunk proves the end.
        (format!("{HEAD}{a}{finish}{done}{LAST}"), asked(), Outcome::Ok),
        (format!("{HEAD}{a}{finish}{LAST}"), asked(), Outcome::Ok),
        (format!("{HEAD}{a}{finish}{LAST}"), unpromised, Outcome::Ok),
        (format!("{HEAD}{a}{LAST}"), asked(), Outcome::Cut),
        // Without the last chunk only the marker does.
        (format!("{HEAD}{a}{finish}{done}"), asked(), Outcome::Ok),
        (format!("{HEAD}{a}{finish}"), asked(), Outcome::Cut),
        (format!("{HEAD}{a}{finish}"), unpromised, Outcome::Cut),
        (format!("{HEAD}{a}"), asked(), Outcome::Cut),
        (HEAD.to_owned(), asked(), Outcome::Cut),
        // Ended by closing: that proves nothing where the marker is promised.
        (format!("{close}{plain}{FINISH}{DONE}"), asked(), Outcome::Ok),
        (format!("{close}{plain}{FINISH}"), asked(), Outcome::Cut),
        (format!("{close}{plain}{FINISH}"), unpromised, Outcome::Ok),
        (format!("{close}{plain}"), unpromised, Outcome::Cut),
        // The marker's blank line is missing.
        (format!("{close}{plain}data: [DONE]\n"), asked(), Outcome::Ok),
        ("HTTP/1.1 200 OK\r\nContent-".to_owned(), asked(), Outcome::Cut),
    ] {
        let chunks = response.matches("choices").count();
        check(&response, &asked, outcome, chunks);
    }
}

#[test]
fn what_is_no_stream() {
    let http = |status: &str, kind: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let json = "application/json";
    for (response, outcome, said) in [
        (http("500 Oops", json, "{\"error\":\"busy\"}"), Outcome::HttpError, "busy"),
        (http("503 Oops", json, ""), Outcome::HttpError, "status 503"),
        (http("307 Go", json, "elsewhere"), Outcome::HttpError, "elsewhere"),
        (http("500 Oops", "text/event-stream", "data: x"), Outcome::HttpError, "data: x"),
        (http("200 OK", json, "{\"choices\":[]}"), Outcome::Malformed, "not an event stream"),
        ("SSH-2.0-x\r\n".to_owned(), Outcome::Malformed, "not HTTP"),
        (format!("{HEAD}zz\r\n"), Outcome::Malformed, "chunk's size"),
        (format!("{HEAD}{}", chunked("data: {nonsense}\n\n")), Outcome::Malformed, "{nonsense}"),
        (
            format!("{HEAD}{}", chunked("data: {\"error\":{\"message\":\"no slot\"}}\n\n")),
            Outcome::ErrorEvent,
            "no slot",
        ),
    ] {
        // Not at every split: a refused answer may be refused before its last byte.
        let mut stream = sent(&asked());
        if !feed(&mut stream, &[response.as_bytes()]) {
            stream.on_eof(MonoNs::new(5), &Classifier::new(None));
        }
        let record = stream.into_record();
        assert_eq!(record.outcome, outcome, "{response}");
        let error = record.error.unwrap();
        assert!(error.contains(said) && error.len() <= 400, "{error}");
    }
}

#[test]
fn errors_keep_three_hundred_bytes() {
    let body = "é".repeat(1000);
    let response = format!("HTTP/1.1 400 No\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut stream = sent(&asked());
    assert!(feed(&mut stream, &[response.as_bytes()]));
    assert!(stream.leaves_connection_usable());
    assert_eq!(stream.into_record().error.unwrap().len(), 300);
}

#[test]
fn whether_the_connection_stays() {
    let whole = format!("{HEAD}{}{LAST}", chunked(DONE));
    let closing = whole.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
    for (response, want) in [
        (whole.clone(), true),
        (closing, false),
        (format!("{whole}HTTP/1.1"), false),
        (format!("{HEAD}{}{LAST}", chunked(FINISH)), true),
        (format!("{HEAD}{}{LAST}", chunked(&token("a"))), false),
    ] {
        let mut stream = sent(&asked());
        assert!(feed(&mut stream, &[response.as_bytes()]), "{response}");
        assert_eq!(stream.leaves_connection_usable(), want, "{response}");
    }
}

fn bounds(record: &RequestRecord) -> Vec<(i64, i64)> {
    record.chunks.iter().map(|chunk| (chunk.earliest.get(), chunk.at.get())).collect()
}

#[test]
fn a_token_alone_in_its_read_is_exact() {
    let [a, b] = [token("a"), token("b")].map(|token| chunked(&token));
    let mut stream = sent(&asked());
    feed(&mut stream, &[HEAD.as_bytes(), a.as_bytes(), b.as_bytes()]);
    let record = stream.into_record();
    assert_eq!(record.first_byte, Some(MonoNs::new(900)));
    assert_eq!(bounds(&record), [(1900, 1900), (2900, 2900)]);
    assert_eq!(record.user_space_stamps, 0);
}

#[test]
fn tokens_that_share_a_read_are_bounded() {
    let [a, b, c, done] = [&token("a"), &token("b"), &token("c"), DONE].map(chunked);
    let three = format!("{a}{b}{c}");
    let last = format!("{c}{done}");
    let mut stream = sent(&asked());
    feed(&mut stream, &[HEAD.as_bytes(), three.as_bytes(), last.as_bytes()]);
    // The socket was last empty when the read before began. The stamp is that of the newest
    // segment, and so the last token's own, unless another event followed.
    assert_eq!(
        bounds(&stream.into_record()),
        [(1000, 1900), (1000, 1900), (1900, 1900), (2000, 2900)]
    );
    // Before the first answer: since the request was sent.
    let mut stream = sent(&asked());
    feed(&mut stream, &[format!("{HEAD}{a}{b}").as_bytes()]);
    assert_eq!(bounds(&stream.into_record()), [(100, 900), (900, 900)]);
}

#[test]
fn a_token_with_the_start_of_another_is_bounded() {
    let [a, b] = [token("a"), token("b")].map(|token| chunked(&token));
    let (start, rest) = b.split_at(b.len() / 2);
    let mut stream = sent(&asked());
    let first = format!("{HEAD}{a}{start}");
    feed(&mut stream, &[first.as_bytes(), rest.as_bytes()]);
    // The stamp may be that of the start of `b`; `b` itself ended alone.
    assert_eq!(bounds(&stream.into_record()), [(100, 900), (1900, 1900)]);
}

/// Reads that begin at 4000, a token each but for the last, which empties the socket.
fn in_pieces(stamps: &[i64]) -> Vec<(i64, i64)> {
    let token = chunked(&token("a"));
    let classifier = Classifier::new(None);
    let mut stream = sent(&asked());
    stream.on_read(&read(1, HEAD.as_bytes()), &classifier);
    for (n, stamp) in stamps.iter().enumerate() {
        let drained = n + 1 == stamps.len();
        let read = Read { at: MonoNs::new(*stamp), drained, ..read(4, token.as_bytes()) };
        stream.on_read(&read, &classifier);
    }
    bounds(&stream.into_record())
}

#[test]
fn tokens_read_one_by_one_have_their_own_stamps_unless_they_share_one() {
    assert_eq!(in_pieces(&[2000, 3000]), [(2000, 2000), (3000, 3000)]);
    // What the kernel has merged has the stamp of the newest, and came after the one before.
    assert_eq!(in_pieces(&[2900, 2900]), [(1000, 2900), (2900, 2900)]);
    assert_eq!(
        in_pieces(&[2000, 2900, 2900, 2900, 3500]),
        [(2000, 2000), (2000, 2900), (2000, 2900), (2900, 2900), (3500, 3500)]
    );
}

#[test]
fn a_socket_that_was_found_empty_bounds_what_comes_next() {
    let (a, two) = (chunked(&token("a")), chunked(&token("b")).repeat(2));
    let classifier = Classifier::new(None);
    let mut stream = sent(&asked());
    stream
        .on_read(&Read { drained: false, ..read(2, format!("{HEAD}{a}").as_bytes()) }, &classifier);
    stream.found_empty(MonoNs::new(2500));
    stream.on_read(&read(3, two.as_bytes()), &classifier);
    assert_eq!(bounds(&stream.into_record()), [(1900, 1900), (2500, 2900), (2900, 2900)]);
}

#[test]
fn whether_more_may_be_waiting_is_told_by_the_pace() {
    let a = chunked(&token("a"));
    let mut stream = sent(&asked());
    assert!(stream.may_hold_several(MonoNs::new(200)), "nothing is known");
    feed(&mut stream, &[HEAD.as_bytes(), a.as_bytes(), a.as_bytes()]);
    // Chunks at 1900 and 2900: the next is due at 3900.
    assert!(!stream.may_hold_several(MonoNs::new(4300)));
    assert!(stream.may_hold_several(MonoNs::new(4500)));
}

#[test]
fn stamps_from_user_space_say_so() {
    let a = chunked(&token("a"));
    let mut stream = sent(&asked());
    let classifier = Classifier::new(None);
    stream.on_read(&read(1, HEAD.as_bytes()), &classifier);
    stream.on_read(&Read { from_kernel: false, ..read(2, a.as_bytes()) }, &classifier);
    assert_eq!(stream.into_record().user_space_stamps, 1);
}

#[test]
fn a_request_given_up_keeps_what_came() {
    let a = chunked(&token("a"));
    let partial = format!("{HEAD}{a}");
    let done = format!("{HEAD}{a}{}", chunked(DONE));
    let refused = "HTTP/1.1 429 Slow\r\nContent-Length: 99\r\n\r\nslow down";
    for (response, want, chunks) in [
        (partial.as_str(), Outcome::Stalled, 1),
        // Only the end of the framing is missing.
        (done.as_str(), Outcome::Ok, 1),
        (refused, Outcome::HttpError, 0),
        ("", Outcome::Stalled, 0),
    ] {
        let mut stream = sent(&asked());
        feed(&mut stream, &[response.as_bytes()]);
        stream.give_up(Outcome::Stalled, "no byte for 5 s", MonoNs::new(7777));
        assert!(!stream.leaves_connection_usable());
        let record = stream.into_record();
        assert_eq!((record.outcome, record.chunks.len()), (want, chunks));
        assert_eq!(record.end, MonoNs::new(7777));
    }
}

#[test]
fn a_lost_race_is_retried_once() {
    let mut stream = sent(&asked());
    assert!(!stream.may_retry(), "a fresh connection that closes is no race");
    stream.on_reused_connection();
    assert!(stream.may_retry());
    stream.race_lost();
    assert!(!stream.may_retry());
    let mut answered = sent(&asked());
    answered.on_reused_connection();
    feed(&mut answered, &[b"H"]);
    assert!(!answered.may_retry(), "the server had begun to answer");
}

/// An engine's own stream, of deltas or of all text so far, split anywhere.
#[test]
fn an_engines_own_stream_is_read_by_its_pointers() {
    for (cumulative, texts) in [(true, ["a", "a b", "a b"]), (false, ["a", " b", ""])] {
        let event = |text: &str, tokens: u32, finish: &str| {
            chunked(&format!(
                "data: {{\"text\":\"{text}\",\"meta_info\":{{\"finish_reason\":{finish},\
                 \"prompt_tokens\":9,\"completion_tokens\":{tokens},\"cached_tokens\":1}}}}\n\n"
            ))
        };
        let [one, two, last] = texts;
        let end = event(last, 2, "{\"type\":\"length\",\"length\":2}");
        let events = [event(one, 1, "null"), event(two, 2, "null"), end].concat();
        let done = chunked("data: [DONE]\n\n");
        let response = format!("{HEAD}{events}{done}{LAST}");
        let classifier = Classifier::new(Some(&native::tests::shape(cumulative)));
        for cut in 0..=response.len() {
            let (head, tail) = response.as_bytes().split_at(cut);
            let mut stream = sent(&asked());
            assert!(feed_by(&classifier, &mut stream, &[head, tail]), "split at byte {cut}");
            let record = stream.into_record();
            assert_eq!(record.outcome, Outcome::Ok, "split at byte {cut}");
            assert_eq!((record.chunks.len(), record.first_text_chunk), (3, Some(0)));
            assert_eq!(record.finish_reason.as_deref(), Some("length"));
            assert_eq!(record.output_tokens_reported, Some(2));
            assert_eq!(record.prompt_tokens_reported, Some(9));
            assert_eq!(record.cached_tokens_reported, Some(1));
        }
    }
}

/// Streams recorded from real engines, where this checkout has them beside it.
fn recordings() -> Vec<PathBuf> {
    let told = std::env::var_os("SWEEPD_TEST_SHARED").map(PathBuf::from);
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("shared"))
        .chain(told)
        .map(|folder| folder.join("data/engine-streams"))
        .find(|folder| folder.is_dir());
    let Some(folder) = found else {
        println!("skipped: no recorded streams beside this checkout");
        return Vec::new();
    };
    std::fs::read_dir(folder)
        .unwrap()
        .flat_map(|engine| std::fs::read_dir(engine.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            path.extension().is_some_and(|kind| kind == "sse")
                || name.starts_with("stream_completions")
                || name.starts_with("stream_chat")
                || name.starts_with("stream_generate")
        })
        .collect()
}

#[test]
fn real_streams_are_understood() {
    for path in recordings() {
        let text = std::fs::read_to_string(&path).unwrap();
        let response = if text.contains("\nHTTP/1.1 200") {
            // Recorded with the head; its line ends were turned to LF, the chunk sizes kept.
            let (_, body) = text.split_once("\n\n").unwrap();
            let events: String = body
                .lines()
                .filter(|line| line.starts_with("data:"))
                .map(|line| format!("{line}\n\n"))
                .collect();
            format!("{HEAD}{}{LAST}", chunked(&events))
        } else {
            let events: String = text
                .lines()
                .filter(|line| !line.starts_with('#'))
                .map(|line| format!("{line}\n"))
                .collect();
            format!("{HEAD}{}{LAST}", chunked(&events))
        };
        let mut stream = sent(&asked());
        let own = path.to_string_lossy().contains("generate").then(|| native::tests::shape(true));
        let classifier = Classifier::new(own.as_ref());
        assert!(feed_by(&classifier, &mut stream, &[response.as_bytes()]), "{}", path.display());
        let record = stream.into_record();
        let shown = format!("{}: {record:?}", path.display());
        assert_eq!(record.outcome, Outcome::Ok, "{shown}");
        assert!(record.chunks.len() >= 6, "{shown}");
        assert!(record.first_text_chunk.is_some_and(|first| first <= 1), "{shown}");
        assert!(record.finish_reason.is_some(), "{shown}");
        if !path.to_string_lossy().contains("nousage") {
            assert!(record.output_tokens_reported.is_some_and(|tokens| tokens >= 6), "{shown}");
            assert!(record.prompt_tokens_reported.is_some_and(|tokens| tokens > 5), "{shown}");
        }
    }
}
