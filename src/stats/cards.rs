//! The cards that the driver named while trials ran, beside what the sweep file says. Pure.
//!
//! Where the sweep has no `[hardware]`, the card that the driver named stands in; where both speak and
//! differ, the sweep's word holds and a mark says so.

use crate::physics::gpu::Hardware;
use crate::run::gpu::{AttemptGpu, OwnedGpu};
use crate::stats::data::{TrialData, VariantFacts};
use crate::stats::marks::{Mark, MarkCode};

/// What the driver told of a variant's GPUs: of the first trial that owned any.
fn told<'t>(variant: &VariantFacts, trials: &'t [TrialData]) -> Option<&'t AttemptGpu> {
    let own = trials.iter().filter(|trial| trial.outcome.trial.variant == variant.name);
    own.filter_map(|trial| trial.gpu.as_ref()).find(|gpu| !gpu.gpus.is_empty())
}

/// Those GPUs as hardware: one known card, alone or several times.
fn hardware(gpus: &[OwnedGpu]) -> Option<Hardware> {
    let gpu = gpus.first()?.card.clone()?;
    let alike = gpus.iter().all(|other| other.card.as_ref() == Some(&gpu));
    let count = u32::try_from(gpus.len()).ok()?;
    alike.then_some(Hardware { gpu, count, kv_cache_bits: None })
}

/// Variants whose hardware the sweep does not name get what the driver told.
pub(crate) fn fill(variants: &mut [VariantFacts], trials: &[TrialData]) {
    for variant in variants {
        let Some(told) = told(variant, trials) else { continue };
        variant.machine.card = told.gpus.first().and_then(|gpu| gpu.name.clone());
        if variant.machine.hardware.is_none() {
            variant.machine.hardware = hardware(&told.gpus);
        }
    }
}

/// Where sweep and driver name different cards, or another number of them.
pub(super) fn marks(variants: &[VariantFacts], trials: &[TrialData]) -> Vec<Mark> {
    let differs = |variant: &VariantFacts| {
        // A simulated engine imitates a card; which one is there has no say in it.
        let said = variant.machine.hardware.as_ref().filter(|_| !variant.simulated)?;
        let seen = &told(variant, trials)?.gpus;
        let first = seen.first()?;
        let same_card = first.card.as_ref().is_none_or(|card| card.name == said.gpu.name);
        let same_count = u32::try_from(seen.len()) == Ok(said.count);
        let name = first.name.as_deref().unwrap_or("unnamed");
        (!same_card || !same_count).then(|| Mark {
            code: MarkCode::HardwareDiffers,
            variant: Some(variant.name.clone()),
            phase: None,
            block: None,
            detail: format!(
                "the sweep says {} x {}, the driver says {} x {name}",
                said.count,
                said.gpu.name,
                seen.len()
            ),
        })
    };
    variants.iter().filter_map(differs).collect()
}

/// The machine's GPUs as trials had them, each kind once; empty where no trial owned any.
pub(crate) fn words(trials: &[TrialData]) -> Option<String> {
    let mut kinds: Vec<String> = Vec::new();
    for gpu in trials.iter().filter_map(|trial| trial.gpu.as_ref()) {
        let Some(first) = gpu.gpus.first() else { continue };
        let name = first.name.as_deref().unwrap_or("unnamed");
        let driver = gpu.driver_version.as_ref().map(|version| format!(", driver {version}"));
        let text = format!("{} x {name}{}", gpu.gpus.len(), driver.unwrap_or_default());
        if !kinds.contains(&text) {
            kinds.push(text);
        }
    }
    (!kinds.is_empty()).then(|| kinds.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::physics::gpu::GpuTable;
    use crate::stats::data::RunData;
    use crate::stats::fixture::{attempt_gpu, run, with_a_machine};

    fn seen(mut run: RunData, names: &[&str]) -> RunData {
        let table = GpuTable::built_in().unwrap_or_else(|problems| panic!("{problems}"));
        let owned = |name: &&str| OwnedGpu {
            name: Some((*name).to_owned()),
            card: table.find(name).cloned(),
            ..attempt_gpu().gpus.remove(0)
        };
        for trial in &mut run.trials {
            let gpus = names.iter().map(owned).collect();
            trial.gpu = Some(AttemptGpu { gpus, ..attempt_gpu() });
        }
        run
    }

    #[test]
    fn the_drivers_word_stands_in_where_the_sweep_has_none() {
        let mut data = seen(run(), &["NVIDIA A40", "NVIDIA A40"]);
        fill(&mut data.variants, &data.trials);
        let hardware = data.variants[0].machine.hardware.clone().unwrap();
        assert_eq!((hardware.gpu.name.as_str(), hardware.count), ("A40", 2));
        assert_eq!(words(&data.trials).unwrap(), "2 x NVIDIA A40, driver 550.54.15");
        // A card that no table knows, and two that differ, are not guessed at.
        for names in [&["NVIDIA Q7"][..], &["NVIDIA A40", "NVIDIA L4"]] {
            let mut data = seen(run(), names);
            fill(&mut data.variants, &data.trials);
            assert_eq!(data.variants[0].machine.hardware, None);
            assert_eq!(data.variants[0].machine.card.as_deref(), Some(names[0]));
        }
        assert_eq!(words(&run().trials), None);
    }

    #[test]
    fn a_sweep_that_names_another_card_is_marked() {
        let mut data = seen(with_a_machine(run(), 300.0), &["NVIDIA A40"]);
        assert!(marks(&data.variants, &data.trials).is_empty(), "simulated");
        data.variants[0].simulated = false;
        let [mark] = &marks(&data.variants, &data.trials)[..] else { panic!() };
        assert_eq!(mark.detail, "the sweep says 1 x Z9, the driver says 1 x NVIDIA A40");
        fill(&mut data.variants, &data.trials);
        assert_eq!(data.variants[0].machine.hardware.as_ref().unwrap().gpu.name, "Z9");
    }
}
