//! The command line and the environment of one launch. Pure.
//!
//! Invariant: a variable of sweepd's own environment reaches the engine only by its name in an
//! allow-list.

use super::def::{EngineDef, ParamValue, Template, VersionProbe};
use super::params;
pub(crate) use super::template::{SlotError, Slots};
use std::collections::BTreeMap;

/// What is executed: never a shell line. `args` are flags that the engine file does not know.
pub(crate) fn argv(
    engine: &EngineDef,
    values: &BTreeMap<String, ParamValue>,
    args: &[String],
    slots: &Slots<'_>,
) -> Result<Vec<String>, SlotError> {
    let mut argv = expanded(&engine.launch.command, slots)?;
    argv.extend(params::flags(&engine.params, values));
    argv.extend(args.iter().cloned());
    Ok(argv)
}

/// A command with its slots filled.
pub(crate) fn expanded(command: &[Template], slots: &Slots<'_>) -> Result<Vec<String>, SlotError> {
    command.iter().map(|argument| argument.expand(slots)).collect()
}

/// The version that `output` of a version command tells.
pub(crate) fn version_in<'o>(probe: &VersionProbe, output: &'o str) -> Option<&'o str> {
    probe.pattern.captures(output)?.get(1).map(|found| found.as_str())
}

/// How many ports the engine takes: its own, and those above it that its command line names.
pub(crate) fn ports(engine: &EngineDef) -> u16 {
    let places = engine.launch.command.iter().chain(engine.launch.env.values());
    1 + places.map(Template::internal_ports).max().unwrap_or(0)
}

/// What a sweep says about one variant's environment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnEnvironment<'a> {
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) env_pass: &'a [String],
}

/// The whole environment of the engine. `inherited` is sweepd's own; of it only the listed
/// variables are taken. The engine file goes over them, the variant over both.
pub(crate) fn environment(
    engine: &EngineDef,
    variant: OwnEnvironment<'_>,
    inherited: &BTreeMap<String, String>,
    slots: &Slots<'_>,
) -> Result<BTreeMap<String, String>, SlotError> {
    let passed = engine.launch.env_pass.iter().chain(variant.env_pass);
    let mut environment: BTreeMap<String, String> = passed
        .filter_map(|name| inherited.get_key_value(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    for (name, value) in &engine.launch.env {
        environment.insert(name.clone(), value.expand(slots)?);
    }
    environment.extend(variant.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(environment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::parse::tests::{MINIMAL, engine};
    use std::path::Path;

    fn slots() -> Slots<'static> {
        Slots {
            program: Some("/bin/serve"),
            model: Path::new("/m.gguf"),
            served_name: "tiny",
            host: "127.0.0.1",
            port: 8001,
            gpus: None,
            sweepd: Path::new("/bin/sweepd"),
            python: None,
        }
    }

    #[test]
    fn the_parameters_follow_the_command() {
        let engine = engine(&format!("{MINIMAL}\n[params.slots]\ntype = 'integer'\nflag = '-np'"));
        let values = BTreeMap::from([("slots".to_owned(), ParamValue::Integer(8))]);
        let argv = argv(&engine, &values, &["--more".to_owned()], &slots()).unwrap();
        assert_eq!(argv, ["/bin/serve", "--port", "8001", "-np", "8", "--more"]);
    }

    #[test]
    fn only_listed_variables_pass_and_the_variant_wins() {
        let engine = engine(&MINIMAL.replace(
            "[launch]",
            "[launch]\nenv_pass = ['LANG']\nenv = { PORT = 'p{port}', MODE = 'engine', LANG = 'C' }",
        ));
        let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let inherited = text(&[
            ("PATH", "/bin"),
            ("LANG", "de"),
            ("SECRET", "s"),
            ("CACHE", "/c"),
            ("MODE", "own"),
        ]);
        let variant = OwnEnvironment {
            env: &text(&[("MODE", "variant")]),
            env_pass: &["CACHE".to_owned(), "ABSENT".to_owned()],
        };
        let got = environment(&engine, variant, &inherited, &slots()).unwrap();
        let expected = text(&[
            ("PATH", "/bin"),
            ("LANG", "C"),
            ("CACHE", "/c"),
            ("PORT", "p8001"),
            ("MODE", "variant"),
        ]);
        assert_eq!(got, expected);
    }

    #[test]
    fn the_version_is_the_patterns_first_group() {
        let engine = engine(&format!(
            "{MINIMAL}\n[version]\ncommand = ['{{program}}', '--version']\n\
             pattern = 'version: (\\S+)'"
        ));
        let probe = engine.version.unwrap();
        assert_eq!(expanded(&probe.command, &slots()).unwrap(), ["/bin/serve", "--version"]);
        assert_eq!(version_in(&probe, "x\nversion: b123 (abc)\n"), Some("b123"));
        assert_eq!(version_in(&probe, "no"), None);
    }
}
