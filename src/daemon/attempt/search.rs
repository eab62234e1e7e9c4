//! A search under way: each run's records become figures, and these say what is run next.
//!
//! What comes next is decided in `stats::search`; here it becomes the attempt's next phase.

use super::Shell;
use crate::ids::Name;
use crate::load::message::LoadPlan;
use crate::run::outcome::Ending;
use crate::run::phase::{PhaseEnd, PhaseFacts};
use crate::run::record::RequestRecord;
use crate::run::search::{Search, SearchEnd, SearchOutcome, SearchRun, level_name, level_of};
use crate::run::slo::Slo;
use crate::seed::Seed;
use crate::stats::search::{self, Next};
use crate::store::dirs::AttemptDir;
use crate::supervise::state::State;

/// Requests for each user of a run at least: with fewer it would end before it is steady.
const REQUESTS_A_USER: u32 = 2;
/// With fewer no p99 can be shown to keep to its limit.
const REQUESTS_A_P99: u32 = 300;

/// One search of an attempt.
#[derive(Clone, Debug)]
pub(crate) struct Seeking {
    name: Name,
    search: Search,
    /// Of every run but for its name, users, prompts and files.
    common: LoadPlan,
    seed: Seed,
    dir: AttemptDir,
    runs: Vec<SearchRun>,
    end: Option<SearchEnd>,
    /// Entries of its part of a data set that its runs have used.
    used: u32,
}

impl Seeking {
    /// `seed`: of which every run's prompts have a branch.
    pub(crate) fn new(search: &Search, common: LoadPlan, seed: Seed, dir: &AttemptDir) -> Self {
        let name = common.phase.clone();
        let (search, dir) = (search.clone(), dir.clone());
        Self { name, search, common, seed, dir, runs: Vec::new(), end: None, used: 0 }
    }

    /// The first run; absent only for a search without points.
    pub(crate) fn first(&self) -> Option<LoadPlan> {
        self.run(*self.search.points.first()?)
    }

    fn run(&self, users: u32) -> Option<LoadPlan> {
        let nth = self.runs.iter().filter(|run| run.users == users).count() + 1;
        let phase = level_name(&self.name, users, u32::try_from(nth).ok()?)?;
        let mut plan = self.common.clone();
        plan.users = users;
        let least = if self.search.slo == Slo::default() { 0 } else { REQUESTS_A_P99 };
        plan.min_requests = plan.min_requests.max(least).max(users.saturating_mul(REQUESTS_A_USER));
        plan.prompts.seed = self.seed.branch(phase.as_str()).value();
        if let Some(part) = &mut plan.prompts.part {
            part.used = self.used;
        }
        plan.records = self.dir.frames(phase.as_str());
        plan.phase = phase;
        Some(plan)
    }

    /// Takes in a run; the next one, and what to say of it.
    fn after(&mut self, run: SearchRun) -> (Option<LoadPlan>, String) {
        self.runs.push(run);
        let edge = search::edge(&self.search, &self.runs);
        let known = |users: Option<u32>| users.map_or_else(|| "none".to_owned(), |n| n.to_string());
        let found = format!(
            "search {}: highest within the limits {}, lowest not {}",
            self.name,
            known(edge.met),
            known(edge.missed)
        );
        match search::next(&self.search, &self.runs) {
            Next::Run { users } => (self.run(users), format!("{found}; next {users} users")),
            Next::End(end) => {
                self.end = Some(end);
                (None, format!("{found}; it is over"))
            }
        }
    }

    /// What it came to; of one that never began, no run and `BrokenOff`.
    pub(super) fn outcome(self) -> SearchOutcome {
        let end = self.end.unwrap_or(SearchEnd::BrokenOff);
        SearchOutcome { search: self.name, runs: self.runs, end }
    }
}

impl Shell<'_> {
    /// A phase has ended: if it was a run of a search, that says what comes after it.
    pub(super) fn seek(&mut self, facts: &PhaseFacts, records: &[RequestRecord]) {
        let State::Loaded { phase } = self.machine.state else { return };
        if facts.end != PhaseEnd::Finished {
            return; // The engine failed, and that ends the search.
        }
        for seeking in &mut self.searches {
            let Some(users) = level_of(&seeking.name, &facts.phase) else { continue };
            let run = search::run_of(seeking.search.slo, users, facts, records);
            let looked_at = facts.dataset.as_ref().map_or(0, |part| part.looked_at);
            seeking.used = seeking.used.wrapping_add(looked_at);
            let (next, said) = seeking.after(run);
            if let Some(plan) = next {
                self.phases.insert(phase + 1, plan);
                self.limits.phases = self.phases.len();
            }
            self.note(said);
            return;
        }
    }
}

/// With the engine's failure, where that ended a search: it is the search's result.
pub(in crate::daemon) fn ended(
    searches: Vec<SearchOutcome>,
    failed_phase: Option<&Name>,
    ending: &Ending,
) -> Vec<SearchOutcome> {
    let with_failure = |mut outcome: SearchOutcome| {
        let users = failed_phase.and_then(|phase| level_of(&outcome.search, phase));
        if let (Some(users), Ending::EngineFailed { failure }) = (users, ending) {
            let (kind, summary) = (failure.kind, failure.summary.clone());
            outcome.end = SearchEnd::Failed { users, kind, summary };
        }
        outcome
    };
    // One that never ran is left to the next attempt, without a word.
    let began =
        |outcome: &SearchOutcome| !outcome.runs.is_empty() || outcome.end != SearchEnd::BrokenOff;
    searches.into_iter().map(with_failure).filter(began).collect()
}
