//! Signals to a child process that has not been reaped.

use std::process::Child;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// Sends SIGSTOP, and waits until it has taken effect: until then the process still acts on its
/// input, and a test would not know whether it has.
pub(crate) fn stop(child: &Child) {
    send(child, Signal::STOP);
    // NOWAIT: a process that ended instead is left for its owner to reap.
    let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let status = waitid(WaitId::Pid(Pid::from_child(child)), options)
        .expect("a child can be waited for")
        .expect("a wait without NOHANG has a result");
    assert!(status.stopped(), "the process ended instead of stopping");
}

/// Sends SIGCONT.
pub(crate) fn go_on(child: &Child) {
    send(child, Signal::CONT);
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("a child takes signals until it is reaped");
}
