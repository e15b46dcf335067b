//! Which node serves a key.
//!
//! The store holds one type of this module, which answers the node of a key and does what concerns
//! all nodes. There is one such type so far; a primary that moves (Sentinel) and a map of slots
//! (Cluster) are to be files beside it. Nodes, and what they know of their servers, outlive a change
//! of either.

mod single;

pub(super) use self::single::Single;
