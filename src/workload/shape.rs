//! What the prompts of a phase are like: all of one length, mixed, sharing documents, or turns of
//! conversations. Pure.
//!
//! Invariant: every choice is a function of the seed, the user and the turn.

use super::dataset::{AnswerLength, Dataset, Turns};
use crate::seed::{Seed, Stream};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How prompts are made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    /// None like another, all of one length.
    Random,
    /// None like another, of lengths drawn for each.
    Mixed(Lengths),
    /// Each begins with one of so many documents, which are this share of it.
    Rag { shared: f64, documents: u32 },
    /// Turns that carry what was said before; so many turns on average.
    Conversations { turns: f64 },
    /// What people once asked, from a file.
    Dataset(Box<Dataset>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lengths {
    pub(crate) min: u32,
    pub(crate) max: u32,
    pub(crate) spread: Spread,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Spread {
    Uniform,
    /// Of this median; `sigma` is the spread of the logarithm.
    LogNormal {
        median: f64,
        sigma: f64,
    },
    /// Length `min + k - 1` with a weight of `1 / k^exponent`.
    Zipf {
        exponent: f64,
    },
    /// Those that were seen, each as likely as it is often among these.
    Empirical {
        lengths: Vec<u32>,
    },
}

impl Lengths {
    pub(crate) fn draw(&self, seed: Seed) -> u32 {
        let mut stream = seed.branch("length").stream();
        let width = f64::from(self.max - self.min) + 1.0;
        let offset = match &self.spread {
            Spread::Empirical { lengths } => {
                return lengths.get(stream.below(lengths.len())).copied().unwrap_or(self.min);
            }
            Spread::Uniform => stream.unit() * width,
            Spread::LogNormal { median, sigma } => {
                median * (sigma * normal(&mut stream)).exp() - f64::from(self.min)
            }
            Spread::Zipf { exponent } => zipf(&mut stream, width, *exponent) - 1.0,
        };
        let offset = offset.clamp(0.0, f64::from(self.max - self.min)).floor();
        // From text, for a cast would hide what does not fit; it fits by the clamp.
        self.min + format!("{offset:.0}").parse::<u32>().unwrap_or(0)
    }
}

fn normal(stream: &mut Stream) -> f64 {
    let radius = (-2.0 * (1.0 - stream.unit()).ln()).sqrt();
    radius * (2.0 * PI * stream.unit()).cos()
}

/// By the inverse of the continuous distribution, whose weights are nearly the discrete one's.
fn zipf(stream: &mut Stream, n: f64, exponent: f64) -> f64 {
    let u = stream.unit();
    if (exponent - 1.0).abs() < 1e-9 {
        return (n + 1.0).powf(u);
    }
    let power = 1.0 - exponent;
    (1.0 + u * ((n + 1.0).powf(power) - 1.0)).powf(1.0 / power)
}

/// Where in its conversation a user's turn stands, from 0. Conversations are one after another;
/// their lengths are geometric, so that each turn is the last with the same chance.
pub(crate) fn place(seed: Seed, turn: u32, mean_turns: f64) -> u32 {
    let mut stream = seed.branch("conversations").stream();
    let ends = 1.0 / mean_turns.max(1.0);
    let mut at = 0;
    for _ in 0..turn {
        at = if stream.unit() < ends { 0 } else { at + 1 };
    }
    at
}

impl Shape {
    /// The share of a prompt that a prefix cache should know; what is above it is no good sign.
    pub(crate) fn intended_cached(&self) -> f64 {
        match self {
            Self::Random | Self::Mixed(_) => 0.0,
            Self::Rag { shared, .. } => *shared,
            Self::Conversations { .. } => 1.0,
            Self::Dataset(set) => match set.turns {
                Turns::First => 0.0,
                Turns::All => 1.0,
            },
        }
    }

    /// Prompts are not all of one length.
    pub(crate) fn prompts_vary(&self) -> bool {
        match self {
            Self::Random | Self::Rag { .. } | Self::Conversations { .. } => false,
            Self::Mixed(_) | Self::Dataset(_) => true,
        }
    }

    /// Answers are not all of one length.
    pub(crate) fn answers_vary(&self) -> bool {
        match self {
            Self::Random | Self::Mixed(_) | Self::Rag { .. } | Self::Conversations { .. } => false,
            Self::Dataset(set) => set.length == AnswerLength::Recorded,
        }
    }

    /// Turns follow one another, so that each needs a user who has had the one before.
    pub(crate) fn carries_on(&self) -> bool {
        match self {
            Self::Random | Self::Mixed(_) | Self::Rag { .. } => false,
            Self::Conversations { .. } => true,
            Self::Dataset(set) => set.turns == Turns::All,
        }
    }

    /// For people; absent for the plain kind.
    pub(crate) fn describe(&self) -> Option<String> {
        match self {
            Self::Random => None,
            Self::Dataset(set) => Some(set.describe()),
            Self::Mixed(Lengths { min, max, spread }) => {
                let spread = match spread {
                    Spread::Uniform => "uniform".to_owned(),
                    Spread::LogNormal { median, sigma } => {
                        format!("log-normal, median {median}, sigma {sigma}")
                    }
                    Spread::Zipf { exponent } => format!("Zipf, exponent {exponent}"),
                    Spread::Empirical { lengths } => {
                        format!("as often as among {} that were seen", lengths.len())
                    }
                };
                Some(format!("prompts of {min} to {max} tokens ({spread})"))
            }
            Self::Rag { shared, documents } => Some(format!(
                "each prompt begins with one of {documents} documents, {:.0} % of it",
                shared * 100.0
            )),
            Self::Conversations { turns } => {
                Some(format!("conversations of {turns} turns on average, answers carried on"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::count_f64;

    fn drawn(spread: Spread) -> Vec<u32> {
        let lengths = Lengths { min: 32, max: 2048, spread };
        let mut all: Vec<u32> = (0..4000).map(|n| lengths.draw(Seed::new(7).nth(n))).collect();
        all.sort_unstable();
        assert!(all[0] >= 32 && all[3999] <= 2048);
        all
    }

    #[test]
    fn lengths_have_their_distribution() {
        let uniform = drawn(Spread::Uniform);
        assert!((1000..1080).contains(&uniform[2000]), "{}", uniform[2000]);
        let log_normal = drawn(Spread::LogNormal { median: 300.0, sigma: 0.8 });
        assert!((280..320).contains(&log_normal[2000]), "{}", log_normal[2000]);
        // One sigma up: 300 e^0.8.
        assert!((610..730).contains(&log_normal[3364]), "{}", log_normal[3364]);
        let zipf = drawn(Spread::Zipf { exponent: 1.2 });
        assert!(zipf[2000] < 60 && zipf[3900] > 600, "{} {}", zipf[2000], zipf[3900]);
        let seen = drawn(Spread::Empirical { lengths: vec![40, 40, 40, 2000] });
        let long = seen.iter().filter(|length| **length == 2000).count();
        assert!(seen.iter().all(|length| [40, 2000].contains(length)));
        assert!((900..1100).contains(&long), "{long} of 4000, not a quarter");
    }

    #[test]
    fn conversations_are_as_long_as_asked_on_average() {
        let turns: u32 = 20_000;
        let begun = (0..200_u64)
            .flat_map(|user| (0..100).map(move |turn| place(Seed::new(1).nth(user), turn, 5.0)))
            .filter(|at| *at == 0)
            .count();
        let mean = f64::from(turns) / count_f64(begun as u64);
        // Each user's first turn begins one, so a little less than 5.
        assert!((4.5..5.2).contains(&mean), "{mean}");
        assert!((0..50).all(|turn| place(Seed::new(3), turn, 1.0) == 0));
    }
}
