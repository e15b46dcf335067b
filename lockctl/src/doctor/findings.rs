//! What was found, and what to do about it.

use comfy_table::{Cell, Color};
use serde::Serialize;

use crate::{
    exit::{Exit, Failure},
    output::{Output, cell, coloured},
};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Ok,
    /// Locks work, but less well or less safely than they could.
    Warning,
    /// Locks do not work, or do not always exclude others.
    Failure,
}

/// What one check found at one server, or equally at several.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    check: &'static str,
    result: Outcome,
    servers: Vec<String>,
    message: String,
    fix: Option<String>,
}

/// All that was found, in the order of the checks.
#[derive(Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    /// The exit code, if nothing could be checked for want of a connection.
    connect: Option<Exit>,
}

#[derive(Serialize)]
struct Report<'a> {
    result: Outcome,
    checks: &'a [Finding],
}

impl Findings {
    pub(crate) fn ok(&mut self, check: &'static str, server: &str, message: impl Into<String>) {
        self.add(check, Outcome::Ok, server, message.into(), None);
    }

    pub(crate) fn warning(
        &mut self,
        check: &'static str,
        server: &str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.add(check, Outcome::Warning, server, message.into(), Some(fix.into()));
    }

    pub(crate) fn failure(
        &mut self,
        check: &'static str,
        server: &str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.add(check, Outcome::Failure, server, message.into(), Some(fix.into()));
    }

    /// Reports that the store could not be connected to, so that nothing else is known about it.
    pub(crate) fn no_connection(&mut self, failure: Failure) {
        self.connect = Some(failure.exit);
        self.add("connect", Outcome::Failure, "", failure.message, None);
    }

    fn add(
        &mut self,
        check: &'static str,
        result: Outcome,
        server: &str,
        message: String,
        fix: Option<String>,
    ) {
        let servers = if server.is_empty() { Vec::new() } else { vec![server.to_owned()] };
        let finding = Finding { check, result, servers, message, fix };
        let same = |known: &&mut Finding| {
            known.check == check
                && known.result == result
                && known.message == finding.message
                && known.fix == finding.fix
        };
        match self.list.iter_mut().find(same) {
            Some(known) => known.servers.extend(finding.servers),
            None => self.list.push(finding),
        }
    }

    fn result(&self) -> Outcome {
        self.list.iter().map(|finding| finding.result).max().unwrap_or(Outcome::Ok)
    }

    /// Prints them, and says how the program ends.
    pub(crate) fn report(&self, strict: bool, output: Output) -> Result<Exit, Failure> {
        match self.print(output) {
            // The verdict counts even if nobody reads the output.
            Err(unread) if unread.exit == Exit::Done => {}
            printed => printed?,
        }
        Ok(match (self.result(), self.connect) {
            (Outcome::Failure, Some(exit)) => exit,
            (Outcome::Failure, None) => Exit::Failed,
            (Outcome::Warning, _) if strict => Exit::Failed,
            _ => Exit::Done,
        })
    }

    fn print(&self, output: Output) -> Result<(), Failure> {
        if output.is_json() {
            return output.json(&Report { result: self.result(), checks: &self.list });
        }
        let rows = self.list.iter().map(Finding::row).collect();
        output.table(&["RESULT", "CHECK", "WHERE", "WHAT"], rows)?;
        let count = |outcome| self.list.iter().filter(|one| one.result == outcome).count();
        output.line("")?;
        output.line(&format!(
            "{} ok, {} to consider, {} to fix",
            count(Outcome::Ok),
            count(Outcome::Warning),
            count(Outcome::Failure),
        ))
    }
}

impl Finding {
    fn row(&self) -> Vec<Cell> {
        let result = match self.result {
            Outcome::Ok => coloured("ok", Color::Green),
            Outcome::Warning => coloured("warning", Color::Yellow),
            Outcome::Failure => coloured("failure", Color::Red),
        };
        let place = match &self.servers[..] {
            [] => String::new(),
            [one] => one.clone(),
            several => format!("{} servers", several.len()),
        };
        let mut what = self.message.clone();
        if let Some(fix) = &self.fix {
            what.push_str(". Fix: ");
            what.push_str(fix);
        }
        if self.result != Outcome::Ok && self.servers.len() > 1 {
            // To fix something, the reader has to know where.
            what.push_str(". At ");
            what.push_str(&self.servers.join(", "));
        }
        vec![result, cell(self.check), cell(&place), cell(&what)]
    }
}
