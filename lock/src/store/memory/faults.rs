//! What servers do to their data and never should (feature `__mutants`, for the simulation).

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use super::{MemoryStore, table::Table};

/// What a replica knew at some moment.
#[doc(hidden)]
#[derive(Debug)]
pub struct Replica(Table);

impl MemoryStore {
    /// Loses everything, as a server that restarts without its data.
    #[doc(hidden)]
    pub fn __forget(&self) {
        self.__fail_over(Replica(Table::default()));
    }

    /// A replica that hears nothing more from now on.
    #[doc(hidden)]
    pub fn __replicate(&self) -> Replica {
        let table = self.0.table.lock().unwrap_or_else(PoisonError::into_inner);
        Replica(table.without_clients())
    }

    /// Lets a replica take over: what was done since it heard nothing is lost. Clients stay.
    #[doc(hidden)]
    pub fn __fail_over(&self, to: Replica) {
        let mut table = self.0.table.lock().unwrap_or_else(PoisonError::into_inner);
        let listeners = std::mem::take(&mut table.listeners);
        *table = Table { listeners, ..to.0 };
        // It takes its time, as a real one does, while a virtual clock stands still: longer than
        // the counter of the fences, which is lost with the rest, was ahead of the clock.
        self.__set_clock_ahead(Duration::from_millis(1));
    }

    /// Sets the clock ahead: leases end early.
    #[doc(hidden)]
    pub fn __set_clock_ahead(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).expect("a simulated time");
        self.0.ahead.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Sets the clock that fencing tokens and tickets of a queue are drawn from back.
    #[doc(hidden)]
    pub fn __set_clock_back(&self, by: Duration) {
        let micros = u64::try_from(by.as_micros()).expect("a simulated time");
        self.0.behind.fetch_add(micros, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("locks", &self.locks.len()).finish_non_exhaustive()
    }
}

impl Table {
    fn without_clients(&self) -> Self {
        Self {
            locks: self.locks.clone(),
            queues: self.queues.clone(),
            windows: self.windows.clone(),
            books: self.books.clone(),
            fence: self.fence,
            ..Self::default()
        }
    }
}
