//! The last look at an engine that lives and makes no progress, before it is ended.
//!
//! Never decides anything and never blocks: every question has its bound, and the machine's own
//! deadline stands above all of them. What was seen goes into the outcome, stacks into `stacks.txt`.

use crate::run::gpu::GpuSample;
use crate::run::signal::{Signal, Source};
use crate::secrets;
use crate::supervise::probe::{self, ProbeTarget};
use crate::supervise::stack;
use crate::supervise::tree::{self, Process};
use crate::units::MonoNs;
use std::path::PathBuf;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// Between two looks at CPU times.
const BETWEEN: Duration = Duration::from_millis(500);
const HEALTH: Duration = Duration::from_secs(2);
/// For one process's Python stack.
const DUMP: Duration = Duration::from_secs(4);
const DUMPED: usize = 4;
const STACKS_BYTES: usize = 1 << 20;

/// What to look at.
pub(super) struct Subject {
    pub(super) guard: Option<i32>,
    pub(super) target: ProbeTarget,
    /// Where stacks are kept.
    pub(super) stacks: PathBuf,
    /// `py-spy`, where it is installed.
    pub(super) dumper: Option<PathBuf>,
}

pub(super) async fn examine(subject: Subject) -> Vec<Signal> {
    let engine = |guard: Option<i32>| {
        guard.map(|guard| tree::descendants(&tree::all(), guard)).unwrap_or_default()
    };
    let before = engine(subject.guard);
    let (health, ()) = tokio::join!(health(&subject.target), sleep(BETWEEN));
    let after = engine(subject.guard);
    let seen = after.clone();
    let stacks = tokio::task::spawn_blocking(move || stack::kernel_stacks(&seen)).await;
    let mut text = stacks.unwrap_or_default();
    for process in after.iter().filter(|process| is_python(process)).take(DUMPED) {
        if let Some(dumper) = &subject.dumper {
            text.push_str(&python_stack(dumper, process.pid).await);
        }
    }
    let mut text = secrets::redacted(&text).into_owned();
    text.truncate(text.floor_char_boundary(STACKS_BYTES));
    // Evidence that cannot be kept is no reason to fail.
    tokio::task::spawn_blocking(move || std::fs::write(subject.stacks, text)).await.ok();
    vec![processes(&before, &after), health]
}

async fn health(target: &ProbeTarget) -> Signal {
    let answer = match probe::client() {
        Ok(client) => timeout(HEALTH, probe::answers(&client, target)).await,
        Err(error) => Ok(Err(error.to_string())),
    };
    let seen = match answer {
        Ok(Ok(())) => format!("{} still answered 200", target.ready_path),
        Ok(Err(why)) => format!("{}: {why}", target.ready_path),
        Err(_) => format!("{} did not answer within {} s", target.ready_path, HEALTH.as_secs()),
    };
    Signal { source: Source::Health, progress: None, seen }
}

fn processes(before: &[Process], after: &[Process]) -> Signal {
    let earlier = |process: &Process| {
        before
            .iter()
            .find(|other| (other.pid, other.start_ticks) == (process.pid, process.start_ticks))
    };
    let spent: u64 = after
        .iter()
        .filter_map(|now| Some(now.cpu_ticks.saturating_sub(earlier(now)?.cpu_ticks)))
        .sum();
    let mut states: Vec<char> = after.iter().map(|process| process.state).collect();
    states.sort_unstable();
    states.dedup();
    let states: Vec<String> = states.iter().map(|state| state_name(*state)).collect();
    let work =
        if spent == 0 { "used no CPU".to_owned() } else { format!("used {spent} ticks of CPU") };
    let who = match after.len() {
        1 => "its process".to_owned(),
        count => format!("its {count} processes"),
    };
    let seen = format!("{who} ({}) {work} in {} ms", states.join(", "), BETWEEN.as_millis());
    // Work is no proof of progress; no work is proof of none.
    let progress = (spent == 0).then_some(false);
    Signal { source: Source::Processes, progress, seen }
}

/// What its GPUs did in the silence; `None` where that was not sampled.
pub(crate) fn gpus(samples: &[GpuSample], from: MonoNs, to: MonoNs) -> Option<Signal> {
    let within = samples.iter().filter(|sample| sample.at > from && sample.at <= to);
    let busy: Vec<f64> =
        within.filter_map(|sample| sample.utilisation_percent.map(f64::from)).collect();
    if busy.is_empty() {
        return None;
    }
    let mean = busy.iter().sum::<f64>() / busy.len() as f64;
    let seen = format!("its GPUs were busy {mean:.0} % of the silence");
    // A kernel that waits for ever is as busy as one that works.
    let progress = busy.iter().all(|percent| *percent == 0.0).then_some(false);
    Some(Signal { source: Source::Gpu, progress, seen })
}

fn state_name(state: char) -> String {
    match state {
        'R' => "running".to_owned(),
        'S' => "sleeping".to_owned(),
        'D' => "waiting in the kernel".to_owned(),
        'T' | 't' => "stopped".to_owned(),
        other => format!("state {other}"),
    }
}

fn is_python(process: &Process) -> bool {
    let program = std::fs::read_link(format!("/proc/{}/exe", process.pid));
    program.is_ok_and(|path| path.to_string_lossy().contains("python"))
}

async fn python_stack(dumper: &PathBuf, pid: i32) -> String {
    let mut command = Command::new(dumper);
    command.args(["dump", "--nonblocking", "--pid", &pid.to_string()]).kill_on_drop(true);
    match timeout(DUMP, command.output()).await {
        Ok(Ok(output)) => {
            let text = [output.stdout, output.stderr].concat();
            format!("\n== Python stack of pid {pid}\n{}", String::from_utf8_lossy(&text))
        }
        Ok(Err(error)) => format!("\n== Python stack of pid {pid}: {error}\n"),
        Err(_) => format!("\n== Python stack of pid {pid}: not within {} s\n", DUMP.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(state: char, cpu_ticks: u64) -> Process {
        Process {
            pid: 7,
            parent: 1,
            state,
            start_ticks: 1,
            cpu_ticks,
            resident_pages: 0,
            command: "x".into(),
        }
    }

    #[test]
    fn an_idle_gpu_is_proof_of_no_progress_and_a_busy_one_proves_nothing() {
        let sample = |at, percent| {
            let utilisation_percent = Some(percent);
            GpuSample { utilisation_percent, ..GpuSample::at(MonoNs::new(at)) }
        };
        let look = |samples: &[GpuSample]| gpus(samples, MonoNs::new(10), MonoNs::new(20));
        assert_eq!(look(&[sample(9, 50), sample(21, 50), GpuSample::at(MonoNs::new(15))]), None);
        let idle = look(&[sample(10, 90), sample(11, 0), sample(20, 0)]).unwrap();
        assert_eq!(idle.progress, Some(false));
        let busy = look(&[sample(11, 100), sample(12, 95)]).unwrap();
        assert_eq!(busy.progress, None);
        assert!(busy.seen.contains("98 %"), "{}", busy.seen);
    }

    #[test]
    fn no_work_is_proof_of_no_progress_and_work_proves_nothing() {
        let idle = processes(&[process('S', 5)], &[process('T', 5)]);
        assert_eq!(idle.progress, Some(false));
        assert!(idle.seen.contains("stopped") && idle.seen.contains("no CPU"), "{}", idle.seen);
        let busy = processes(&[process('R', 5)], &[process('R', 9)]);
        assert_eq!(busy.progress, None);
        assert!(busy.seen.contains("4 ticks"), "{}", busy.seen);
    }
}
