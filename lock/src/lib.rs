//! Distributed locks and debounce for async Rust.
