//! Why NVML did not answer: each cause a state of its own, for each has another remedy. Pure data.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What stands between sweepd and a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FaultKind {
    /// The driver's library is not on this machine, or cannot be loaded.
    NoLibrary,
    /// The library is there, the kernel's driver is not loaded.
    NoDriver,
    /// Library and kernel driver are of different versions, as after an upgrade without a reboot.
    VersionMismatch,
    NoPermission,
    /// The GPU fell off the bus, or needs a reset.
    GpuLost,
    /// No GPU with this UUID.
    NotFound,
    NotSupported,
    /// A value that the driver refuses.
    InvalidArgument,
    /// The driver did not return from a call; its helper was abandoned.
    Stuck,
    /// The helper process is gone, or could not be started.
    HelperGone,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    /// What was being done and what the driver said.
    pub(crate) detail: String,
}

impl Fault {
    pub(crate) fn new(kind: FaultKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// What to do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match self.kind {
            FaultKind::NoLibrary => {
                "install NVIDIA's driver, or name its library in SWEEPD_NVML_LIBRARY"
            }
            FaultKind::NoDriver => "load the driver (modprobe nvidia), or reboot",
            FaultKind::VersionMismatch => {
                "the driver was upgraded under the running kernel module: reboot"
            }
            FaultKind::NoPermission => {
                "run as root, or as a user who may open /dev/nvidia*; changing settings needs root"
            }
            FaultKind::GpuLost => "look for Xid lines in dmesg; reset the GPU or reboot",
            FaultKind::NotFound => "`sweepd gpu` lists the GPUs that there are",
            FaultKind::NotSupported => "this GPU or its driver does not offer it",
            FaultKind::InvalidArgument => "`sweepd gpu` shows the bounds of what can be set",
            FaultKind::Stuck => {
                "a driver call hangs in the kernel: look at dmesg; a reboot may be needed"
            }
            FaultKind::HelperGone => "see the log of sweepd (SWEEPD_LOG=info)",
            FaultKind::Other => "look at dmesg",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FaultKind::NoLibrary => "NVIDIA's library cannot be loaded",
            FaultKind::NoDriver => "NVIDIA's driver is not loaded",
            FaultKind::VersionMismatch => "NVIDIA's library and driver do not match",
            FaultKind::NoPermission => "no permission",
            FaultKind::GpuLost => "the GPU is lost",
            FaultKind::NotFound => "there is no such GPU",
            FaultKind::NotSupported => "not supported",
            FaultKind::InvalidArgument => "the driver refuses the value",
            FaultKind::Stuck => "a driver call does not return",
            FaultKind::HelperGone => "the NVML helper is gone",
            FaultKind::Other => "the driver failed",
        };
        write!(f, "{what}: {}", self.detail)
    }
}
