//! Commands that would put an engine where sweepd cannot reach it. Pure.

use super::def::{Piece, Slot, Template};
use std::path::Path;

/// Programs that hand the work to a service of theirs, or to another user: what runs then is no
/// descendant of the one who started it, or may not be signalled by it.
const OUTSIDE: [(&str, &str); 16] = [
    ("docker", "the Docker daemon runs the container"),
    ("podman", "the container gets a supervisor of its own"),
    ("nerdctl", "containerd runs the container"),
    ("singularity", "the container may get a supervisor of its own"),
    ("apptainer", "the container may get a supervisor of its own"),
    ("enroot", "the container may get a supervisor of its own"),
    ("kubectl", "the cluster runs it"),
    ("sudo", "another user's processes cannot be signalled"),
    ("su", "another user's processes cannot be signalled"),
    ("doas", "another user's processes cannot be signalled"),
    ("srun", "Slurm's daemon runs the step"),
    ("sbatch", "Slurm's daemon runs the job"),
    ("systemd-run", "systemd runs the unit"),
    ("machinectl", "systemd runs it"),
    ("ssh", "it runs on another machine"),
    ("screen", "its server runs the command"),
];

/// Programs that only prepare something and then become the command that follows.
const PREPARE: [&str; 12] = [
    "env", "nice", "ionice", "chrt", "taskset", "numactl", "nohup", "stdbuf", "setarch", "prlimit",
    "time", "exec",
];

const SHELLS: [&str; 5] = ["sh", "bash", "dash", "zsh", "ksh"];

/// Why the command cannot be launched as it is: a message and what to do.
pub(crate) fn refused(command: &[Template], program: Option<&str>) -> Option<(String, String)> {
    let words: Vec<&str> = command.iter().map_while(|item| word(item, program)).collect();
    let mut rest = words.as_slice();
    while let Some((first, after)) = rest.split_first() {
        let name = Path::new(first).file_name()?.to_str()?;
        if let Some((_, why)) = OUTSIDE.iter().find(|(outside, _)| *outside == name) {
            let message = format!("`{name}` would put the engine outside of sweepd's containment");
            let help = format!(
                "{why}: sweepd could neither end it nor prove that nothing of it is left; name the server's own \
                 program, and run sweepd where that program is"
            );
            return Some((message, help));
        }
        if SHELLS.contains(&name) && after.first().is_some_and(|word| word.starts_with("-c")) {
            let message = format!("`{name} -c` is a shell line");
            let help = "write the command as a list of words; variables go into `env`".to_owned();
            return Some((message, help));
        }
        if !PREPARE.contains(&name) {
            return None;
        }
        let options = after.iter().take_while(|word| word.starts_with('-') || word.contains('='));
        rest = &after[options.count()..];
        // An option's own value, such as the mask of `taskset -c 0`, is a word without meaning here.
        while rest.first().is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit())) {
            rest = &rest[1..];
        }
    }
    None
}

/// The item as one word, if it is known before the launch.
fn word<'t>(item: &'t Template, program: Option<&'t str>) -> Option<&'t str> {
    match item.0.as_slice() {
        [Piece::Text(text)] => Some(text),
        [Piece::Slot(Slot::Program)] => program,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(command: &str, program: Option<&str>, expected: Option<&str>) {
        let command: Vec<Template> =
            command.split_whitespace().map(|word| Template::parse(word).unwrap()).collect();
        let got = refused(&command, program).map(|(message, _)| message);
        assert_eq!(got.is_some(), expected.is_some(), "{got:?}");
        if let (Some(got), Some(expected)) = (got, expected) {
            assert!(got.contains(expected), "{got}");
        }
    }

    #[test]
    fn what_leaves_the_containment_is_refused() {
        check("docker run x", None, Some("`docker`"));
        check("{program} run", Some("/usr/bin/podman"), Some("`podman`"));
        check("env A=1 sudo -u x serve", None, Some("`sudo`"));
        check("taskset -c 0-3 nice -n 5 srun serve", None, Some("`srun`"));
        check("taskset -c 0,1 srun serve", None, Some("`srun`"));
        check("nice -n 5 systemd-run serve", None, Some("`systemd-run`"));
        check("/bin/sh -c serve", None, Some("`sh -c`"));
    }

    #[test]
    fn programs_and_their_wrappers_are_launched() {
        check("{program} serve", Some("/v/bin/serve"), None);
        check("numactl --cpunodebind=0 {program}", Some("/v/bin/docker-like"), None);
        check("bash ./start.sh", None, None);
        check("{program} --user sudo", Some("serve"), None);
        check("{program}", None, None);
    }
}
