//! Asking before something is destroyed.

use crate::context::Context;
use crate::exit::{Failure, Result};

/// Asks whether to do `what`, unless `--yes` was given. Whoever cannot be asked has not agreed.
pub(crate) async fn confirm(context: &Context, what: &str) -> Result<()> {
    if context.globals.yes {
        return Ok(());
    }
    context.output().say(&format!("{what}? [y/N]")).await;
    let mut input = context.streams.input.lock().await;
    let answer = input.chunk().await;
    let answer = answer.map_err(|error| Failure::storage("cannot read stdin", &error))?;
    match answer.unwrap_or_default().trim_ascii() {
        b"y" | b"Y" | b"yes" => Ok(()),
        _ => {
            Err(Failure::usage("nothing was changed")
                .hint("to agree without being asked, add --yes"))
        }
    }
}
