//! The table: Markdown, aligned, so that it can be read in a terminal and pasted into a page.

use std::{process::Command, thread, time::Duration};

use lock_tests::RedisServer;

use crate::measure::{Rival, Row, Spread};

/// Width of the first column, and of each of the others.
const WIDTHS: (usize, usize) = (17, 18);

/// Where this was measured, and how to read it.
pub(crate) async fn preamble(
    server: &RedisServer,
    split: bool,
    workers: usize,
    lease: Duration,
) -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let cores = if split {
        format!("Cores: {cores} for the clients, 1 for the server")
    } else {
        format!("Cores: {cores}, shared by clients and server")
    };
    let redis = redis_version(server).await.unwrap_or_else(|| "of unknown version".to_owned());
    let rustc = rustc_version().unwrap_or_else(|| "rustc of unknown version".to_owned());
    format!(
        "\nAcquire and release, distinct ids, one server; lease {} s; releases that are left to the \
         background are waited for.\n\
         Each round runs every contender once. Pairs a second: median of the rounds. Lead: how \
         many times as fast\n\
         lock is, compared within a round: median (lowest–highest).\n\
         {cores}; tokio with {workers} workers; Redis {redis}; \
         {rustc}.\n",
        lease.as_secs(),
    )
}

/// The head of the table.
pub(crate) fn heading(rivals: &[Rival]) -> String {
    let rule = format!(
        "|{}|{}",
        "-".repeat(WIDTHS.0 + 2),
        format!("{}:|", "-".repeat(WIDTHS.1 + 1)).repeat(rivals.len())
    );
    format!("{}\n{rule}", line("", rivals.iter().map(|rival| rival.name().to_owned())))
}

/// The two lines of one row.
pub(crate) fn row(row: &Row) -> String {
    let tasks = match row.tasks() {
        1 => "1 task".to_owned(),
        tasks => format!("{tasks} tasks"),
    };
    let rates = (0..row.rivals()).map(|rival| thousands(row.rate(rival).median));
    let leads = (0..row.rivals()).map(|rival| match rival {
        0 => format!("{} rounds", row.rounds()),
        _ => lead(row.lead_over(rival)),
    });
    format!("{}\n{}", line(&format!("{tasks}, pairs/s"), rates), line("lead", leads))
}

fn line(first: &str, others: impl Iterator<Item = String>) -> String {
    let mut line = format!("| {first:<0$} |", WIDTHS.0);
    for cell in others {
        line.push_str(&format!(" {cell:>0$} |", WIDTHS.1));
    }
    line
}

fn lead(spread: Spread) -> String {
    format!("{:.2} ({:.2}–{:.2})", spread.median, spread.lowest, spread.highest)
}

/// A rate, rounded, with a comma after each three digits.
fn thousands(rate: f64) -> String {
    let digits = format!("{rate:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

async fn redis_version(server: &RedisServer) -> Option<String> {
    let mut connection = server.connection().await;
    let report: String =
        redis::cmd("INFO").arg("server").query_async(&mut connection).await.ok()?;
    report.lines().find_map(|line| line.strip_prefix("redis_version:")).map(str::to_owned)
}

/// The compiler on the path, which is the one that `cargo bench` has used.
fn rustc_version() -> Option<String> {
    let output = Command::new("rustc").arg("--version").output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    Some(version.split(" (").next()?.trim().to_owned()).filter(|version| !version.is_empty())
}
