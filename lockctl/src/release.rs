//! `release`: releases a lock from the holder that was shown, and from no other holder.

use lock::{Holder, Locks, Status};
use serde::Serialize;

use crate::{
    arguments::Release,
    exit::{Exit, Failure},
    holder::{self, Shown},
    output::{Output, printable},
    question, show,
};

#[derive(Serialize)]
struct Report<'a> {
    id: &'a str,
    /// `released`, `gone` (by now another holder has the lock, or none) or `free`.
    result: &'static str,
    holders: Vec<Shown<'a>>,
}

/// What the holder notices, on which it depends whether the release is safe.
const OF_THIS_LIBRARY: &str = "\
Its guard counts as lost within a moment, or at its next renewal at the latest: `lost()` resolves, and a \
body under #[locked] or `with` stops at its next .await. What the body has done is not undone.";

const FOREIGN: &str = "\
This client does not use the library and is not notified: it continues as if it held the lock.";

pub(crate) async fn release(
    Release { id, yes }: &Release,
    locks: &Locks,
    output: Output,
) -> Result<Exit, Failure> {
    question::can_ask(*yes)?;
    let lock = locks.lock(id);
    let status = lock.status().await?;
    let Status::Held { holders, waiters, .. } = &status else {
        if output.is_json() {
            output.json(&Report { id, result: "free", holders: Vec::new() })?;
        } else {
            show::people(id, &status, output)?;
        }
        return Ok(Exit::Nothing);
    };
    let shown = match output.is_json() {
        true => Ok(()),
        false => show(id, &status, holders, *waiters, output),
    };
    question::ask(&format!("Release {}?", printable(id)), *yes, shown)?;
    let mut released = Vec::new();
    for holder in holders {
        // By its token, because the lock may have passed to another holder, which keeps it.
        if lock.force_release_holder(&holder.token).await? {
            released.push(holder);
        }
    }
    let done = !released.is_empty();
    let told = if output.is_json() {
        let result = if done { "released" } else { "gone" };
        let holders = released.into_iter().map(Shown::new).collect();
        output.json(&Report { id, result, holders })
    } else if done {
        let whom: Vec<_> = released.into_iter().map(holder::words).collect();
        output.line(&format!("released from {}", whom.join(", ")))
    } else {
        output.line(
            "nothing was changed: that holder no longer holds the lock, and any other holder keeps \
             it",
        )
    };
    // The change is made, even if the output cannot be written: the exit code reports it.
    told.unwrap_or_else(|unsaid| unsaid.say());
    Ok(if done { Exit::Done } else { Exit::Nothing })
}

/// Prints what the user has to know before answering.
fn show(
    id: &str,
    status: &Status,
    holders: &[Holder],
    waiters: usize,
    output: Output,
) -> Result<(), Failure> {
    show::people(id, status, output)?;
    output.line("")?;
    output.line(if holders.iter().all(holder::is_foreign) { FOREIGN } else { OF_THIS_LIBRARY })?;
    if waiters > 0 {
        output.line("The first waiter gets the lock.")?;
    }
    Ok(())
}
