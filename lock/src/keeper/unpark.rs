//! What wakes a runner that sleeps until a time.

use std::{sync::Arc, task::Wake, time::Duration};

use lock_core::Moment;
use tokio::time;

use super::sync::{AtomicU64, Notify, Ordering};

/// The longest sleep of a runner. Timers of the runtime stand still while the machine is
/// suspended; the keeper's clock does not, and is looked at again at least this often.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Wakes one runner.
#[derive(Default)]
pub(super) struct Unpark {
    /// When the runner wakes by itself, in nanoseconds of the keeper's clock.
    at: AtomicU64,
    notify: Notify,
}

impl Unpark {
    pub(super) fn unpark(&self) {
        self.notify.notify_one();
    }

    /// Unparks a runner that would sleep beyond that time: called after each turn of somebody else.
    ///
    /// Relaxed is enough, for there is the combiner between the two: the runner says that it is
    /// awake, and then takes a turn, or asks for one. A turn of somebody else is either ahead of
    /// that one, which then finds what it left, or knows that the runner is awake, and sees here
    /// that or what the runner says later.
    pub(super) fn unpark_before(&self, next: Option<Moment>) {
        if next.is_some_and(|next| self.at.load(Ordering::Relaxed) > next.as_nanos()) {
            self.unpark();
        }
    }

    /// Until it is known when the runner wakes by itself, every turn of somebody else that leaves a
    /// timer unparks it.
    pub(super) fn awake(&self) {
        self.at.store(Moment::NEVER.as_nanos(), Ordering::Relaxed);
    }

    /// Sleeps until that time, or until somebody unparks: true.
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
