//! The suite.

mod harness;
