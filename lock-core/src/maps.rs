//! The maps of the engine. Every lock passes through several of them, so hashing counts.
//!
//! Decisions must not depend on the order of a hash map, which differs from process to process. So
//! these maps have no iterator that exposes an order.

#![expect(clippy::disallowed_types, reason = "the map that is wrapped here")]

use std::{
    borrow::Borrow,
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

/// Keyed by the key of a lock. Ids may come from anybody, so the hash is seeded.
pub(crate) type ByKey<V> = Map<Arc<str>, V, foldhash::fast::RandomState>;

/// Keyed by a number that this client has drawn: nobody else chooses it, so spreading the numbers
/// is enough.
pub(crate) type ByNumber<V> = Map<u64, V, foldhash::fast::FixedState>;

/// A hash map that does not expose its order.
#[derive(Clone, Debug)]
pub(crate) struct Map<K, V, S>(HashMap<K, V, S>);

impl<K, V, S: Default> Default for Map<K, V, S> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K: Eq + Hash, V, S: BuildHasher> Map<K, V, S> {
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)
    }

    pub(crate) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.0.get_mut(key)
    }

    pub(crate) fn contains_key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    pub(crate) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.0.remove(key)
    }

    pub(crate) fn entry(&mut self, key: K) -> Entry<'_, K, V> {
        self.0.entry(key)
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&K, &mut V) -> bool) {
        self.0.retain(keep);
    }
}

impl<K, V, S> Map<K, V, S> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Does any value satisfy this?
    pub(crate) fn any(&self, mut holds: impl FnMut(&V) -> bool) -> bool {
        self.0.values().any(&mut holds)
    }
}

impl<K: Clone + Ord, V, S> Map<K, V, S> {
    /// All keys, in ascending order.
    pub(crate) fn keys(&self) -> Vec<K> {
        self.keys_where(|_| true)
    }

    /// The keys whose values satisfy this, in ascending order.
    pub(crate) fn keys_where(&self, mut holds: impl FnMut(&V) -> bool) -> Vec<K> {
        let all = self.0.iter().filter(|(_, value)| holds(value));
        let mut keys: Vec<K> = all.map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        keys
    }
}

/// Two maps with the same entries have one hash, whatever their order.
impl<K: Hash, V: Hash, S> Hash for Map<K, V, S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let one = foldhash::fast::FixedState::default();
        let all = self.0.iter().map(|entry| one.hash_one(entry));
        all.fold(self.0.len() as u64, u64::wrapping_add).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_shows_its_keys_in_their_order_and_has_one_hash() {
        let hash = |map: &ByNumber<u64>| foldhash::fast::FixedState::default().hash_one(map);
        let (mut up, mut down) = (ByNumber::default(), ByNumber::default());
        for number in 0..100 {
            up.insert(number, number * 2);
            down.insert(99 - number, (99 - number) * 2);
        }
        assert_eq!(up.keys(), (0..100).collect::<Vec<_>>());
        assert_eq!(up.keys_where(|value| *value > 190), [96, 97, 98, 99]);
        assert!(up.any(|value| *value == 198) && !up.any(|value| *value == 199));
        assert_eq!((up.len(), up.is_empty(), hash(&up)), (100, false, hash(&down)));
        *down.get_mut(&7).unwrap() += 1;
        assert_ne!(hash(&up), hash(&down));
        down.retain(|number, _| *number < 3);
        assert_eq!((down.len(), down.contains_key(&2), down.contains_key(&3)), (3, true, false));
        down.clear();
        assert!(down.is_empty());
    }
}
