//! The question to the user before something is changed.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::exit::{Exit, Failure};

/// Fails early if the question could not be asked later.
pub(crate) fn can_ask(yes: bool) -> Result<(), Failure> {
    if yes || io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::usage(
        "the standard input is not a terminal, so nobody can be asked: look first, then add --yes",
    ))
}

/// Asks, unless `--yes` was given. Any answer other than yes is a no.
///
/// `shown` is the result of printing what the question is about: if that failed, the question is
/// not asked. With `--yes`, the change is made even if nobody reads the output.
pub(crate) fn ask(question: &str, yes: bool, shown: Result<(), Failure>) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let unchanged = |Failure { message, .. }| {
        Failure::new(Exit::Failed, format!("{message}; nothing was changed"))
    };
    shown.map_err(unchanged)?;
    can_ask(yes)?;
    let answer = answer(question).map_err(|error| {
        unchanged(Failure::new(Exit::Failed, format!("the answer cannot be read: {error}")))
    })?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "nothing was changed"))
}

fn answer(question: &str) -> io::Result<String> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer)
}
