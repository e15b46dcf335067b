//! Starts `cargo bench -p lock-benches`, with the same arguments.
#![forbid(unsafe_code)]

use std::{
    env, io,
    process::{Command, ExitCode},
};

/// Prefixes of the variables by which cargo describes a package to its benchmark. Build scripts
/// also read these variables: if they were passed on, `cargo bench` and
/// `cargo bench -p lock-benches` would each make the other build half of the dependencies again.
const OF_THIS_PACKAGE: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

fn main() -> io::Result<ExitCode> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if OF_THIS_PACKAGE.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    // Without the flags of `.cargo/config.toml`, which are only for tests and must not be measured.
    if env::var_os("RUSTFLAGS").is_none() {
        cargo.env("RUSTFLAGS", "");
    }
    let arguments = env::args_os().skip(1);
    let status = cargo.args(["bench", "-p", "lock-benches", "--"]).args(arguments).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
