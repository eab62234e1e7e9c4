//! TLS as a layer of bytes between a socket and its reader: rustls, fed by hand.
//!
//! Bytes of the wire go in, plaintext and bytes for the wire come out; it opens nothing and reads no
//! clock. Every handshake is a full one, so that handshakes compare; only HTTP/1.1 is offered.
//!
//! Invariant: plaintext is handed out by the read that completed its record, so that read's stamp is
//! its time; and an end without `close_notify` is never taken for the peer's end of the stream.

use super::peer::TlsPlan;
use crate::run::phase::TlsFacts;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct,
    Error, RootCertStore, SignatureScheme,
};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why TLS could not be set up. Each message completes "cannot set up TLS: …".
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("{0:?} is no name that a certificate can be for")]
    Name(String),
    #[error("cannot read the certificates of {}: {why}", .path.display())]
    CaFile { path: PathBuf, why: String },
    #[error("{} holds no certificate in PEM", .0.display())]
    NoCa(PathBuf),
    #[error(
        "this machine has no trusted certificates{0}: install the package ca-certificates, or name a \
         file with --ca-file"
    )]
    NoRoots(String),
    #[error("{0}")]
    Rustls(#[from] Error),
}

/// What all connections of a phase share.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    verified: bool,
}

impl Setup {
    pub(crate) fn new(plan: &TlsPlan) -> Result<Self, SetupError> {
        let name = ServerName::try_from(plan.name.clone())
            .map_err(|_| SetupError::Name(plan.name.clone()))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = if plan.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        } else {
            builder.with_root_certificates(match &plan.ca_file {
                Some(file) => roots_of(file)?,
                None => roots_of_the_machine()?,
            })
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), name, verified: !plan.insecure })
    }

    pub(crate) const fn facts(&self) -> TlsFacts {
        TlsFacts { verified: self.verified, protocol: None }
    }
}

fn roots_of(file: &Path) -> Result<RootCertStore, SetupError> {
    let failed = |why: String| SetupError::CaFile { path: file.to_owned(), why };
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(file).map_err(|error| failed(error.to_string()))?;
    for certificate in found {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() { Err(SetupError::NoCa(file.to_owned())) } else { Ok(roots) }
}

fn roots_of_the_machine() -> Result<RootCertStore, SetupError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        return Err(SetupError::NoRoots(why));
    }
    Ok(roots)
}

/// One connection's TLS.
#[derive(Debug)]
pub(super) struct Session {
    connection: ClientConnection,
    records: Records,
    failed: Option<Error>,
    /// The peer has said that it sends no more.
    closed: bool,
}

/// How a session is over.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Over {
    /// By the peer's word.
    Closed,
    Failed(Error),
}

impl Session {
    pub(super) fn new(setup: &Setup) -> Result<Self, Error> {
        let connection = ClientConnection::new(Arc::clone(&setup.config), setup.name.clone())?;
        Ok(Self { connection, records: Records::default(), failed: None, closed: false })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Version and cipher, as they are called.
    pub(super) fn protocol(&self) -> Option<String> {
        let version = self.connection.protocol_version()?.as_str()?.replace('_', ".");
        let suite = self.connection.negotiated_cipher_suite()?.suite();
        Some(format!("{}, {}", version.replacen("TLSv", "TLS ", 1), suite.as_str()?))
    }

    /// Asked when all plaintext was taken.
    pub(super) fn over(&self) -> Option<Over> {
        let failed = self.failed.clone().map(Over::Failed);
        failed.or_else(|| self.closed.then_some(Over::Closed))
    }

    /// Takes what came in; how much plaintext of it lies in `plain`, which is no shorter.
    pub(super) fn take(&mut self, mut wire: &[u8], plain: &mut [u8]) -> usize {
        self.records.pass(wire);
        let mut taken = 0;
        while !wire.is_empty() && self.failed.is_none() && !self.closed {
            // It takes a part at a time.
            if let Err(error) = self.connection.read_tls(&mut wire) {
                self.failed = Some(Error::General(error.to_string()));
            }
            match self.connection.process_new_packets() {
                Ok(state) => self.closed = state.peer_has_closed(),
                Err(error) => self.failed = Some(error),
            }
            while let Some(room) = plain.get_mut(taken..).filter(|room| !room.is_empty()) {
                match self.connection.reader().read(room) {
                    Ok(0) | Err(_) => break,
                    Ok(length) => taken += length,
                }
            }
        }
        taken
    }

    /// Takes plaintext to be sent; how much of it.
    pub(super) fn put(&mut self, plain: &[u8]) -> usize {
        // Into memory, which cannot fail.
        self.connection.writer().write(plain).unwrap_or(0)
    }

    /// Says that nothing more will be sent.
    pub(super) fn close(&mut self) {
        self.connection.send_close_notify();
    }

    pub(super) fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Writes what waits for the wire, as far as that takes it.
    pub(super) fn write_to(&mut self, wire: &mut impl Write) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(wire)?;
        }
        Ok(())
    }

    /// How much to read at a time so that each record but the last has a read of its own.
    pub(super) fn pieces(&self, wire: &[u8]) -> Vec<usize> {
        self.records.pieces(wire)
    }
}

