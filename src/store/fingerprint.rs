//! Fingerprints of a model's files: enough to tell another file, quick for hundreds of gigabytes.
//!
//! Not a proof against forgery: what lies between two samples is not read.

use crate::run::provenance::ModelFile;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const SAMPLE_BYTES: usize = 64 * 1024;
const SAMPLES: u64 = 64;
/// A folder of more files than this is no model.
const MOST_FILES: usize = 1000;

/// The files of a model, which is a file or a folder, in the order of their names. What cannot be
/// read is left out.
pub(crate) fn model(path: &Path) -> Vec<ModelFile> {
    let mut files: Vec<PathBuf> = if path.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|file| file.is_file()).take(MOST_FILES).collect()
    } else {
        vec![path.to_owned()]
    };
    files.sort();
    files.iter().filter_map(|file| one(file).ok()).collect()
}

fn one(path: &Path) -> io::Result<ModelFile> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut hash = Sha256::new();
    hash.update(bytes.to_le_bytes());
    let mut buffer = vec![0; SAMPLE_BYTES];
    for at in places(bytes) {
        let want = usize::try_from(bytes - at).unwrap_or(SAMPLE_BYTES).min(SAMPLE_BYTES);
        let sample = buffer.get_mut(..want).unwrap_or_default();
        file.read_exact_at(sample, at)?;
        hash.update(&*sample);
    }
    let digest = hash.finalize();
    Ok(ModelFile {
        name: path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        bytes,
        sampled_sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

/// Where samples begin: all of a small file, otherwise spread evenly, beginning and end among them.
fn places(bytes: u64) -> Vec<u64> {
    let sample = SAMPLE_BYTES as u64;
    if bytes <= sample * SAMPLES {
        return (0..bytes.div_ceil(sample)).map(|index| index * sample).collect();
    }
    let last = bytes - sample;
    // 64 of 2^64 at most: the product of two u64 does not fit, that of u128 does.
    let place = |index: u64| u128::from(last) * u128::from(index) / u128::from(SAMPLES - 1);
    (0..SAMPLES).filter_map(|index| u64::try_from(place(index)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_cover_small_files_and_both_ends_of_large_ones() {
        assert_eq!(places(0), Vec::<u64>::new());
        assert_eq!(places(1), [0]);
        assert_eq!(places(65_537), [0, 65_536]);
        let large = places(1 << 40);
        assert_eq!((large.len(), large[0], large[63]), (64, 0, (1 << 40) - 65_536));
    }

    #[test]
    fn another_byte_or_another_size_is_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        write("a", b"same");
        write("b", b"same");
        write("c", b"samf");
        write("d", b"same\0");
        fs::create_dir(folder.path().join("sub")).unwrap();
        let files = model(folder.path());
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        let hashes: Vec<&str> = files.iter().map(|file| file.sampled_sha256.as_str()).collect();
        assert_eq!(hashes[0], hashes[1]);
        assert!(hashes[0] != hashes[2] && hashes[0] != hashes[3]);
        assert_eq!(hashes[0].len(), 64);
        assert_eq!(model(&folder.path().join("a"))[0].bytes, 4);
        assert!(model(&folder.path().join("absent")).is_empty());
    }
}
