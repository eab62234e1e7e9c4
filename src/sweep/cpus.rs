//! `[cpus]`: which CPUs a trial's engine and its client are bound to, in each lane.
//!
//! Without the section nothing is bound, but for trials that run side by side: those get the machine's
//! cores in equal parts. Invariant: no CPU is in two sets.

use crate::cpus::{CpuSet, Topology};
use crate::form::{Field, Fields, Wrong};
use crate::run::cpus::TrialCpus;

/// A set as it stands in the file.
struct Named<'f> {
    field: Field<'f>,
    /// For the message about another one: `client`, `engine[1]`.
    name: String,
    cpus: CpuSet,
}

/// One entry for each lane; none where the section is wrong.
pub(super) fn cpus(
    fields: &Fields<'_>,
    lanes: usize,
    machine: Option<&Topology>,
) -> Vec<TrialCpus> {
    let asked = ["trial", "engine", "client"].map(|key| fields.optional(key));
    let [trial, engine, client] = &asked;
    let complain = |message: &str, help: &str| {
        fields.form().problem(fields.at(), message, Some(help.to_owned()));
    };
    if trial.is_there() {
        for other in [engine, client].into_iter().filter(|other| other.is_there()) {
            let help = "`trial` is for engine and client together: leave it out, or this one";
            other.problem("stands beside `trial`", Some(help.to_owned()));
        }
    } else if !engine.is_there() && !client.is_there() {
        let help = "such as engine = \"2-7\" and client = \"0-1\", or trial = \"0-7\" for both";
        complain("[cpus] names no CPUs", help);
    } else if lanes > 1 && engine.is_there() != client.is_there() {
        let help = "name those of the other, too, or give `trial` for both together";
        complain("side by side, engine and client both need CPUs of their own", help);
    }
    let [trial, engine, client] =
        [(trial, "trial"), (engine, "engine"), (client, "client")].map(|(field, name)| {
            if field.is_there() { sets(field, name, lanes, machine) } else { Vec::new() }
        });
    let all: Vec<&Named<'_>> = trial.iter().chain(&engine).chain(&client).collect();
    for (place, one) in all.iter().enumerate() {
        all.iter().take(place).for_each(|other| apart(one, other));
    }
    let of = |sets: &[Named<'_>], lane: usize| sets.get(lane).map(|set| set.cpus.clone());
    let lane = |lane: usize| TrialCpus {
        engine: of(&trial, lane).or_else(|| of(&engine, lane)),
        client: of(&trial, lane).or_else(|| of(&client, lane)),
    };
    (0..lanes).map(lane).collect()
}

/// The machine's cores in equal parts, with all threads of a core in one part; what does not come out
/// even is left to everything else. Engine and client of a trial share its part.
pub(super) fn divided(
    field: &Field<'_>,
    lanes: usize,
    machine: Option<&Topology>,
) -> Vec<TrialCpus> {
    let help = "name the CPUs of each under [cpus]: trial = [\"0-3\", \"4-7\"]";
    let parts = machine.ok_or_else(|| "the kernel does not tell which CPUs there are".to_owned());
    let parts = parts.and_then(|machine| {
        let cores = machine.cores.len();
        let few = || format!("{lanes} trials at once need a core each, and there are {cores}");
        machine.divide(lanes).ok_or_else(few)
    });
    match parts {
        Ok(parts) => {
            let both = |part: CpuSet| TrialCpus { engine: Some(part.clone()), client: Some(part) };
            parts.into_iter().map(both).collect()
        }
        Err(why) => {
            field.problem(why, Some(help.to_owned()));
            Vec::new()
        }
    }
}

/// Lanes whose threads share a core, for the reader: that is apart by number and not by silicon.
pub(super) fn shared_cores(lanes: &[TrialCpus], machine: &Topology) -> Option<String> {
    let of = |lane: &TrialCpus| {
        let all = lane.engine.iter().chain(&lane.client).flat_map(CpuSet::iter);
        CpuSet::of(all)
    };
    let sets: Vec<(usize, CpuSet)> =
        (1..).zip(lanes).filter_map(|(lane, cpus)| Some((lane, of(cpus)?))).collect();
    machine.cores.iter().find_map(|core| {
        let on: Vec<(usize, CpuSet)> =
            sets.iter().filter_map(|(lane, set)| Some((*lane, set.shared(core)?))).collect();
        let [(one, its), (other, others), ..] = &on[..] else { return None };
        Some(format!(
            "[cpus]: lanes {one} and {other} share a core: CPUs {its} and {others} are its threads"
        ))
    })
}

/// One set for each lane.
fn sets<'f>(
    field: &Field<'f>,
    name: &str,
    lanes: usize,
    machine: Option<&Topology>,
) -> Vec<Named<'f>> {
    let read = |field: Field<'f>, name: String| {
        let cpus = field.parsed(|text| listed(text, machine))?;
        Some(Named { field, name, cpus })
    };
    if !field.is_list() && lanes == 1 {
        return read(field.clone(), name.to_owned()).into_iter().collect();
    }
    let help = format!("a list of {lanes}: one set for each trial that runs at once");
    if field.is_text() {
        field.problem("is one set for several trials", Some(help));
        return Vec::new();
    }
    let items = field.items();
    if field.is_list() && items.len() != lanes {
        field.problem(format!("has {} sets", items.len()), Some(help));
    }
    let named = items.into_iter().enumerate();
    named.filter_map(|(lane, item)| read(item, format!("{name}[{lane}]"))).collect()
}

