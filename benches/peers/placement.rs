//! Which cores client and server run on.
//!
//! With one task, the kernel decides the outcome: it lets client and server share a core, where
//! handing over costs little, or gives each its own, where it costs a notice; and it changes its
//! mind within seconds. `--split` gives the server a core of its own for good, which is nearer
//! to a server on another machine.

use std::io;

use lock_tests::RedisServer;
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// The two sides, once they are to be kept apart.
pub(crate) struct Split {
    server: CpuSet,
}

impl Split {
    /// Keeps this thread, and all that it starts from now on, off the last core.
    ///
    /// # Errors
    ///
    /// If there is one core only, or the system does not let it.
    pub(crate) fn begin() -> io::Result<Self> {
        let mut client = sched_getaffinity(None)?;
        let last = (0..CpuSet::MAX_CPU).rfind(|core| client.is_set(*core)).unwrap_or_default();
        client.unset(last);
        sched_setaffinity(None, &client)?;
        let mut server = CpuSet::new();
        server.set(last);
        Ok(Self { server })
    }

    /// Gives the server the last core.
    ///
    /// # Errors
    ///
    /// If the system does not let it.
    pub(crate) fn place(&self, server: &RedisServer) -> io::Result<()> {
        // Its main thread, which runs the commands.
        let process = i32::try_from(server.process_id()).ok().and_then(Pid::from_raw);
        Ok(sched_setaffinity(process, &self.server)?)
    }
}
