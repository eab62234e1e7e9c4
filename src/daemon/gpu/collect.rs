//! What was sampled of the GPUs becomes the files of each phase.

use super::release::Released;
use crate::gpu::frames;
use crate::run::gpu::GpuSample;
use crate::run::phase::PhaseFacts;
use crate::stats::gpu;
use crate::store::dirs::AttemptDir;
use crate::store::files::StoreError;

/// `phases`: those that the attempt has records of. What was sampled.
pub(crate) fn store(
    released: &Released,
    phases: &[PhaseFacts],
    dir: &AttemptDir,
) -> Result<Vec<GpuSample>, StoreError> {
    dir.write_gpu(&released.facts)?;
    let samples =
        frames::read(&released.frames).map_err(StoreError::io("read", &released.frames))?;
    for facts in phases {
        let figures = gpu::of_phase(&released.facts, &samples, facts);
        dir.write_phase_gpu(facts, &samples, &figures)?;
    }
    std::fs::remove_file(&released.frames).ok();
    Ok(samples)
}
