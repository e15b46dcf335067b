//! The store: the table, its clocks, and the checks of each request that it executes.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use lock_core::{
    Moment, Token,
    contract::{
        Acquisition, DebounceReply, DueRequest, DurableClaim, IfHeld, Notice, Release, Renewal,
        SetAside,
    },
    engine::{
        calls::{Answer, Call},
        io::Query,
    },
    table::{Now, Subscriber, Table},
};
use lock_judge::Forgetting;
use lock_model::server;

use crate::{
    books::Books,
    bursts::Bursts,
    judge::Judge,
    lines::Lines,
    process::Process,
    tasks::Caller,
    weather::Weather,
    world::{MILLI, book},
};

/// The first reading of the clock of the fences, in microseconds.
const EPOCH: u64 = 1_700_000_000_000_000;

/// How the store reaches a process.
#[derive(Clone)]
pub(crate) struct Line(pub(crate) Rc<Process>);

impl Subscriber for Line {
    /// A store learns of the end of a process only when the connection is closed.
    fn is_there(&self) -> bool {
        true
    }
}

pub(crate) struct Store {
    table: Table<Line>,
    /// By how much its clock was set ahead, in nanoseconds, and the clock of the fences back, in
    /// microseconds.
    ahead: u64,
    back: u64,
    fences: BTreeMap<Arc<str>, u64>,
    pub(crate) lines: Lines,
    pub(crate) bursts: Bursts,
    pub(crate) books: Books,
}

impl Store {
    pub(crate) fn new(weather: Weather) -> Self {
        Self {
            table: Table::default(),
            ahead: 0,
            back: 0,
            fences: BTreeMap::new(),
            lines: Lines::new(weather),
            bursts: Bursts::default(),
            books: Books::default(),
        }
    }

    fn at(&self, now: u64) -> Now {
        let now = now + self.ahead;
        Now { moment: Moment::from_nanos(now), micros: EPOCH + now / 1000 - self.back }
    }

    /// Microseconds of its clock, as if it had never been set back.
    pub(crate) fn micros(&self, now: u64) -> u64 {
        (now + self.ahead) / 1000
    }

    pub(crate) fn subscribe(&mut self, line: Line) {
        let client = line.0.id.clone();
        self.table.subscribe(&client, line);
    }

    pub(crate) fn hang_up(&mut self, client: &str) {
        self.table.unsubscribe(client);
    }

    // Faults.

    /// Loses all data, including the counter of the fences.
    pub(crate) fn lose_all(&mut self) {
        self.table.lose_all();
        self.bursts.forgotten();
        self.books.forgotten();
        self.lines.forgotten();
    }

    pub(crate) fn replicate(&self) -> Table<Line> {
        self.table.clone()
    }

    pub(crate) fn fail_over(&mut self, replica: Table<Line>) {
        self.table.fail_over(replica);
        self.bursts.lost_track();
        self.books.forgotten();
        self.lines.forgotten();
    }

    pub(crate) fn set_clock_ahead(&mut self, millis: u64) {
        self.ahead += millis * MILLI;
        self.lines.set_ahead(millis * MILLI);
    }

    pub(crate) fn set_clock_back(&mut self, millis: u64) {
        self.back += millis * 1000;
        self.bursts.lost_track();
    }

    // Requests.

    /// Executes a call. Returns the answer, and the notices to send.
    pub(crate) fn execute(
        &mut self,
        call: &Call<Caller>,
        now: u64,
        judge: &mut Judge,
    ) -> (Answer<Caller>, Vec<(Line, Notice)>) {
        let at = self.at(now);
        let keys = locks_of(call);
        for key in &keys {
            self.lines.look(key, now);
        }
        let holders: Vec<_> = keys.iter().map(|key| self.holder_of(key, at)).collect();
        let answer = server::answer(&mut self.table, call, at);
        self.judge(call, &answer, &holders, now, judge);
        for key in &keys {
            let holder = self.table.holder(key, at);
            let left = holder.map(|h| (h.token, h.remaining.unwrap_or_default()));
            self.lines.now_held(key, left, now, judge);
        }
        (answer, self.table.notices())
    }

    fn holder_of(&mut self, key: &Arc<str>, at: Now) -> Option<Token> {
        self.table.holder(key, at).map(|holder| holder.token)
    }

