//! A client that was stopped knows which of its times it does not know.

use crate::harness::{Sandbox, eventually};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Row, RowAccessor};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TOKENS: usize = 100;
const GAP: Duration = Duration::from_millis(5);
const STREAMS: usize = 4;
const PAUSE: Duration = Duration::from_millis(50);
/// The clock is read just before a send, and the packet is stamped a little after it.
const SLACK_NS: i64 = 3_000_000;

fn now_ns() -> i64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}

/// The sends of each stream, by the number that its finish reason carries.
type Truth = Arc<Mutex<BTreeMap<String, Vec<i64>>>>;

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// Streams on one connection; each token's send is noted before it.
fn stream(socket: TcpStream, truth: &Truth) {
    socket.set_nodelay(true).unwrap();
    let mut socket = BufReader::new(socket);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        socket.read_exact(&mut vec![0; length]).unwrap();
        let number = format!("length-{}", truth.lock().unwrap().len());
        truth.lock().unwrap().insert(number.clone(), Vec::new());
        let out = socket.get_mut();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        out.write_all(head.as_bytes()).unwrap();
        let mut sends = Vec::new();
        for n in 0..TOKENS {
            std::thread::sleep(GAP);
            let finish = if n + 1 == TOKENS { format!("\"{number}\"") } else { "null".to_owned() };
            let event = chunk(&format!(
                "data: {{\"choices\":[{{\"text\":\" w{n}\",\"finish_reason\":{finish}}}]}}\n\n"
            ));
            sends.push(now_ns());
            if out.write_all(event.as_bytes()).is_err() {
                return;
            }
        }
        truth.lock().unwrap().insert(number, sends);
        out.write_all([&chunk("data: [DONE]\n\n"), "0\r\n\r\n"].concat().as_bytes()).ok();
    }
}

/// The load process below this one.
fn load_process(bench: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{bench}/task/{bench}/children")).ok()?;
    children.split_ascii_whitespace().find_map(|pid| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        command.contains("__load").then(|| Pid::from_raw(pid.parse().unwrap()))
    })
}

fn list(row: &Row, column: usize) -> Vec<i64> {
    use parquet::record::ListAccessor;
    let list = row.get_list(column).unwrap();
    (0..list.len()).map(|n| list.get_long(n).unwrap()).collect()
}

/// Each record's finish reason with its chunks' bounds.
fn records(file: &std::path::Path) -> Vec<(String, Vec<i64>, Vec<i64>)> {
    let reader = SerializedFileReader::new(fs::File::open(file).unwrap()).unwrap();
    let names: Vec<String> = reader
        .metadata()
        .file_metadata()
        .schema()
        .get_fields()
        .iter()
        .map(|field| field.name().to_owned())
        .collect();
    let at = |name: &str| names.iter().position(|other| other == name).unwrap();
    let (reason, latest, earliest) =
        (at("finish_reason"), at("chunk_at_ns"), at("chunk_earliest_ns"));
    let rows = reader.get_row_iter(None).unwrap().map(Result::unwrap);
    rows.map(|row| {
        (row.get_string(reason).unwrap().clone(), list(&row, earliest), list(&row, latest))
    })
    .collect()
}

#[test]
fn the_truth_lies_within_the_bounds_of_a_client_that_was_stopped() {
    let sandbox = Sandbox::new();
    let truth = Truth::default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shared = Arc::clone(&truth);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let truth = Arc::clone(&shared);
            std::thread::spawn(move || stream(socket.unwrap(), &truth));
        }
    });
    let file = sandbox.path().join("requests.parquet");
    let mut bench = sandbox
        .command(&["bench", "--url", &url, "--model", "m", "--users", "4", "--requests", "4"])
        .args(["--prompt-tokens", "8", "--output-tokens", "100", "--tokenizer"])
        .arg(crate::harness::sim_tokenizer())
        .arg("--records")
        .arg(&file)
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually(Duration::from_secs(20), "all streams to run", || {
        (truth.lock().unwrap().len() == STREAMS).then_some(())
    });
    let load = eventually(Duration::from_secs(5), "the load process", || load_process(bench.id()));
    // In the middle of the streams; how long a pause lasts is what this test is about.
    std::thread::sleep(GAP * 30);
    let stopped = now_ns();
    kill(load, Signal::SIGSTOP).unwrap();
    std::thread::sleep(PAUSE);
    kill(load, Signal::SIGCONT).unwrap();
    let resumed = now_ns();
    assert!(bench.wait().unwrap().success());

    let records = records(&file);
    assert_eq!(records.len(), STREAMS);
    let truth = truth.lock().unwrap();
    for (reason, earliest, latest) in &records {
        let sends = &truth[reason];
        assert_eq!((latest.len(), sends.len()), (TOKENS, TOKENS));
        for n in 0..TOKENS {
            let (low, high) = (earliest[n] - SLACK_NS, latest[n] + SLACK_NS);
            assert!((low..=high).contains(&sends[n]), "token {n} of {reason}");
        }
        // Those that queued up while it was stopped are in their bounds, by the check above: a stamp
        // of their own where the kernel kept it, wider where it has merged segments.
        let during = |n: &usize| sends[*n] > stopped + SLACK_NS && sends[*n] < resumed - SLACK_NS;
        let queued: Vec<usize> = (0..TOKENS).filter(during).collect();
        assert!(queued.len() >= 4, "{queued:?}");
        let exact = (0..TOKENS).filter(|n| earliest[*n] == latest[*n]).count();
        assert!(exact >= TOKENS / 2, "{exact} of {TOKENS} are exact");
    }
}
