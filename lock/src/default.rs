//! Which `Locks` is used where none is named: the task's, else the process's.

use std::{
    future::Future,
    sync::{PoisonError, RwLock},
};

use futures_util::future::Either;
use tokio::{runtime::Handle, task::JoinHandle};
use tracing::Instrument as _;

use crate::context::Context;

/// One per process: what a parent has installed answers `Closed` in a child that it has forked.
static INSTALLED: RwLock<Option<Context>> = RwLock::new(None);

tokio::task_local! {
    static SCOPED: Context;
}

/// Makes this the default of the process; returns false if there is one already.
pub(crate) fn install(context: &Context) -> bool {
    // Nothing below panics.
    let mut installed = INSTALLED.write().unwrap_or_else(PoisonError::into_inner);
    if installed.as_ref().is_some_and(|installed| installed.client().is_of_this_process()) {
        return false;
    }
    *installed = Some(context.clone());
    true
}

/// Runs a future with this as the default of its task.
pub(crate) fn scope<F: Future>(
    context: Context,
    future: F,
) -> impl Future<Output = F::Output> + use<F> {
    SCOPED.scope(context, future)
}

pub(crate) fn current() -> Option<Context> {
    SCOPED
        .try_with(Clone::clone)
        .ok()
        .or_else(|| INSTALLED.read().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Spawns a call, in the scope and the span of its caller.
pub(crate) fn spawn_on<F>(runtime: &Handle, call: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let call = call.in_current_span();
    runtime.spawn(match current() {
        Some(context) => Either::Left(scope(context, call)),
        None => Either::Right(call),
    })
}
