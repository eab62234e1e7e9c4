//! `[gpu]`: which GPUs a variant has to itself, in what state, and at what price.
//!
//! With it, every variant owns GPUs; without it, those whose engine's file has a `[gpu]` section, as
//! far as the machine has any.

use super::def::Variant;
use crate::form::{Field, Fields};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const WAIT: RangeInclusive<Duration> = SECOND..=Duration::from_secs(7 * 24 * 3600);
const MOST_GPUS: u32 = 64;
const MHZ: RangeInclusive<i64> = 1..=20_000;
const WATT: RangeInclusive<f64> = 1.0..=5_000.0;
const PRICE: RangeInclusive<f64> = 0.0..=1e6;

/// A GPU as a user names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GpuName {
    /// In the order of their places on the PCI bus, as `sweepd gpu` shows it.
    Index(u32),
    Uuid(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wanted {
    /// As many as for tensor parallelism; whichever are free first.
    Count(NonZeroU32),
    These(Vec<GpuName>),
}

/// What to do about a compute process that is not the trial's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Foreign {
    /// Wait for it to go, for as long as `wait`.
    Wait,
    /// The trial is not begun.
    Refuse,
    /// Go on beside it; the phases in which it was there are marked `tainted`.
    Taint,
}

/// What is set for a trial and put back after it. All need root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Least and most, in MHz.
    pub(crate) lock_clocks_mhz: Option<(u32, u32)>,
    pub(crate) lock_memory_clocks_mhz: Option<(u32, u32)>,
    pub(crate) power_limit_mw: Option<u32>,
    pub(crate) persistence: Option<bool>,
    pub(crate) exclusive: bool,
}

impl Settings {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// For the cost of a million tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Price {
    /// Of one GPU for one hour.
    pub(crate) gpu_hour: Option<f64>,
    /// Of one kilowatt-hour.
    pub(crate) kwh: Option<f64>,
    pub(crate) currency: String,
}

/// How trials own their GPUs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GpuPlan {
    pub(crate) wanted: Wanted,
    pub(crate) foreign: Foreign,
    /// For a lease that another sweep holds, and for foreign processes to go.
    pub(crate) wait: Duration,
    pub(crate) settings: Settings,
    /// A launch waits until the GPU is no warmer.
    pub(crate) max_start_temperature_c: Option<u32>,
    pub(crate) cool_within: Duration,
    /// A GPU with more in use than this is not clean.
    pub(crate) max_start_memory_bytes: u64,
    /// For memory to come back and processes to go, before a launch and after a stop.
    pub(crate) clean_within: Duration,
    pub(crate) price: Price,
}

impl Default for GpuPlan {
    /// What a variant gets whose engine's file asks for a GPU where the sweep says nothing.
    fn default() -> Self {
        Self {
            wanted: Wanted::Count(NonZeroU32::MIN),
            foreign: Foreign::Wait,
            wait: 1800 * SECOND,
            settings: Settings::default(),
            max_start_temperature_c: None,
            cool_within: 600 * SECOND,
            max_start_memory_bytes: 1 << 30,
            clean_within: 60 * SECOND,
            price: Price::default(),
        }
    }
}

/// What a variant's trials ask for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Need {
    pub(crate) plan: GpuPlan,
    pub(crate) wanted: Wanted,
    /// The sweep says so itself: without these GPUs no trial is begun. Otherwise only the engine's file
    /// does, and a machine without a GPU will do.
    pub(crate) asked: bool,
}

/// `None`: no GPU at all.
pub(crate) fn need(of_all: Option<&GpuPlan>, variant: &Variant) -> Option<Need> {
    let asked = of_all.is_some() || variant.gpus.is_some();
    if !asked && variant.engine.gpu.is_none() {
        return None;
    }
    let plan = of_all.cloned().unwrap_or_default();
    // As many as its hardware is said to have, where nobody says how many it owns.
    let together = variant.hardware.as_ref().and_then(|hardware| NonZeroU32::new(hardware.count));
    let one = Wanted::Count(NonZeroU32::MIN);
    let wanted = match (&variant.gpus, together) {
        (Some(own), _) => own.clone(),
        (None, Some(count)) if plan.wanted == one => Wanted::Count(count),
        (None, _) => plan.wanted.clone(),
    };
    Some(Need { plan, wanted, asked })
}

