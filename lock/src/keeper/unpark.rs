//! Wakes a runner that sleeps until some time.

use std::{sync::Arc, task::Wake, time::Duration};

use lock_core::Moment;
use tokio::time;

use super::sync::{AtomicU64, Notify, Ordering};

/// The longest sleep of a runner. The timers of the runtime stand still while the machine is
/// suspended. The keeper's clock does not, and it is read at least this often.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Wakes one runner.
#[derive(Default)]
pub(super) struct Unpark {
    /// When the runner wakes on its own, in nanoseconds of the keeper's clock.
    at: AtomicU64,
    notify: Notify,
}

impl Unpark {
    pub(super) fn unpark(&self) {
        self.notify.notify_one();
    }

    /// Unparks a runner that would sleep beyond that time. Called after each turn of another
    /// thread.
    ///
    /// Relaxed is enough, because the combiner is between the two: the runner says that it is
    /// awake, and then takes a turn, or asks for one. A turn of another thread is either ahead of
    /// the runner's turn, which then finds what it left, or it knows that the runner is awake, and
    /// sees here that, or what the runner says later.
    pub(super) fn unpark_before(&self, next: Option<Moment>) {
        if next.is_some_and(|next| self.at.load(Ordering::Relaxed) > next.as_nanos()) {
            self.unpark();
        }
    }

    /// Marks the runner as awake: until it is known when it wakes on its own, every turn of another
    /// thread that leaves a timer unparks it.
    pub(super) fn awake(&self) {
        self.at.store(Moment::NEVER.as_nanos(), Ordering::Relaxed);
    }

    /// Sleeps until that time, or until it is unparked; returns true if it was unparked.
    pub(super) async fn park(&self, now: Moment, until: Option<Moment>) -> bool {
        let Some(until) = until else {
            self.notify.notified().await;
            return true;
        };
        let sleep = until.after(now).min(LONGEST_SLEEP);
        self.at.store((now + sleep).as_nanos(), Ordering::Relaxed);
        time::timeout(sleep, self.notify.notified()).await.is_ok()
    }
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.unpark();
    }
}
