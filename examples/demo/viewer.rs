//! The pages that show an instance. Without a page, it ends.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::instance::Instance;

/// A page that is gone for longer was closed, not reloaded.
const RELOAD: Duration = Duration::from_secs(5);

/// A page that shows an instance.
pub(crate) struct Viewer(Arc<Instance>);

impl Viewer {
    pub(crate) fn instance(&self) -> &Instance {
        &self.0
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let last = {
            let mut state = self.0.state();
            state.viewers -= 1;
            state.viewers == 0
        };
        if last {
            Arc::clone(&self.0).close_when_left();
        }
    }
}

impl Instance {
    /// Registers a page, until the returned viewer is dropped. Returns `None` if the instance has
    /// ended.
    pub(crate) fn view(self: &Arc<Self>) -> Option<Viewer> {
        let mut state = self.state();
        if state.closed {
            return None;
        }
        state.viewers += 1;
        state.visits += 1;
        Some(Viewer(Arc::clone(self)))
    }

    /// Ends the instance if no page shows it from now until a reload would have completed.
    pub(crate) fn close_when_left(self: Arc<Self>) {
        let Some(process) = self.process.upgrade() else { return };
        let visits = self.state().visits;
        process.runtime.clone().spawn(async move {
            sleep(RELOAD).await;
            {
                let mut state = self.state();
                // A page that came and left in the meantime has started a wait of its own.
                if state.viewers > 0 || state.visits != visits {
                    return;
                }
                state.closed = true;
            }
            if let Some(process) = self.process.upgrade() {
                process.close(&self).await;
            }
        });
    }
}
