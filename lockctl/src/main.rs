//! `lockctl`: shows, releases and checks the distributed locks of the library `lock`.
//!
//! `arguments` → `target` (the store) → one file per command → `output`, and `exit` for the exit
//! code.

mod arguments;
mod calls;
mod debounce;
mod doctor;
mod exit;
mod holder;
mod list;
mod mistake;
mod output;
mod pages;
mod question;
mod release;
mod show;
mod target;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;
use lock::Locks;

use crate::{
    arguments::{Arguments, Command},
    exit::{Exit, Failure},
    output::Output,
    target::Target,
};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(wrong) => return explain(wrong),
    };
    match run(arguments) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.say();
            failure.exit.into()
        }
    }
}

/// Prints what is wrong with the command line, without repeating what was typed; or the help, if
/// that was asked for.
fn explain(wrong: clap::Error) -> ExitCode {
    let exit = if wrong.use_stderr() { Exit::Usage } else { Exit::Done };
    // If this fails, there is still the exit code.
    let _ = mistake::without_values(wrong).print();
    exit.into()
}

fn run(Arguments { command, connection, json }: Arguments) -> Result<Exit, Failure> {
    let output = Output::new(json, command.only_reads());
    let at = |url| Target::new(&connection, url);
    match command {
        Command::List(asked) => {
            with_locks(&at(None)?, async |locks| list::list(&asked, locks, output).await)
        }
        Command::Show(asked) => {
            with_locks(&at(None)?, async |locks| show::show(&asked, locks, output).await)
        }
        Command::Watch(asked) => {
            with_locks(&at(None)?, async |locks| watch::watch(&asked, locks, output).await)
        }
        Command::Release(asked) => {
            with_locks(&at(None)?, async |locks| release::release(&asked, locks, output).await)
        }
        Command::Debounce(asked) => {
            with_locks(&at(None)?, async |locks| debounce::debounce(&asked, locks, output).await)
        }
        Command::Calls(asked) => {
            with_locks(&at(None)?, async |locks| calls::calls(&asked, locks, output).await)
        }
        Command::Doctor(asked) => {
            let target = at(asked.url.as_ref())?;
            on_runtime(doctor::doctor(&asked, &target, output))
        }
        Command::Completion { shell } => pages::completion(shell, output),
        Command::Man { into } => pages::man(into.as_deref(), output),
    }
}

fn with_locks(
    target: &Target,
    work: impl AsyncFnOnce(&Locks) -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    on_runtime(async { work(&target.connect().await?).await })
}

fn on_runtime(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    // If two providers were built in, redis-rs would have to choose one, which it refuses to do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::new(Exit::Failed, format!("the program cannot start: {error}"))
    })?;
    runtime.block_on(work)
}
