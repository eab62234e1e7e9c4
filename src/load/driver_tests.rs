//! The driver against small servers that follow a script.

use super::*;
use crate::load::loops::LoadPhase;
use crate::load::scripted::{
    HEAD, MS, Peer, answer, chunked, good, plan_for, run, run_stopped, serve, tail, token,
};
use crate::run::record::RequestOutcome as Outcome;
use crate::workload::prompts::tests as tokenizers;
use std::io::{BufRead, Read};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::mpsc;

#[test]
fn good_streams_leave_good_records() {
    let bodies = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&bodies);
    let (port, accepted) = serve(move |peer| {
        while let Some(body) = peer.request() {
            seen.lock().unwrap().push(body);
            peer.say(&answer());
        }
    });
    let phase = run(port, |plan| {
        plan.users = 3;
        plan.min_requests = 30;
    });
    let count = phase.records.len();
    assert!((30..33).contains(&count), "{count} records");
    phase.check(PhaseEnd::Finished, &[(Outcome::Ok, count)]);
    assert_eq!(accepted.load(Ordering::SeqCst), 3, "connections are kept");
    assert!(phase.facts.full_at.is_some());
    assert!(phase.facts.client.reads > 0);
    for record in &phase.records {
        assert_eq!(record.chunks.len(), 4);
        assert_eq!(record.first_text_chunk, Some(0));
        assert_eq!(record.output_tokens_reported, Some(3));
        assert_eq!((record.prompt_tokens_asked, record.prompt_tokens_expected), (8, Some(9)));
        assert_eq!(record.reused_connection, record.turn > 0);
        assert_eq!(record.connect_ns.is_some(), record.turn == 0);
        let sent = record.sent.unwrap();
        assert!(record.scheduled <= sent && sent <= record.chunks[0].at);
        assert!(record.chunks.iter().all(|chunk| chunk.earliest <= chunk.at));
        assert!(record.chunks.iter().all(|chunk| chunk.at <= record.end));
    }
    let bodies = bodies.lock().unwrap();
    let prompts: std::collections::BTreeSet<&str> =
        bodies.iter().map(|body| body["prompt"].as_str().unwrap()).collect();
    assert_eq!(prompts.len(), count, "no prompt is sent twice");
    assert!(prompts.iter().all(|prompt| prompt.split(' ').count() == 8));
    assert!(bodies.iter().all(|body| body["model"] == "m" && body["stream"] == true));
}

#[test]
fn a_stream_may_come_byte_by_byte() {
    let (port, _) = serve(|peer| {
        peer.request();
        for byte in answer().chars() {
            peer.say(&byte.to_string());
        }
        peer.wait_for_close();
    });
    let phase = run(port, |_| {});
    phase.check(PhaseEnd::Finished, &[(Outcome::Ok, 1)]);
    assert_eq!(phase.records[0].chunks.len(), 4);
}

#[test]
fn arrivals_are_stamped_when_they_reach_the_machine() {
    let times = Arc::new(std::sync::Mutex::new(Vec::new()));
    let written = Arc::clone(&times);
    let (port, _) = serve(move |peer| {
        peer.request();
        peer.say(HEAD);
        for n in 0..3 {
            let before = now().unwrap();
            peer.say(&token(n));
            written.lock().unwrap().push((before, now().unwrap()));
            // The next token is not sent until this one may have been read.
            let mut byte = [0];
            peer.stream.get_ref().set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            assert!(peer.stream.read(&mut byte).is_err(), "the client says nothing");
        }
        peer.say(&tail());
    });
    let phase = run(port, |_| {});
    phase.check(PhaseEnd::Finished, &[(Outcome::Ok, 1)]);
    let record = &phase.records[0];
    assert!(phase.facts.kernel_stamps);
    assert_eq!(record.user_space_stamps, 0);
    for (chunk, (before, after)) in record.chunks.iter().zip(times.lock().unwrap().iter()) {
        // Within the write, but for the noise of reading two clocks.
        assert!(chunk.at.since_ns(*before) > -20_000, "{chunk:?} {before:?}");
        assert!(after.since_ns(chunk.at) > -1_000_000, "{chunk:?} {after:?}");
    }
}

