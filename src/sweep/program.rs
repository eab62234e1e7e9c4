//! The program that `{program}` stands for, and the interpreter that runs it.

use super::variants::Surroundings;
use crate::form::Wrong;
use crate::form::host::{Host, PathKind};
use std::path::Path;

/// A path with a slash is relative to the sweep file; a bare name is looked up in `PATH`. What was
/// found is what will run, so the path leaves here.
pub(super) fn find(text: &str, around: &Surroundings<'_>) -> Result<String, Wrong> {
    let path = if text.contains('/') {
        let path = around.path(text);
        match around.host.kind(&path) {
            Some(PathKind::Program) => path,
            Some(PathKind::File) => {
                return Err(Wrong::new(format!("{} may not be run", path.display()))
                    .help(format!("chmod +x {}", path.display())));
            }
            Some(PathKind::Folder) => {
                return Err(Wrong::new(format!("{} is a folder", path.display())));
            }
            None => return Err(Wrong::new(format!("{} is not there", path.display()))),
        }
    } else {
        around.host.find_program(text).ok_or_else(|| {
            Wrong::new(format!("there is no program {text:?} in PATH"))
                .help("a path with a slash is relative to the sweep file")
        })?
    };
    let path = path.into_os_string().into_string();
    path.map_err(|_| Wrong::new("lies in a folder whose name is not UTF-8"))
}

/// The interpreter that runs the program, where that is Python: the program itself, or what its
/// first line names.
pub(super) fn python(program: &str, host: &dyn Host) -> Option<String> {
    let is_python = |path: &Path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|n| n.starts_with("python"))
    };
    if is_python(Path::new(program)) {
        return Some(program.to_owned());
    }
    let line = host.first_line(Path::new(program))?;
    let mut words = line.strip_prefix("#!")?.split_whitespace();
    let interpreter = words.next()?;
    let found = match Path::new(interpreter).file_name()?.to_str()? {
        "env" => host.find_program(words.next()?)?.to_str()?.to_owned(),
        _ => interpreter.to_owned(),
    };
    is_python(Path::new(&found)).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::host::FakeHost;

    #[test]
    fn the_interpreter_of_a_script_is_found() {
        let mut host = FakeHost::default()
            .with(PathKind::Program, "/v/bin/serve", "#!/v/bin/python3.11\nimport x")
            .with(PathKind::Program, "/v/bin/by-env", "#!/usr/bin/env python3\n")
            .with(PathKind::Program, "/v/bin/shell", "#!/bin/sh\nexec x")
            .with(PathKind::Program, "/usr/bin/python3", "");
        host.path = vec!["/usr/bin".into()];
        for (program, expected) in [
            ("/v/bin/serve", Some("/v/bin/python3.11")),
            ("/v/bin/by-env", Some("/usr/bin/python3")),
            ("/v/bin/shell", None),
            ("/v/bin/python", Some("/v/bin/python")),
            ("/v/bin/absent", None),
        ] {
            assert_eq!(python(program, &host).as_deref(), expected, "{program}");
        }
    }
}