pub(super) fn gpu(fields: &Fields<'_>) -> GpuPlan {
    let default = GpuPlan::default();
    let [count, devices] = ["count", "devices"].map(|key| fields.optional(key));
    if count.is_there() && devices.is_there() {
        devices.problem("`count` and `devices` say the same thing twice", None);
    }
    let these = devices.is_there().then(|| names(&devices)).flatten();
    let count = count.count(MOST_GPUS);
    let wanted = these.map(Wanted::These).or(count.map(Wanted::Count));
    let [foreign, mib] = ["foreign", "max_start_memory_mib"].map(|key| fields.optional(key));
    let foreign = if foreign.is_there() { foreign.choice() } else { None };
    let wait = |key| fields.optional(key).duration(WAIT);
    let temperature = fields.optional("max_start_temperature_c").count(150);
    let memory = mib.count_or_zero(u32::MAX).map(|mib| u64::from(mib) << 20);
    GpuPlan {
        wanted: wanted.unwrap_or(default.wanted),
        foreign: foreign.unwrap_or(default.foreign),
        wait: wait("wait").unwrap_or(default.wait),
        settings: settings(fields),
        max_start_temperature_c: temperature.map(NonZeroU32::get),
        cool_within: wait("cool_within").unwrap_or(default.cool_within),
        max_start_memory_bytes: memory.unwrap_or(default.max_start_memory_bytes),
        clean_within: wait("clean_within").unwrap_or(default.clean_within),
        price: price(fields),
    }
}

fn settings(fields: &Fields<'_>) -> Settings {
    let watts = fields.optional("power_limit_w").float(WATT);
    Settings {
        lock_clocks_mhz: clocks(&fields.optional("lock_clocks_mhz")),
        lock_memory_clocks_mhz: clocks(&fields.optional("lock_memory_clocks_mhz")),
        power_limit_mw: watts.and_then(milliwatts),
        persistence: fields.optional("persistence").boolean(),
        exclusive: fields.optional("exclusive").boolean().unwrap_or(false),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked and positive"
)]
fn milliwatts(watts: f64) -> Option<u32> {
    WATT.contains(&watts).then(|| (watts * 1000.0).round() as u32)
}

/// One clock, or the least and the most: `1410`, `[1200, 1410]`.
fn clocks(field: &Field<'_>) -> Option<(u32, u32)> {
    if !field.is_there() {
        return None;
    }
    let mhz = |field: &Field<'_>| field.integer(MHZ).and_then(|mhz| u32::try_from(mhz).ok());
    if !field.is_list() {
        return mhz(field).map(|clock| (clock, clock));
    }
    match field.items().as_slice() {
        [least, most] => {
            let (least, most) = (mhz(least)?, mhz(most)?);
            if least > most {
                field.problem("the least is more than the most", None);
                return None;
            }
            Some((least, most))
        }
        _ => {
            field.problem("expected one clock, or the least and the most", None);
            None
        }
    }
}

fn price(fields: &Fields<'_>) -> Price {
    Price {
        gpu_hour: fields.optional("price_per_gpu_hour").float(PRICE),
        kwh: fields.optional("price_per_kwh").float(PRICE),
        currency: fields.optional("currency").text().unwrap_or_else(|| "USD".to_owned()),
    }
}

/// A variant's own `gpus`: how many, or which.
pub(super) fn wanted(field: &Field<'_>) -> Option<Wanted> {
    if !field.is_there() {
        return None;
    }
    if field.is_list() {
        return names(field).map(Wanted::These);
    }
    field.count(MOST_GPUS).map(Wanted::Count)
}

fn names(field: &Field<'_>) -> Option<Vec<GpuName>> {
    let items = field.items();
    if items.is_empty() {
        field.problem("names no GPU", None);
        return None;
    }
    let mut names: Vec<GpuName> = Vec::new();
    for item in &items {
        let name = if item.is_text() {
            GpuName::Uuid(item.text()?)
        } else {
            GpuName::Index(u32::try_from(item.integer(0..=i64::from(MOST_GPUS))?).ok()?)
        };
        if names.contains(&name) {
            item.problem("is named twice", None);
        }
        names.push(name);
    }
    Some(names)
}

