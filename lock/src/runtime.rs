//! What the library has to know of the Tokio runtime that it is called on.

use std::{panic::catch_unwind, time::Duration};

/// Has the current runtime timers?
///
/// Tokio has no way to ask: whatever makes a timer ends in an `expect` where there are none, and no
/// other method, nor the `Debug` of a handle, tells (as of 1.54). So this panics,
/// and catches it, on a runtime that was built without `enable_time`, and on no other; see
/// [`can_be_asked`].
pub(crate) fn has_timers() -> bool {
    catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_ok()
}

/// May [`has_timers`] be asked where the answer is not needed? Not where a panic ends the process.
pub(crate) fn can_be_asked() -> bool {
    !cfg!(panic = "abort")
}
