//! Deliberate mistakes, which the tests must catch.
//!
//! A test that passes says little until it has failed for the right reason. One mistake at a time
//! is switched on, by its name in the environment variable `LOCK_MUTANT`, and only in a build with
//! `--cfg lock_mutants`. That is a compiler flag and not a feature, which any dependency could
//! enable; `.cargo/config.toml` sets it for this repository. Any other build contains no mistakes,
//! and checking for them costs nothing.

macro_rules! mutants {
    ($($(#[$what:meta])* $name:ident,)*) => {
        /// A mistake that somebody could make.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[$what])* $name,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

mutants! {
    // In the engine.
    /// The lease is counted from the answer instead of from before the request.
    DeadlineFromReply,
    /// A holder trusts its lock until the lease ends in the store, without a margin.
    NoMargin,
    /// A grant that arrives after its lease has ended is accepted.
    LateGrantCounts,
    /// All acquisitions of a client share one token.
    OwnerPerProcess,
    /// A renewal without an answer is treated as "not ours".
    ErrorCountedAsNotOurs,
    /// A waiter relies on its notice, and never rechecks.
    NoFallbackLook,
    /// A request whose caller went away is forgotten.
    CancelledAcquireIsNotUndone,
    /// A process passes its lock on to its own callers although other processes wait for it.
    HandOverToTheCrowd,
    /// A lock that is passed on inside a process keeps its fencing token.
    HandOverWithTheSameToken,
    /// A holder carries on although the store says that the lock is not its own.
    NotOursIsIgnored,
    /// A lock that was handed over is not watched.
    HandOffIsNotWatched,
    /// A release without an answer is not repeated.
    ReleaseIsNotRepeated,
    /// The older calls of a burst are answered when its run is granted, instead of when it is
    /// taken.
    SupersededBeforeTheRun,

    // In the table, the reference of the stores.
    /// A release frees the lock even if another token holds it.
    ReleaseWithoutOwnerCheck,
    /// A renewal takes a lock that no longer exists.
    RenewRecreates,
    /// The fence is a plain counter, without the clock.
    CounterOnlyToken,
    /// A lock that was handed over waits for its next holder for ever.
    HandOverWithoutExpiry,
    /// Instead of being handed over, a lock is freed and its first waiter notified.
    HandOverByFreeing,
    /// A claim marks the window but takes no lock.
    DebounceClaimWithoutLease,
    /// A window forgets which calls have run.
    NoTombstone,
    /// A call gives up as soon as there is a newer one, without waiting for its run.
    SupersededByACall,
    /// A durable call is forgotten when its run begins, instead of when it has ended.
    DurableCallIsForgotten,
    /// The end of a durable run removes a call that was made during it.
    FinishRemovesNewerCall,

    // In a guard, the keeper and its clock.
    /// A loss is not signalled.
    LossIsNotSignalled,
    /// A guard believes what it was last told, and does not check the clock.
    NoLookAtTheClock,
    /// Leases are measured with the wall clock, which people can set.
    WallClock,

    // In the scripts of the Redis store.
    /// `release.lua` frees the lock even if another token holds it.
    ScriptReleaseWithoutOwnerCheck,
    /// `renew.lua` takes a lock that no longer exists.
    ScriptRenewRecreates,
    /// `fence.lua` counts without consulting the clock.
    ScriptCounterOnlyToken,
    /// `acquire.lua` gives leases in seconds.
    ScriptSecondsAsTtl,
    /// `extend.lua` deletes a lock that it cannot extend.
    ScriptFailedExtendReleases,
    /// `debounce.lua` marks the window but takes no lock.
    ScriptDebounceClaimWithoutLease,
    /// `queue.lua` gives a waiter a new ticket each time.
    ScriptTicketIsNotKept,
    /// `window.lua` forgets which calls have run.
    ScriptNoTombstone,
}

#[cfg(lock_mutants)]
static ON: std::sync::LazyLock<Option<Mutant>> = std::sync::LazyLock::new(|| {
    let name = std::env::var("LOCK_MUTANT").ok()?;
    let named = Mutant::ALL.iter().find(|mutant| format!("{mutant:?}") == name);
    Some(*named.unwrap_or_else(|| panic!("LOCK_MUTANT={name}: there is no such mistake")))
});

impl Mutant {
    /// Whether this mistake is switched on.
    #[cfg(lock_mutants)]
    #[must_use]
    pub fn is_on(self) -> bool {
        *ON == Some(self)
    }

    /// Whether this mistake is switched on: never, in this build.
    #[cfg(not(lock_mutants))]
    #[inline(always)]
    #[must_use]
    pub const fn is_on(self) -> bool {
        false
    }
}
