//! One held lock: what its guard and the keeper share, and the half of a guard that releases.

use std::{
    fmt, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use lock_core::{Moment, Token, engine::io::HoldName, mutant::Mutant};

use super::signal::LossSignal;
#[cfg(feature = "metrics")]
use crate::observe::Counted;
use crate::{
    clock::Clock,
    id::Named,
    observe::{Mode, Observed},
    process::Process,
};

/// What a guard and the keeper share about one held lock.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(super) name: HoldName,
    pub(crate) lock: Named,
    pub(crate) token: Token,
    pub(crate) fencing_token: u64,
    mode: Mode,
    granted_at: Moment,
    /// Nanoseconds of the clock's time; written by the keeper only, and only ever raised.
    deadline: AtomicU64,
    lost: LossSignal,
    /// The guard has given up the lock. A body that runs under the same lock may have outlived its
    /// guard.
    let_go: AtomicBool,
    #[cfg(feature = "metrics")]
    counted: Counted,
    clock: Arc<dyn Clock>,
    process: Process,
}

impl Hold {
    /// A lock that was granted just now, at the first of these moments. It may be relied on until
    /// the second.
    #[inline]
    pub(super) fn new(
        name: HoldName,
        (lock, token): (Named, Token),
        (fencing_token, mode): (u64, Mode),
        (granted_at, deadline): (Moment, Moment),
        (clock, process): (Arc<dyn Clock>, Process),
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            lock,
            token,
            fencing_token,
            mode,
            granted_at,
            deadline: AtomicU64::new(deadline.as_nanos()),
            lost: LossSignal::default(),
            let_go: AtomicBool::new(false),
            #[cfg(feature = "metrics")]
            counted: Counted::default(),
            clock,
            process,
        })
    }

    /// May the lock still be relied on? Once the answer is no, it stays no: the thread that finds
    /// the deadline passed declares the loss, so a renewal that is answered later cannot take it
    /// back.
    pub(crate) fn is_held(&self) -> bool {
        // In a process that was forked from the holder's, the lock still belongs to the holder's
        // process.
        if self.lost.is_raised() || !self.process.is_current() {
            return false;
        }
        // Released is not lost: a caller that still waits for the loss waits for ever.
        let looks = self.is_kept() && !Mutant::NoLookAtTheClock.is_on();
        let held = !looks || self.clock.now() < self.deadline();
        if !held {
            self.lost.raise();
        }
        held
    }

    pub(crate) fn remaining(&self) -> Duration {
        if self.is_held() { self.deadline().after(self.clock.now()) } else { Duration::ZERO }
    }

    /// Raised by the keeper, or by the thread that finds the deadline passed.
    pub(crate) fn lost(&self) -> &LossSignal {
        &self.lost
    }

    /// Does its guard still take care of it? A lock that was given up is not lost, but nobody may
    /// work under it any more.
    pub(crate) fn is_kept(&self) -> bool {
        !self.let_go.load(Ordering::Acquire)
    }

    /// Is this the process that acquired it, and not one that was forked from that?
    pub(super) fn is_of_this_process(&self) -> bool {
        self.process.is_current()
    }

    /// Called before the release begins, so that nobody still works when the next holder is let in.
    pub(super) fn let_go(&self) {
        self.let_go.store(true, Ordering::Release);
    }

    /// How long ago its deadline passed; unlike [`is_held`](Self::is_held), this declares no loss.
    #[cfg(lock_mutants)]
    pub(crate) fn overdue(&self) -> Duration {
        self.clock.now().after(self.deadline())
    }

    pub(super) fn deadline(&self) -> Moment {
        // Relaxed: nothing else is published by this value.
        Moment::from_nanos(self.deadline.load(Ordering::Relaxed))
    }

    pub(super) fn set_deadline(&self, deadline: Moment) {
        self.deadline.store(deadline.as_nanos(), Ordering::Relaxed);
    }
}

impl Observed for Hold {
    fn id(&self) -> &str {
        &self.lock.id
    }

    fn mode(&self) -> Mode {
        self.mode
    }

    fn fencing_token(&self) -> u64 {
        self.fencing_token
    }

    fn held_until(&self, now: Moment) -> Duration {
        now.after(self.granted_at)
    }

    fn now(&self) -> Moment {
        self.clock.now()
    }

    #[cfg(feature = "metrics")]
    fn counted(&self) -> &Counted {
        &self.counted
    }
}

/// The owner of held locks, which releases them: the client that acquired them.
pub(crate) trait Owner: fmt::Debug + Send + Sync + 'static {
    /// Begins a release without waiting for it. Never blocks, never panics, on any thread.
    fn release_in_background(&self, hold: &Arc<Hold>, undelivered: bool);

    /// Does anybody want to be told who waits for a lock? Runs no user code.
    fn is_heard(&self) -> bool {
        false
    }

    /// The only process in which its guards are valid.
    fn process(&self) -> Process;
}

/// A lock that is released when this is dropped.
///
/// The keeper makes it, so that a grant whose caller has gone away is released when the answer that
/// nobody takes is dropped.
#[derive(Debug)]
pub(crate) struct Held<O: Owner> {
    hold: Arc<Hold>,
    owner: Arc<O>,
    /// It has reached its caller; until then, nobody has held the lock.
    delivered: bool,
    /// Somebody else takes care of the lock from here on.
    defused: bool,
}

impl<O: Owner> Held<O> {
    pub(super) fn new(hold: Arc<Hold>, owner: Arc<O>) -> Self {
        Self { hold, owner, delivered: false, defused: false }
    }

    pub(super) fn delivered(mut self) -> Self {
        self.delivered = true;
        self
    }

    /// A lock that somebody else takes care of; dropping this releases nothing.
    pub(crate) fn alias(hold: Arc<Hold>, owner: Arc<O>) -> Self {
        Self { hold, owner, delivered: true, defused: true }
    }

    /// Does somebody else release the lock?
    pub(crate) fn is_alias(&self) -> bool {
        self.defused
    }

    /// Prevents the release on drop: the caller takes care of the lock.
    pub(super) fn defuse(mut self) {
        self.defused = true;
    }

    pub(crate) fn hold(&self) -> &Arc<Hold> {
        &self.hold
    }

    pub(super) fn owner(&self) -> &O {
        &self.owner
    }
}

impl<O: Owner> Drop for Held<O> {
    fn drop(&mut self) {
        if !mem::replace(&mut self.defused, true) {
            self.owner.release_in_background(&self.hold, !self.delivered);
        }
    }
}
