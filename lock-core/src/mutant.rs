//! Mistakes on purpose, which the tests must catch.
//!
//! A test that passes says little until it has failed for the right reason. One mistake at a time is
//! switched on, by its name in the environment variable `LOCK_MUTANT`, and only in a build with
//! `--cfg lock_mutants`. That is a flag of the compiler, so no dependency can ask for it, as it could for
//! a feature: `.cargo/config.toml` sets it for this repository. In any other build there are no mistakes,
//! and looking for them costs nothing.

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
    /// The lease is counted from the answer, and not from before the request.
    DeadlineFromReply,
    /// A holder believes in its lock until the store's own time is up.
    NoMargin,
    /// A grant is believed that comes after its lease.
    LateGrantCounts,
    /// All acquisitions of a client have one token.
    OwnerPerProcess,
    /// A renewal without an answer counts as one that says "not ours".
    ErrorCountedAsNotOurs,
    /// A waiter relies on its notice, and does not recheck.
    NoFallbackLook,
    /// A request whose caller went away is forgotten.
    CancelledAcquireIsNotUndone,
    /// A process passes its lock on to its own callers, though others wait for it.
    HandOverToTheCrowd,
    /// A lock that passes inside a process keeps its fencing token.
    HandOverWithTheSameToken,
    /// A holder goes on when the store says that its lock is not its own.
    NotOursIsIgnored,
    /// A lock that was handed over is not looked after.
    HandOffIsNotWatched,
    /// A release without an answer is not repeated.
    ReleaseIsNotRepeated,
    /// The older calls of a burst are told when its run is granted, and not when it is taken.
    SupersededBeforeTheRun,

    // In the table, the reference of the stores.
    /// A release frees the lock, also if another token holds it.
    ReleaseWithoutOwnerCheck,
    /// A renewal takes a lock that is gone.
    RenewRecreates,
    /// The fence is the counter, without the clock.
    CounterOnlyToken,
    /// A lock that was handed over waits for its next holder for ever.
    HandOverWithoutExpiry,
    /// A lock is freed, and its first waiter told to be quick.
    HandOverByFreeing,
    /// A claim marks the window, and takes no lock.
    DebounceClaimWithoutLease,
    /// A window forgets which calls were run.
    NoTombstone,
    /// A call gives up when there is a newer one, and does not wait for its run.
    SupersededByACall,
    /// A durable call is forgotten when its run begins, and not when it has ended.
    DurableCallIsForgotten,
    /// The end of a durable run removes a call that was made during it.
    FinishRemovesNewerCall,

    // In a guard, the keeper and its clock.
    /// A loss is not signalled.
    LossIsNotSignalled,
    /// A guard believes what it was last told, and does not look at the clock.
    NoLookAtTheClock,
    /// Leases are measured with the clock that people set.
    WallClock,

    // In the scripts of the Redis store.
    /// `release.lua` frees the lock, also if another token holds it.
    ScriptReleaseWithoutOwnerCheck,
    /// `renew.lua` takes a lock that is gone.
    ScriptRenewRecreates,
    /// `fence.lua` counts, and does not look at the clock.
    ScriptCounterOnlyToken,
    /// `acquire.lua` gives leases in seconds.
    ScriptSecondsAsTtl,
    /// `extend.lua` deletes a lock that it cannot extend.
    ScriptFailedExtendReleases,
    /// `debounce.lua` marks the window, and takes no lock.
    ScriptDebounceClaimWithoutLease,
    /// `queue.lua` gives a waiter a new ticket each time.
    ScriptTicketIsNotKept,
    /// `window.lua` forgets which calls were run.
    ScriptNoTombstone,
}

#[cfg(lock_mutants)]
static ON: std::sync::LazyLock<Option<Mutant>> = std::sync::LazyLock::new(|| {
    let name = std::env::var("LOCK_MUTANT").ok()?;
    let named = Mutant::ALL.iter().find(|mutant| format!("{mutant:?}") == name);
    Some(*named.unwrap_or_else(|| panic!("LOCK_MUTANT={name}: there is no such mistake")))
});

impl Mutant {
    /// Is this mistake made?
    #[cfg(lock_mutants)]
    #[must_use]
    pub fn is_on(self) -> bool {
        *ON == Some(self)
    }

    /// Is this mistake made? No.
    #[cfg(not(lock_mutants))]
    #[inline(always)]
    #[must_use]
    pub const fn is_on(self) -> bool {
        false
    }
}
