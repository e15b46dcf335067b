//! The signal of a loss: raised once, and seen by those that ask before or after.

use tokio_util::sync::CancellationToken;

use super::sync::{AtomicBool, OnceLock, Ordering, fence};
use crate::contained::contained;

/// Reports that a lock was lost. Most locks are never lost, and most guards are never asked to
/// report it, so the token that notifies others is made when the first of them asks.
#[derive(Debug, Default)]
pub(crate) struct LossSignal {
    raised: AtomicBool,
    token: OnceLock<CancellationToken>,
}

impl LossSignal {
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    pub(crate) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        // Pairs with the fence in `token`: of a raise and an ask at the same time, at least one
        // sees the other. Either this finds the token, or the other finds the signal raised.
        fence(Ordering::SeqCst);
        if let Some(token) = self.token.get() {
            cancel(token);
        }
    }

    /// Cancelled when the signal is raised.
    pub(crate) fn token(&self) -> &CancellationToken {
        let token = self.token.get_or_init(CancellationToken::new);
        fence(Ordering::SeqCst);
        if self.is_raised() {
            cancel(token);
        }
        token
    }
}

/// Wakes the waiters, with wakers of their executors: one that panics must not take down the
/// keeper, nor the caller that found the loss.
fn cancel(token: &CancellationToken) {
    let _ = contained(|| token.cancel());
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[test]
    fn whoever_asks_hears_it_before_and_after() {
        let signal = LossSignal::default();
        let before = signal.token().clone();
        assert!(!before.is_cancelled() && !signal.is_raised());
        signal.raise();
        assert!(before.is_cancelled() && signal.is_raised());
        let late = LossSignal::default();
        late.raise();
        assert!(late.token().is_cancelled());
    }

    #[test]
    fn of_a_raise_and_an_ask_at_once_neither_is_missed() {
        for _ in 0..2000 {
            let signal = Arc::new(LossSignal::default());
            let raiser = {
                let signal = Arc::clone(&signal);
                thread::spawn(move || signal.raise())
            };
            let token = signal.token().clone();
            raiser.join().unwrap();
            assert!(token.is_cancelled());
        }
    }
}
