//! `[client]`: how the load generator works.

use crate::form::Fields;
use std::num::NonZeroU32;

/// More has no use: each wants a CPU of its own.
const MOST_LOOPS: u32 = 64;

/// Event loops at most; a sweep that does not say has one.
pub(super) fn loops(fields: Option<&Fields<'_>>) -> NonZeroU32 {
    let asked = fields.and_then(|fields| fields.optional("loops").count(MOST_LOOPS));
    asked.unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use crate::sweep::parse::tests::{RIGHT, shown, sweep, try_sweep};

    #[test]
    fn a_sweep_says_how_many_loops_its_client_may_have() {
        assert_eq!(sweep(RIGHT).loops.get(), 1);
        assert_eq!(sweep(&format!("{RIGHT}\n[client]\nloops = 4\n")).loops.get(), 4);
        for wrong in ["loops = 0", "loops = 65", "loop = 2"] {
            let problems = try_sweep(&format!("{RIGHT}\n[client]\n{wrong}\n")).unwrap_err();
            let said: Vec<String> = problems.list().iter().map(shown).collect();
            assert!(said.iter().any(|said| said.contains("`loops`")), "{said:?}");
        }
    }
}
