//! The append-only file of a server.

use std::{fs, path::PathBuf};

use super::RedisServer;

/// Since Redis 7.0: the directory with the append-only files.
const DIRECTORY: &str = "appendonlydir";
/// Before Redis 7.0: the file.
const FILE: &str = "appendonly.aof";

impl RedisServer {
    /// The file that the server appends its commands to. A rewrite starts another one.
    ///
    /// # Panics
    ///
    /// When there is none, because the server was built without
    /// [`append_only`](super::RedisServerBuilder::append_only).
    pub fn append_only_file(&self) -> PathBuf {
        if Self::version().is_before(7, 0) {
            return self.directory().join(FILE);
        }
        let files = fs::read_dir(self.directory().join(DIRECTORY));
        let files = files.expect("the server should have been built with append_only(true)");
        let mut files: Vec<_> = files
            .map(|entry| entry.expect("the directory can be read").path())
            .filter(|path| path.to_string_lossy().ends_with(".incr.aof"))
            .collect();
        let file = files.pop().expect("a server that keeps a file has one");
        assert!(files.is_empty(), "a rewrite is under way: {file:?}, {files:?}");
        file
    }

    /// Removes the append-only file of a killed server, which then starts empty.
    ///
    /// # Panics
    ///
    /// When there is nothing.
    pub fn lose_append_only_file(&self) {
        let removed = if Self::version().is_before(7, 0) {
            fs::remove_file(self.directory().join(FILE))
        } else {
            fs::remove_dir_all(self.directory().join(DIRECTORY))
        };
        removed.expect("the server should have been built with append_only(true)");
    }
}
