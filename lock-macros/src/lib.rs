//! Attributes of the `lock` crate.
