//! The cores that client and server run on.
//!
//! With one task, the kernel decides the outcome: it lets client and server share a core, where a
//! switch between them is cheap, or gives each its own core, where a switch has to wake the other
//! core. It changes its mind within seconds. `--split` pins the server to its own core, which is
//! closer to a server on another machine.

use std::io;

use lock_tests::RedisServer;
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// Client and server on separate cores.
pub(crate) struct Split {
    server: CpuSet,
}

impl Split {
    /// Keeps this thread, and all threads that it starts from now on, off the last core.
    ///
    /// # Errors
    ///
    /// If there is only one core, or the system does not allow it.
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
    /// If the system does not allow it.
    pub(crate) fn place(&self, server: &RedisServer) -> io::Result<()> {
        // Pins only the main thread, which runs the commands.
        let process = i32::try_from(server.process_id()).ok().and_then(Pid::from_raw);
        Ok(sched_setaffinity(process, &self.server)?)
    }
}
