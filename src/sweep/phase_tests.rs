//! Phases and deadlines with their mistakes.

use super::parse::tests::check;

#[test]
fn phases_and_deadlines() {
    check(
        "name = \"thinkers\"\n",
        "",
        &[
            "38: another phase has the name `10-users` | phases with as many users need a `name` each",
        ],
    );
    check(
        "name = \"thinkers\"",
        "name = \"10-users\"",
        &["39: another phase has the name `10-users`"],
    );
    check(
        "name = \"thinkers\"",
        "name = \"warmup\"",
        &["39: `name`: `warmup` is the warm-up's name"],
    );
    check(
        "min_requests = 300\nmin_duration = \"30s\"",
        "",
        &[
            "33: neither `min_requests` nor `min_duration` in [[phases]] | the phase ends when both are met",
        ],
    );
    check(
        "min_requests = 300\nmin_duration = \"30s\"",
        "min_requests = 0",
        &[
            "33: the phase would end before it began | the phase ends when `min_requests` and `min_duration` are met",
        ],
    );
    check(
        "load = \"2min\"",
        "phase = \"10s\"",
        &[
            "36: `min_duration`: is longer than a phase may last | raise `phase` in [deadlines], which is 10s",
        ],
    );
    check(
        "load = \"2min\"",
        "stall = \"0s\"",
        &["45: `stall`: \"0s\" is out of range | from 1s to 7days"],
    );
    check("users = 10", "users = 0", &["34: `users`: 0 is out of range | from 1 to 100000"]);
}

#[test]
fn classes() {
    use super::parse::tests::RIGHT;
    let with = |classes: &str| format!("{classes}\n[deadlines]");
    let class = |name: &str, more: &str| {
        format!("[[classes]]\nname = \"{name}\"\n{more}\nslo = {{ ttft = \"1s\" }}\n")
    };
    check(
        "[deadlines]",
        &with(&format!("{}{}", class("a", "share = 0.5"), class("b", "share = 0.4"))),
        &["44: `classes`: the shares add up to 0.9 | they must add up to 1"],
    );
    check(
        "[deadlines]",
        &with(&format!("{}{}", class("a", "share = 0.5"), class("a", ""))),
        &[
            "44: `classes`: some classes have a `share` and some have none | without any, a field of the data set or the trace names each request's class",
            "49: `name`: another class has this name",
        ],
    );
    check(
        "[deadlines]",
        &with("[[classes]]\nname = \"a\"\nshare = 1\nslo = {}\n"),
        &[
            "47: `slo` has no limit | `ttft = \"500ms\"`, `tpot = \"50ms\"`, `e2el = \"10s\"`, or some of them",
        ],
    );
    check(
        "[deadlines]",
        &with(&class("a", "")),
        &[
            "44: `classes`: nothing says of which class a request of phase `10-users` is | give every class a `share`, or the data set or trace a `class_field`",
            "44: `classes`: nothing says of which class a request of phase `thinkers` is | give every class a `share`, or the data set or trace a `class_field`",
        ],
    );
    let whole = with(&format!("{}{}", class("a", "share = 0.5"), class("b", "share = 0.5")));
    let sweep = super::parse::tests::sweep(&RIGHT.replacen("[deadlines]", &whole, 1));
    let names: Vec<&str> = sweep.classes.iter().map(|class| class.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(sweep.classes[0].slo.ttft_ms, Some(1000.0));
}
