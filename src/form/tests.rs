//! What people write, and every mistake told at once.

use super::*;
use std::path::Path;
use std::time::Duration;

#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    Root,
    Cascade,
}

/// Reads a small form of every kind of field.
fn read_small(text: &str) -> Result<(), Problems> {
    read(Path::new("a.toml"), text, |_, fields| {
        fields.schema_is_known(1).then_some(())?;
        fields.required("title").name();
        fields.optional("share").float(0.0..=1.0);
        fields.optional("on").boolean();
        fields.optional("wait").duration(Duration::from_secs(1)..=Duration::from_secs(60));
        fields.optional("words").texts();
        fields.optional("role").choice::<Role>();
        fields.optional("extra").json();
        for step in fields.optional("steps").tables() {
            step.required("users").count(10);
        }
        Some(())
    })
}

/// `expected`: "line:column: message | help" for each problem.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let got: Vec<String> = match read_small(text) {
        Ok(()) => Vec::new(),
        Err(problems) => problems.list().iter().map(line).collect(),
    };
    assert_eq!(got, expected);
}

fn line(problem: &Problem) -> String {
    let help = problem.help.as_ref().map(|help| format!(" | {help}")).unwrap_or_default();
    format!("{}:{}: {}{help}", problem.line, problem.column, problem.message)
}

#[test]
fn a_right_file_has_no_problems() {
    check(
        "schema = 1\ntitle = 'x'\nshare = 1\non = true\nwait = '1min'\nwords = ['a']\n\
         role = 'root'\nextra = { a = [1, 2.5, true, { b = 'c' }] }\n[[steps]]\nusers = 3\n",
        &[],
    );
}

#[test]
fn wrong_values_are_told_with_what_is_allowed() {
    let head = "schema = 1\ntitle = 'x'\n";
    for (rest, expected) in [
        ("share = 'x'", "3:9: `share`: expected a number, found text | from 0 to 1"),
        (
            "share = '0.5'",
            "3:9: `share`: expected a number, found text | write it without quotes: 0.5",
        ),
        ("share = nan", "3:9: `share`: is out of range | from 0 to 1"),
        ("share = 1.5", "3:9: `share`: is out of range | from 0 to 1"),
        (
            "on = 'true'",
            "3:6: `on`: expected true or false, found text | write it without quotes: true",
        ),
        (
            "wait = 30",
            "3:8: `wait`: expected a span of time, found a whole number | a number needs its unit: \"30s\"?",
        ),
        ("wait = '2min'", "3:8: `wait`: \"2min\" is out of range | from 1s to 1m"),
        (
            "wait = 'soon'",
            "3:8: `wait`: \"soon\" is no span of time | such as \"30s\", \"15min\" or \"1h 30min\"",
        ),
        ("words = 'a'", "3:9: `words`: expected a list, found text"),
        (
            "words = ['a', 5]",
            "3:15: `words[1]`: expected text, found a whole number | write it in quotes: \"5\"",
        ),
        ("words = ['']", "3:10: `words[0]`: must not be empty"),
        (
            "role = 'rot'",
            "3:8: `role`: \"rot\" is not a choice | did you mean `root`? choices: `root`, `cascade`",
        ),
        ("extra = [2020-01-01]", "3:9: `extra`: has no JSON form | no dates, no infinite numbers"),
        ("steps = 5", "3:9: `steps`: expected a list, found a whole number"),
        ("[steps]", "3:1: `steps`: expected a list of tables, found a table | write [[steps]]"),
        ("[[steps]]\nusers = 0", "4:9: `users`: 0 is out of range | from 1 to 10"),
        ("[[steps]]\nusers = 0x1_0", "4:9: `users`: 0x10 is out of range | from 1 to 10"),
        (
            "[[steps]]\nusers = 99999999999999999999",
            "4:9: `users`: 99999999999999999999 is out of range | from 1 to 10",
        ),
        (
            "[[steps]]\nusers = '3'",
            "4:9: `users`: expected a whole number, found text | write it without quotes: 3",
        ),
        ("[[steps]]", "3:1: missing `users` in [[steps]]"),
    ] {
        check(&format!("{head}{rest}\n"), &[expected]);
    }
}

#[test]
fn an_unknown_key_is_told_with_the_nearest_spelling() {
    check(
        "schema = 1\ntitle = 'x'\n\"sháre\" = 1\n[[steps]]\nusers = 1\nzebra = 2\n",
        &[
            "3:1: unknown key `sháre` | did you mean `share`? allowed here: `schema`, `title`, `share`, `on`, `wait`, `words`, `role`, `extra`, `steps`",
            "6:1: unknown key `zebra` in [[steps]] | allowed here: `users`",
        ],
    );
}

#[test]
fn a_misspelt_required_key_is_one_mistake() {
    check(
        "schema = 1\ntitel = 'x'\n[[steps]]\nUsers = 5\n",
        &[
            "2:1: unknown key `titel` | did you mean `title`? allowed here: `schema`, `title`, `share`, `on`, `wait`, `words`, `role`, `extra`, `steps`",
            "4:1: unknown key `Users` in [[steps]] | did you mean `users`? allowed here: `users`",
        ],
    );
}

#[test]
fn of_a_newer_schema_only_its_version_is_told() {
    check(
        "schema = 2\nfuture = true\n",
        &[
            "1:10: `schema`: this file has schema 2 | this sweepd reads up to schema 1: take a newer sweepd",
        ],
    );
    check("title = 'x'", &["1:1: missing `schema`"]);
}

#[test]
fn columns_are_characters() {
    check(
        "schema = 1\ntitle = 'x'\nextra = { 'äöü' = 1 } # x\nwords = ['äöü', 5]",
        &["4:17: `words[1]`: expected text, found a whole number | write it in quotes: \"5\""],
    );
}

#[test]
fn all_errors_of_syntax_are_told_and_nothing_that_only_follows_from_them() {
    let problems = read_small("schema = 1\nshare = = 2\non = 7\nwait = \n").unwrap_err();
    let lines: Vec<usize> = problems.list().iter().map(|problem| problem.line).collect();
    assert!([2, 3, 4].iter().all(|line| lines.contains(line)), "{problems}");
    assert!(!problems.to_string().contains("missing"), "{problems}");

    let problems = read_small("schema = 1\n[[steps\nusers = 99\n").unwrap_err();
    assert!(
        problems.list().iter().all(|problem| problem.message.starts_with("not TOML")),
        "{problems}"
    );
}

#[test]
fn problems_print_with_place_and_remedy() {
    let problems = read_small("schema = 1\ntitle = 'x'\non = 'true'\nshare = 2\n").unwrap_err();
    assert_eq!(
        problems.to_string(),
        "a.toml:3:6: `on`: expected true or false, found text\n  help: write it without quotes: true\n\
         a.toml:4:9: `share`: is out of range\n  help: from 0 to 1\n\
         2 problems"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC*", toml in "([a-z]{1,5} ?= ?['\"\\[{0-9.a-z_-]{0,6}\n|\\[{1,2}steps\\]{0,2}\n){0,8}") {
        for text in [text, toml] {
            if let Err(problems) = read_small(&text) {
                proptest::prop_assert!(!problems.list().is_empty());
            }
        }
    }
}
