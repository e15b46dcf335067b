//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

/// The name of the program in all that it prints.
pub(crate) const NAME: &str = env!("CARGO_PKG_NAME");

const LONG: &str = "\
Shows the locks, debounced calls and durable calls that the library `lock` keeps on a Redis server, \
behind Sentinels or in a Cluster; releases a lock that is stuck; and checks whether a server is fit for locks.

The store is the one that --url names, or else the one in the environment: LOCK_URL, REDIS_URL, or both \
UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN.

Lock tokens and passwords are never printed.";

const NOTES: &str = "\
Exit status:
  0  done, or found
  1  something failed, or the answer to the question was no; `doctor`: a check failed
  2  the command line, the environment or a file that it names is wrong
  3  nothing there: the lock is free, or there is no such call
  4  the store cannot be reached, or does not answer
  5  the store refuses: a wrong password, a missing right, or a server that cannot keep locks

Environment:
  LOCK_URL, REDIS_URL, UPSTASH_REDIS_REST_URL, UPSTASH_REDIS_REST_TOKEN
                              the store, if --url is not given
  LOCK_SENTINEL_USER, LOCK_SENTINEL_PASSWORD
                              the login for the Sentinels, if the options are not given
  NO_COLOR                    no colours, if it is set to anything

Other users of this machine can read a command line, and with it a password in --url. Put the URL into \
LOCK_URL, or the password into a file (--password-file).

Examples:
  lockctl list invoice:              the locks whose ids begin with invoice:
  lockctl show invoice:7             who holds this one
  lockctl release invoice:7          releases it, after asking
  lockctl --json list --limit 1000000 | jq -r '.locks[] | select(.waiters > 10) | .id'
  lockctl doctor redis+sentinel://sentinel-1,sentinel-2,sentinel-3/main";

/// Shows, releases and checks distributed locks.
#[derive(Debug, Parser)]
#[command(name = NAME, version, about, long_about = LONG, after_long_help = NOTES, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print JSON instead of tables, for programs
    ///
    /// One object, or with `watch` one per line. Times are whole milliseconds; what is not known is
    /// null. Later versions may add fields, but remove none.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// How the store is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// The store: redis://, rediss://, unix://, redis+sentinel://, redis+cluster://
    ///
    /// Takes every URL that the library takes. Defaults to the URL in the environment.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The prefix of all keys, as the services set it
    #[arg(long, global = true, default_value = "lock:", value_name = "PREFIX")]
    pub(crate) prefix: String,
    /// The user for the servers, with --password-file
    #[arg(long, global = true, value_name = "NAME", requires = "password_file")]
    pub(crate) user: Option<String>,
    /// A file with the password for the servers, if the URL has none
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// A file with the certificate authority of the servers (PEM), instead of the system's roots
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) root_certificate: Option<PathBuf>,
    /// A file with the certificate of this client (PEM), for servers that require one
    #[arg(long, global = true, value_name = "FILE", requires = "client_key")]
    pub(crate) client_certificate: Option<PathBuf>,
    /// A file with the private key of that certificate (PEM)
    #[arg(long, global = true, value_name = "FILE", requires = "client_certificate")]
    pub(crate) client_key: Option<PathBuf>,
    /// The user for the Sentinels; defaults to LOCK_SENTINEL_USER
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) sentinel_user: Option<String>,
    /// A file with the password for the Sentinels; defaults to the one in LOCK_SENTINEL_PASSWORD
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) sentinel_password_file: Option<PathBuf>,
}

/// A command, with its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists the locks that are held, or those whose ids begin with BEGIN
    ///
    /// Goes through the keys of the server a thousand at a time (SCAN), so it does not block other
    /// clients. It finds every lock that is held for the whole run. If there are more locks than
    /// --limit, it lists those that it finds first, and says that there are more. In a Cluster
    /// whose slots move or whose nodes fail over during the run, some locks may be missing: look
    /// again later.
    List(List),
    /// Shows who holds a lock, since when, and how many wait
    Show(Show),
    /// Prints a line whenever the holder of a lock or the number of its waiters changes
    ///
    /// Runs until it is interrupted. Also prints a line when the store cannot be reached.
    Watch(Watch),
    /// Takes a lock away from its holder, after asking
    ///
    /// Shows who holds the lock and what that holder will see, and releases it from that holder
    /// only: if the lock has passed to another holder in the meantime, nothing changes. The lock
    /// goes to the first waiter.
    Release(Release),
    /// Lists debounced calls that wait or run; shows, flushes or cancels those of one id
    Debounce(Debounce),
    /// Lists functions with durable calls; shows the calls of one, and runs them again or forgets them
    Calls(Calls),
    /// Checks whether a store is fit for locks, and says what to change
    ///
    /// Checks version, role and replicas, memory and eviction, persistence, rights, notices, clock
    /// and round trip, and the Sentinels or the nodes of a Cluster. Then it checks with the library
    /// itself: a lock with an id of its own is acquired, waited for, handed over and released.
    /// Nothing is left behind except the counter of fencing tokens and, for ten minutes, the names
    /// of the two clients.
    Doctor(Doctor),
    /// Writes the completion for a shell to the standard output
    ///
    /// For bash: `lockctl completion bash > /etc/bash_completion.d/lockctl`.
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Writes the man page to the standard output, or the pages of all commands into a folder
    ///
    /// To read it directly: `lockctl man | man -l -`.
    Man {
        /// The folder for the page of the program and one page for each command
        #[arg(long, value_name = "FOLDER")]
        into: Option<PathBuf>,
    },
}

