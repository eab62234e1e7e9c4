//! `https://` targets: how they are trusted, and what a result says of times taken under TLS.

use super::target::Target;
use crate::cli::input::Refused;
use crate::load::peer::TlsPlan;
use crate::load::tls::Setup;
use crate::run::phase::TlsFacts;
use crate::run::record::RequestRecord;
use crate::stats::data::PhaseData;
use crate::units::ns_to_ms;
use serde_json::{Value, json};
use std::path::Path;

pub(super) const UNVERIFIED: &str = "the server's certificate is not verified (--insecure)";
/// What a chunk's time is here.
const TIMES: &str = "a chunk's time is that of the packet that completed its TLS record; records \
                     may hold several events or a part of one";

/// Absent for plain HTTP. What would fail in each connection is refused here.
pub(super) fn plan(
    target: &Target,
    ca_file: Option<&Path>,
    insecure: bool,
) -> Result<Option<TlsPlan>, Refused> {
    if !target.tls {
        let asked = ca_file.map(|_| "--ca-file").or_else(|| insecure.then_some("--insecure"));
        let why = || "is about https, and the URL is http".to_owned();
        return asked.map_or(Ok(None), |name| Err(Refused::Argument { name, why: why() }));
    }
    // The load process may run elsewhere.
    let ca_file = ca_file.map(std::path::absolute).transpose();
    let ca_file = ca_file.map_err(|error| Refused::Other(format!("--ca-file: {error}")))?;
    let plan = TlsPlan { name: target.host.clone(), ca_file, insecure };
    match Setup::new(&plan) {
        Ok(_) => Ok(Some(plan)),
        Err(error) => Err(Refused::Other(format!("cannot set up TLS: {error}"))),
    }
}

/// Median and largest, in milliseconds; absent for none.
fn times(
    records: &[RequestRecord],
    take: fn(&RequestRecord) -> Option<i64>,
) -> Option<(usize, f64, f64)> {
    let mut times: Vec<i64> = records.iter().filter_map(take).collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2)?;
    Some((times.len(), ns_to_ms(*median), ns_to_ms(*times.last()?)))
}

pub(super) fn lines(data: &PhaseData) -> Vec<String> {
    let Some(facts) = &data.facts.tls else { return Vec::new() };
    let TlsFacts { verified, protocol } = facts;
    let protocol = protocol.as_deref().unwrap_or("no connection came about");
    let mut lines = vec![format!("TLS: {protocol}; {TIMES}")];
    if let Some((count, median, most)) = times(&data.records, |record| record.tls_ns) {
        lines.push(format!(
            "TLS handshakes: {count}, {median:.2} ms at the median, {most:.2} ms at most, apart \
             from connecting and from every latency counted from sending"
        ));
    }
    if !verified {
        lines.push(format!("TLS: {UNVERIFIED}"));
    }
    lines
}

/// For a result file; null for plain HTTP.
pub(super) fn facts(data: &PhaseData) -> Value {
    let Some(TlsFacts { verified, protocol }) = &data.facts.tls else { return Value::Null };
    let of = |take| {
        times(&data.records, take)
            .map(|(count, median, most)| json!({ "count": count, "p50": median, "max": most }))
    };
    json!({
        "verified": verified,
        "protocol": protocol,
        "handshake_ms": of(|record| record.tls_ns),
        "connect_ms": of(|record| record.connect_ns),
        "times": TIMES,
    })
}
