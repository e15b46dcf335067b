//! What the library has to know about the Tokio runtime that it is called on.

use std::{panic::catch_unwind, time::Duration};

/// Does the current runtime have timers?
///
/// Tokio 1.54 has no way to ask: everything that makes a timer panics where there are none, and no
/// other method, nor the `Debug` of a handle, reports it. So this panics, and catches it, only on a
/// runtime that was built without `enable_time`; see [`can_be_asked`].
pub(crate) fn has_timers() -> bool {
    catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_ok()
}

/// May [`has_timers`] be called where its answer is not needed? Not if a panic ends the process.
pub(crate) fn can_be_asked() -> bool {
    !cfg!(panic = "abort")
}
