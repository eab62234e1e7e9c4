//! The stand-in for NVIDIA's library: built once from tests/nvml-standin, told by a script what to answer.

use crate::harness::{Sandbox, repository};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A stand-in with its script, in a sandbox.
pub(crate) struct StandIn<'s> {
    pub(crate) sandbox: &'s Sandbox,
    library: PathBuf,
    script: PathBuf,
}

impl<'s> StandIn<'s> {
    pub(crate) fn new(sandbox: &'s Sandbox, script: &str) -> Self {
        let standin =
            Self { sandbox, library: library(&[]), script: sandbox.path().join("standin") };
        standin.script(script);
        standin
    }

    /// A driver too old for nearly everything.
    pub(crate) fn minimal(sandbox: &'s Sandbox, script: &str) -> Self {
        Self { library: library(&["-DMINIMAL"]), ..Self::new(sandbox, script) }
    }

    /// Replaces the script; every process that uses it sees the new one on its next call.
    pub(crate) fn script(&self, text: &str) {
        let temporary = self.script.with_extension("new");
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, &self.script).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.prepare(self.sandbox.command(arguments))
    }

    /// With this library, whatever the command was.
    pub(crate) fn prepare(&self, mut command: Command) -> Command {
        command.env("SWEEPD_NVML_LIBRARY", &self.library).env("NVML_STANDIN", &self.script);
        command
    }
}

/// Built with cc, which the crate itself needs. Tests of several processes may build it at once: each
/// builds its own file and renames it into place.
fn library(flags: &[&str]) -> PathBuf {
    static BUILT: OnceLock<std::sync::Mutex<()>> = OnceLock::new();
    let lock = BUILT.get_or_init(Default::default).lock().unwrap();
    let source = repository().join("tests/nvml-standin");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nvml{}", flags.concat()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("libnvidia-ml.so.1");
    let changed = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let newest = ["nvml.c", "script.h"].map(|name| changed(&source.join(name)).unwrap());
    if changed(&path).is_some_and(|built| newest.iter().all(|changed| *changed < built)) {
        return path;
    }
    let temporary = folder.join(format!("{}.so", std::process::id()));
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-w", "-o"])
        .arg(&temporary)
        .arg(source.join("nvml.c"))
        .arg("-lpthread")
        .args(flags)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    fs::rename(&temporary, &path).unwrap();
    drop(lock);
    path
}
