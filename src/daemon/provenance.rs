//! Gathers what a run stands on, once, when it begins. What cannot be had is left out.

use super::order::Order;
use super::version;
use crate::run::FORMAT;
use crate::run::provenance::{ModelFiles, Provenance, StandsOn};
use crate::store::dirs::RunDir;
use crate::store::files::{self, StoreError};
use crate::store::fingerprint;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Writes `provenance.json`, unless the run has one from its beginning.
pub(super) async fn write_once(order: &Order, dir: &RunDir) -> Result<(), StoreError> {
    let path = dir.file("provenance.json");
    if path.exists() {
        return Ok(());
    }
    files::write_json(&path, &gather(order).await)
}

/// `None` for a run that was begun before there was such a file.
pub(super) fn read(dir: &RunDir) -> Result<Option<Provenance>, StoreError> {
    files::read_json_if_there(&dir.file("provenance.json"))
}

async fn gather(order: &Order) -> Provenance {
    let mut provenance = Provenance { format: FORMAT, ..Provenance::default() };
    let mut models: BTreeSet<PathBuf> = BTreeSet::new();
    let run_as = order.sweep.containment.run_as.as_ref();
    for variant in &order.sweep.variants {
        provenance.variants.push(StandsOn {
            variant: variant.name.clone(),
            program: variant.program.clone(),
            versions: version::others(variant, &order.sweepd, &order.inherited, run_as).await,
        });
        models.insert(variant.model.path.clone());
    }
    let data = order.sweep.data.clone();
    // Reading samples of many large files from a slow disk takes a while.
    let read = tokio::task::spawn_blocking(move || {
        let files = |path: PathBuf| ModelFiles { files: fingerprint::model(&path), path };
        (models.into_iter().map(files).collect(), data.into_iter().map(files).collect())
    });
    (provenance.models, provenance.data) = read.await.unwrap_or_default();
    provenance
}
