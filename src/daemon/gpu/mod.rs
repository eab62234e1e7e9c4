//! A trial's GPUs: had alone, clean, set, watched, and given back. What joins `gpu`, `store` and the line.
//!
//! `isolate` before the launch, `Isolated::release` after the attempt. Everything that was taken or set
//! is given back and put back by `release`, or by the next sweepd should this one die.

mod belongs;
mod choose;
mod clean;
mod collect;
mod hold;
mod isolate;
mod preflight;
mod release;
pub(crate) mod settings;
mod watch;

pub(crate) use collect::store;
pub(crate) use isolate::{Isolated, Isolation, Need, isolate};

use crate::gpu::client::{Client, Nvml};
use crate::gpu::lease::Leases;
use crate::physics::gpu::GpuTable;
use crate::store::files::StoreError;
use crate::store::intents::Intents;
use crate::sweep::side::Card;
use std::path::PathBuf;

/// How this machine's GPUs are reached, and where what all sweepds share lies.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) nvml: Nvml,
    pub(crate) shared: PathBuf,
    /// The cards whose peaks are known, by the names that drivers give them.
    pub(crate) cards: GpuTable,
}

impl Machine {
    /// The GPUs that trials may have, where the driver tells.
    pub(crate) async fn cards(&self, visible: Option<&str>) -> Option<Vec<Card>> {
        match Client::new(self.nvml.clone()).inventory().await {
            Ok(inventory) => Some(choose::cards(&inventory, visible)),
            Err(fault) => {
                tracing::warn!(%fault, "one trial runs at a time: the GPUs are not known");
                None
            }
        }
    }

    /// Those of them that no trial left behind dirty.
    pub(crate) fn not_quarantined(&self, cards: &[Card]) -> Vec<Card> {
        let leases = self.leases();
        cards.iter().filter(|card| leases.quarantined(&card.uuid).is_none()).cloned().collect()
    }

    fn leases(&self) -> Leases {
        Leases::at(&self.shared)
    }

    fn intents(&self) -> Result<Intents, StoreError> {
        Intents::open(&self.shared.join("intents"))
    }

    /// Settings that a sweepd which is gone left set are put back. In words what was done, and what
    /// could not be. Nothing is asked of a driver where nothing was left.
    pub(crate) async fn undo(&self) -> Vec<String> {
        if !self.shared.join("intents").exists() {
            return Vec::new();
        }
        match self.intents() {
            Ok(intents) => {
                settings::undo_orphans(&mut Client::new(self.nvml.clone()), &intents).await
            }
            Err(error) => vec![error.to_string()],
        }
    }
}
