//! The one binary: daemon, foreground runner, load generator, simulated engine.

use std::process::ExitCode;

fn main() -> ExitCode {
    sweepd::main()
}
