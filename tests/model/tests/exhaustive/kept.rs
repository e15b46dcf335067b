//! The large parts of a state.

use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

use foldhash::quality::FixedState;

/// A hash that is the same in each run.
pub(crate) fn hash_of(value: &impl Hash) -> u64 {
    FixedState::with_seed(7).hash_one(value)
}

/// A large value that most steps leave unchanged: shared with the previous states, and hashed once.
pub(crate) struct Kept<T>(Arc<(u64, T)>);

impl<T: Hash> Kept<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new((hash_of(&value), value)))
    }
}

impl<T: Hash + Clone> Kept<T> {
    /// Returns what a change would return, and changes only a copy.
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
