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
