//! Samples on their way from the helper to the phase's files: length and postcard, one after another.
//!
//! Appended to by one helper after another. A frame that a dying helper did not finish is passed over.

use crate::run::gpu::GpuSample;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

pub(super) fn write(out: &mut impl Write, sample: &GpuSample) -> io::Result<()> {
    let bytes = postcard::to_stdvec(sample).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&[length.to_le_bytes().as_slice(), &bytes].concat())
}

/// In order of time. What is not there was never sampled: an empty list.
pub(crate) fn read(path: &Path) -> io::Result<Vec<GpuSample>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut samples: Vec<GpuSample> = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((sample, after)) = next(rest) {
        samples.push(sample);
        rest = after;
    }
    samples.sort_by_key(|sample| (sample.at, sample.gpu));
    Ok(samples)
}

fn next(bytes: &[u8]) -> Option<(GpuSample, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let frame = rest.get(..length)?;
    Some((postcard::from_bytes(frame).ok()?, rest.get(length..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::MonoNs;

    #[test]
    fn samples_come_back_and_a_torn_end_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gpu.frames");
        assert!(read(&path).unwrap().is_empty());
        let samples: Vec<_> = [3, 5, 9].map(|at| GpuSample::at(MonoNs::new(at))).to_vec();
        let mut bytes = Vec::new();
        for sample in &samples {
            write(&mut bytes, sample).unwrap();
        }
        fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path).unwrap(), samples);
        fs::write(&path, &bytes[..bytes.len() - 2]).unwrap();
        assert_eq!(read(&path).unwrap(), samples[..2]);
    }
}
