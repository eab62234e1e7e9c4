//! Limits that a request is held to, and classes of requests with limits of their own. Data.

use crate::ids::Name;
use crate::seed::Seed;
use serde::{Deserialize, Serialize};

/// The longest that a request may take; a time without a limit may be any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slo {
    pub(crate) ttft_ms: Option<f64>,
    pub(crate) tpot_ms: Option<f64>,
    #[serde(default)]
    pub(crate) e2el_ms: Option<f64>,
}

impl Slo {
    /// In words, for a report; empty without a limit.
    pub(crate) fn describe(&self) -> String {
        let limit = |name: &str, ms: Option<f64>| ms.map(|ms| format!("{name} {ms} ms"));
        let all = [("TTFT", self.ttft_ms), ("TPOT", self.tpot_ms), ("E2EL", self.e2el_ms)];
        let said: Vec<String> = all.iter().filter_map(|(name, ms)| limit(name, *ms)).collect();
        said.join(", ")
    }
}

/// Requests of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Class {
    pub(crate) name: Name,
    /// Of the requests; absent where only what is asked says whose they are.
    pub(crate) share: Option<f64>,
    /// What the field of a data set or a trace says for it.
    pub(crate) value: String,
    pub(crate) slo: Slo,
}

/// The class of a request: by what was asked, where that says it, else drawn by the shares.
pub(crate) fn class_of<'a>(
    classes: &'a [Class],
    said: Option<&str>,
    seed: Seed,
) -> Option<&'a Class> {
    let named = said.and_then(|said| classes.iter().find(|class| class.value == said));
    named.or_else(|| drawn(classes, seed))
}

fn drawn(classes: &[Class], seed: Seed) -> Option<&Class> {
    let mut left = seed.branch("class").stream().unit();
    let mut last = None;
    for class in classes {
        let share = class.share?;
        last = Some(class);
        left -= share;
        if left < 0.0 {
            break;
        }
    }
    // The shares add up to 1 but for rounding.
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, share: Option<f64>) -> Class {
        let value = name.to_uppercase();
        Class { name: Name::new(name).unwrap(), share, value, slo: Slo::default() }
    }

    #[test]
    fn classes_are_drawn_by_their_shares_unless_something_says_them() {
        let classes = [class("a", Some(0.7)), class("b", Some(0.2)), class("c", Some(0.1))];
        let mut counts = [0_u32; 3];
        for n in 0..20_000 {
            let found = class_of(&classes, None, Seed::new(5).nth(n)).unwrap();
            counts[classes.iter().position(|class| class == found).unwrap()] += 1;
        }
        for (count, share) in counts.iter().zip([0.7, 0.2, 0.1]) {
            // Five standard errors of a share at most.
            assert!((f64::from(*count) / 20_000.0 - share).abs() < 0.017, "{counts:?}");
        }
        let again = |n| class_of(&classes, None, Seed::new(n)).map(|class| class.name.clone());
        assert_eq!(again(3), again(3));
        let named = class_of(&classes, Some("C"), Seed::new(1)).unwrap();
        assert_eq!(named.name.as_str(), "c");
        let only_said = [class("a", None), class("b", None)];
        assert_eq!(class_of(&only_said, None, Seed::new(1)), None);
        assert_eq!(class_of(&[], Some("a"), Seed::new(1)), None);
    }
}
