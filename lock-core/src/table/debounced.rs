//! Debounced calls in memory.

use std::{sync::Arc, time::Duration};

use super::{
    Now, Subscriber, Table,
    window::{Call, Verdict},
};
use crate::{
    contract::{DebounceReply, DebounceRequest, EndWindowRequest, Notice, WindowEnd},
    limits::whole_millis,
    mutant::Mutant,
    token,
};

/// The operations on debounced calls.
impl<L: Subscriber> Table<L> {
    /// Registers a call, and lets it run if its burst is over.
    pub fn register(&mut self, request: &DebounceRequest, at: Now) -> DebounceReply {
        let Now { moment: now, micros } = at;
        let token = &request.token;
        let caller = token::parts(token);
        let call = Call {
            caller,
            age: request.age,
            wait: request.wait,
            max_wait: request.max_wait,
            leading: request.leading,
        };
        let (mut window, expiry) = match self.windows.get(&request.window) {
            Some((window, expiry)) if now <= *expiry => (window.clone(), *expiry),
            _ => Default::default(),
        };
        // Part of a millisecond counts as one, because asking too early is useless.
        let until = |left: Duration| whole_millis(left + Duration::from_micros(999));
        let running = self.held(&request.run, now);
        let running = running.map(|lock| (lock.token == *token, lock.expiry.after(now)));
        let mut keep = Duration::ZERO;
        let reply = match (running, window.ask(&call, micros)) {
            // The answer to an earlier claim was lost.
            (Some((true, _)), _) | (None, Verdict::Due) => {
                // If the run is granted again, it covers what it covered before and nothing else,
                // even if its burst was cancelled since.
                let waiting =
                    if running.is_none() { window.begin(caller, micros) } else { Vec::new() };
                for (client, number) in waiting {
                    self.tell_client(&client, Notice::Granted { number });
                }
                let fence = self.take(&request.run, token, request.lease, at);
                if Mutant::DebounceClaimWithoutLease.is_on() {
                    self.locks.remove(&request.run);
                }
                DebounceReply::Granted { fence }
            }
            (_, Verdict::Superseded) => DebounceReply::Superseded,
            (_, Verdict::NotYet { newest: false, .. }) if Mutant::SupersededByACall.is_on() => {
                DebounceReply::Superseded
            }
            (_, Verdict::NotYet { left, newest }) => {
                DebounceReply::NotYet { left: until(left), newest }
            }
            (Some((false, left)), Verdict::Due) => {
                window.wait_for_run(caller, micros);
                // A call that waits keeps the window, because a run may last longer than that.
                keep = left;
                DebounceReply::Running(whole_millis(left))
            }
        };
        // A tombstone is never kept for less time than somebody has asked for.
        let kept_until = (now + window.due_in(micros).max(keep) + request.keep).max(expiry);
        self.windows.insert(Arc::clone(&request.window), (window, kept_until));
        reply
    }

    /// Ends a window before its time: true if a call waits in it.
    pub fn end_window(&mut self, request: &EndWindowRequest, at: Now) -> bool {
        let Now { moment: now, micros } = at;
        let known = self.windows.get_mut(&request.window).filter(|(_, expiry)| now <= *expiry);
        let Some((window, _)) = known else { return false };
        let told: Vec<_> = match request.end {
            WindowEnd::Flush => {
                let newest = window.flush(micros);
                newest.into_iter().map(|(of, number)| (of, Notice::Flushed { number })).collect()
            }
            WindowEnd::Cancel => {
                let told = window.cancel(micros).unwrap_or_default();
                told.into_iter().map(|(of, number)| (of, Notice::Granted { number })).collect()
            }
        };
        let pending = !told.is_empty();
        for (client, notice) in told {
            self.tell_client(&client, notice);
        }
        pending
    }

    /// Returns how long until the call that waits in a window is due; `None` if none waits.
    pub fn due_in(&mut self, window: &Arc<str>, at: Now) -> Option<Duration> {
        let Now { moment: now, micros } = at;
        let (window, _) = self.windows.get(window).filter(|(_, expiry)| now <= *expiry)?;
        window.is_waited_in().then(|| whole_millis(window.due_in(micros)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time::Moment;

    #[derive(Clone)]
    struct Line;

    impl Subscriber for Line {
        fn is_there(&self) -> bool {
            true
        }
    }

    fn at(millis: u64) -> Now {
        let moment = Moment::from_nanos(millis * 1_000_000);
        Now { moment, micros: 1_000_000_000 + millis * 1000 }
    }

    fn call(client: &str) -> DebounceRequest {
        let (wait, lease) = (Duration::from_millis(100), Duration::from_secs(1));
        DebounceRequest::new("w", "r", token::made_by(client, 1), wait, lease)
    }

    #[test]
    fn a_run_that_is_granted_again_after_a_cancel_covers_no_call_that_came_since() {
        let mut table: Table<Line> = Table::default();
        table.register(&call("a"), at(0));
        let granted = |reply| matches!(reply, DebounceReply::Granted { .. });
        assert!(granted(table.register(&call("a"), at(100))), "an answer that is lost");
        let pending = |reply| matches!(reply, DebounceReply::NotYet { newest: true, .. });
        assert!(pending(table.register(&call("b"), at(150))));
        assert!(table.end_window(&EndWindowRequest::new("w", WindowEnd::Cancel), at(160)));
        assert!(pending(table.register(&call("c"), at(200))));
        assert!(granted(table.register(&call("a"), at(210))), "it still has its run");
        assert!(pending(table.register(&call("c"), at(220))), "it is newer than that run");
    }
}
