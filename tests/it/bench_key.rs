//! The API key of `sweepd bench` reaches the server, and nothing else: it is planted, and looked for
//! in all that is written and printed, while it runs and after.

use crate::harness::{Sandbox, walk};
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Long enough that a part of it, too, would tell.
const KEY: &str = "sk-planted-4d9f2c7a81b3e6";
/// Any part of it that must not be seen.
const PART: &str = "sk-planted";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

/// What the server saw, and where the key was found while it answered.
#[derive(Default)]
struct Seen {
    heads: Vec<String>,
    leaks: Vec<String>,
}

/// Answers the n-th request in the n-th way, each of which says the key back.
fn answer(n: usize) -> String {
    let refusal = |text: &str| {
        let length = text.len();
        format!("HTTP/1.1 401 No\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}")
    };
    let whole = format!("Incorrect API key provided: {KEY}");
    match n % 6 {
        0 => refusal(&whole),
        // What is kept of a body ends within the key.
        1 => refusal(&format!("{}{KEY}", "x".repeat(285))),
        2 => refusal(&format!("{{\"error\":{{\"message\":\"{whole}\"}}}}")),
        3 => format!("{OK}data: {{\"error\":{{\"message\":\"{whole}\"}}}}\n\n"),
        4 => format!("{OK}data: {whole}\n\n"),
        _ => format!(
            "{OK}data: {{\"choices\":[{{\"text\":\"{KEY}\",\"finish_reason\":\"{KEY}\"}}]}}\n\n\
             data: [DONE]\n\n"
        ),
    }
}

fn holds(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| memchr::memmem::find(&bytes, PART.as_bytes()).is_some())
}

/// Looks at every file of the sandbox, and at every command line of the machine.
fn look(folder: &Path, seen: &mut Seen) {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.map(|process| process.path().join("cmdline"));
    let key_file = folder.join("key");
    let all = walk(folder).into_iter().chain(lines).filter(|path| *path != key_file);
    seen.leaks.extend(all.filter(|path| holds(path)).map(|path| path.display().to_string()));
}

fn serve(folder: PathBuf) -> (u16, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let kept = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            one(stream.unwrap(), &folder, &mut kept.lock().unwrap());
        }
    });
    (port, seen)
}

fn one(stream: TcpStream, folder: &Path, seen: &mut Seen) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while stream.read_line(&mut head).unwrap_or(0) > 2 {}
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let Some(length) = length.and_then(|length| length.parse().ok()) else { return };
    stream.read_exact(&mut vec![0; length]).unwrap();
    look(folder, seen);
    let text = answer(seen.heads.len());
    seen.heads.push(head);
    stream.get_mut().write_all(text.as_bytes()).unwrap();
}

/// Runs the bench; what it printed, and what its server saw.
fn bench(sandbox: &Sandbox, more: &[&str]) -> (String, Value, Seen) {
    let (port, seen) = serve(sandbox.path().to_owned());
    let temporary = sandbox.path().join("tmp");
    fs::create_dir_all(&temporary).unwrap();
    let file = |name| sandbox.path().join(name).display().to_string();
    let (result, records) = (file("result.json"), file("records.parquet"));
    let url = format!("http://127.0.0.1:{port}/v1");
    let mut all = vec!["bench", "--url", &url, "--model", "m", "--users", "1"];
    all.extend(["--requests", "12", "--prompt-tokens", "4", "--output-tokens", "1"]);
    all.extend(["--save-result", &result, "--save-detailed", "--records", &records]);
    all.extend(more);
    let output = sandbox
        .command(&all)
        .env("SWEEPD_LOG", "trace")
        .env("TMPDIR", &temporary)
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    let text = fs::read_to_string(&result).unwrap_or_else(|error| panic!("{error}: {said}"));
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    look(sandbox.path(), &mut seen);
    (said, serde_json::from_str(&text).unwrap(), seen)
}

#[track_caller]
fn check(sandbox: &Sandbox, (said, result, seen): &(String, Value, Seen), from: &str) {
    assert!(seen.heads.len() >= 12, "{said}");
    let sent = format!("\r\nAuthorization: Bearer {KEY}\r\n");
    assert!(seen.heads.iter().all(|head| head.contains(&sent)), "{:?}", seen.heads);
    assert_eq!(seen.leaks, [] as [String; 0]);
    assert!(!said.contains(PART), "{said}");
    assert!(said.contains("[redacted]"), "an answer said it back: {said}");
    assert_eq!(result["sweepd"]["api_key_from"], from);
    assert_eq!(result["sweepd"]["sent"], 12, "{said}");
    // Parquet's pages are compressed.
    let records = fs::File::open(sandbox.path().join("records.parquet")).unwrap();
    let records = SerializedFileReader::new(records).unwrap();
    for row in records.get_row_iter(None).unwrap() {
        let row = row.unwrap().to_string();
        assert!(!row.contains(PART), "{row}");
    }
}

#[test]
fn a_planted_key_reaches_the_server_and_nothing_else() {
    let sandbox = Sandbox::new();
    // The name says nothing of a secret, so nothing is hidden because of it.
    sandbox.set("MINE", KEY);
    check(&sandbox, &bench(&sandbox, &["--api-key-env", "MINE"]), "$MINE");

    let sandbox = Sandbox::new();
    sandbox.set("OPENAI_API_KEY", KEY);
    check(&sandbox, &bench(&sandbox, &[]), "$OPENAI_API_KEY");

    let sandbox = Sandbox::new();
    let file = sandbox.write("key", &format!("{KEY}\n"));
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let ended = bench(&sandbox, &["--api-key-file", file.to_str().unwrap()]);
    check(&sandbox, &ended, file.to_str().unwrap());
    assert!(ended.0.contains("mode 644"), "{}", ended.0);
}

#[test]
fn without_a_key_none_is_sent() {
    let sandbox = Sandbox::new();
    sandbox.set("OPENAI_API_KEY", "");
    let (_, result, seen) = bench(&sandbox, &[]);
    assert!(seen.heads.iter().all(|head| !head.contains("Authorization")), "{:?}", seen.heads);
    assert_eq!(result["sweepd"]["api_key_from"], Value::Null);
}

#[test]
fn a_key_in_the_place_of_its_name_is_not_said_back() {
    let sandbox = Sandbox::new();
    for given in ["sk-given.for-a-name", "sk_given_for_a_name"] {
        let mut all = vec!["bench", "--url", "http://127.0.0.1:9", "--model", "m", "--users", "1"];
        all.extend(["--requests", "1", "--prompt-tokens", "4", "--output-tokens", "1"]);
        let output = sandbox.command(&all).args(["--api-key-env", given]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("--api-key-env") && !said.contains("given"), "{said}");
    }
}
