//! What a page shows, put together from the board, the page's own instance and the store's answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lock::{Error, ErrorKind, Status};
use serde::Serialize;

use crate::{
    answer::Answer,
    board::{Board, DEBOUNCE_MAX_WAIT_MS, DEBOUNCE_WAIT_MS, Doing, Span, WINDOW_MS},
    instance::Instance,
    network::Condition,
    process::Process,
};

/// All numbers that may exceed 2^53 are text: a double would round them.
#[derive(Debug, Serialize)]
pub(crate) struct View {
    copy: u32,
    store: String,
    me: Me,
    answers: Vec<Answer>,
    lock: LockView,
    line: Vec<InLine>,
    ledger: LedgerView,
    timeline: Timeline,
    debounce: DebounceView,
    servers: Vec<ServerView>,
    lines: Vec<LineView>,
}

#[derive(Debug, Serialize)]
struct Me {
    name: String,
    doing: Doing,
    lock: String,
    lease_ms: u64,
    since_ms: u64,
    guard: Option<GuardView>,
    token: Option<String>,
    blocked_ms: u64,
    queued: usize,
    condition: Condition,
    breakable: bool,
}

#[derive(Debug, Serialize)]
struct GuardView {
    is_held: bool,
    remaining_ms: u64,
    fencing_token: String,
    lost: bool,
    renewals: u32,
}

/// The store's status of the lock that the page has chosen.
#[derive(Debug, Serialize)]
struct LockView {
    id: String,
    state: &'static str,
    holder: Option<HolderView>,
    remaining_ms: u64,
    waiters: usize,
    error: Option<String>,
}

