//! Evidence on a process that SIGKILL does not end: where in the kernel it waits.

use super::tree::Process;
use crate::run::containment::LeftProcess;
use std::fs;

const STACK_LINES: usize = 32;
const STATUS: [&str; 8] =
    ["Name", "State", "Threads", "VmRSS", "ShdPnd", "SigPnd", "SigBlk", "NoNewPrivs"];

pub(crate) fn evidence(process: &Process) -> LeftProcess {
    let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", process.pid)).ok();
    let waits_in = read("wchan").map(|text| text.trim().to_owned());
    let lines = |text: Option<String>| {
        text.unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let of_interest = |line: &String| STATUS.iter().any(|key| line.starts_with(key));
    LeftProcess {
        pid: process.pid,
        command: process.command.clone(),
        state: process.state,
        waits_in: waits_in.filter(|place| !place.is_empty() && place != "0"),
        kernel_stack: lines(read("stack")).into_iter().take(STACK_LINES).collect(),
        status: lines(read("status")).into_iter().filter(of_interest).collect(),
    }
}
