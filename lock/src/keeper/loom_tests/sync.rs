//! Stand-ins for synchronization primitives, built on loom's atomics, and no stronger than the
//! documentation of the standard library promises. Loom's own mutex is stronger: it orders
//! everything that is done under any mutex.

use std::ops::{Deref, DerefMut};

use loom::thread;

pub(in super::super) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

#[derive(Debug, Default)]
pub(in super::super) struct Mutex<T> {
    is_locked: AtomicBool,
    /// Never waited for.
    value: std::sync::Mutex<T>,
}

pub(in super::super) struct MutexGuard<'a, T> {
    is_locked: &'a AtomicBool,
    value: Option<std::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(in super::super) fn new(value: T) -> Self {
        Self { is_locked: AtomicBool::new(false), value: std::sync::Mutex::new(value) }
    }

    pub(in super::super) fn lock(&self) -> Result<MutexGuard<'_, T>, ()> {
        loop {
            match self.try_lock() {
                Ok(guard) => return Ok(guard),
                Err(()) => thread::yield_now(),
            }
        }
    }

    pub(in super::super) fn try_lock(&self) -> Result<MutexGuard<'_, T>, ()> {
        // A failing attempt is a load, and may miss that the other has let go; loom's own never
        // misses it.
        if self.is_locked.load(Ordering::Relaxed) {
            return Err(());
        }
        let locked =
            self.is_locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        locked.map_err(|_| ())?;
        let value = self.value.try_lock().expect("BUG: the flag says that it is free");
        Ok(MutexGuard { is_locked: &self.is_locked, value: Some(value) })
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("BUG: there until it is dropped")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("BUG: there until it is dropped")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        self.is_locked.store(false, Ordering::Release);
    }
}

/// A thread that finds the value knows what was done before it was made.
#[derive(Debug, Default)]
pub(in super::super) struct OnceLock<T> {
    is_made: AtomicBool,
    making: Mutex<()>,
    value: std::sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    pub(in super::super) fn get(&self) -> Option<&T> {
        if self.is_made.load(Ordering::Acquire) { self.value.get() } else { None }
    }

    pub(in super::super) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if !self.is_made.load(Ordering::Acquire) {
            let _making = self.making.lock();
            self.value.get_or_init(make);
            self.is_made.store(true, Ordering::Release);
        }
        self.value.get().expect("BUG: made just now, or before")
    }
}

/// Blocks where tokio's waits.
#[derive(Debug, Default)]
pub(in super::super) struct Notify(loom::sync::Notify);

impl Notify {
    pub(in super::super) fn notify_one(&self) {
        self.0.notify();
    }

    pub(in super::super) async fn notified(&self) {
        self.0.wait();
    }
}
