//! Where a server is: the parts of its URL that a request needs.

use crate::cli::input::Refused;
use reqwest::Url;
use std::net::{SocketAddr, ToSocketAddrs};

/// A server's place, its name looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) address: std::net::SocketAddrV4,
    /// Asked for by https.
    pub(super) tls: bool,
    pub(super) host: String,
    /// As the request names it: host, and the port where it is not the scheme's own.
    pub(super) authority: String,
    /// Before every path, without its last slash.
    pub(super) prefix: String,
}

pub(super) fn read(text: &str) -> Result<Target, Refused> {
    // Not said back whole: it may hold a password.
    let wrong = |why: String| Refused::Argument { name: "--url", why };
    let url = Url::parse(text)
        .map_err(|error| wrong(format!("is no URL ({error}); such as http://127.0.0.1:8000")))?;
    match url.scheme() {
        "http" | "https" => {}
        other => return Err(wrong(format!("{other:?} is neither http nor https"))),
    }
    let host = url.host_str().ok_or_else(|| wrong("names no host".to_owned()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "holds a name or a password, which every user of this machine can see; \
                          see --api-key-file"
                .to_owned(),
        ));
    }
    let port = url.port_or_known_default().unwrap_or(80);
    let found = (host, port)
        .to_socket_addrs()
        .map_err(|error| wrong(format!("cannot find the host {host}: {error}")))?;
    let address = found.into_iter().find_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    let address = address.ok_or_else(|| wrong(format!("{host} has no IPv4 address")))?;
    let prefix = url.path().trim_end_matches('/').to_owned();
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let tls = url.scheme() == "https";
    Ok(Target { address, tls, host: host.to_owned(), authority, prefix })
}

impl Target {
    /// `path` below the URL; a `/v1` that both have stands once.
    pub(super) fn path(&self, path: &str) -> String {
        if path.starts_with(&format!("{}/", self.prefix)) {
            return path.to_owned();
        }
        match (self.prefix.strip_suffix("/v1"), path.starts_with("/v1/")) {
            (Some(before), true) => format!("{before}{path}"),
            _ => format!("{}{path}", self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_its_parts() {
        for (url, authority, path) in [
            ("http://127.0.0.1:8000", "127.0.0.1:8000", "/v1/completions"),
            ("http://127.0.0.1:8000/", "127.0.0.1:8000", "/v1/completions"),
            ("http://127.0.0.1:80/v1", "127.0.0.1", "/v1/completions"),
            ("http://127.0.0.1:8000/proxy/v1/", "127.0.0.1:8000", "/proxy/v1/completions"),
            ("http://127.0.0.1:8000/proxy", "127.0.0.1:8000", "/proxy/v1/completions"),
            ("https://localhost", "localhost", "/v1/completions"),
            ("https://localhost:443", "localhost", "/v1/completions"),
            ("https://localhost:80", "localhost:80", "/v1/completions"),
        ] {
            let target = read(url).unwrap();
            assert_eq!(target.authority, authority, "{url}");
            assert_eq!(target.tls, url.starts_with("https"));
            assert_eq!(target.path("/v1/completions"), path, "{url}");
        }
    }

    #[test]
    fn each_scheme_has_its_port() {
        let port = |url: &str| read(url).unwrap().address.port();
        let ports = ["http://127.0.0.1", "https://127.0.0.1", "https://127.0.0.1:8443"].map(port);
        assert_eq!(ports, [80, 443, 8443]);
    }

    #[test]
    fn what_cannot_be_reached_is_said() {
        for (url, why) in [
            ("127.0.0.1:8000", "is no URL"),
            ("ftp://127.0.0.1", "is neither http nor https"),
            ("http://me:sesame@127.0.0.1", "holds a name or a password"),
            ("http://no-such-host.invalid:1", "cannot find the host"),
        ] {
            let error = read(url).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("sesame"), "{error}");
        }
    }
}