/// What failed, for a reader.
pub(super) fn words(error: &Error) -> String {
    use CertificateError as Wrong;
    match error {
        Error::InvalidCertificate(Wrong::UnknownIssuer) => "unknown CA: nobody trusted here has \
             issued the server's certificate (--ca-file names a private CA)"
            .to_owned(),
        Error::InvalidCertificate(Wrong::NotValidForName) => {
            "name mismatch: the server's certificate is not for this name".to_owned()
        }
        Error::InvalidCertificate(wrong @ Wrong::NotValidForNameContext { .. }) => {
            format!("name mismatch: {wrong}")
        }
        Error::InvalidCertificate(wrong @ (Wrong::Expired | Wrong::ExpiredContext { .. })) => {
            format!("expired certificate: {wrong}")
        }
        Error::InvalidCertificate(wrong) => format!("certificate refused: {wrong}"),
        Error::NoApplicationProtocol
        | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the server does not offer HTTP/1.1 here".to_owned()
        }
        Error::AlertReceived(alert) => format!("the server refused: {alert:?}"),
        Error::InvalidMessage(_) => "what the server says is no TLS".to_owned(),
        other => other.to_string(),
    }
}

/// Takes any certificate: only where the user asked for it. That its owner signed is still checked.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

const HEADER: usize = 5;

/// Where the wire is among the records, by their headers alone.
#[derive(Clone, Copy, Debug, Default)]
struct Records {
    header: [u8; HEADER],
    /// Bytes of the header that have come.
    have: usize,
    /// Bytes of the record that are still to come.
    left: usize,
}

impl Records {
    fn pass(&mut self, wire: &[u8]) {
        self.walk(wire, |_| {});
    }

    /// Calls `on_end` with the place behind each record that ends in these bytes.
    fn walk(&mut self, wire: &[u8], mut on_end: impl FnMut(usize)) {
        let mut at = 0;
        while let Some(byte) = wire.get(at) {
            if self.left > 0 {
                let step = self.left.min(wire.len() - at);
                self.left -= step;
                at += step;
            } else {
                if let Some(place) = self.header.get_mut(self.have) {
                    *place = *byte;
                }
                self.have += 1;
                at += 1;
                if self.have == HEADER {
                    let [.., high, low] = self.header;
                    (self.have, self.left) = (0, usize::from(u16::from_be_bytes([high, low])));
                }
            }
            if self.left == 0 && self.have == 0 {
                on_end(at);
            }
        }
    }

    fn pieces(mut self, wire: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        let mut from = 0;
        self.walk(wire, |end| {
            lengths.push(end - from);
            from = end;
        });
        // What is behind the last cut is read as it comes.
        lengths.pop();
        lengths
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
