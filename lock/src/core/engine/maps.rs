//! The maps of the engine and its keeper. Every lock passes through several of them, so hashing counts.

use std::{collections::HashMap, sync::Arc};

/// By the key of a lock. Ids may come from anybody, so the hash is seeded.
pub(super) type ByKey<V> = HashMap<Arc<str>, V, foldhash::fast::RandomState>;

/// By a number of the client's own: nobody else chooses it, so spreading it is enough.
pub(crate) type ByNumber<V> = HashMap<u64, V, foldhash::fast::FixedState>;
