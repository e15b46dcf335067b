//! The examples are the files of `examples/`.
