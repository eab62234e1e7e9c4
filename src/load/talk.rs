//! Conversations: a turn carries what was said before it. Edge.
//!
//! Invariant: what is carried on is what the engine really answered, never a stand-in.

use super::driver::{DriveError, Driver};
use super::supply::{Prepared, SupplyError};
use super::users::User;

impl Driver {
    /// Writes the request anew where it is a later turn of its user's conversation; a first turn
    /// begins with nothing said.
    pub(super) fn carry_on(&mut self, id: u32, request: &mut Prepared) -> Result<(), DriveError> {
        let Some((at, prompt)) = &request.said else { return Ok(()) };
        let index = usize::try_from(id).unwrap_or(usize::MAX);
        let Some(User { history, carried, .. }) = self.users.get_mut(index) else { return Ok(()) };
        if *at == 0 {
            history.clear();
        }
        if history.is_empty() {
            return Ok(());
        }
        let (system, tokens) = (request.system.as_deref(), request.output_tokens);
        let bytes = self.template.carrying_on(system, history, prompt, tokens);
        request.bytes = bytes.map_err(SupplyError::from)?;
        // What the server should count is no longer the prompt's own length.
        request.prompt_tokens_expected = None;
        // All that the turn before it was asked and answered.
        request.cached_tokens_meant = *carried;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::def::PromptField;
    use crate::load::scripted::run_recorded;
    use crate::run::phase::PhaseEnd;
    use crate::run::record::RequestOutcome as Outcome;
    use crate::workload::shape::Shape;
    use serde_json::Value;

    /// The requests that a recording server saw, from one user and eight turns.
    fn seen(prompt: PromptField) -> Vec<Value> {
        let (phase, bodies) = run_recorded(|plan| {
            (plan.min_requests, plan.max_requests) = (8, Some(8));
            plan.request.draft.prompt = prompt;
            plan.prompts.shape = Shape::Conversations { turns: 5.0 };
        });
        phase.check(PhaseEnd::Finished, &[(Outcome::Ok, 8)]);
        bodies
    }

    #[test]
    fn the_real_answers_are_carried_on_as_messages() {
        let bodies = seen(PromptField::Messages("messages".to_owned()));
        let mut longest = 0;
        let mut before: Vec<Value> = Vec::new();
        for body in &bodies {
            let messages = body["messages"].as_array().unwrap();
            if messages.len() > 1 {
                assert_eq!(messages[..before.len()], before[..], "what was said stays said");
                let answer = &messages[messages.len() - 2];
                assert_eq!(answer["role"], "assistant");
                assert_eq!(answer["content"], " w0 w1 w2", "what the server really said");
                assert_eq!(messages.len(), before.len() + 2);
            }
            assert_eq!(messages.last().unwrap()["role"], "user");
            longest = longest.max(messages.len());
            before.clone_from(messages);
        }
        assert!(longest >= 3, "some conversation had a second turn: {bodies:?}");
    }

    #[test]
    fn a_completion_carries_all_of_it_as_one_text() {
        let bodies = seen(PromptField::Text("prompt".to_owned()));
        let texts: Vec<&str> = bodies.iter().map(|body| body["prompt"].as_str().unwrap()).collect();
        assert!(
            texts
                .windows(2)
                .any(|pair| { pair[1].starts_with(&format!("{}  w0 w1 w2 ", pair[0])) })
        );
    }
}