/// What the store knows about the holder: nothing, if another library took the lock.
#[derive(Debug, Serialize)]
struct HolderView {
    name: Option<String>,
    host: Option<String>,
    pid: Option<u32>,
    asked_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct InLine {
    name: String,
    copy: u32,
    mine: bool,
    doing: Doing,
    for_ms: u64,
}

#[derive(Debug, Serialize)]
struct LedgerView {
    token: Option<String>,
    by: String,
    accepted: u64,
    refused: u64,
}

#[derive(Debug, Serialize)]
struct Timeline {
    window_ms: u64,
    lanes: Vec<Lane>,
}

#[derive(Debug, Serialize)]
struct Lane {
    name: String,
    mine: bool,
    spans: Vec<SpanView>,
}

/// Times count backwards from now.
#[derive(Debug, Serialize)]
struct SpanView {
    id: String,
    holds: bool,
    token: Option<String>,
    from_ms: u64,
    to_ms: u64,
    end: String,
}

#[derive(Debug, Serialize)]
struct DebounceView {
    calls: u64,
    runs: u64,
    /// The burst in progress, and when it runs if no more calls come.
    open: Option<Window>,
    last: Option<(u64, String)>,
    wait_ms: u64,
    max_wait_ms: u64,
}

#[derive(Debug, Serialize)]
struct Window {
    calls: u64,
    left_ms: u64,
    /// It should have run by now.
    late: bool,
}

#[derive(Debug, Serialize)]
struct ServerView {
    address: String,
    is_primary: bool,
    text: String,
    is_good: bool,
    ago_ms: u64,
}

#[derive(Debug, Serialize)]
struct LineView {
    ago_ms: u64,
    name: String,
    text: String,
}

/// How late a run can be on a busy machine.
const LATE_MS: u64 = 1_000;

/// The store's last answer, and when it was asked.
pub(crate) type Asked = (Result<Status, Arc<Error>>, Instant);

impl View {
    pub(crate) fn of(
        process: &Process,
        instance: &Instance,
        id: &str,
        asked: Option<&Asked>,
    ) -> Self {
        let board = process.journal.watch();
        let board = board.borrow();
        let now = process.journal.now_ms();
        let (me, answers) = me(instance);
        Self {
            copy: std::process::id(),
            store: process.store(),
            lock: lock(id, asked),
            line: line(&board, instance, id, now),
            ledger: ledger(&board, id),
            timeline: timeline(&board, &me.name, now),
            debounce: debounce(&board, now),
            servers: servers(process, instance),
            lines: board
                .lines
                .iter()
                .rev()
                .map(|line| LineView {
                    ago_ms: now.saturating_sub(line.at_ms),
                    name: line.name.clone(),
                    text: line.text.clone(),
                })
                .collect(),
            me,
            answers,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn me(instance: &Instance) -> (Me, Vec<Answer>) {
    let state = instance.state();
    let guard = state.guard.as_ref().map(|guard| GuardView {
        is_held: guard.is_held(),
        remaining_ms: millis(guard.remaining()),
        fencing_token: guard.fencing_token().to_string(),
        lost: guard.lost_token().is_cancelled(),
        renewals: state.renewals,
    });
    let me = Me {
        name: instance.name.clone(),
        doing: state.doing,
        lock: state.lock.clone(),
        lease_ms: millis(state.lease),
        since_ms: millis(state.since.elapsed()),
        guard,
        token: state.grant.as_ref().map(|(_, fence)| fence.to_string()),
        blocked_ms: state
            .blocked_until
            .map_or(0, |until| millis(until.saturating_duration_since(Instant::now()))),
        queued: state.queued,
        condition: state.condition,
        breakable: state.is_breakable(),
    };
    (me, state.answers.iter().rev().cloned().collect())
}

fn lock(id: &str, asked: Option<&Asked>) -> LockView {
    let mut view = LockView {
        id: id.to_owned(),
        state: "asking",
        holder: None,
        remaining_ms: 0,
        waiters: 0,
        error: None,
    };
    match asked {
        None => {}
        Some((Err(error), _)) => {
            let silent = error.kind() == ErrorKind::Unavailable;
            view.state = if silent { "unknown" } else { "refused" };
            view.error = Some(error.to_string());
        }
        Some((Ok(Status::Held { holders, remaining, waiters, .. }), at)) => {
            view.state = "held";
            view.holder = holders.first().map(|holder| HolderView {
                name: holder.name.clone(),
                host: holder.host.clone(),
                pid: holder.pid,
                asked_ms: holder.held_for.map(|held_for| millis(held_for + at.elapsed())),
            });
            view.remaining_ms = millis(remaining.saturating_sub(at.elapsed()));
            view.waiters = *waiters;
        }
        Some((Ok(_), _)) => view.state = "free",
    }
    view
}

/// The holder, and the waiters behind it in the order in which they asked. The library does not
/// report who waits, so this comes from what the instances have told each other.
fn line(board: &Board, me: &Instance, id: &str, now: u64) -> Vec<InLine> {
    let mut line: Vec<_> = board
        .people
        .iter()
        .filter(|(_, person)| person.id == id)
        .filter(|(_, person)| matches!(person.doing, Doing::Waiting | Doing::Holding))
        .collect();
    line.sort_by_key(|(_, person)| (person.doing == Doing::Waiting, person.since_ms));
    line.into_iter()
        .map(|(instance, person)| InLine {
            name: person.name.clone(),
            copy: person.copy,
            mine: *instance == me.id,
            doing: person.doing,
            for_ms: now.saturating_sub(person.since_ms),
        })
        .collect()
}

fn servers(process: &Process, instance: &Instance) -> Vec<ServerView> {
    let proxy = instance.state().proxy();
    let servers = process.servers.seen_through(proxy.as_deref());
    servers
        .into_iter()
        .map(|server| ServerView {
            ago_ms: millis(server.reported_for()),
            text: instance.state().unmask(&server.report.text),
            is_good: server.report.is_good,
            is_primary: server.is_primary,
            address: server.address,
        })
        .collect()
}

fn ledger(board: &Board, id: &str) -> LedgerView {
    let ledger = board.ledgers.get(id).cloned().unwrap_or_default();
    LedgerView {
        token: (ledger.fence > 0).then(|| ledger.fence.to_string()),
        by: ledger.by,
        accepted: ledger.accepted,
        refused: ledger.refused,
    }
}

fn timeline(board: &Board, mine: &str, now: u64) -> Timeline {
    let mut lanes: Vec<Lane> = Vec::new();
    for span in &board.spans {
        let view = span_view(span, now);
        match lanes.iter_mut().find(|lane| lane.name == span.name) {
            Some(lane) => lane.spans.push(view),
            None => lanes.push(Lane {
                name: span.name.clone(),
                mine: span.name == mine,
                spans: vec![view],
            }),
        }
    }
    lanes.sort_by(|one, other| one.name.cmp(&other.name));
    Timeline { window_ms: WINDOW_MS, lanes }
}

fn span_view(span: &Span, now: u64) -> SpanView {
    SpanView {
        id: span.id.clone(),
        holds: span.fence.is_some(),
        token: span.fence.map(|fence| fence.to_string()),
        from_ms: now.saturating_sub(span.from_ms),
        to_ms: span.to_ms.map_or(0, |to| now.saturating_sub(to)),
        end: span.end.clone(),
    }
}

fn debounce(board: &Board, now: u64) -> DebounceView {
    let burst = &board.burst;
    DebounceView {
        calls: burst.calls,
        runs: burst.runs,
        open: burst.open.map(|(calls, first, last)| {
            let due = (last + DEBOUNCE_WAIT_MS).min(first + DEBOUNCE_MAX_WAIT_MS);
            Window { calls, left_ms: due.saturating_sub(now), late: due + LATE_MS < now }
        }),
        last: burst.last.clone(),
        wait_ms: DEBOUNCE_WAIT_MS,
        max_wait_ms: DEBOUNCE_MAX_WAIT_MS,
    }
}