/// What cannot go together, known without a machine.
pub(super) fn check(plan: &GpuPlan, variants: &[Variant], fields: &Fields<'_>) {
    for variant in variants {
        let (name, engine) = (&variant.name, &variant.engine);
        let pin = engine.pin();
        if variant.env.contains_key(pin.env.as_str()) {
            let message = format!("variant `{name}` sets {} itself", pin.env);
            let help = "leave it out: the trial's GPUs are put there".to_owned();
            fields.form().problem(fields.at(), message, Some(help));
        }
        if plan.settings.exclusive && pin.several_contexts {
            let message =
                format!("engine `{}` needs several CUDA contexts on its GPU", engine.name);
            let help = "exclusive-process mode allows one; leave `exclusive` out".to_owned();
            fields.optional("exclusive").problem(message, Some(help));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::tests::{RIGHT, sweep, try_sweep};
    use super::*;

    fn plan(section: &str) -> GpuPlan {
        sweep(&format!("{RIGHT}\n[gpu]\n{section}")).gpu.unwrap()
    }

    #[test]
    fn a_section_says_only_what_differs() {
        assert_eq!(plan("").wanted, Wanted::Count(NonZeroU32::MIN));
        let got = plan(
            "count = 2\nforeign = 'refuse'\nlock_clocks_mhz = [1200, 1410]\n\
             power_limit_w = 250.5\nmax_start_memory_mib = 100\nprice_per_gpu_hour = 0.79",
        );
        assert_eq!(got.wanted, Wanted::Count(NonZeroU32::new(2).unwrap()));
        assert_eq!(got.foreign, Foreign::Refuse);
        assert_eq!(got.settings.lock_clocks_mhz, Some((1200, 1410)));
        assert_eq!(got.settings.power_limit_mw, Some(250_500));
        assert_eq!(got.max_start_memory_bytes, 100 << 20);
        assert_eq!(got.price.gpu_hour, Some(0.79));
        assert_eq!(plan("lock_clocks_mhz = 1410").settings.lock_clocks_mhz, Some((1410, 1410)));
    }

    #[test]
    fn devices_are_indices_or_uuids() {
        let names = [GpuName::Uuid("GPU-1".into()), GpuName::Index(3)];
        assert_eq!(plan("devices = ['GPU-1', 3]").wanted, Wanted::These(names.to_vec()));
    }

    #[test]
    fn a_variant_owns_what_it_says_or_what_its_hardware_says() {
        let count = |count| Wanted::Count(NonZeroU32::new(count).unwrap());
        let wanted = |section: &str, gpus: Option<Wanted>| {
            let sweep = sweep(&format!("{RIGHT}\n{section}"));
            let variant = Variant { gpus, ..sweep.variants[0].clone() };
            need(sweep.gpu.as_ref(), &variant).map(|need| (need.wanted, need.asked))
        };
        assert_eq!(wanted("", None), None, "its engine's file asks for none");
        let two = "[hardware]\ngpu = 'A40'\ncount = 2\n[gpu]\n";
        assert_eq!(wanted(two, None), Some((count(2), true)));
        assert_eq!(wanted(two, Some(count(1))), Some((count(1), true)));
        assert_eq!(wanted(&format!("{two}count = 4"), None), Some((count(4), true)));
        assert_eq!(wanted("", Some(count(3))), Some((count(3), true)));
    }

    #[test]
    fn every_mistake_is_told() {
        for (section, word) in [
            ("count = 1\ndevices = [0]", "twice"),
            ("devices = []", "no GPU"),
            ("devices = [0, 0]", "named twice"),
            ("lock_clocks_mhz = [2, 1]", "more than the most"),
            ("lock_clocks_mhz = [1, 2, 3]", "least and the most"),
            ("foreign = 'kill'", "not a choice"),
            ("exclusiv = true", "did you mean `exclusive`"),
        ] {
            let problems = try_sweep(&format!("{RIGHT}\n[gpu]\n{section}")).unwrap_err();
            let problems = problems.to_string();
            assert!(problems.contains(word), "{section}: {problems}");
        }
    }
}
