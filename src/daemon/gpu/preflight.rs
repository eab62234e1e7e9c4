//! What can be known of a sweep's GPUs before the night: for `sweepd check`.

use super::{Machine, choose};
use crate::gpu::client::Client;
use crate::gpu::facts::Inventory;
use crate::ids::Name;
use crate::sweep::def::Sweep;
use crate::sweep::gpu::{self, GpuPlan, Need};
use crate::sweep::side::SideBySide;

impl Machine {
    /// Everything that would stop a trial of this sweep from having its GPUs, in words.
    pub(crate) async fn preflight(&self, sweep: &Sweep, visible: Option<&str>) -> Vec<String> {
        let needs: Vec<(&Name, Need)> = sweep
            .variants
            .iter()
            .filter_map(|v| Some((&v.name, gpu::need(sweep.gpu.as_ref(), v)?)))
            .filter(|(_, need)| need.asked)
            .collect();
        let Some((_, first)) = needs.first() else { return Vec::new() };
        let inventory = match Client::new(self.nvml.clone()).inventory().await {
            Ok(inventory) => inventory,
            Err(fault) => return vec![format!("[gpu]: {fault}; {}", fault.advice())],
        };
        let is_root = nix::unistd::geteuid().is_root();
        let mut problems = settings(&first.plan, &inventory, is_root);
        let side = SideBySide::of(sweep.lanes.count, sweep.gpu.as_ref(), &sweep.variants);
        problems.extend(side.lacks(&choose::cards(&inventory, visible)));
        for (variant, need) in &needs {
            if let Err(why) = choose::choose(&need.wanted, &inventory, visible, &[]) {
                problems.push(format!("variant `{variant}`: {why}"));
            }
        }
        problems
    }
}

fn settings(plan: &GpuPlan, inventory: &Inventory, is_root: bool) -> Vec<String> {
    let mut problems = Vec::new();
    if !plan.settings.is_empty() && !is_root {
        problems.push("[gpu]: changing clocks, power limit or modes needs root".to_owned());
    }
    let Some(milliwatts) = plan.settings.power_limit_mw else { return problems };
    let watts = f64::from(milliwatts) / 1e3;
    for gpu in &inventory.gpus {
        let bounds = gpu.power.limit_min_w.zip(gpu.power.limit_max_w);
        if let Some((least, most)) = bounds.filter(|(a, b)| watts < *a || watts > *b) {
            let name = gpu.uuid.as_deref().unwrap_or("a GPU");
            problems.push(format!(
                "[gpu]: {name} takes a power limit of {least} to {most} W, not {watts} W"
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::facts::{Gpu, Power};
    use crate::sweep::gpu::Settings;

    #[test]
    fn what_would_fail_at_night_is_said_before() {
        let power =
            Power { limit_min_w: Some(100.0), limit_max_w: Some(300.0), ..Power::default() };
        let gpus = vec![Gpu { power, ..Gpu::default() }];
        let inventory = Inventory { gpus, ..Inventory::default() };
        let settings_of =
            |milliwatts| Settings { power_limit_mw: Some(milliwatts), ..Settings::default() };
        let plan = GpuPlan { settings: settings_of(350_000), ..GpuPlan::default() };
        let said = settings(&plan, &inventory, false);
        assert!(said[0].contains("needs root") && said[1].contains("100 to 300 W"), "{said:?}");
        let plan = GpuPlan { settings: settings_of(250_000), ..GpuPlan::default() };
        assert!(settings(&plan, &inventory, true).is_empty());
        assert!(settings(&GpuPlan::default(), &inventory, false).is_empty());
    }
}
