//! The sweep line: every planned trial in its order, the report after every block.
//!
//! One bad trial does not end the sweep. Only sweepd's own inability to store does.

use super::attempt::StopRequests;
use super::begin;
use super::order::{Context, Order};
use super::progress::{Progress, Watcher};
use super::reports;
use super::trial::{self, Number};
use crate::ids::{RunId, TrialId};
use crate::run::outcome::Ending;
use crate::stats::summary::Summary;
use crate::store::dirs::RunDir;
use crate::store::files::StoreError;
use crate::sweep::def::PlannedTrial;
use crate::sweep::plan::plan;

/// What a run came to.
#[derive(Debug)]
pub(crate) struct RunResult {
    pub(crate) summary: Summary,
    /// Every planned trial ended, and well.
    pub(crate) all_completed: bool,
}

/// Runs the whole sweep into `dir`, which is new.
pub(crate) async fn run(
    order: &Order<'_>,
    dir: &RunDir,
    run: &RunId,
    watcher: &Watcher,
    stop: StopRequests,
) -> Result<RunResult, StoreError> {
    let versions = begin::versions(order).await;
    let planned = plan(order.sweep);
    begin::write(order, dir, run, &versions, &planned)?;
    let context = Context {
        sweep: order.sweep,
        run,
        dir,
        cwd: order.cwd,
        sweepd: order.sweepd,
        inherited: order.inherited,
        versions: &versions,
        watcher,
    };
    let completed = trials(&context, &planned, &stop).await?;
    let summary = reports::rewrite(dir)?;
    Ok(RunResult { summary, all_completed: completed == planned.len() })
}

/// Every trial in its order, until stopping is asked for; how many completed.
async fn trials(
    context: &Context<'_>,
    planned: &[PlannedTrial],
    stop: &StopRequests,
) -> Result<usize, StoreError> {
    let mut completed = 0;
    for (index, next) in planned.iter().enumerate() {
        if *stop.borrow() > 0 {
            break;
        }
        let Some(variant) = context.sweep.variants.iter().find(|v| v.name == next.variant) else {
            continue; // The plan is made from these variants.
        };
        let id = TrialId { block: next.block, variant: next.variant.clone() };
        let number = Number { number: index + 1, of: planned.len() };
        let outcome = trial::run(context, variant, &id, number, stop).await?;
        completed += usize::from(outcome.ending == Ending::Completed);
        if planned.get(index + 1).is_none_or(|after| after.block != next.block) {
            reports::rewrite(context.dir)?;
            let of = context.sweep.blocks.get();
            context.watcher.say(Progress::BlockEnded { block: next.block, of });
        }
    }
    Ok(completed)
}
