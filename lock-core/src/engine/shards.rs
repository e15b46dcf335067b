//! One value for each part of the store, so that a silent part delays no other.

/// Values are created when they are first accessed.
#[derive(Clone, Default, Hash)]
pub(super) struct Shards<T>(Vec<T>);

impl<T: Default> Shards<T> {
    pub(super) fn at(&mut self, number: usize) -> &mut T {
        if number >= self.0.len() {
            self.0.resize_with(number + 1, T::default);
        }
        &mut self.0[number]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut()
    }

    /// The number of the first part that satisfies this.
    pub(super) fn find(&self, holds: impl Fn(&T) -> bool) -> Option<usize> {
        self.0.iter().position(holds)
    }
}
