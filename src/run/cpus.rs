//! Which CPUs a trial's engine and its client are bound to. Only data.

use crate::cpus::CpuSet;
use serde::{Deserialize, Serialize};

/// The CPUs of a trial; what is absent runs wherever the kernel puts it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrialCpus {
    pub(crate) engine: Option<CpuSet>,
    /// The load process.
    pub(crate) client: Option<CpuSet>,
}

impl std::fmt::Display for TrialCpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = |set: &Option<CpuSet>| set.as_ref().map_or("any".to_owned(), CpuSet::to_string);
        match (&self.engine, &self.client) {
            (Some(engine), Some(client)) if engine == client => {
                write!(f, "engine and client together {engine}")
            }
            (engine, client) => write!(f, "engine {}, client {}", word(engine), word(client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_may_run_anywhere() {
        let set = |text: &str| Some(text.parse().unwrap());
        for (engine, client, want) in [
            (set("2-7"), set("0-1"), "engine 2-7, client 0-1"),
            (set("2-7"), None, "engine 2-7, client any"),
            (set("0"), set("0"), "engine and client together 0"),
        ] {
            assert_eq!(TrialCpus { engine, client }.to_string(), want);
        }
    }
}
