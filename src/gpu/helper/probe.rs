//! One value from the driver, or its absence.

use super::super::fault::{Fault, FaultKind};
use nvml_wrapper::error::NvmlError;

/// The driver will not offer it on the next call either.
pub(super) fn is_never(error: &NvmlError) -> bool {
    matches!(
        error,
        NvmlError::NotSupported
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::FunctionNotFound
            | NvmlError::NoPermission
            | NvmlError::InvalidArg
    )
}

/// Takes values and remembers if the GPU itself is lost.
#[derive(Debug, Default)]
pub(super) struct Taker {
    pub(super) lost: Option<Fault>,
}

impl Taker {
    pub(super) fn take<T>(&mut self, doing: &str, value: Result<T, NvmlError>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(error) => {
                let fault = super::fault(doing, &error);
                if fault.kind == FaultKind::GpuLost {
                    self.lost.get_or_insert(fault);
                }
                None
            }
        }
    }
}

/// A value that is asked for again and again, until the driver says that it never will.
#[derive(Debug, Default)]
pub(super) struct Repeated {
    never: bool,
}

impl Repeated {
    pub(super) fn take<T>(
        &mut self,
        taker: &mut Taker,
        doing: &str,
        ask: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Option<T> {
        if self.never || taker.lost.is_some() {
            return None;
        }
        let value = ask();
        self.never = value.as_ref().is_err_and(is_never);
        taker.take(doing, value)
    }
}
