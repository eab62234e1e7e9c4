//! The nearest spelling: what a mistyped word was probably meant to be.

/// The candidate that `word` most likely stands for, if any is near enough.
///
/// Letter case and the choice between `-` and `_` never count as a difference. Otherwise one
/// slip (a letter missing, added, wrong, or two swapped) is forgiven for every three letters.
pub(crate) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let word = plain(word);
    let slips_forgiven = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &plain(candidate)), candidate))
        .filter(|(slips, candidate)| *slips == 0 || is_near(*slips, slips_forgiven, candidate))
        .min_by(|a, b| {
            a.0.cmp(&b.0).then_with(|| likeness(&word, b.1).total_cmp(&likeness(&word, a.1)))
        })
        .map(|(_, candidate)| candidate)
}

/// Words of one or two letters are near to everything; they are suggested only when exact.
fn is_near(slips: usize, forgiven: usize, candidate: &str) -> bool {
    slips <= forgiven && candidate.chars().count() > 2
}

fn likeness(word: &str, candidate: &str) -> f64 {
    strsim::jaro_winkler(word, &plain(candidate))
}

fn plain(word: &str) -> String {
    word.to_lowercase().replace('_', "-")
}

/// The help for a word that is none of `candidates`: the nearest one, if any, and all of them.
pub(crate) fn did_you_mean(word: &str, candidates: &[&str], introduction: &str) -> String {
    let all = format!("{introduction} {}", listed(candidates));
    match nearest(word, candidates.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? {all}"),
        None => all,
    }
}

/// `a`, `b`, `c`
pub(crate) fn listed(words: &[&str]) -> String {
    if words.is_empty() {
        return "none".to_owned();
    }
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_near() {
        let words = ["min_requests", "min_duration", "users", "name", "tp"];
        for (word, expected) in [
            ("min-requests", Some("min_requests")),
            ("MIN_REQUESTS", Some("min_requests")),
            ("min_request", Some("min_requests")),
            ("minrequests", Some("min_requests")),
            ("min_duratoin", Some("min_duration")),
            ("user", Some("users")),
            ("nmae", Some("name")),
            ("TP", Some("tp")),
            ("tq", None),
            ("blocks", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, words), expected, "{word}");
        }
    }

    #[test]
    fn of_two_near_words_the_more_alike_wins() {
        assert_eq!(nearest("max-tokens", ["mix-tokens", "max-tokenz"]), Some("max-tokenz"));
    }
}
