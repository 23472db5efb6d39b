//! Asking before something is lost.

use crate::args::Sure;
use crate::failure::Failure;
use std::io::{self, BufRead, IsTerminal, Write};

/// Shows what would be done and asks, unless the user is sure. Without a terminal there is nobody to
/// ask, and the answer is no.
pub(crate) fn confirm(sure: Sure, plan: &[String]) -> Result<(), Failure> {
    if sure.yes {
        return Ok(());
    }
    let mut err = io::stderr();
    for line in plan {
        writeln!(err, "{line}")?;
    }
    if !io::stdin().is_terminal() || !err.is_terminal() {
        return Err(Failure::refused(
            "refused: nobody can be asked here, pass --yes",
        ));
    }
    write!(err, "Go on? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    if io::stdin().lock().read_line(&mut answer)? == 0 {
        // The end of the input, which leaves the cursor behind the question.
        writeln!(err)?;
    }
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::refused("refused: nothing was changed")),
    }
}
