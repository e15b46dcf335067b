//! What the library tells of itself, as an application hears it: events and spans, measurements, and
//! the pages that name them.
//!
//! In a binary of its own: a process has one subscriber and one recorder.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says what it expected")]

mod documents;
mod events;
mod hostile;
mod measurements;
mod recorder;
mod spans;
mod subscriber;
