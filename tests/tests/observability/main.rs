//! The library's observability, as an application sees it: events and spans, measurements, and the
//! pages that document them.
//!
//! This is a binary of its own because a process has one subscriber and one recorder.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says what it expected")]

mod documents;
mod events;
mod hostile;
mod measurements;
mod recorder;
mod spans;
mod subscriber;
