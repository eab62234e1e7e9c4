//! SIGKILL of sweepd at random instants of a run: no engine outlives it, whatever it was doing.

use crate::harness::{Sandbox, eventually, left_of, mixed, sweep, variant, walk};
use std::time::{Duration, Instant};

/// A few kills in CI, many in the full tier.
fn kills() -> u64 {
    match std::env::var("SWEEPD_TEST_TIER").as_deref() {
        Ok("full") => 100,
        _ => 5,
    }
}

#[test]
fn no_engine_outlives_a_sweepd_that_is_killed_at_any_instant() {
    for seed in 0..kills() {
        let sandbox = Sandbox::new();
        let faults: &[&str] = match seed % 3 {
            0 => &[],
            1 => &["setsid-child"],
            _ => &["ignore-sigterm"],
        };
        let mut running = sandbox.start(&sweep(&variant("only", faults)));
        // The instant of the kill is what is random here; nothing is waited for.
        let at = Instant::now() + Duration::from_millis(mixed(seed) % 1500);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        if running.child.try_wait().unwrap().is_none() {
            running.signal(libc::SIGKILL);
        }
        running.wait(Duration::from_secs(5));
        let Some(dir) = sandbox.only_run() else { continue };
        let begun = walk(&dir).iter().any(|path| path.ends_with("manifest.json"));
        if begun {
            eventually(Duration::from_secs(10), &format!("seed {seed}: no engine is left"), || {
                left_of(&dir).is_empty().then_some(())
            });
        }
        // Whatever is there is whole.
        for path in walk(&dir) {
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = std::fs::read(&path).unwrap();
                let whole: Result<serde_json::Value, _> = serde_json::from_slice(&text);
                assert!(whole.is_ok(), "seed {seed}: {} is not whole", path.display());
            }
        }
    }
}
