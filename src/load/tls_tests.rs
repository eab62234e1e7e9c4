//! The TLS layer against a server in memory, its wire cut anywhere.

use super::*;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};

const PLAIN: usize = 64 * 1024;

/// A server with a certificate of its own, and a client that trusts nobody else.
fn pair() -> (ServerConnection, Session) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["engine.test".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let setup = Setup::new(&plan("engine.test", Some(&file))).unwrap();
    (ServerConnection::new(Arc::new(config)).unwrap(), Session::new(&setup).unwrap())
}

fn plan(name: &str, ca_file: Option<&Path>) -> TlsPlan {
    TlsPlan { name: name.to_owned(), ca_file: ca_file.map(Path::to_owned), insecure: false }
}

/// Hands the client's words to the server, and the server's to the caller.
fn answer(server: &mut ServerConnection, client: &mut Session) -> Vec<u8> {
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    client.write_to(&mut to_server).unwrap();
    let mut rest = to_server.as_slice();
    while !rest.is_empty() {
        server.read_tls(&mut rest).unwrap();
        server.process_new_packets().unwrap();
    }
    while server.wants_write() {
        server.write_tls(&mut to_client).unwrap();
    }
    to_client
}

fn shaken() -> (ServerConnection, Session) {
    let (mut server, mut client) = pair();
    let mut plain = vec![0; PLAIN];
    while client.is_handshaking() {
        let wire = answer(&mut server, &mut client);
        assert_eq!(client.take(&wire, &mut plain), 0, "nothing was asked");
    }
    let tickets = answer(&mut server, &mut client);
    assert_eq!(client.take(&tickets, &mut plain), 0);
    (server, client)
}

/// What the server says, a record each, and its goodbye.
fn said(server: &mut ServerConnection, words: &[&[u8]]) -> Vec<u8> {
    let mut wire = Vec::new();
    for word in words {
        server.writer().write_all(word).unwrap();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
    }
    server.send_close_notify();
    while server.wants_write() {
        server.write_tls(&mut wire).unwrap();
    }
    wire
}

#[test]
fn plaintext_is_the_same_wherever_the_wire_is_cut() {
    let words: [&[u8]; 3] = [b"data: a\n\n", b"data: b\n", b"\ndata: [DONE]\n\n"];
    let length = said(&mut shaken().0, &words).len();
    for cut in 1..length {
        let (mut server, mut client) = shaken();
        let wire = said(&mut server, &words);
        let mut plain = vec![0; PLAIN];
        let first = client.take(&wire[..cut], &mut plain);
        let second = client.take(&wire[cut..], &mut plain[first..]);
        assert_eq!(plain[..first + second], *words.concat(), "cut at byte {cut}");
        assert_eq!(client.over(), Some(Over::Closed));
    }
}

#[test]
fn a_record_brings_its_plaintext_when_it_is_whole() {
    let (mut server, mut client) = shaken();
    let wire = said(&mut server, &[b"data: a\n\n", b"data: b\n\n"]);
    let pieces = client.pieces(&wire);
    assert_eq!(pieces.len(), 2, "two records, and the goodbye as it comes");
    let mut plain = vec![0; PLAIN];
    assert_eq!(client.take(&wire[..pieces[0] - 1], &mut plain), 0);
    assert_eq!(client.pieces(&wire[pieces[0] - 1..])[0], 1, "it knows what has come");
    assert_eq!(client.take(&wire[pieces[0] - 1..pieces[0]], &mut plain), 9);
    assert_eq!(client.take(&wire[pieces[0]..pieces[0] + pieces[1]], &mut plain), 9);
    assert_eq!(client.over(), None);
}

#[test]
fn what_came_before_a_broken_record_is_kept() {
    let (mut server, mut client) = shaken();
    let mut wire = said(&mut server, &[b"good", b"evil"]);
    let at = client.pieces(&wire)[0];
    wire[at + HEADER] ^= 1;
    let mut plain = vec![0; PLAIN];
    assert_eq!(client.take(&wire, &mut plain), 4);
    assert_eq!(plain[..4], *b"good");
    assert!(matches!(client.over(), Some(Over::Failed(Error::DecryptError))));
}

#[test]
fn large_answers_and_requests_pass_in_parts() {
    let (mut server, mut client) = shaken();
    let large = vec![7; 60_000];
    let mut wire = Vec::new();
    server.writer().write_all(&large).unwrap();
    while server.wants_write() {
        server.write_tls(&mut wire).unwrap();
    }
    let mut plain = vec![0; PLAIN];
    assert_eq!(client.take(&wire, &mut plain), large.len());
    assert_eq!(plain[..large.len()], large);
    let large = vec![9; 300_000];
    let mut rest = large.as_slice();
    let mut parts = 0;
    while !rest.is_empty() {
        rest = &rest[client.put(rest)..];
        let mut wire = Vec::new();
        client.write_to(&mut wire).unwrap();
        assert!(wire.len() > 1000);
        parts += 1;
    }
    assert!(parts > 1, "what waits is bounded");
}

#[test]
fn what_cannot_be_set_up_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "no certificate\n").unwrap();
    let garbage = dir.path().join("garbage.pem");
    let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(&garbage, text).unwrap();
    let none = dir.path().join("none.pem");
    for (name, file, why) in [
        ("a b", None, "no name that a certificate can be for"),
        ("ok.test", Some(&none), "none.pem"),
        ("ok.test", Some(&empty), "no certificate in PEM"),
        ("ok.test", Some(&garbage), "garbage.pem"),
    ] {
        let error = Setup::new(&plan(name, file.map(PathBuf::as_path))).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    for name in ["127.0.0.1", "engine.test"] {
        let insecure = TlsPlan { insecure: true, ..plan(name, None) };
        assert!(!Setup::new(&insecure).unwrap().facts().verified);
    }
}
