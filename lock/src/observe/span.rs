//! The span of the time that a body runs under a lock.

use tracing::{Level, Span};

use super::{Observed, is_heard};
use crate::contained::contained;

/// The spans of a body under its locks, the outermost first. They are made when the body is polled
/// while somebody listens, and entered for each poll.
#[derive(Default)]
pub(crate) struct Spans(Option<Box<[Span]>>);

impl Spans {
    /// Enters them until the returned value is dropped.
    #[inline]
    pub(crate) fn enter<'a, 'h, H: Observed>(
        &'a mut self,
        holds: impl Iterator<Item = &'h H>,
    ) -> Entered<'a> {
        if self.0.is_none() {
            if !is_heard(Level::DEBUG) {
                return Entered(&[]);
            }
            self.make(holds);
        }
        Entered::all(self.0.as_deref().unwrap_or_default())
    }

    #[cold]
    fn make<'h, H: Observed>(&mut self, holds: impl Iterator<Item = &'h H>) {
        let mut spans = Vec::new();
        for hold in holds {
            let (id, mode) = (hold.id(), hold.mode().as_str());
            let fencing_token = hold.fencing_token();
            let parent = spans.last().and_then(Span::id);
            let span = contained(|| match parent {
                None => tracing::debug_span!(target: "lock", "locked", id, mode, fencing_token),
                Some(parent) => {
                    tracing::debug_span!(target: "lock", parent: parent, "locked", id, mode, fencing_token)
                }
            });
            spans.extend(span);
        }
        self.0 = Some(spans.into());
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        // This also runs the subscriber's code.
        let spans = self.0.take();
        for span in spans.into_iter().flatten() {
            let _ = contained(|| drop(span));
        }
    }
}

/// Spans that were entered; they are left in the opposite order.
pub(crate) struct Entered<'a>(&'a [Span]);

impl<'a> Entered<'a> {
    fn all(spans: &'a [Span]) -> Self {
        for span in spans {
            let _ = contained(|| span.with_subscriber(|(id, subscriber)| subscriber.enter(id)));
        }
        Self(spans)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        for span in self.0.iter().rev() {
            let _ = contained(|| span.with_subscriber(|(id, subscriber)| subscriber.exit(id)));
        }
    }
}