/// What the kernel would bind to less than was asked for, it does not refuse: it is refused here.
fn listed(text: &str, machine: Option<&Topology>) -> Result<CpuSet, Wrong> {
    let help = "a list as the kernel writes it, such as \"2-7,10\"";
    let cpus: CpuSet = text.parse().map_err(|why: String| Wrong::new(why).help(help))?;
    let Some(machine) = machine else { return Ok(cpus) };
    match cpus.without(&machine.online) {
        Some(missing) => Err(Wrong::new(format!("this machine has no CPU {missing}"))
            .help(format!("it has CPUs {}", machine.online))),
        None => Ok(cpus),
    }
}

fn apart(one: &Named<'_>, other: &Named<'_>) {
    if let Some(shared) = one.cpus.shared(&other.cpus) {
        let message = format!("shares CPUs {shared} with `{}`", other.name);
        let help = "leave them out of one of the two".to_owned();
        one.field.problem(message, Some(help));
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::tests::{RIGHT, shown, sweep, try_sweep};

    fn cpus(section: &str) -> Vec<String> {
        let lanes = sweep(&format!("{RIGHT}\n{section}")).lanes;
        lanes.cpus.iter().map(ToString::to_string).collect()
    }

    /// The same, with two trials at once on a GPU each.
    fn two(section: &str) -> String {
        let text = RIGHT.replace("blocks = 2", "blocks = 2\nside_by_side = 2");
        format!("{text}\n[gpu]\n{section}")
    }

    #[test]
    fn engine_and_client_are_bound_as_the_section_says() {
        assert_eq!(cpus(""), [""; 0]);
        let said = cpus("[cpus]\nengine = '2-5,7'\nclient = ['0-1']");
        assert_eq!(said, ["engine 2-5,7, client 0-1"]);
        assert_eq!(cpus("[cpus]\nengine = '2'"), ["engine 2, client any"]);
        assert_eq!(cpus("[cpus]\ntrial = '0-7'"), ["engine and client together 0-7"]);
    }

    #[test]
    fn each_lane_has_its_own_and_without_a_word_its_part_of_the_cores() {
        let said = |section: &str| -> Vec<String> {
            let lanes = sweep(&two(section)).lanes;
            lanes.cpus.iter().map(ToString::to_string).collect()
        };
        // The machine of these tests has four cores of two threads: 0 and 4, 1 and 5, and so on.
        let parts = ["engine and client together 0-1,4-5", "engine and client together 2-3,6-7"];
        assert_eq!(said(""), parts);
        let named = said("[cpus]\nengine = ['1-3', '5-7']\nclient = ['0', '4']");
        assert_eq!(named, ["engine 1-3, client 0", "engine 5-7, client 4"]);
        let together = said("[cpus]\ntrial = ['0', '1']");
        assert_eq!(together, ["engine and client together 0", "engine and client together 1"]);
    }

    #[test]
    fn lanes_that_share_a_core_are_told() {
        let notes = |section: &str| sweep(&two(section)).notes;
        let said = notes("[cpus]\ntrial = ['0-1', '2-4']");
        assert_eq!(said, ["[cpus]: lanes 1 and 2 share a core: CPUs 0 and 4 are its threads"]);
        assert!(notes("[cpus]\ntrial = ['0,4', '1,5']").is_empty() && notes("").is_empty());
    }

    #[track_caller]
    fn check(text: &str, first: usize, want: &[(usize, &str)]) {
        let problems = try_sweep(text).unwrap_err();
        let got: Vec<String> = problems.list().iter().map(shown).collect();
        let want: Vec<String> =
            want.iter().map(|(line, text)| format!("{}: {text}", first + line)).collect();
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let first = RIGHT.lines().count() + 2;
        let kernel = "a list as the kernel writes it, such as \"2-7,10\"";
        for (section, want) in [
            (
                "",
                vec![(
                    0,
                    "[cpus] names no CPUs | such as engine = \"2-7\" and client = \"0-1\", or trial = \"0-7\" for both",
                )],
            ),
            ("engine = ''", vec![(1, "`engine`: must not be empty")]),
            (
                "engine = 3",
                vec![(
                    1,
                    "`engine`: expected text, found a whole number | write it in quotes: \"3\"",
                )],
            ),
            (
                "engine = 'x'",
                vec![(
                    1,
                    &*format!(
                        "`engine`: \"x\" is no list of CPUs: \"x\" is neither a number nor a range | {kernel}"
                    ),
                )],
            ),
            (
                "engine = '6-9'",
                vec![(1, "`engine`: this machine has no CPU 8-9 | it has CPUs 0-7")],
            ),
            (
                "engine = '1-3'\nclient = '0-1'",
                vec![(
                    2,
                    "`client`: shares CPUs 1 with `engine` | leave them out of one of the two",
                )],
            ),
            (
                "engine = ['1', '2']",
                vec![(
                    1,
                    "`engine`: has 2 sets | a list of 1: one set for each trial that runs at once",
                )],
            ),
            (
                "engine = '1'\ntrial = '0,2'",
                vec![(
                    1,
                    "`engine`: stands beside `trial` | `trial` is for engine and client together: leave it out, or this one",
                )],
            ),
        ] {
            check(&format!("{RIGHT}\n[cpus]\n{section}"), first, &want);
        }
    }

    #[test]
    fn mistakes_of_several_lanes_are_told_with_theirs() {
        let first = RIGHT.lines().count() + 4;
        let list = "a list of 2: one set for each trial that runs at once";
        for (section, want) in [
            (
                "trial = '0-3'",
                vec![(1, &*format!("`trial`: is one set for several trials | {list}"))],
            ),
            ("trial = ['0-3']", vec![(1, &*format!("`trial`: has 1 sets | {list}"))]),
            (
                "trial = ['0-3', '3-5']",
                vec![(
                    1,
                    "`trial[1]`: shares CPUs 3 with `trial[0]` | leave them out of one of the two",
                )],
            ),
            (
                "engine = ['0', '1']",
                vec![(
                    0,
                    "side by side, engine and client both need CPUs of their own | name those of the other, too, or give `trial` for both together",
                )],
            ),
            (
                "engine = ['0', '1']\nclient = ['2', '0']",
                vec![(
                    2,
                    "`client[1]`: shares CPUs 0 with `engine[0]` | leave them out of one of the two",
                )],
            ),
        ] {
            check(&two(&format!("[cpus]\n{section}")), first, &want);
        }
    }

    #[test]
    fn parts_of_less_than_a_core_are_refused() {
        let text = two("").replace("side_by_side = 2", "side_by_side = 5");
        let said = try_sweep(&text).unwrap_err().to_string();
        assert!(said.contains("5 trials at once need a core each, and there are 4"), "{said}");
    }
}
