//! The one binary: daemon, foreground runner, load generator, simulated engine.

fn main() {}
