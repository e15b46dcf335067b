//! Processes and directories that end with this process, however it ends.
//!
//! A value that is dropped takes its process and its directory with it. A test process that is
//! killed drops nothing, and would leave its servers running for as long as the machine is up. So
//! all its children are in one process group, and all its directories in one directory. A shell
//! outside the group waits for the end of a pipe that only this process holds open, kills the
//! group, and removes the directory.
//!
//! No child escapes that, not even one that is being started: it joins the group before it executes
//! its program, and until then it also holds the pipe open.

use std::{
    fs::Permissions,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use tempfile::{Builder, TempDir};

/// Arguments: the group, and the directory.
const WATCH: &str = r#"
    read -r end
    kill -s KILL -- "-$1"
    # What is being killed may still write.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        rm -rf -- "$2" && break
        sleep 1
    done"#;

struct Family {
    /// The id of the group, which is that of the process that founded it.
    group: i32,
    directory: PathBuf,
    /// The founder, which keeps the group alive while it is otherwise empty, and the shell. They
    /// read until this process is gone, and hold their pipes to it.
    _attendants: [Child; 2],
}

/// Makes a process that is not started yet end with this one at the latest, by SIGKILL: even if
/// this process is killed, and even if the other one is stopped.
///
/// It is in another process group, so an interrupt from the terminal does not reach it directly; it
/// ends when this process does.
///
/// # Panics
///
/// When the processes that watch over it cannot be started.
pub fn end_with_this_process(command: &mut Command) -> &mut Command {
    command.process_group(family().group)
}

/// Makes a directory that is removed when it is dropped or, at the latest, when this process has
/// ended.
///
/// # Panics
///
/// When that fails.
pub fn temporary_directory(prefix: &str) -> TempDir {
    TempDir::with_prefix_in(prefix, &family().directory).expect("a temporary directory can be made")
}

fn family() -> &'static Family {
    static FAMILY: OnceLock<Family> = OnceLock::new();
    FAMILY.get_or_init(Family::found)
}

impl Family {
    fn found() -> Self {
        // Other users may traverse it: a server that runs as another user has its directory there.
        let directory = Builder::new()
            .prefix("lock-tests-")
            .permissions(Permissions::from_mode(0o711))
            .tempdir()
            .expect("a temporary directory can be made")
            .keep();
        let founder = attend(&mut Command::new("cat"));
        let group = i32::try_from(founder.id()).expect("the id of a process is positive");
        let mut watch = Command::new("sh");
        watch.args(["-c", WATCH, "sh", &group.to_string()]).arg(&directory);
        Self { group, directory, _attendants: [founder, attend(&mut watch)] }
    }
}

/// Starts a process that reads until this one is gone. It is in a group of its own, so that a
/// signal to this process's group, from a terminal or a kill, does not reach it.
fn attend(command: &mut Command) -> Child {
    command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("`sh` and `cat` are on the PATH")
}