impl Command {
    /// Whether the command changes nothing, neither on the servers nor on this machine.
    pub(crate) fn only_reads(&self) -> bool {
        match self {
            Self::Release(_) | Self::Man { into: Some(_) } => false,
            Self::Debounce(asked) => !(asked.flush || asked.cancel || asked.end_run),
            Self::Calls(asked) => asked.run_again.is_none() && asked.forget.is_none(),
            _ => true,
        }
    }
}

/// `list`
#[derive(Debug, Args)]
pub(crate) struct List {
    /// The beginning of the ids
    #[arg(default_value = "", hide_default_value = true, value_name = "BEGIN")]
    pub(crate) begin: String,
    /// The maximum number of locks to list
    #[arg(long, default_value_t = 10_000, value_name = "NUMBER", value_parser = limit)]
    pub(crate) limit: usize,
}

/// `show`
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The id of the lock, without the prefix
    pub(crate) id: String,
}

/// `watch`
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The id of the lock, without the prefix
    pub(crate) id: String,
    /// How often to look, such as 500ms or 5s
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = interval)]
    pub(crate) interval: Duration,
}

/// `release`
#[derive(Debug, Args)]
pub(crate) struct Release {
    /// The id of the lock, without the prefix
    pub(crate) id: String,
    /// Do not ask; required if the standard input is not a terminal
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// `debounce`
#[derive(Debug, Args)]
pub(crate) struct Debounce {
    /// The id of the debounced calls, without the prefix; if omitted, all that wait or run are
    /// listed
    pub(crate) id: Option<String>,
    /// Run the waiting call now
    #[arg(long, requires = "id", group = "change")]
    pub(crate) flush: bool,
    /// Drop the waiting calls: their callers are told that nothing ran
    #[arg(long, requires = "id", group = "change")]
    pub(crate) cancel: bool,
    /// End the current run, for example because it hangs: its caller is told that the run was lost
    #[arg(long, requires = "id", group = "change")]
    pub(crate) end_run: bool,
    /// The maximum number to list
    #[arg(long, default_value_t = 10_000, value_name = "NUMBER", value_parser = limit)]
    pub(crate) limit: usize,
    /// Do not ask; required if the standard input is not a terminal
    #[arg(long, short, requires = "change")]
    pub(crate) yes: bool,
}

/// `calls`
#[derive(Debug, Args)]
pub(crate) struct Calls {
    /// The name of the function; if omitted, all functions that have calls are listed
    pub(crate) name: Option<String>,
    /// Run the call with this id, which was set aside, again
    #[arg(long, value_name = "ID", requires = "name", group = "change")]
    pub(crate) run_again: Option<String>,
    /// Forget the call with this id, which was set aside
    #[arg(long, value_name = "ID", requires = "name", group = "change")]
    pub(crate) forget: Option<String>,
    /// Show the arguments of calls that were set aside, which may be confidential
    #[arg(long, requires = "name", conflicts_with = "change")]
    pub(crate) arguments: bool,
    /// The maximum number to list
    #[arg(long, default_value_t = 1000, value_name = "NUMBER", value_parser = limit)]
    pub(crate) limit: usize,
    /// Do not ask; required if the standard input is not a terminal
    #[arg(long, short, requires = "change")]
    pub(crate) yes: bool,
}

/// `doctor`
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The store, as with --url
    #[arg(conflicts_with = "url", id = "store", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Count warnings as failures
    #[arg(long)]
    pub(crate) strict: bool,
}

/// Parses a limit. Zero is refused, because it would look as if nothing were there.
fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if limit > 0 => Ok(limit),
        _ => Err("at least 1, as a whole number".to_owned()),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    // The errors of humantime repeat parts of the text, which may be a password: see `mistake`.
    let time = humantime::parse_duration(text)
        .map_err(|_| "not a number with a unit, such as 500ms or 5s".to_owned())?;
    if time < Duration::from_millis(10) {
        return Err("at least 10ms, so that the store is not kept busy".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