    fn judge(
        &mut self,
        call: &Call<Caller>,
        answer: &Answer<Caller>,
        holders: &[Option<Token>],
        now: u64,
        judge: &mut Judge,
    ) {
        let micros = self.micros(now);
        match (call, answer) {
            (Call::Acquire(batch), Answer::Acquired(_, answers)) => {
                for (request, answer) in batch.requests.iter().zip(answers) {
                    let is_new = matches!(request.if_held, IfHeld::Wait | IfHeld::GiveUp);
                    match answer {
                        Ok(Acquisition::Granted { fence, .. }) => {
                            self.fence(&request.key, *fence, judge);
                            let (key, token) = (&request.key, &request.token);
                            self.lines.granted(key, token, is_new, now, judge);
                        }
                        Ok(Acquisition::Held { ticket: Some(_), .. }) => {
                            self.lines.queued(&request.key, &request.token, now);
                        }
                        _ => {}
                    }
                }
            }
            (Call::Renew(batch), Answer::Renewed(_, answers)) => {
                for ((request, answer), holder) in batch.requests.iter().zip(answers).zip(holders) {
                    let is_renewed = matches!(answer, Ok(Renewal::Renewed { .. }));
                    if is_renewed != (holder.as_ref() == Some(&request.token)) {
                        judge.violation(format!("{}: not ours, and renewed", request.key));
                    }
                }
            }
            (Call::Release(batch), Answer::Released(_, answers)) => {
                for ((request, answer), holder) in batch.requests.iter().zip(answers).zip(holders) {
                    self.lines.left(&request.key, &request.token);
                    let ours = matches!(answer, Ok(Release { ours: true, .. }));
                    // The first of two in one batch may hand the lock over to the second.
                    let same = batch.requests.iter().filter(|other| other.key == request.key);
                    if ours != (holder.as_ref() == Some(&request.token)) && same.count() == 1 {
                        judge.violation(format!("{}: not ours, and released", request.key));
                    }
                }
            }
            (Call::Register(batch), Answer::Registered(_, answers)) => {
                for (request, answer) in batch.requests.iter().zip(answers) {
                    self.bursts.told(request, micros);
                    if let Ok(DebounceReply::Granted { fence, .. }) = answer {
                        self.fence(&request.run, *fence, judge);
                        self.bursts.granted(request, judge);
                    }
                }
            }
            (Call::EndWindow(batch), Answer::WindowEnded(_, answers)) => {
                for (request, answer) in batch.requests.iter().zip(answers) {
                    if matches!(answer, Ok(true)) {
                        self.bursts.ended(request, micros);
                    }
                }
            }
            (Call::Claim(batch), Answer::Claimed(_, answers)) => {
                for (request, answer) in batch.requests.iter().zip(answers) {
                    if let Ok(DurableClaim::Granted { fence, arguments, .. }) = answer {
                        self.fence(&request.run, *fence, judge);
                        self.books.claimed(&request.id, arguments, judge);
                    }
                }
            }
            (Call::ForceRelease(batch), _) => {
                for request in &batch.requests {
                    let id = Some(request.key.to_string());
                    judge.history.forgetting(Forgetting { id, from: now, to: now });
                }
            }
            (Call::Keep(batch), _) => {
                for request in &batch.requests {
                    self.books.kept(&request.id, &request.arguments);
                }
            }
            (Call::TakeBack(batch), _) => {
                for request in &batch.requests {
                    self.books.taken_back(&request.id);
                }
            }
            _ => {}
        }
    }

    /// Checks that fences grow, whatever was lost.
    fn fence(&mut self, key: &Arc<str>, fence: u64, judge: &mut Judge) {
        let last = self.fences.insert(Arc::clone(key), fence).unwrap_or(0);
        if fence <= last {
            judge.violation(format!("{key}: fence {fence} granted after {last}"));
        }
    }

    /// Records a query that a process is about to make, before the engine gets it.
    pub(crate) fn asked(&mut self, client: &str, query: &Query, now: u64) {
        if let Query::EndWindow { window, end, .. } = query {
            let micros = self.micros(now);
            self.bursts.asked_to_end(client, (window, *end), micros);
        }
    }

    pub(crate) fn heard_of_contention(&mut self, client: &str, number: u64) {
        self.lines.heard_of_contention(client, number);
    }

    /// A process passes a lock on to its own next caller.
    pub(crate) fn passed_on(&mut self, process: &Process, key: &Arc<str>, ownership: u64) {
        let world = &process.world;
        if let Some(violation) = self.lines.passed_on(process, key, ownership, world.now()) {
            world.violation(violation);
        }
    }

    // Inspection.

    /// The holder of a lock.
    pub(crate) fn holder(&mut self, key: &Arc<str>, now: u64) -> Option<Token> {
        let at = self.at(now);
        self.holder_of(key, at)
    }

    /// Have all durable calls been run?
    pub(crate) fn is_drained(&mut self, now: u64) -> bool {
        let at = self.at(now);
        let due = self.table.due(&DueRequest::new(book(), 100), at);
        due.ids.is_empty() && due.next.is_none()
    }

    pub(crate) fn set_aside(&mut self, now: u64) -> Vec<SetAside> {
        let at = self.at(now);
        self.table.set_aside(&book(), at)
    }

    pub(crate) fn forget(&mut self) {
        self.table = Table::default();
    }
}

/// The keys of the locks that a call may change.
fn locks_of(call: &Call<Caller>) -> Vec<Arc<str>> {
    match call {
        Call::Acquire(batch) => batch.requests.iter().map(|q| Arc::clone(&q.key)).collect(),
        Call::Renew(batch) => batch.requests.iter().map(|q| Arc::clone(&q.key)).collect(),
        Call::Release(batch) => batch.requests.iter().map(|q| Arc::clone(&q.key)).collect(),
        Call::Extend(batch) => batch.requests.iter().map(|q| Arc::clone(&q.key)).collect(),
        Call::ForceRelease(batch) => batch.requests.iter().map(|q| Arc::clone(&q.key)).collect(),
        Call::Register(batch) => batch.requests.iter().map(|q| Arc::clone(&q.run)).collect(),
        Call::Claim(batch) => batch.requests.iter().map(|q| Arc::clone(&q.run)).collect(),
        Call::Finish(batch) => batch.requests.iter().map(|q| Arc::clone(&q.run)).collect(),
        _ => Vec::new(),
    }
}
