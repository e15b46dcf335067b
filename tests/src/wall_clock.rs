//! A wall clock that can be stepped.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::children::temporary_directory;

const SHIM: &str = include_str!("wall_clock/shim.c");

/// The wall clock of processes that are started with it: the machine's, plus an offset that a test
/// changes while they run. Their monotonic clocks are the machine's.
///
/// It is a library that is preloaded and answers in place of the C library, so it is built with the
/// compiler that links Rust programs as well, and works on Linux.
#[derive(Debug)]
pub struct WallClock {
    offset: File,
    directory: TempDir,
}

impl WallClock {
    /// A clock that shows the machine's time.
    ///
    /// # Panics
    ///
    /// When there is no C compiler (`cc`), with what to do.
    pub fn build() -> Self {
        let directory = temporary_directory("clock-");
        let source = directory.path().join("shim.c");
        fs::write(&source, SHIM).expect("the directory can be written");
        let offset = File::create(directory.path().join("offset")).expect("it can be written");
        let clock = Self { offset, directory };
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([clock.library(), source])
            .stdin(Stdio::null())
            .output()
            .expect("a C compiler is on the PATH as `cc`: Rust links with it");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        clock.set(0);
        clock
    }

    /// Shows the machine's time plus so many milliseconds from now on.
    pub fn set(&self, offset_millis: i64) {
        // The page is shared with those that map it: they see it with their next reading.
        let bytes = (offset_millis * 1_000_000).to_ne_bytes();
        self.offset.write_all_at(&bytes, 0).expect("the offset can be written");
    }

    /// What a process needs in its environment to live by this clock.
    pub(crate) fn environment(&self) -> Vec<(String, PathBuf)> {
        vec![
            ("LD_PRELOAD".to_owned(), self.library()),
            ("WALL_CLOCK_OFFSET".to_owned(), self.directory.path().join("offset")),
        ]
    }

    fn library(&self) -> PathBuf {
        self.directory.path().join("shim.so")
    }
}
