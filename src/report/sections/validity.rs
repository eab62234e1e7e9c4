//! The marks, with what each kind of mark means for the reader.

use crate::ids::{Name, wire_name};
use crate::report::block::Block;
use crate::report::sections::label;
use crate::report::table::Table;
use crate::stats::marks::{Mark, MarkCode};
use crate::stats::summary::Summary;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let mut groups: Vec<(&Mark, Vec<String>)> = Vec::new();
    for mark in &summary.marks {
        let detail = match mark.block {
            Some(block) => format!("block {block}: {}", mark.detail),
            None => mark.detail.clone(),
        };
        let same = |(other, _): &&mut (&Mark, Vec<String>)| place(other) == place(mark);
        match groups.iter_mut().find(same) {
            Some((_, details)) => details.push(detail),
            None => groups.push((mark, vec![detail])),
        }
    }
    let mut table = Table::new(["mark", "variant", "phase", "what was seen"]);
    let mut meanings: Vec<(String, String)> = Vec::new();
    for (mark, details) in groups {
        let code = wire_name(&mark.code);
        table.row(vec![
            code.as_str().into(),
            mark.variant.as_ref().map_or("all".into(), |name| label(summary, name).into()),
            mark.phase.as_ref().map_or("all", Name::as_str).into(),
            details.join("; ").into(),
        ]);
        if !meanings.iter().any(|(known, _)| *known == code) {
            meanings.push((code, meaning(mark.code).to_owned()));
        }
    }
    if table.is_empty() {
        return Vec::new();
    }
    vec![Block::Table(table), Block::Terms(meanings)]
}

fn place(mark: &Mark) -> (MarkCode, Option<&Name>, Option<&Name>) {
    (mark.code, mark.variant.as_ref(), mark.phase.as_ref())
}

#[expect(clippy::too_many_lines, reason = "a table: one line or three for each mark")]
fn meaning(code: MarkCode) -> &'static str {
    match code {
        MarkCode::AboveRoofline => {
            "a figure beyond what this GPU can do with this model: the hardware or the model is not the one named, a cache or speculation did the work, or the measurement is wrong. Do not use it before that is known."
        }
        MarkCode::HardwareDiffers => {
            "MFU, MBU and roofline are those of the card that the sweep's `[hardware]` names, and another one was there."
        }
        MarkCode::PhaseUnfinished => {
            "the phase broke off in this trial, so its throughput and latencies are left out of every figure."
        }
        MarkCode::PhaseDeadline => {
            "the phase holds fewer requests than asked; its figures are in, from a smaller sample."
        }
        MarkCode::RecordsLost => {
            "requests without a record: the counts of this phase cannot be trusted."
        }
        MarkCode::FailedRequests => {
            "more than 1 % of the requests failed; throughput and latency describe the others only."
        }
        MarkCode::ClientLimited => {
            "more than 1 % of first texts were read too late to know when they came, so TTFT is an upper bound there, \
             or the client's loop was full: the client may be the limit. Do not compare."
        }
        MarkCode::SendLag => {
            "requests left later than the load pattern wanted; read the latencies from the scheduled time."
        }
        MarkCode::NoSteadyWindow => {
            "there is no steady-state throughput; only that of the whole phase."
        }
        MarkCode::ShortSteadyWindow => {
            "the steady part is shorter than 10 s or than 10 % of the phase: its throughput is coarse."
        }
        MarkCode::NotSettled => {
            "latencies (MSER-5), or the number in flight of an open loop, had not settled by the middle of the phase: give it a longer `min_duration` or warm-up, or a rate that the engine bears."
        }
        MarkCode::OutputShortfall => {
            "answers ended early, so variants may have done different amounts of work."
        }
        MarkCode::PromptTokenMismatch => {
            "the server counts other prompt tokens than were sent: template, special tokens or truncation."
        }
        MarkCode::UsageMissing => {
            "the server did not say how many tokens it made; token rates are lower bounds, and absent above 1 %."
        }
        MarkCode::PrefixCacheHits => {
            "the share of prompt tokens from the cache is over 2 percentage points above what the workload means: TTFT is too good."
        }
        MarkCode::DatasetRepeats => {
            "the data set had too few conversations for the phase, so that some were asked again: a prefix cache may have known them."
        }
        MarkCode::TtftAbsent => {
            "answers without any text, or with a first stamp before the request was sent."
        }
        MarkCode::ClockStep => {
            "the machine's wall clock jumped: times of the requests around it may be off."
        }
        MarkCode::NoKernelStamps => {
            "the kernel gave no receive times: latencies include the delay of the client's own reading."
        }
        MarkCode::TeardownNotClean => {
            "something of the engine was left; the trial after it may have suffered."
        }
        MarkCode::EngineVersionChanged => {
            "the engine was replaced while the run was interrupted: trials before and after it are of two engines."
        }
        MarkCode::ConfigDiffers => {
            "the engine did not run with what was asked: figures are of what ran (see What really ran)."
        }
        MarkCode::Tainted
        | MarkCode::Throttled
        | MarkCode::Xid
        | MarkCode::GpuNotVerified
        | MarkCode::GpuTelemetryGap
        | MarkCode::EnergyUncertain
        | MarkCode::SideBySide
        | MarkCode::BusyNeighbour => about_the_machine(code),
        MarkCode::NoGpuTelemetry => "nothing is said about power, energy, clocks and throttling.",
    }
}

/// Marks that GPUs and host give; all others have their meaning above.
fn about_the_machine(code: MarkCode) -> &'static str {
    match code {
        MarkCode::Tainted => {
            "another process used the GPU in this phase: every figure of it may be too low."
        }
        MarkCode::Throttled => {
            "the card was held back by heat, its power cap or a brake in more than 1 % of the samples: the figures are those of \
             this card in this state."
        }
        MarkCode::Xid => "the driver reported an error of the GPU.",
        MarkCode::GpuNotVerified => {
            "it could not be seen that the engine was on its own GPU, alone, and on no other."
        }
        MarkCode::GpuTelemetryGap => "GPU figures of this phase are from fewer samples.",
        MarkCode::EnergyUncertain => {
            "energy is not valid, or had to be bridged; what is not valid is in no table."
        }
        MarkCode::SideBySide => {
            "trials ran at the same time, on GPUs and CPUs of their own, and shared the host's memory bandwidth, PCIe, disk, power and air: \
             compare them with trials that ran in the same way."
        }
        MarkCode::BusyNeighbour => {
            "something else on the machine took CPU time: more than half a core and more than a tenth of it."
        }
        _ => "",
    }
}
