//! The store of the debounce model: one window, and the lock of its runs.
//!
//! Mirrors `MemoryStore::debounce`, which `debounce.lua` follows, on the real [`Window`]; and
//! `renew` and `release` for a lock that nobody queues for.

use std::time::Duration;

use super::{Mistake, WAIT};
use crate::{
    Moment,
    model::{EPOCH, LEASE, NAMES},
    table::window::{Call, Verdict, Window},
};

/// A process, and the number of its call.
pub(super) type Token = (usize, u64);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Store {
    /// Kept for longer than the model lasts.
    window: Window,
    run: Option<(Token, Moment)>,
    fence: u64,
    /// What the clock has shown last, in microseconds, if operations take some.
    clock: Option<u64>,
    /// Whom the operation that goes on has woken.
    pub(super) woken: Vec<Token>,
}

/// `DebounceReply`, and the answers of the run's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reply {
    NotYet { left: Duration, newest: bool },
    Running(Duration),
    Superseded,
    Granted { fence: u64 },
    Renewed,
    NotOurs,
    Released,
}

impl Store {
    pub(super) fn new(takes_time: bool) -> Self {
        Self {
            window: Window::default(),
            run: None,
            fence: 0,
            clock: takes_time.then_some(0),
            woken: Vec::new(),
        }
    }

    /// `Table::held`.
    fn running(&self, now: Moment) -> Option<(Token, Moment)> {
        self.run.filter(|(_, expiry)| now <= *expiry)
    }

    /// `MemoryStore::debounce`.
    pub(super) fn debounce(
        &mut self,
        token: Token,
        (age, leading): (Duration, bool),
        now: Moment,
        mistake: Option<Mistake>,
    ) -> Reply {
        let mut micros = EPOCH + now.as_nanos() / 1000;
        if let Some(clock) = &mut self.clock {
            micros = micros.max(*clock + 10);
            *clock = micros;
        }
        let caller = (NAMES[token.0], token.1);
        let call = Call { caller, age, wait: WAIT, max_wait: None, leading };
        // A part of a millisecond counts as one: asking too early is in vain.
        let until = |left: Duration| Duration::from_millis(left.as_micros().div_ceil(1000) as u64);
        let running = self.running(now).map(|(of, expiry)| (of == token, expiry.after(now)));
        match (running, self.window.ask(&call, micros)) {
            (Some((true, _)), _) | (None, Verdict::Due) => {
                for (client, number) in self.window.begin(caller, micros) {
                    let process = NAMES.iter().position(|name| *name == client);
                    self.woken.extend(process.map(|process| (process, number)));
                }
                self.fence = micros.max(self.fence + 1);
                if mistake != Some(Mistake::ClaimWithoutLease) {
                    self.run = Some((token, now + LEASE));
                }
                Reply::Granted { fence: self.fence }
            }
            (_, Verdict::Superseded) => Reply::Superseded,
            (_, Verdict::NotYet { newest: false, .. })
                if mistake == Some(Mistake::SupersededByACall) =>
            {
                Reply::Superseded
            }
            (_, Verdict::NotYet { left, newest }) => Reply::NotYet { left: until(left), newest },
            (Some((false, left)), Verdict::Due) => {
                self.window.wait_for_run(caller, micros);
                Reply::Running(left)
            }
        }
    }

    /// `MemoryStore::renew`.
    pub(super) fn renew(&mut self, token: Token, lease: Duration, now: Moment) -> Reply {
        match &mut self.run {
            Some((of, expiry)) if now <= *expiry && *of == token => {
                *expiry = (*expiry).max(now + lease);
                Reply::Renewed
            }
            _ => Reply::NotOurs,
        }
    }

    /// `MemoryStore::release`.
    pub(super) fn release(&mut self, token: Token, now: Moment, mistake: Option<Mistake>) -> Reply {
        if self.running(now).is_none_or(|(of, _)| of == token) {
            self.run = None;
            if mistake == Some(Mistake::NoTombstone) {
                self.window = Window::default();
            }
        }
        Reply::Released
    }

    /// When the lock of the run ends by itself.
    pub(super) fn next_end(&self, now: Moment) -> Option<Moment> {
        self.running(now).map(|(_, expiry)| expiry)
    }
}
