//! An embedded store on several runtimes, some of which end, and some of which have no timers.

use std::time::Duration;

use lock::{Error, Locks, Status};
use tokio::runtime::{Builder, Runtime};

use crate::common::ms;

const LEASE: Duration = Duration::from_millis(500);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A call on the other runtime, which needs no timer itself.
type Call = fn(&Runtime, &Locks, &lock::LockGuard) -> Result<(), Error>;

const CALLS: [(&str, Call); 5] = [
    ("status", |runtime, locks, _| runtime.block_on(locks.lock("b").status()).map(drop)),
    ("extend", |runtime, _, guard| runtime.block_on(guard.extend(ms(1)))),
    ("force_release", |runtime, locks, _| {
        runtime.block_on(locks.lock("b").force_release()).map(drop)
    }),
    ("flush of a debounce", |runtime, locks, _| {
        runtime.block_on(locks.debounce("b").flush()).map(drop)
    }),
    ("flush", |runtime, locks, _| {
        runtime.block_on(locks.flush());
        Ok(())
    }),
];

#[test]
fn a_lock_is_renewed_on_whichever_runtime_a_call_was_made() {
    for (name, call) in CALLS {
        let locks = Locks::in_memory();
        let first = runtime();
        let guard = first.block_on(locks.lock("a").lease(LEASE).acquire()).unwrap();
        drop(first);
        let second = runtime();
        call(&second, &locks, &guard).unwrap();
        second.block_on(async { tokio::time::sleep(LEASE * 3).await });
        assert!(guard.is_held(), "lost after `{name}` on another runtime");
    }
}

/// Whether or not a lock has to be renewed, which that runtime cannot do.
#[test]
fn calls_that_need_no_timer_work_without_one() {
    for holds in [false, true] {
        let locks = Locks::in_memory();
        let first = runtime();
        let guard = first.block_on(locks.lock("a").acquire()).unwrap();
        let other = first.block_on(locks.lock("b").acquire()).unwrap();
        drop(first);
        if !holds {
            drop(other);
        }
        let timeless = Builder::new_current_thread().build().unwrap();
        for _ in 0..2 {
            for (name, call) in CALLS {
                call(&timeless, &locks, &guard).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
        let status = timeless.block_on(locks.lock("a").status()).unwrap();
        assert!(matches!(status, Status::Held { by_us: true, .. }));
        timeless.block_on(guard.release()).unwrap();
    }
    // They need no runtime either.
    let locks = Locks::in_memory();
    let guard = runtime().block_on(locks.lock("a").acquire()).unwrap();
    futures_util::FutureExt::now_or_never(guard.extend(ms(1))).expect("at once").unwrap();
    futures_util::FutureExt::now_or_never(guard.release()).expect("at once").unwrap();
}
