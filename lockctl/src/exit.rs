//! How the program ends: the exit code for scripts, and the message for people.

use std::{
    error::Error as StdError,
    io::{self, Write as _},
    process::ExitCode,
};

use lock::ErrorKind;

use crate::{arguments::NAME, output::printable};

/// The exit code. Documented in the man page and in docs/operations.md: the numbers must not
/// change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command did or found what was asked for.
    Done = 0,
    /// Something failed, or the person who was asked said no.
    Failed = 1,
    /// The command line, the environment or a file that it names is wrong.
    Usage = 2,
    /// Nothing was found: the lock is free, or there is no such call.
    Nothing = 3,
    /// The store cannot be reached, or does not answer.
    Unreachable = 4,
    /// The store answers, but refuses: a wrong password, a missing right, or a server that cannot
    /// keep locks.
    Refused = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command was not carried out.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Prints the message to the standard error output. If that fails, there is still the exit
    /// code.
    pub(crate) fn say(&self) {
        let mut stderr = io::stderr().lock();
        for line in self.message.lines() {
            let _ = writeln!(stderr, "{NAME}: {}", printable(&without_passwords(line)));
        }
    }
}

impl From<lock::Error> for Failure {
    fn from(error: lock::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&lock::Error> for Failure {
    fn from(error: &lock::Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::Unavailable => Exit::Unreachable,
            ErrorKind::Rejected => Exit::Refused,
            ErrorKind::Invalid => Exit::Usage,
            _ => Exit::Failed,
        };
        let mut message = in_full(error);
        if exit == Exit::Refused {
            message.push_str(&format!("\n`{NAME} doctor` says what is missing"));
        }
        Self::new(exit, message)
    }
}

/// An error with its causes, without those whose text is already there.
pub(crate) fn in_full(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = next.source();
    }
    text
}

/// The text without what comes before the host in a URL, in case it is a password. Messages of the
/// library do not repeat URLs, but those about a command line may repeat what was typed.
pub(crate) fn without_passwords(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("://") {
        let (before, behind) = rest.split_at(begin + 3);
        safe.push_str(before);
        let end = behind.find(|c: char| c.is_whitespace() || "'\"`".contains(c));
        let (word, after) = behind.split_at(end.unwrap_or(behind.len()));
        match word.rfind('@') {
            Some(at) => {
                safe.push_str("***");
                safe.push_str(&word[at..]);
            }
            None => safe.push_str(word),
        }
        rest = after;
    }
    safe.push_str(rest);
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_left_out() {
        for (text, safe) in [
            ("no URL", "no URL"),
            ("redis://h/0 is one", "redis://h/0 is one"),
            ("'redis://u:hush@h:1/0' is none", "'redis://***@h:1/0' is none"),
            ("redis://:p@ss@h redis://:b@i,j/main", "redis://***@h redis://***@i,j/main"),
        ] {
            assert_eq!(without_passwords(text), safe);
        }
    }
}
