//! `sweepd diagnose LOG | head`: whoever reads has seen enough, and that is no fault of sweepd's.
//!
//! Rust ignores SIGPIPE and panics when printing fails. Giving the signal its default back would also
//! end sweepd when an engine or a daemon closes a connection, so the panic is what is met here.

use std::panic::{self, PanicHookInfo};

/// As a shell tells of a program that SIGPIPE has ended.
const ENDED_BY_SIGPIPE: i32 = 128 + libc::SIGPIPE;

/// From here on.
pub(super) fn is_no_fault() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if is_broken_pipe(info) {
            #[expect(
                clippy::disallowed_methods,
                reason = "there is no way back to main from here"
            )]
            std::process::exit(ENDED_BY_SIGPIPE);
        }
        before(info);
    }));
}

/// Printing has failed so. The words are those of the standard library, and a test holds them.
fn is_broken_pipe(info: &PanicHookInfo<'_>) -> bool {
    info.payload_as_str().is_some_and(|said| {
        said.starts_with("failed printing to std") && said.contains("Broken pipe")
    })
}
