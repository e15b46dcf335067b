//! The large parts of a state.

use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

use foldhash::quality::FixedState;

/// The same in each run.
pub(crate) fn hash_of(value: &impl Hash) -> u64 {
    FixedState::with_seed(7).hash_one(value)
}

/// Something large that most steps leave as it was: shared with the states before, and hashed once.
pub(crate) struct Kept<T>(Arc<(u64, T)>);

impl<T: Hash> Kept<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new((hash_of(&value), value)))
    }
}

impl<T: Hash + Clone> Kept<T> {
    /// What would come of changing it.
    pub(crate) fn change_nothing<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.0.1.clone())
    }

    /// Changes it.
    pub(crate) fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut value = self.0.1.clone();
        let result = change(&mut value);
        *self = Self::new(value);
        result
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> std::ops::Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.1
    }
}

impl<T> Hash for Kept<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.0.hash(state);
    }
}
