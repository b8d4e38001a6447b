//! `core audit`: holds what is stored of a log against its signed tree.

use ferrocore::Core;
use ferrocore::log::CoreError;
use ferrocore::log::audit::{Damage, Mode, Report, Step};
use tokio::sync::mpsc;

use crate::args::CoreAudit;
use crate::context::Context;
use crate::events::{Audit, Damaged};
use crate::exit::{Failure, Kind, Result};

/// Steps that wait to be told; the audit waits for them.
const STEPS_MAX: usize = 64;

/// What can be done about damage that was found, and after a repair.
const REPAIR_HINT: &str =
    "`fcore core audit --repair` mends what can be proven, and lets the rest be fetched again";
const REPAIRED_HINT: &str =
    "what was repaired can be fetched again from peers; audit it again to see what is left";

/// What can be done where the signature holds for nothing that is left.
const HEAD_HINT: &str = "nothing here proves what this log was: put a copy of its files back or, only if it is written elsewhere, `fcore purge` it and fetch it again";

pub(crate) async fn audit(context: &Context, audit: CoreAudit) -> Result<()> {
    let core = context.store.core_to_audit(&audit.core)?;
    let mode = match audit.repair {
        true => Mode::Repair,
        false => Mode::DryRun,
    };
    // What is still in the journal would hide what lies in its place.
    core.flush()?;
    let (sender, mut steps) = mpsc::channel(STEPS_MAX);
    let auditing = tokio::task::spawn_blocking({
        let core = core.clone();
        move || run(&core, mode, &sender)
    });
    let mut is_head_damaged = false;
    while let Some(step) = steps.recv().await {
        if let Step::Found { damage, mendable } = step {
            is_head_damaged |= damage == Damage::Head;
            let repaired = mendable && audit.repair;
            context
                .output()
                .report(&describe(&damage, repaired))
                .await?;
        }
    }
    let report = auditing.await.expect("an audit does not panic")?;
    let told = Audit {
        blocks: report.blocks,
        bad: report.bad,
        mendable: report.mendable,
        repaired: audit.repair,
    };
    context.output().report(&told).await?;
    match report.bad {
        0 => Ok(()),
        bad if is_head_damaged => Err(damaged(&core, bad).hint(HEAD_HINT)),
        bad => Err(damaged(&core, bad).hint(match audit.repair {
            true => REPAIRED_HINT,
            false => REPAIR_HINT,
        })),
    }
}

/// Audits to the end, even if nobody listens any more.
fn run(core: &Core, mode: Mode, sender: &mpsc::Sender<Step>) -> Result<Report, CoreError> {
    core.audit(mode, |step| {
        if matches!(step, Step::Found { .. }) {
            sender.blocking_send(step.clone()).ok();
        }
    })
}

fn describe(damage: &Damage, repaired: bool) -> Damaged {
    let (what, start, end) = match damage {
        Damage::Head => ("head", 0, 0),
        Damage::Node(index) => ("node", *index, index + 1),
        Damage::Block(index) => ("block", *index, index + 1),
        Damage::Bits(range) => ("bits", range.start, range.end),
        Damage::Unmarked(index) => ("unmarked", *index, index + 1),
        _ => ("other", 0, 0),
    };
    Damaged {
        what,
        start,
        end,
        repaired,
    }
}

fn damaged(core: &Core, bad: u64) -> Failure {
    let message = format!("core {} is damaged in {bad} places", core.key());
    Failure::new(Kind::Storage, message)
}
