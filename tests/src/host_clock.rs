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

/// The variable that names the page of a clock. Where it is set, the shim is loaded.
pub(crate) const PAGE: &str = "HOST_CLOCK";

/// The clocks of processes that are started with it, as if they ran on a host of their own: a wall
/// clock that a test can step while they run, and optionally a rate of all clocks that differs from
/// the machine's. In such a process, [`now`] is still the machine's time.
///
/// It is a preloaded library that answers in place of the C library. It is built with the compiler
/// that also links Rust programs, and works on Linux. A program that asks the kernel directly sees
/// the machine's clocks.
#[derive(Debug)]
pub struct HostClock {
    page: File,
    directory: TempDir,
}

impl HostClock {
    /// Builds clocks that show the machine's time.
    ///
    /// # Panics
    ///
    /// When there is no C compiler (`cc`), with advice.
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

    /// From now on, the wall clock shows the machine's time plus this many milliseconds.
    pub fn set(&self, offset_millis: i64) {
        self.write(0, offset_millis * 1_000_000);
    }

    /// From now on, all clocks run faster than the machine's by this many millionths.
    ///
    /// Only for processes that are started afterwards: a running one would lose the lead that its
    /// clocks have gained so far.
    pub fn run_at(&self, rate_millionths: i64) {
        self.write(1, rate_millionths);
        self.write(2, i64::try_from(now()).expect("the machine has not been up for centuries"));
    }

    /// The page is shared with the processes that map it: they see the change at their next
    /// reading.
    fn write(&self, place: u64, number: i64) {
        self.page.write_all_at(&number.to_ne_bytes(), place * 8).expect("the page can be written");
    }

    /// The environment that gives a process these clocks.
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
