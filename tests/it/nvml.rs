//! The stand-in for NVIDIA's library: built once from tests/nvml-standin, told by a script what to answer.

use crate::harness::{Sandbox, repository};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// A stand-in with its script, in a sandbox.
pub(crate) struct StandIn<'s> {
    pub(crate) sandbox: &'s Sandbox,
    script: PathBuf,
}

impl<'s> StandIn<'s> {
    pub(crate) fn new(sandbox: &'s Sandbox, script: &str) -> Self {
        Self::of(sandbox, &library(&[]), script)
    }

    /// Also for the commands of another sandbox.
    pub(crate) fn serve(&self, other: &Sandbox) {
        other.set("SWEEPD_NVML_LIBRARY", library(&[]));
        other.set("NVML_STANDIN", &self.script);
    }

    /// A driver too old for nearly everything.
    pub(crate) fn minimal(sandbox: &'s Sandbox, script: &str) -> Self {
        Self::of(sandbox, &library(&["-DMINIMAL"]), script)
    }

    fn of(sandbox: &'s Sandbox, library: &Path, script: &str) -> Self {
        let standin = Self { sandbox, script: sandbox.path().join("standin") };
        sandbox.set("SWEEPD_NVML_LIBRARY", library);
        sandbox.set("NVML_STANDIN", &standin.script);
        standin.script(script);
        standin
    }

    /// Replaces the script; every process that uses it sees the new one on its next call.
    pub(crate) fn script(&self, text: &str) {
        let temporary = self.script.with_extension("new");
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, &self.script).unwrap();
    }

    /// What was set, in order: `UUID KEY VALUE`.
    pub(crate) fn changes(&self) -> Vec<String> {
        let text = fs::read_to_string(self.sandbox.path().join("standin.state"));
        text.unwrap_or_default().lines().map(ToOwned::to_owned).collect()
    }
}

/// For `epoch`: a script's curves begin now.
pub(crate) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    format!("epoch {:.3}\n", since.as_secs_f64())
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
