//! Command lines against the engine file and against the installed program.

use super::def::Sweep;
use super::installed::{Asked, Installed, NotAsked};
use super::parse::tests::{RIGHT, shown, sweep, try_installed};
use crate::engine::def::ParamValue;
use crate::engine::help::Help;
use std::sync::Arc;

/// What the installed `turbo` says of itself.
const HELP: &str = "
  --port PORT
  --slots SLOTS
  --no-cache
  --enable-flash-fusion
  --policy {fcfs,lpm}
";

/// The one program of these tests. With `BROKEN` in its environment it cannot be asked.
struct Turbo {
    help: &'static str,
}

impl Installed for Turbo {
    fn help(&self, asked: Asked<'_>) -> Result<Option<Arc<Help>>, String> {
        match asked.env.get("BROKEN") {
            Some(why) => Err(why.clone()),
            None => Ok(Some(Arc::new(Help::parse(self.help)))),
        }
    }
}

/// Changes `RIGHT` in one place. `expected`: `line: message | help` of each problem.
#[track_caller]
fn check(from: &str, to: &str, installed: &dyn Installed, expected: &[&str]) {
    let text = RIGHT.replacen(from, to, 1);
    assert_ne!(text, RIGHT, "{from}");
    let got: Vec<String> = match try_installed(&text, installed) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.list().iter().map(shown).collect(),
    };
    assert_eq!(got, expected, "{to}");
}

/// The fast variant's parameters, which stand on line 21.
const FAST: &str = "params = { slots = 8 }";

fn fast(params_and_args: &str) -> Sweep {
    sweep(&RIGHT.replacen(FAST, params_and_args, 1))
}

#[test]
fn flags_as_typed_become_parameters_where_the_engine_file_knows_them() {
    let sweep = fast("args = ['--slots=8', '--no-cache', '--new', '-1']");
    let fast = &sweep.variants[1];
    assert_eq!(fast.params["slots"], ParamValue::Integer(8));
    assert_eq!(fast.params["no-cache"], ParamValue::Switch(true));
    assert_eq!(fast.args, ["--new", "-1"]);
}

#[test]
fn flags_as_typed_are_held_to_the_engine_file() {
    for (args, expected) in [
        (
            "args = ['--slots', '0']",
            "21: `args[0]`: `--slots` does not take \"0\" | a whole number of 1 or more",
        ),
        (
            "args = ['--slots']",
            "21: `args[0]`: `--slots` needs a value | a whole number of 1 or more",
        ),
        (
            "args = ['--no-cache', 'false']",
            "21: `args[0]`: `--no-cache` takes no value, but \"false\" follows it | write the bare \
             `--no-cache` to turn it on; leave `--no-cache` out to turn it off",
        ),
        (
            "args = ['--threads-per-slot', '2']",
            "21: `args[0]`: engine `turbo` has no flag `--threads-per-slot` any more | write `params` \
             `slots`",
        ),
        (
            "args = ['--port', '1']",
            "21: `args[0]`: `--port` is set by sweepd itself | it is part of the engine file's launch \
             command",
        ),
        (
            "args = ['--slots 8']",
            "21: `args[0]`: is several words in one | each word for itself: \"--slots\", \"8\"",
        ),
        (
            "args = ['8']",
            "21: `args[0]`: \"8\" follows no flag | a list of flags and their values: \
             `args = [\"--flag\", \"value\"]`",
        ),
        (
            "params = { slots = 8 }\nargs = ['--slots', '8']",
            "22: `args[0]`: `--slots` is in `params` too, or twice | keep one of the two",
        ),
    ] {
        check(FAST, args, &NotAsked, &[expected]);
    }
}

#[test]
fn the_installed_program_has_the_last_word() {
    let newest = Turbo { help: HELP };
    check(FAST, "params = { slots = 8, no-cache = true }", &newest, &[]);
    check(FAST, "args = ['--policy', 'lpm']", &newest, &[]);
    for (args, expected) in [
        (
            "args = ['--enable-flash']",
            "21: `args[0]`: the installed `turbo` does not know `--enable-flash`, but would take it for \
             another flag | that of `--enable-flash-fusion`: write it in full, or leave it out",
        ),
        (
            "args = ['--polcy', 'lpm']",
            "21: `args[0]`: the installed `turbo` does not know `--polcy` | did you mean `--policy`? its \
             `--help` lists them all",
        ),
        (
            "args = ['--policy', 'fifo']",
            "21: `args[0]`: `--policy` of the installed `turbo` does not take \"fifo\" | one of fcfs, lpm",
        ),
        (
            "args = ['--policy']",
            "21: `args[0]`: `--policy` of the installed `turbo` needs a value | write `\"--policy\", \
             \"VALUE\"`",
        ),
        (
            "args = ['--enable-flash-fusion', 'true']",
            "21: `args[0]`: `--enable-flash-fusion` of the installed `turbo` takes no value, but \"true\" \
             follows it | write the bare `--enable-flash-fusion` to turn it on; leave it out to turn it \
             off",
        ),
    ] {
        check(FAST, args, &newest, &[expected]);
    }
}

#[test]
fn each_parameter_that_is_gone_is_told_where_it_stands() {
    let old = Turbo { help: "  --port PORT\n  --no-cache\n" };
    let problems = try_installed(RIGHT, &old).unwrap_err();
    let lines: Vec<usize> = problems.list().iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [16, 21]);
    // What the engine file itself writes is the engine's matter.
    let older = Turbo { help: "  --slots N\n" };
    check(
        "name = \"slow\"",
        "name = 'slower'",
        &older,
        &[
            "15: `engine`: the installed `turbo` does not know `--port` | its `--help` lists all that it \
         knows; leave this one out",
            "20: `engine`: the installed `turbo` does not know `--port` | its `--help` lists all that it \
         knows; leave this one out",
        ],
    );
}

#[test]
fn a_program_that_cannot_be_asked_refuses_nothing_but_says_so() {
    let text = RIGHT.replacen("THREADS", "BROKEN", 1);
    let sweep = try_installed(&text, &Turbo { help: HELP }).unwrap();
    assert_eq!(
        sweep.notes,
        ["variant `fast`: the flags of engine `turbo` could not be checked: 1"]
    );
}

#[test]
fn a_folder_that_is_no_model_is_refused() {
    let empty = "path = \"empty\"\ntokenizer = \"tokenizer.json\"";
    let problem = |line: usize| {
        format!(
            "{line}: `engine`: engine `turbo` needs /s/empty/config.json | the model's folder is not \
             complete, or it is another folder"
        )
    };
    let expected = [problem(16), problem(21)];
    check("path = \"tiny.gguf\"", empty, &NotAsked, &[&expected[0], &expected[1]]);
    check("path = \"tiny.gguf\"", "path = \"folder\"", &NotAsked, &[]);
}

#[test]
fn a_command_outside_of_the_containment_is_refused() {
    let problems = try_installed(&RIGHT.replacen("bin/turbo", "docker", 1), &NotAsked).unwrap_err();
    let [problem] = problems.list() else { panic!("{problems}") };
    assert!(problem.message.contains("`docker` would put the engine outside"), "{problem}");
}
