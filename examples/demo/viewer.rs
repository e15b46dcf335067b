//! Who looks at an instance: while no page does, it ends.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::instance::Instance;

/// A page that is gone for longer was closed, and is not being loaded anew.
const RELOAD: Duration = Duration::from_secs(5);

/// A page that looks at an instance.
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
    /// A page looks at it, until what this returns is dropped. `None` if it has ended.
    pub(crate) fn view(self: &Arc<Self>) -> Option<Viewer> {
        let mut state = self.state();
        if state.closed {
            return None;
        }
        state.viewers += 1;
        state.visits += 1;
        Some(Viewer(Arc::clone(self)))
    }

    /// Ends it if no page looks at it from now on until a page would have been loaded anew.
    pub(crate) fn close_when_left(self: Arc<Self>) {
        let Some(process) = self.process.upgrade() else { return };
        let visits = self.state().visits;
        process.runtime.clone().spawn(async move {
            sleep(RELOAD).await;
            {
                let mut state = self.state();
                // A page that came, and left again, has begun a time of its own.
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
