//! What goes into a stream and what comes out: the question, each read, and what it changed. Pure.

use crate::units::MonoNs;

/// What is asked, before anything is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) index: u32,
    pub(crate) user: u32,
    pub(crate) turn: u32,
    pub(crate) scheduled: MonoNs,
    pub(crate) prompt_tokens: u32,
    pub(crate) prompt_tokens_expected: Option<u32>,
    pub(crate) output_tokens: u32,
    pub(crate) done_marker: bool,
    /// The answer's text is wanted: a conversation carries it on.
    pub(crate) keeps_text: bool,
}

/// What one read of a socket brought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read<'a> {
    pub(crate) bytes: &'a [u8],
    /// Just before the read.
    pub(crate) began: MonoNs,
    /// The kernel's stamp of the newest segment, or the time after the read without one.
    pub(crate) at: MonoNs,
    pub(crate) from_kernel: bool,
    /// The read took less than it could: the socket was empty after it.
    pub(crate) drained: bool,
}

/// What a read changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) events: u32,
    pub(crate) chunks: u32,
    pub(crate) ended: bool,
}
