//! A Cluster that is down is asked by a few calls at a time, and by all once it has served one.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time,
};

/// How many calls at a time find out whether it serves again.
const AT_ONCE: usize = 4;

pub(super) struct Recovery {
    turns: Semaphore,
    /// How many calls were served that had found it down.
    served: AtomicU64,
}

/// The turn of a call that has found the Cluster down.
pub(super) struct Turn<'a> {
    recovery: &'a Recovery,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Default for Recovery {
    fn default() -> Self {
        Self { turns: Semaphore::new(AT_ONCE), served: AtomicU64::new(0) }
    }
}

impl Recovery {
    /// Waits for a turn to ask again: after a pause, or as soon as another call was served.
    pub(super) async fn turn(&self, pause: Duration) -> Turn<'_> {
        let before = self.served.load(Ordering::Relaxed);
        // The semaphore is never closed.
        let permit = self.turns.acquire().await.ok();
        if self.served.load(Ordering::Relaxed) == before {
            time::sleep(pause).await;
        }
        Turn { recovery: self, _permit: permit }
    }
}

impl Turn<'_> {
    pub(super) fn served(self) {
        self.recovery.served.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::{task::JoinSet, time::Instant};

    use super::*;

    const PAUSE: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn thousands_ask_a_few_at_a_time_and_all_go_once_one_was_served() {
        let recovery = Arc::new(Recovery::default());
        let began = Instant::now();
        let asked = Arc::new(AtomicU64::new(0));
        let mut calls = JoinSet::new();
        for _ in 0..5000 {
            let (recovery, asked) = (Arc::clone(&recovery), Arc::clone(&asked));
            calls.spawn(async move {
                loop {
                    let turn = recovery.turn(PAUSE).await;
                    asked.fetch_add(1, Ordering::Relaxed);
                    if began.elapsed() >= Duration::from_secs(1) {
                        return turn.served();
                    }
                }
            });
        }
        calls.join_all().await;
        assert!(began.elapsed() < Duration::from_millis(1050), "{:?}", began.elapsed());
        let needless = asked.load(Ordering::Relaxed) - 5000;
        assert!(needless <= 4 * 101, "{needless} asked in vain in a second");
    }
}