#[test]
fn every_way_to_fail_has_its_class() {
    let oops = "HTTP/1.1 500 Oops\r\nContent-Length: 13\r\n\r\nout of slots.";
    let error = chunked("data: {\"error\":{\"message\":\"no memory\"}}\n\n");
    for (said, outcome, words) in [
        (format!("{HEAD}{}", token(0)), Outcome::Cut, "closed in mid-answer"),
        (String::new(), Outcome::Cut, "closed in mid-answer"),
        (oops.to_owned(), Outcome::HttpError, "out of slots."),
        ("what?\r\n\r\n".to_owned(), Outcome::Malformed, "not HTTP"),
        (format!("{HEAD}{error}"), Outcome::ErrorEvent, "no memory"),
        ("HTTP/1.1 302 Go\r\nContent-Length: 0\r\n\r\n".to_owned(), Outcome::HttpError, "302"),
        (format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(40_000)), Outcome::Malformed, "longer"),
        (format!("{HEAD}{}", chunked("data: {\"choices\":[}\n\n")), Outcome::Malformed, "JSON"),
        (format!("{HEAD}zz\r\n"), Outcome::Malformed, "chunk's size"),
    ] {
        let (port, _) = serve(move |peer| {
            peer.request();
            peer.say(&said);
        });
        let phase = run(port, |_| {});
        phase.check(PhaseEnd::Finished, &[(outcome, 1)]);
        let error = phase.records[0].error.clone().unwrap();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_reset_is_told_from_a_close() {
    let (port, _) = serve(|peer| {
        // Closing with the request unread makes the kernel send a reset.
        let mut byte = [0];
        peer.stream.get_mut().read_exact(&mut byte).unwrap();
    });
    let phase = run(port, |plan| plan.prompts.prompt_tokens = 4000);
    phase.check(PhaseEnd::Finished, &[(Outcome::Reset, 1)]);
}

#[test]
fn silence_of_everyone_is_a_hang() {
    let (port, _) = serve(Peer::wait_for_close);
    let phase = run(port, |plan| {
        plan.users = 4;
        plan.stall_ns = 100 * MS;
    });
    phase.check(PhaseEnd::Hang, &[(Outcome::Stalled, 4)]);
    assert!(phase.records.iter().all(|record| record.sent.is_some()));
}

#[test]
fn a_stream_that_stops_stalls_alone() {
    let (port, _) = serve(|peer| {
        if peer.number == 0 {
            peer.request();
            peer.say(&format!("{HEAD}{}", token(0)));
            peer.wait_for_close();
        }
        good(peer);
    });
    let phase = run(port, |plan| {
        plan.users = 2;
        plan.stall_ns = 150 * MS;
        plan.min_duration_ns = 300 * MS;
        plan.pattern = LoadPattern::Closed { think_time_ns: 5 * MS, ramp_up_ns: 0 };
    });
    assert_eq!(phase.facts.end, PhaseEnd::Finished);
    let outcomes = phase.outcomes();
    assert_eq!(outcomes.get(&Outcome::Stalled), Some(&1), "{outcomes:?}");
    assert_eq!(outcomes.len(), 2, "all others are ok: {outcomes:?}");
    let stalled = phase.records.iter().find(|record| record.outcome == Outcome::Stalled).unwrap();
    assert_eq!(stalled.chunks.len(), 1, "what came is kept");
}

#[test]
fn a_stream_without_end_times_out() {
    let (port, _) = serve(|peer| {
        peer.request();
        peer.say(HEAD);
        peer.stream.get_ref().set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        for n in 0.. {
            peer.say(&token(n));
            // Until the client closes; its silence in between is the pace.
            if peer.stream.fill_buf().is_ok() {
                return;
            }
        }
    });
    let phase = run(port, |plan| plan.request_deadline_ns = 100 * MS);
    phase.check(PhaseEnd::Finished, &[(Outcome::TimedOut, 1)]);
    assert!(phase.records[0].chunks.len() > 1);
}

#[test]
fn nobody_serving_ends_the_phase() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let phase = run(port, |plan| plan.users = 2);
    let count = phase.records.len();
    assert!((10..40).contains(&count), "{count} attempts: users back off");
    phase.check(PhaseEnd::EngineGone, &[(Outcome::Refused, count)]);
    assert!(phase.records.iter().all(|record| record.sent.is_none()));
}

#[test]
fn a_lost_race_on_a_kept_connection_is_tried_again() {
    let (port, accepted) = serve(|peer| {
        peer.request();
        peer.say(&answer());
        // The second request meets a server that is just closing.
        peer.request();
    });
    let phase = run(port, |plan| plan.min_requests = 3);
    phase.check(PhaseEnd::Finished, &[(Outcome::Ok, 3)]);
    let races: Vec<bool> = phase.records.iter().map(|record| record.reuse_race).collect();
    assert_eq!(races, [false, true, true]);
    assert!(phase.records.iter().all(|record| !record.reused_connection));
    assert_eq!(accepted.load(Ordering::SeqCst), 3);
}

