//! `[gpu]` of an engine file: how the engine is told which GPUs are its own.

use super::common::variable_name;
use super::def::EngineGpu;
use crate::form::Fields;

pub(super) fn gpu(fields: &Fields<'_>) -> EngineGpu {
    let default = EngineGpu::default();
    let pin = fields.optional("pin");
    let pin = if pin.is_there() { pin.choice() } else { None };
    EngineGpu {
        pin: pin.unwrap_or(default.pin),
        env: fields.optional("env").parsed(variable_name).unwrap_or(default.env),
        several_contexts: fields.optional("several_contexts").boolean().unwrap_or(false),
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::def::{EngineGpu, PinStyle};
    use crate::engine::parse::tests::{MINIMAL, engine};

    #[test]
    fn an_engine_says_how_it_is_pinned() {
        assert_eq!(engine(MINIMAL).gpu, None);
        let index = engine(&format!("{MINIMAL}\n[gpu]\npin = 'index'\nseveral_contexts = true"));
        let expected =
            EngineGpu { pin: PinStyle::Index, several_contexts: true, ..EngineGpu::default() };
        assert_eq!(index.gpu, Some(expected));
        let other = engine(&format!("{MINIMAL}\n[gpu]\nenv = 'HIP_VISIBLE_DEVICES'"));
        assert_eq!(other.pin().env, "HIP_VISIBLE_DEVICES");
    }
}
