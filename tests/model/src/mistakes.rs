//! Which mistakes are found here. The rest have a test in the suite; `tests/tests/mutants.rs`
//! checks that each mistake has one.

use lock_core::mutant::Mutant::{self, *};

/// Found by the model checker.
pub const BY_EXHAUSTION: &[Mutant] = &[
    DeadlineFromReply,
    LateGrantCounts,
    OwnerPerProcess,
    NoFallbackLook,
    CancelledAcquireIsNotUndone,
    HandOverWithTheSameToken,
    ReleaseIsNotRepeated,
    ReleaseWithoutOwnerCheck,
    RenewRecreates,
    CounterOnlyToken,
    HandOverWithoutExpiry,
    HandOverByFreeing,
    SupersededBeforeTheRun,
    DebounceClaimWithoutLease,
    NoTombstone,
    SupersededByACall,
    DurableCallIsForgotten,
    FinishRemovesNewerCall,
];

/// Found by the simulation: by clocks that differ, by the order of turns, by locks that are forced
/// or forgotten.
pub const BY_CHANCE: &[Mutant] =
    &[NoMargin, ErrorCountedAsNotOurs, HandOverToTheCrowd, HandOffIsNotWatched];
