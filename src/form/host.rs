//! The machine as far as input files speak of it: which files are there, which programs.
//!
//! The one place where reading an input file looks at a disk. It never writes.

use crate::cpus::{CpuSet, Topology};
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// As much of a file as is read for its first line.
const FIRST_LINE_BYTES: u64 = 512;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathKind {
    File,
    /// A file that may be run.
    Program,
    Folder,
}

pub(crate) trait Host {
    fn read(&self, path: &Path) -> io::Result<String>;

    /// A file that may be too large to be read at once: its size, and what reads it.
    fn open(&self, path: &Path) -> io::Result<(u64, Box<dyn io::BufRead>)> {
        let text = self.read(path)?;
        Ok((text.len() as u64, Box::new(io::Cursor::new(text.into_bytes()))))
    }

    /// The first line of a text, without its end; `None` where it cannot be read or is no text.
    fn first_line(&self, path: &Path) -> Option<String> {
        self.read(path).ok()?.lines().next().map(str::to_owned)
    }

    /// `None`: nothing is there, or it may not be looked at.
    fn kind(&self, path: &Path) -> Option<PathKind>;

    /// A path that no longer depends on the current folder.
    fn absolute(&self, path: &Path) -> PathBuf;

    /// Stems of the `*.toml` files in a folder; none where there is no folder.
    fn toml_stems(&self, folder: &Path) -> Vec<String>;

    /// The folders of `PATH`.
    fn search_path(&self) -> &[PathBuf];

    /// `None` where the kernel does not tell.
    fn cpus(&self) -> Option<Topology>;

    /// A program by its bare name, as a shell would find it.
    fn find_program(&self, name: &str) -> Option<PathBuf> {
        let mut candidates = self.search_path().iter().map(|folder| folder.join(name));
        candidates.find(|path| self.kind(path) == Some(PathKind::Program))
    }
}

/// The real one.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    search_path: Vec<PathBuf>,
}

impl Disk {
    /// `path`: the value of the environment's `PATH`.
    pub(crate) fn new(path: &std::ffi::OsStr) -> Self {
        Self { search_path: std::env::split_paths(path).collect() }
    }
}

impl Host for Disk {
    fn read(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn open(&self, path: &Path) -> io::Result<(u64, Box<dyn io::BufRead>)> {
        let file = std::fs::File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok((metadata.len(), Box::new(io::BufReader::with_capacity(1 << 20, file))))
    }

    fn first_line(&self, path: &Path) -> Option<String> {
        let mut start = Vec::new();
        let file = std::fs::File::open(path).ok()?;
        io::Read::read_to_end(&mut io::Read::take(file, FIRST_LINE_BYTES), &mut start).ok()?;
        let line = start.split(|byte| *byte == b'\n').next()?;
        Some(std::str::from_utf8(line).ok()?.to_owned())
    }

    fn kind(&self, path: &Path) -> Option<PathKind> {
        let found = std::fs::metadata(path).ok()?;
        Some(match found.is_dir() {
            true => PathKind::Folder,
            false if found.permissions().mode() & 0o111 != 0 => PathKind::Program,
            false => PathKind::File,
        })
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
    }

    fn toml_stems(&self, folder: &Path) -> Vec<String> {
        let paths = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        paths
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect()
    }

    fn search_path(&self) -> &[PathBuf] {
        &self.search_path
    }

    fn cpus(&self) -> Option<Topology> {
        let folder = Path::new("/sys/devices/system/cpu");
        let list = |path: &Path| self.read(path).ok()?.trim().parse::<CpuSet>().ok();
        let online = list(&folder.join("online"))?;
        let threads = |cpu: u32| {
            let of_core = list(&folder.join(format!("cpu{cpu}/topology/thread_siblings_list")));
            // A virtual machine may not say: then each CPU is a core.
            of_core.or_else(|| CpuSet::of([cpu]))
        };
        // Sorted by their first CPU, and each once though all its threads name it.
        let cores: BTreeSet<CpuSet> = online.iter().filter_map(threads).collect();
        let allowed = CpuSet::of_this_thread().ok()?;
        Some(Topology { online, allowed, cores: cores.into_iter().collect() })
    }
}

/// A machine that exists only in a test.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeHost {
    pub(crate) files: std::collections::BTreeMap<PathBuf, (PathKind, String)>,
    pub(crate) path: Vec<PathBuf>,
    pub(crate) cpus: Option<Topology>,
}

#[cfg(test)]
impl FakeHost {
    pub(crate) fn with(mut self, kind: PathKind, path: &str, text: &str) -> Self {
        self.files.insert(path.into(), (kind, text.to_owned()));
        self
    }
}

#[cfg(test)]
impl Host for FakeHost {
    fn read(&self, path: &Path) -> io::Result<String> {
        let found = self.files.get(path).filter(|(kind, _)| *kind != PathKind::Folder);
        found.map(|(_, text)| text.clone()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn kind(&self, path: &Path) -> Option<PathKind> {
        self.files.get(path).map(|(kind, _)| *kind)
    }

    /// Its current folder is the root.
    fn absolute(&self, path: &Path) -> PathBuf {
        Path::new("/").join(path).components().collect()
    }

    fn toml_stems(&self, folder: &Path) -> Vec<String> {
        let inside = self.files.keys().filter(|path| path.parent() == Some(folder));
        inside
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect()
    }

    fn search_path(&self) -> &[PathBuf] {
        &self.path
    }

    fn cpus(&self) -> Option<Topology> {
        self.cpus.clone()
    }
}
