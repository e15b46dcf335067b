//! The answer to one caller.

use tokio::sync::oneshot;

use crate::contained::contained;

/// Where one answer is sent.
///
/// Sending it wakes the caller, and a waker is code of the caller's executor. If that panics, only
/// this caller is affected: the keeper goes on, and so does everybody else.
#[derive(Debug)]
pub(super) struct Reply<T>(Option<oneshot::Sender<T>>);

/// A reply that nobody waits for.
impl<T> Default for Reply<T> {
    fn default() -> Self {
        Self(None)
    }
}

/// Returns where an answer is sent, and where it can be waited for.
pub(super) fn channel<T>() -> (Reply<T>, oneshot::Receiver<T>) {
    let (sender, receiver) = oneshot::channel();
    (Reply(Some(sender)), receiver)
}

impl<T> Reply<T> {
    /// Sends the answer, or returns it if nobody waits for it any more.
    pub(super) fn send(mut self, answer: T) -> Result<(), T> {
        let Some(sender) = self.0.take() else { return Err(answer) };
        // The answer is stored before the waker is called.
        contained(|| sender.send(answer)).unwrap_or(Ok(()))
    }

    /// Does nobody wait for it any more?
    pub(super) fn is_closed(&self) -> bool {
        self.0.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// Wakes a caller that gets no answer, so that it learns that.
impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        let sender = self.0.take();
        let _ = contained(|| drop(sender));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::Arc,
        task::{Context, Poll, Wake, Waker},
    };

    use super::*;

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("as an executor would");
        }
    }

    #[test]
    fn a_waker_that_panics_costs_nobody_but_its_owner() {
        let (reply, answer) = channel();
        let mut answer = pin!(answer);
        let waker = Waker::from(Arc::new(Panics));
        assert!(answer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(reply.send(7), Ok(()));
        let polled = answer.poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(Ok(7)), "the answer can still be received");
    }
}
