//! `[cpus]`: which CPUs a trial's engine and its client are bound to.
//!
//! Without the section nothing is bound.

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

/// `None` where the section is not there, or is wrong.
pub(super) fn cpus(fields: &Fields<'_>, machine: Option<&Topology>) -> Option<TrialCpus> {
    let [trial, engine, client] =
        ["trial", "engine", "client"].map(|key| one(&fields.optional(key), key, machine));
    let said = |set: &Option<Named<'_>>| set.as_ref().map(|set| set.cpus.clone());
    if let Some(trial) = &trial {
        for other in engine.iter().chain(&client) {
            let help = "`trial` is for engine and client together: leave it out, or this one";
            other.field.problem("stands beside `trial`", Some(help.to_owned()));
        }
        let both = Some(trial.cpus.clone());
        return Some(TrialCpus { engine: both.clone(), client: both });
    }
    if let Some((client, engine)) = client.as_ref().zip(engine.as_ref()) {
        apart(client, engine);
    }
    let found = TrialCpus { engine: said(&engine), client: said(&client) };
    if found == TrialCpus::default() {
        let help = "such as engine = \"2-7\" and client = \"0-1\", or trial = \"0-7\" for both";
        let at = fields.at();
        let asked = ["trial", "engine", "client"].map(|key| fields.optional(key).is_there());
        if !asked.contains(&true) {
            fields.form().problem(at, "[cpus] names no CPUs", Some(help.to_owned()));
        }
        return None;
    }
    Some(found)
}

fn one<'f>(field: &Field<'f>, name: &str, machine: Option<&Topology>) -> Option<Named<'f>> {
    let cpus = field.parsed(|text| listed(text, machine))?;
    Some(Named { field: field.clone(), name: name.to_owned(), cpus })
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

    fn cpus(section: &str) -> Option<String> {
        sweep(&format!("{RIGHT}\n{section}")).cpus.map(|cpus| cpus.to_string())
    }

    #[test]
    fn engine_and_client_are_bound_as_the_section_says() {
        assert_eq!(cpus(""), None);
        let said = cpus("[cpus]\nengine = '2-5,7'\nclient = '0-1'");
        assert_eq!(said.unwrap(), "engine 2-5,7, client 0-1");
        assert_eq!(cpus("[cpus]\nengine = '2'").unwrap(), "engine 2, client any");
        assert_eq!(cpus("[cpus]\ntrial = '0-7'").unwrap(), "engine and client together 0-7");
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let first = RIGHT.lines().count() + 2;
        for (section, line, want) in [
            (
                "",
                0,
                "[cpus] names no CPUs | such as engine = \"2-7\" and client = \"0-1\", or trial = \"0-7\" for both",
            ),
            ("engine = ''", 1, "`engine`: must not be empty"),
            (
                "engine = 3",
                1,
                "`engine`: expected text, found a whole number | write it in quotes: \"3\"",
            ),
            (
                "engine = 'x'",
                1,
                "`engine`: \"x\" is no list of CPUs: \"x\" is neither a number nor a range | a list as the kernel writes it, such as \"2-7,10\"",
            ),
            ("engine = '6-9'", 1, "`engine`: this machine has no CPU 8-9 | it has CPUs 0-7"),
            (
                "engine = '1-3'\nclient = '0-1'",
                2,
                "`client`: shares CPUs 1 with `engine` | leave them out of one of the two",
            ),
            (
                "engine = '1-3'\ntrial = '0-3'",
                1,
                "`engine`: stands beside `trial` | `trial` is for engine and client together: leave it out, or this one",
            ),
            (
                "engines = '1'",
                1,
                "unknown key `engines` in [cpus] | did you mean `engine`? allowed here: `trial`, `engine`, `client`",
            ),
        ] {
            let problems = try_sweep(&format!("{RIGHT}\n[cpus]\n{section}")).unwrap_err();
            let got: Vec<String> = problems.list().iter().map(shown).collect();
            assert!(got.contains(&format!("{}: {want}", first + line)), "{section}: {got:?}");
        }
    }
}
