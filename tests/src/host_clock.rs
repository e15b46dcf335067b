//! Clocks that differ from the machine's.

mod rate;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use tempfile::TempDir;

pub use self::rate::{Clock, rate_between, rate_of};
use crate::{children::temporary_directory, wait::now};

const SHIM: &str = include_str!("host_clock/shim.c");

/// Names the page of a clock. Where it is set, the shim is there.
pub(crate) const PAGE: &str = "HOST_CLOCK";

/// The clocks of processes that are started with it, as if they ran on a host of their own: a wall
/// clock that a test steps while they run, and, if it wants, a rate of all clocks that is not the
/// machine's. [`now`] is the machine's time there, too.
///
/// It is a library that is preloaded and answers in place of the C library, so it is built with the
/// compiler that links Rust programs as well, and works on Linux. A program that asks the kernel
/// past the C library sees the machine's clocks.
#[derive(Debug)]
pub struct HostClock {
    page: File,
    directory: TempDir,
}

impl HostClock {
    /// Clocks that show the machine's time.
    ///
    /// # Panics
    ///
    /// When there is no C compiler (`cc`), with what to do.
    pub fn build() -> Self {
        let directory = temporary_directory("clock-");
        let source = directory.path().join("shim.c");
        fs::write(&source, SHIM).expect("the directory can be written");
        let page = File::create(directory.path().join("page")).expect("it can be written");
        let clock = Self { page, directory };
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([clock.library(), source])
            .stdin(Stdio::null())
            .output()
            .expect("a C compiler is on the PATH as `cc`: Rust links with it");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        clock.set(0);
        clock.run_at(0);
        clock
    }

    /// The wall clock shows the machine's time plus so many milliseconds from now on.
    pub fn set(&self, offset_millis: i64) {
        self.write(0, offset_millis * 1_000_000);
    }

    /// All clocks run by so many millionths faster than the machine's from now on.
    ///
    /// It is for processes that are started afterwards: to one that runs, what its clocks have gone
    /// ahead so far would be gone.
    pub fn run_at(&self, rate_millionths: i64) {
        self.write(1, rate_millionths);
        self.write(2, i64::try_from(now()).expect("the machine has not been up for centuries"));
    }

    /// The page is shared with those that map it: they see it with their next reading.
    fn write(&self, place: u64, number: i64) {
        self.page.write_all_at(&number.to_ne_bytes(), place * 8).expect("the page can be written");
    }

    /// What a process needs in its environment to live by these clocks.
    pub(crate) fn environment(&self) -> Vec<(String, PathBuf)> {
        vec![
            ("LD_PRELOAD".to_owned(), self.library()),
            (PAGE.to_owned(), self.directory.path().join("page")),
        ]
    }

    fn library(&self) -> PathBuf {
        self.directory.path().join("shim.so")
    }
}
