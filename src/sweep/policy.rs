//! `[policy]`: how often to try again, and when to stop trying.

use crate::form::Fields;

/// Equal failures of a variant in a row, after which its other trials are skipped.
const BREAKER: u32 = 3;
const MOST: i64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Launches after the first one, for causes outside the variant. `None`: as each kind, or the
    /// engine's file, says.
    pub(crate) retries: Option<u32>,
    pub(crate) breaker: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { retries: None, breaker: BREAKER }
    }
}

pub(super) fn policy(fields: Option<&Fields<'_>>) -> Policy {
    let count = |key, least| {
        let value = fields?.optional(key).integer(least..=MOST)?;
        u32::try_from(value).ok()
    };
    Policy { retries: count("retries", 0), breaker: count("breaker", 1).unwrap_or(BREAKER) }
}
