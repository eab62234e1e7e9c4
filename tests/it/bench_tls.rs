//! `sweepd bench` over https, against Python's own TLS with certificates made here.

use crate::harness::{Sandbox, eventually, repository};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use serde_json::Value;
use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// A CA whose file is `NAME.pem`.
fn authority(sandbox: &Sandbox, name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    sandbox.write(&format!("{name}.pem"), &ca.pem());
    ca
}

/// A server with a certificate for these names, by the CA of `ca.pem`.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(sandbox: &Sandbox, how: &str, names: &[&str], expired: bool) -> Self {
        let ca = authority(sandbox, "ca");
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).unwrap();
        if expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        let certificate = sandbox.write("server.pem", &certificate.pem());
        let key = sandbox.write("server.key", &key.serialize_pem());
        let log = fs::File::create(sandbox.path().join("server.log")).unwrap();
        let child = Command::new("python3")
            .arg(repository().join("tests/python/tls_server.py"))
            .args([certificate, key])
            .arg(how)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let port = eventually(Duration::from_secs(30), "the server's port", || {
            said(sandbox).first().map(|line| line["port"].as_u64().unwrap())
        });
        Self { child, port: u16::try_from(port).unwrap() }
    }

    fn good(sandbox: &Sandbox, how: &str) -> Self {
        Self::start(sandbox, how, &["localhost", "127.0.0.1"], false)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What the server has said so far.
fn said(sandbox: &Sandbox) -> Vec<Value> {
    let text = fs::read_to_string(sandbox.path().join("server.log")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Six requests of two users and one before them.
fn bench(sandbox: &Sandbox, url: &str, more: &[&str]) -> (Output, Value) {
    let file = |name| sandbox.path().join(name).display().to_string();
    let (result, records) = (file("result.json"), file("records.parquet"));
    fs::remove_file(&result).ok();
    let mut all = vec!["bench", "--url", url, "--model", "m", "--users", "2", "--requests", "6"];
    all.extend(["--prompt-tokens", "4", "--output-tokens", "3", "--save-result", &result]);
    all.extend(["--records", &records]);
    all.extend(more);
    let output = sandbox.command(&all).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = fs::read_to_string(&result).unwrap_or_else(|error| panic!("{error}: {said}"));
    (output, serde_json::from_str(&text).unwrap())
}

fn with_ca(sandbox: &Sandbox, server: &Server, more: &[&str]) -> (Output, Value) {
    let ca = sandbox.path().join("ca.pem").display().to_string();
    let url = format!("https://localhost:{}", server.port);
    bench(sandbox, &url, &[&["--ca-file", ca.as_str()], more].concat())
}

fn rows(sandbox: &Sandbox) -> Vec<Value> {
    let file = fs::File::open(sandbox.path().join("records.parquet")).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| {
        let row = row.unwrap();
        row.get_column_iter().map(|(name, field)| (name.clone(), json(field))).collect()
    })
    .collect()
}

fn json(field: &Field) -> Value {
    match field {
        Field::Bool(flag) => (*flag).into(),
        Field::Long(number) => (*number).into(),
        Field::ListInternal(list) => list.elements().iter().map(json).collect(),
        Field::Null => Value::Null,
        other => other.to_string().into(),
    }
}

#[test]
fn whole_streams_come_through_however_they_lie_in_records() {
    for how in [
        "record-per-event",
        "all-in-one-record",
        "events-over-records",
        "a-byte-a-record",
        "tls-1.2",
    ] {
        let sandbox = Sandbox::new();
        let server = Server::good(&sandbox, how);
        let (output, result) = with_ca(&sandbox, &server, &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            (&result["completed"], &result["failed"]),
            (&6.into(), &0.into()),
            "{how}: {text}"
        );
        assert_eq!(result["total_output_tokens"], 18, "{how}");
        let tls = &result["sweepd"]["tls"];
        let version = if how == "tls-1.2" { "TLS 1.2" } else { "TLS 1.3" };
        assert_eq!(tls["verified"], true, "{tls:#}");
        assert!(tls["protocol"].as_str().unwrap().starts_with(version), "{tls:#}");
        assert_eq!(tls["handshake_ms"]["count"], 2, "a connection a user: {tls:#}");
        assert!(text.contains("TLS handshakes: 2,") && text.contains(version), "{text}");
        let shakes = said(&sandbox);
        assert_eq!(shakes.len(), 1 + 3, "the port; one to learn, one a user: {shakes:?}");
        for shake in &shakes[1..] {
            let got = (&shake["alpn"], &shake["sni"]);
            assert_eq!(got, (&"http/1.1".into(), &"localhost".into()), "{shake}");
        }
        let rows = rows(&sandbox);
        for row in &rows {
            assert_eq!(row["tls"], true);
            assert_eq!(row["tls_ns"].is_i64(), row["reused_connection"] == false, "{row}");
            assert_eq!(row["connect_ns"].is_i64(), row["tls_ns"].is_i64(), "{row}");
            assert_eq!(row["chunk_at_ns"].as_array().unwrap().len(), 4, "{row}");
            assert_eq!(row["user_space_stamps"], 0, "the kernel's stamps are kept");
            let at = |field: &str| row[field].as_i64().unwrap();
            let linking =
                row["tls_ns"].as_i64().unwrap_or(0) + row["connect_ns"].as_i64().unwrap_or(0);
            assert!(at("sent_ns") >= at("scheduled_ns") + linking, "{row}");
            assert!(at("first_byte_ns") >= at("sent_ns"), "{row}");
        }
        if how == "all-in-one-record" {
            let shared = |row: &Value| {
                row["chunk_at_ns"].as_array().unwrap().windows(2).all(|pair| pair[0] == pair[1])
            };
            assert!(rows.iter().all(shared), "one record has one time: {rows:#?}");
        }
    }
}

#[test]
fn who_is_trusted_is_the_machine_or_the_file_or_everybody_when_asked() {
    let sandbox = Sandbox::new();
    let server = Server::good(&sandbox, "record-per-event");
    authority(&sandbox, "other");
    let url = format!("https://localhost:{}", server.port);
    let path = |name: &str| sandbox.path().join(name).display().to_string();
    // As the machine's own, which the variable stands for.
    sandbox.set("SSL_CERT_FILE", path("ca.pem"));
    let (_, result) = bench(&sandbox, &url, &[]);
    assert_eq!((&result["completed"], &result["failed"]), (&6.into(), &0.into()));
    // By address, too.
    let (_, result) = bench(&sandbox, &format!("https://127.0.0.1:{}", server.port), &[]);
    assert_eq!(result["completed"], 6);
    // A file stands for all others.
    let (output, result) = bench(&sandbox, &url, &["--ca-file", &path("other.pem")]);
    assert_eq!(result["sweepd"]["failed_by_class"]["tls_failed"], result["failed"]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("unknown CA"));
    sandbox.set("SSL_CERT_FILE", path("other.pem"));
    let (_, result) = bench(&sandbox, &url, &[]);
    assert_eq!(result["completed"], 0);
    let (output, result) = bench(&sandbox, &url, &["--insecure"]);
    assert_eq!((&result["completed"], &result["failed"]), (&6.into(), &0.into()));
    assert_eq!(result["sweepd"]["tls"]["verified"], false);
    for text in [output.stdout, output.stderr] {
        assert!(String::from_utf8(text).unwrap().contains("not verified (--insecure)"));
    }
}

#[test]
fn every_way_to_fail_under_tls_has_its_class_and_words() {
    let here = ["localhost"];
    for (how, names, expired, class, words) in [
        ("record-per-event", ["elsewhere.test"], false, "tls_failed", "name mismatch"),
        ("record-per-event", here, true, "tls_failed", "expired certificate"),
        ("close", here, false, "tls_failed", "closed the connection"),
        ("no-tls", here, false, "tls_failed", "is no TLS"),
        ("silence", here, false, "tls_failed", "not through in time"),
        ("cut", here, false, "cut", "without TLS's close_notify"),
    ] {
        let sandbox = Sandbox::new();
        let server = Server::start(&sandbox, how, &names, expired);
        let (output, result) = with_ca(&sandbox, &server, &["--stall-deadline", "1s"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(result["completed"], 0, "{how}: {text}");
        assert_eq!(result["sweepd"]["failed_by_class"][class], result["failed"], "{how}: {text}");
        assert!(text.contains(words), "{how}: {text}");
        assert_eq!(output.status.code(), Some(1), "{how}: {text}");
        if class == "tls_failed" {
            assert!(rows(&sandbox).iter().all(|row| row["sent_ns"].is_null()), "nothing was sent");
        }
    }
}

/// Where only the end of the connection ends an answer, only TLS tells an end from a cut.
#[test]
fn an_answer_that_ends_with_its_connection_needs_the_goodbye() {
    for (how, completed) in [("with-goodbye", 6), ("without-goodbye", 0)] {
        let sandbox = Sandbox::new();
        let file = fs::read_to_string(repository().join("engines/sim.toml")).unwrap();
        let file = file.replace("done_marker = true", "done_marker = false");
        let folder = sandbox
            .write("engines/markless.toml", &file.replace("name = \"sim\"", "name = \"markless\""));
        let folder = folder.parent().unwrap().display().to_string();
        let server = Server::good(&sandbox, how);
        let more = ["--engine", "markless", "--engines", folder.as_str()];
        let (output, result) = with_ca(&sandbox, &server, &more);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(result["completed"], completed, "{how}: {text}");
        let failed = if completed == 0 { result["failed"].clone() } else { Value::Null };
        assert_eq!(result["sweepd"]["failed_by_class"]["cut"], failed, "{how}: {text}");
    }
}

#[test]
fn a_connection_that_was_closed_in_order_is_made_again() {
    let sandbox = Sandbox::new();
    let server = Server::good(&sandbox, "one-answer");
    let (output, result) = with_ca(&sandbox, &server, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((&result["completed"], &result["failed"]), (&6.into(), &0.into()), "{text}");
    assert_eq!(said(&sandbox).len(), 1 + 7, "one for each request");

    let sandbox = Sandbox::new();
    let server = Server::good(&sandbox, "record-per-event");
    let (_, result) = with_ca(&sandbox, &server, &["--connection-per-request"]);
    assert_eq!((&result["completed"], &result["failed"]), (&6.into(), &0.into()));
    assert_eq!(result["sweepd"]["connections"], "per_request");
    assert_eq!(result["sweepd"]["tls"]["handshake_ms"]["count"], 6);
}

#[test]
fn what_is_wrong_with_tls_is_said_before_anything_is_sent() {
    let sandbox = Sandbox::new();
    let none = sandbox.path().join("none.pem").display().to_string();
    let empty = sandbox.write("empty.pem", "").display().to_string();
    for (url, more, why) in [
        ("http://127.0.0.1:9", vec!["--insecure"], "the URL is http"),
        ("http://127.0.0.1:9", vec!["--ca-file", &empty], "the URL is http"),
        ("https://127.0.0.1:9", vec!["--ca-file", &none], "none.pem"),
        ("https://127.0.0.1:9", vec!["--ca-file", &empty], "no certificate in PEM"),
        ("https://127.0.0.1:9", vec!["--ca-file", &empty, "--insecure"], "cannot be used with"),
    ] {
        let mut all = vec!["bench", "--url", url, "--model", "m", "--users", "1"];
        all.extend(["--requests", "1", "--prompt-tokens", "4", "--output-tokens", "1"]);
        all.extend(more);
        let output = sandbox.command(&all).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    }
}