#[test]
fn a_connection_is_not_reused_when_it_may_not_be() {
    let closing = |peer: &mut Peer| {
        peer.request();
        peer.say(&answer().replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1));
        peer.wait_for_close();
    };
    let (port, accepted) = serve(closing);
    let phase = run(port, |plan| plan.min_requests = 4);
    phase.check(PhaseEnd::Finished, &[(Outcome::Ok, 4)]);
    assert_eq!(accepted.load(Ordering::SeqCst), 4, "the server asked for it");

    for (keep_alive_ns, why) in [(900 * MS, "within a second of its limit"), (0, "never")] {
        let (port, accepted) = serve(good);
        let phase = run(port, |plan| {
            plan.min_requests = 4;
            plan.keep_alive_ns = keep_alive_ns;
        });
        phase.check(PhaseEnd::Finished, &[(Outcome::Ok, 4)]);
        assert_eq!(accepted.load(Ordering::SeqCst), 4, "{why}");
    }
}

#[test]
fn a_stop_cancels_what_is_in_flight() {
    let phase = run_stopped(3, |_| {});
    phase.check(PhaseEnd::Stopped, &[(Outcome::Cancelled, 3)]);
}

#[test]
fn the_phase_deadline_cancels_what_is_in_flight() {
    let (port, _) = serve(|peer| {
        if peer.number > 0 {
            peer.wait_for_close();
        }
        good(peer);
    });
    let phase = run(port, |plan| {
        plan.users = 2;
        plan.min_requests = 1_000_000;
        plan.pattern = LoadPattern::Closed { think_time_ns: MS, ramp_up_ns: 0 };
        plan.phase_deadline_ns = 150 * MS;
    });
    assert_eq!(phase.facts.end, PhaseEnd::Deadline);
    let outcomes = phase.outcomes();
    assert!(outcomes[&Outcome::Ok] > 1, "{outcomes:?}");
    assert!((1..=2).contains(&outcomes[&Outcome::Cancelled]), "{outcomes:?}");
    assert_eq!(outcomes.len(), 2, "{outcomes:?}");
}

#[test]
fn a_user_thinks_between_requests() {
    let (port, _) = serve(good);
    let phase = run(port, |plan| {
        plan.min_requests = 3;
        plan.pattern = LoadPattern::Closed { think_time_ns: 20 * MS, ramp_up_ns: 0 };
    });
    phase.check(PhaseEnd::Finished, &[(Outcome::Ok, 3)]);
    for pair in phase.records.windows(2) {
        assert_eq!(pair[1].scheduled.since_ns(pair[0].end), 20_000_000);
        assert!(pair[1].sent.unwrap() >= pair[1].scheduled);
    }
}

#[test]
fn more_requests_than_the_pool_are_made_on_the_way() {
    let (port, _) = serve(good);
    let phase = run(port, |plan| {
        plan.users = 2;
        plan.min_requests = 0;
        plan.min_duration_ns = 100 * MS;
    });
    let count = phase.records.len();
    assert!(count > 4, "{count} requests with one turn a user made ahead");
    phase.check(PhaseEnd::Finished, &[(Outcome::Ok, count)]);
    for user in 0..2 {
        let turns: Vec<u32> =
            phase.records.iter().filter(|r| r.user == user).map(|r| r.turn).collect();
        assert_eq!(turns, (0..u32::try_from(turns.len()).unwrap()).collect::<Vec<_>>());
    }
}

#[test]
fn what_cannot_be_driven_is_said() {
    let prepare = |change: fn(&mut LoadPlan)| {
        let (folder, tokenizer) = tokenizers::file(&tokenizers::word_level());
        let mut plan = plan_for(1);
        plan.prompts.tokenizer = Some(tokenizer);
        plan.records = folder.path().join("requests.frames");
        change(&mut plan);
        LoadPhase::prepare(plan, Stopper::new().unwrap(), mpsc::channel().0)
            .err()
            .unwrap()
            .to_string()
    };
    let host = prepare(|plan| plan.host = "localhost".to_owned());
    assert!(host.contains("localhost is not an IPv4 address"), "{host}");
    let records = prepare(|plan| plan.records = PathBuf::from("/nowhere/x"));
    assert!(records.contains("/nowhere/x"), "{records}");
    let tokenizer = prepare(|plan| plan.prompts.tokenizer = Some(PathBuf::from("/nowhere/t.json")));
    assert!(tokenizer.contains("/nowhere/t.json"), "{tokenizer}");
}
