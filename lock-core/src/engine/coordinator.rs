//! The engine: it alone decides what a client asks its store, and what it tells its callers.
//!
//! Each part keeps its state private, and passes on what follows for other parts: by what it
//! returns, or by an [`Effect`]. This file carries that out. It is over 500 lines long so that
//! everything that happens between the parts can be read in one piece.

use std::{sync::Arc, time::Duration};

use super::{
    bulk::Bulk,
    bursts::Bursts,
    calls::{Answer, Asker, Call, Granted, Said, Sent},
    claims::Claims,
    hand_offs::HandOffs,
    holds::{Ended, Holds},
    io::{
        Acquirer, Aftermath, Caller, Command, Grant, HoldName, Loss, Outcome, Output, Patience,
        Query, Refusal, Work,
    },
    lease::Event,
    lock_state::Action,
    outage::SILENCE_LIMIT,
    polled::Polled,
    presence::Presence,
    queued::Queued,
    releases::{GIVE_UP_AFTER, NOT_HELD, Releases},
    requests::Requests,
    shared::{Effect, ShardOf, Shared},
    shutdown::Shutdown,
    timers::Timer,
};
use crate::{
    contract::{
        Acquisition, ClientRecord, DebounceReply, DurableClaim, Holder, Notice, RESERVATION,
        Release, Renewal, StoreError,
    },
    mutant::Mutant,
    time::Moment,
};

/// Everything that one client knows about its locks and debounced calls, and everything that it
/// decides.
///
/// Whatever happens goes in: [`command`](Self::command), [`answered`](Self::answered),
/// [`notice`](Self::notice), [`timeout`](Self::timeout). After each of them, [`poll`](Self::poll)
/// returns what callers are told; at the end of a turn, [`poll_call`](Self::poll_call) returns what
/// the store is asked, in the order in which the calls have to begin. `C` is how the owner of the
/// engine identifies a caller.
#[derive(Clone, Hash)]
pub struct Engine<C> {
    shared: Shared<C>,
    queued: Queued<C>,
    polled: Polled<C>,
    requests: Requests,
    holds: Holds,
    releases: Releases<C>,
    hand_offs: HandOffs,
    bursts: Bursts<C>,
    bulk: Bulk<C>,
    claims: Claims,
    presence: Presence,
    shutdown: Shutdown<C>,
    /// A question that has to be sent behind the releases on which it depends.
    held_back: Option<Call<C>>,
}

impl<C: Caller> Engine<C> {
    /// Creates the engine of the client whose tokens begin with `client`, which no other client may
    /// share. `shard_of` returns the part of the store that a key is in.
    pub fn new(client: impl Into<Arc<str>>, shard_of: ShardOf) -> Self {
        Self {
            shared: Shared::new(client.into(), shard_of),
            queued: Queued::default(),
            polled: Polled::default(),
            requests: Requests::default(),
            holds: Holds::default(),
            releases: Releases::default(),
            hand_offs: HandOffs::default(),
            bursts: Bursts::default(),
            bulk: Bulk::default(),
            claims: Claims::default(),
            presence: Presence::default(),
            shutdown: Shutdown::default(),
            held_back: None,
        }
    }

    /// Keeps this record of the client in the store, under this key, for operators to read.
    #[must_use]
    pub fn introducing(mut self, key: impl Into<Arc<str>>, record: ClientRecord) -> Self {
        self.presence = Presence::new(key.into(), record);
        self
    }

    // What goes in.

    /// A caller asks for something.
    pub fn command(&mut self, command: Command<C>, now: Moment) {
        self.shared.now = now;
        let command = if self.shutdown.has_begun() { command.if_it_undoes() } else { Ok(command) };
        let shared = &mut self.shared;
        match command {
            Err(to) => shared.refuse(to, Refusal::Closed),
            Ok(Command::Acquire(acquire)) => match acquire.patience {
                Patience::For(wait) if acquire.adopt.is_none() && !wait.is_zero() => {
                    self.queued.join(acquire, wait, shared);
                }
                _ => self.polled.begin(*acquire, shared),
            },
            Ok(Command::Debounce(call)) => {
                shared.saw(call.acquirer.number);
                self.bursts.join(*call, shared);
            }
            Ok(Command::Claim(claim)) => self.bulk.claim(*claim, shared),
            Ok(Command::Cancel(number)) => {
                self.queued.cancel(number, shared);
                self.polled.cancel(number, shared);
                self.bursts.cancel(number, shared);
            }
            Ok(Command::Release { hold, undelivered, to }) => self.release(hold, undelivered, to),
            Ok(Command::RunTaken(hold)) => match self.holds.is_believed(hold, now) {
                true => self.bursts.run_taken(hold.ownership, shared),
                false => self.bursts.run_lost(hold.ownership, shared),
            },
            Ok(Command::Leak(hold)) => self.leak(hold),
            Ok(Command::Expired(hold)) if self.holds.contains(hold) => {
                self.lose(hold.ownership, self.holds.expiry(hold.ownership));
            }
            Ok(Command::Expired(_)) => {}
            Ok(Command::Extend(hold, by, to)) => match self.holds.extension(hold, by, now) {
                Ok(request) => self.bulk.extend(hold, request, to, shared),
                Err(refusal) => shared.refuse(to, refusal),
            },
            Ok(Command::Query(query, to)) => self.query(*query, to),
            Ok(Command::Flush(to)) => {
                let unreleased = self.unreleased().collect();
                self.shutdown.flush(unreleased, to);
            }
            Ok(Command::Shutdown(to)) => self.stop(SILENCE_LIMIT, Some(to)),
            Ok(Command::Abandon) => self.stop(GIVE_UP_AFTER, None),
        }
        self.settle();
    }

    /// The store has answered a call.
    pub fn answered(&mut self, answer: Answer<C>, now: Moment) {
        self.shared.now = now;
        match answer {
            Answer::Acquired(sent, answers) => {
                self.requests.answered(&sent);
                self.each(sent, answers, Self::acquired);
            }
            Answer::Renewed(sent, answers) => self.each(sent, answers, Self::renewed),
            Answer::Released(sent, answers) => self.each(sent, answers, Self::released),
            Answer::Extended(sent, answers) => self.in_bulk(sent, answers, Self::extended),
            Answer::Holder(sent, answers) => self.in_bulk(sent, answers, Self::found),
            Answer::Client(sent, answers) => self.pass(sent, answers, Outcome::Client),
            Answer::Scanned(sent, answers) => self.pass(sent, answers, Outcome::Page),
            Answer::DueIn(sent, answers) => self.pass(sent, answers, Outcome::DueIn),
            // The record is sent again with later renewals, whatever the answer is.
            Answer::Introduced(..) => {}
            Answer::ForceReleased(sent, answers) => {
                self.in_bulk(sent, answers, Self::force_released);
            }
            Answer::Registered(sent, answers) => self.in_bulk(sent, answers, Self::registered),
            Answer::WindowEnded(sent, answers) => self.in_bulk(sent, answers, Self::window_ended),
            Answer::Claimed(sent, answers) => self.in_bulk(sent, answers, Self::claimed),
            Answer::Kept(sent, answers) => self.pass(sent, answers, Outcome::Kept),
            Answer::Due(sent, answers) => self.pass(sent, answers, Outcome::Due),
            Answer::Waiting(sent, answers) => self.pass(sent, answers, Outcome::Waiting),
            Answer::Finished(sent, answers) => self.pass(sent, answers, Outcome::Finished),
            Answer::SetAside(sent, answers) => self.pass(sent, answers, Outcome::SetAside),
            Answer::TakenBack(sent, answers) => self.pass(sent, answers, Outcome::Truth),
        }
        self.settle();
    }

    /// Handles the answers of a batch one by one.
    fn each<T, A>(
        &mut self,
        sent: Sent<T>,
        answers: Vec<Said<A>>,
        take: impl Fn(&mut Self, T, Moment, Said<A>),
    ) {
        for (asked, answer) in sent.asked.into_iter().zip(answers) {
            take(self, asked, sent.sent_at, answer);
        }
    }

    /// Handles the answers of a batch that had to wait for room: they show, for others that wait,
    /// whether that part of the store answers.
    fn in_bulk<T, A>(
        &mut self,
        sent: Sent<T>,
        answers: Vec<Said<A>>,
        take: impl Fn(&mut Self, T, Moment, Said<A>),
    ) {
        let others = self.bursts.wait_for(sent.shard);
        if let Some(silence) = self.bulk.answered(&sent, &answers, others, &mut self.shared) {
            self.bursts.give_up(sent.shard, &silence, &mut self.shared);
        }
        self.each(sent, answers, take);
    }

    /// Passes the answers of a batch on to its callers.
    fn pass<A>(&mut self, sent: Sent<((), C)>, answers: Vec<Said<A>>, outcome: fn(A) -> Outcome) {
        self.in_bulk(sent, answers, |engine, ((), to), _, answer| {
            engine.tell(to, answer.map(outcome), Aftermath::Unknown);
        });
    }

    /// The store has sent a notice.
    pub fn notice(&mut self, notice: Notice, now: Moment) {
        self.shared.now = now;
        let shared = &mut self.shared;
        match notice {
            Notice::Granted { number } => {
                if !self.bursts.notice(number, false, shared) {
                    self.queued.recheck_entry(number, shared);
                }
            }
            Notice::Contended { number } => {
                self.polled.contended(number);
                self.queued.contended(number, self.holds.key(number).cloned(), &mut self.shared);
            }
            // It may arrive before the grant does: they need not travel together.
            Notice::Revoked { number } => {
                let is_heard_first = self.queued.revoked(number)
                    || self.polled.revoked(number)
                    || self.bursts.revoked(number);
                if !is_heard_first {
                    self.lose(number, Loss::Forced);
                }
            }
            Notice::Flushed { number } => {
                self.bursts.notice(number, true, shared);
            }
            Notice::Connected(delivery) => {
                self.presence.connected(now);
                shared.delivery = delivery;
                self.queued.recheck_all(shared);
                self.step_all(Event::Reachable);
            }
            // The new server may lack any lock: all are renewed now, and those that it lacks are
            // lost.
            Notice::Replaced => self.step_all(Event::Doubted),
        }
        self.settle();
    }

    fn step_all(&mut self, event: Event) {
        for number in self.holds.numbers() {
            if let Some(loss) = self.holds.step(number, event, &mut self.shared) {
                self.lose(number, loss);
            }
        }
    }

    /// Does what is due. This comes before anything else: after a stall, nobody may be told
    /// anything new about a lock before its loss is declared.
    pub fn timeout(&mut self, now: Moment) {
        self.shared.now = now;
        while let Some(timer) = self.shared.timers.pop_due(now) {
            let shared = &mut self.shared;
            match timer {
                Timer::Hold(number) => {
                    if let Some(loss) = self.holds.step(number, Event::Timer, shared) {
                        self.lose(number, loss);
                    }
                }
                Timer::Polled(number) => self.polled.timer(number, shared),
                Timer::Queued(number) => self.queued.caller_timer(number, shared),
                Timer::Recheck(entry) => self.queued.recheck_timer(entry, shared),
                Timer::HandOff(number) => self.hand_offs.timer(number, shared),
                Timer::Release(number) => self.releases.timer(number, shared),
                Timer::Burst(number) => self.bursts.timer(number, shared),
            }
            self.settle();
        }
    }

    // What comes out.

    /// Returns what a caller is told next.
    pub fn poll(&mut self) -> Option<Output<C>> {
        self.shared.next_output()
    }

    /// Returns what the store is asked next. Once there is nothing, the turn is over, and the
    /// callers that waited for its end are answered.
    pub fn poll_call(&mut self, now: Moment) -> Option<Call<C>> {
        self.shared.now = now;
        let call = self.next_call();
        match &call {
            Some(Call::Claim(batch)) => self.claims.sent(batch.requests.len()),
            Some(_) => {}
            None => self.end_turn(),
        }
        call
    }

    /// When [`timeout`](Self::timeout) is due.
    pub fn next_timeout(&self) -> Option<Moment> {
        let timers = self.shared.timers.next().into_iter();
        timers.chain(self.holds.due_by()).chain(self.shutdown.ends_by()).min()
    }

    /// Is there a call to poll, or an end of a turn that somebody waits for?
    pub fn wants_turn(&self) -> bool {
        self.releases.are_due()
            || self.requests.are_due()
            || self.bursts.next_shard(|_| true).is_some()
            || self.bulk.is_due()
            || self.presence.is_due()
            || self.shutdown.are_flushes_waiting()
            || self.shutdown.has_begun()
    }

    /// Is everything done, and will nothing follow?
    pub fn has_ended(&self) -> bool {
        self.shutdown.has_ended()
    }

    // Which call is next.

    /// The order of the calls in a turn.
    fn next_call(&mut self) -> Option<Call<C>> {
        let shared = &self.shared;
        // Releases go first: a caller that drops a guard and then acquires the same lock must find
        // it free.
        let release = self.releases.next(shared).map(Call::Release);
        release
            .or_else(|| self.held_back.take())
            // Requests that keep locks come before those that take them.
            .or_else(|| self.holds.next(shared).map(Call::Renew))
            .or_else(|| self.bulk.next_extensions(shared.now))
            .or_else(|| self.next_questions())
            .or_else(|| self.next_acquires())
            // Requests on which no lock depends come last.
            .or_else(|| self.bulk.next(self.shared.now))
            .or_else(|| self.presence.next(&self.shared).map(Call::Introduce))
    }

    fn next_questions(&mut self) -> Option<Call<C>> {
        loop {
            let shard = self.bursts.next_shard(|shard| self.bulk.room(shard) > 0)?;
            let room = self.bulk.room(shard);
            let batch = self.bursts.questions(shard, room, &mut self.shared);
            self.settle();
            if !batch.0.is_empty() {
                let question = Call::Register(self.bulk.batch(batch, shard, self.shared.now));
                // What was undone for them goes first: they must find the runs' locks free.
                let Some(release) = self.releases.next(&self.shared) else {
                    return Some(question);
                };
                self.held_back = Some(question);
                return Some(Call::Release(release));
            }
        }
    }

    fn next_acquires(&mut self) -> Option<Call<C>> {
        let batch = self.requests.next(self.shared.now, |asker| match asker {
            Asker::Queued(key) => self.queued.request(key, &mut self.shared),
            Asker::Polled(number) => {
                Some((*number, self.polled.request(*number, &mut self.shared)?))
            }
        });
        batch.map(Call::Acquire)
    }

    /// What a flush waits for: releases, and requests that nobody waits for any more, which end in
    /// a release. Not claims of durable calls: no guard was dropped for them.
    fn unreleased(&self) -> impl Iterator<Item = u64> {
        self.releases.numbers().chain(self.polled.abandoned()).chain(self.bursts.abandoned())
    }

    /// What a shutdown waits for: all of that, including requests that somebody still waits for,
    /// and claims.
    fn is_unfinished(&self) -> bool {
        !self.releases.is_empty()
            || !self.polled.is_empty()
            || !self.bursts.is_empty()
            || !self.claims.is_empty()
            || self.bulk.claims_wait()
    }

    fn end_turn(&mut self) {
        // Looks only at what a flush waits for: there may be very much else.
        let is_unreleased = |number| {
            self.releases.contains(number)
                || self.polled.contains(number)
                || self.bursts.is_abandoned(number)
        };
        self.shutdown.answer_flushes(is_unreleased, &mut self.shared);
        if self.shutdown.has_begun() {
            let is_unfinished = self.is_unfinished();
            let handed_over = self.hand_offs.are_due_soon(self.shared.now);
            self.shutdown.end_if_done(is_unfinished, handed_over, &mut self.shared);
        }
    }

    // What follows from what.

    /// Carries out what the parts request of each other.
    fn settle(&mut self) {
        while let Some(effect) = self.shared.next_effect() {
            match effect {
                Effect::Request(asker) => {
                    let key = match &asker {
                        Asker::Queued(key) => Some(key),
                        Asker::Polled(number) => self.polled.key(*number),
                    };
                    let shard = key.map_or(0, |key| self.shared.shard(key));
                    self.requests.push(shard, asker);
                }
                Effect::Undo { number, key, token, look_at } => {
                    self.releases.undo(number, (key, token), look_at, &self.shared);
                }
            }
        }
    }

    fn acquired(
        &mut self,
        (asker, number): (Asker, u64),
        sent_at: Moment,
        answer: Said<Acquisition>,
    ) {
        let shared = &mut self.shared;
        let Asker::Queued(key) = asker else {
            if let Some((acquirer, granted)) = self.polled.answered(number, sent_at, answer, shared)
            {
                self.hold_directly(acquirer, granted, Work::Own);
            }
            return;
        };
        let granted = self.queued.answered(&key, number, sent_at, answer, shared);
        let Some(granted) = granted else { return };
        if self.is_overtaken(&key, &granted) {
            return self.queued.ask_again(&key, number, &mut self.shared);
        }
        self.lose_key(&key, Loss::NotOurs);
        let next = self.queued.granted(&key, &granted, &mut self.shared);
        let Some((acquirer, fencing_token)) = next else { return };
        self.hold(acquirer, granted, fencing_token, Work::Own);
        self.hand_offs.forget(&key, &mut self.shared);
    }

    fn registered(
        &mut self,
        (key, number): (Arc<str>, u64),
        sent_at: Moment,
        answer: Said<DebounceReply>,
    ) {
        let run = self.bursts.answered(&key, sent_at, answer, &mut self.shared);
        let Some((fence, callers)) = run else { return };
        match self.bursts.runner(number, callers) {
            Some((acquirer, followed)) => {
                if Mutant::SupersededBeforeTheRun.is_on() {
                    self.bursts.run_taken(number, &mut self.shared);
                }
                let (token, lease) = (self.shared.token(number), acquirer.terms.lease);
                let ownership = number;
                let granted = Granted { ownership, token, sent_at, lease, fence, contended: false };
                self.hold_directly(acquirer, granted, Work::Burst { followed });
            }
            None => self.shared.undo(number, &key, &self.shared.token(number)),
        }
    }

    fn claimed(&mut self, claim: (Acquirer<()>, C), sent_at: Moment, answer: Said<DurableClaim>) {
        let (is_closed, shared) = (self.shutdown.has_begun(), &mut self.shared);
        let granted = self.claims.answered(claim, sent_at, answer, is_closed, shared);
        if let Some((acquirer, granted, work)) = granted {
            self.hold_directly(acquirer, granted, work);
        }
    }

    /// Does this process hold the lock by a later grant? Then this grant had ended before that one
    /// was made, and the answers arrived in another order than the grants. Fences show it, since
    /// each is larger than all before.
    fn is_overtaken(&self, key: &str, granted: &Granted) -> bool {
        let held = self.queued.ownership(key).and_then(|ownership| self.holds.fence(ownership));
        held.is_some_and(|held| granted.fence < held)
    }

    /// The store has granted a lock to a caller that did not wait in line for it.
    fn hold_directly(&mut self, acquirer: Acquirer<C>, granted: Granted, work: Work) {
        if self.is_overtaken(&acquirer.key, &granted) {
            let Acquirer { key, to, .. } = acquirer;
            self.shared.undo(granted.ownership, &key, &granted.token);
            self.bursts.run_lost(granted.ownership, &mut self.shared);
            let why = "a later grant of the lock arrived before this one";
            let failure = StoreError::unavailable(why);
            return self.shared.refuse(to, Refusal::Failed(failure, Aftermath::Undone));
        }
        self.lose_key(&acquirer.key, Loss::NotOurs);
        let fencing_token = self.queued.taken_by(&acquirer.key, &granted);
        self.hold(acquirer, granted, fencing_token, work);
    }

    /// A lock belongs to a caller from now on. If that caller is gone, its owner releases the lock
    /// at once, as a hold that was not delivered.
    fn hold(&mut self, acquirer: Acquirer<C>, granted: Granted, fencing_token: u64, work: Work) {
        let Acquirer { number, key, terms, to } = acquirer;
        self.presence.granted(terms.lease, self.shared.now);
        let (holder, shared) = ((number, key, terms), &mut self.shared);
        let deadline = self.holds.begin(holder, &granted, fencing_token, shared);
        let hold = HoldName { ownership: granted.ownership, caller: number };
        let token = granted.token;
        let grant = Grant { hold, token, fencing_token, deadline, work };
        shared.tell(Output::Granted(to, grant));
    }

    /// Passes the same ownership on to the next caller.
    fn pass_on(&mut self, ownership: u64, acquirer: Acquirer<C>, fencing_token: u64, work: Work) {
        let Acquirer { number, terms, to, .. } = acquirer;
        let shared = &mut self.shared;
        let passed = self.holds.pass_on(ownership, (number, terms), fencing_token, shared);
        if let Some((token, deadline)) = passed {
            let hold = HoldName { ownership, caller: number };
            let grant = Grant { hold, token, fencing_token, deadline, work };
            shared.tell(Output::Granted(to, grant));
        }
    }

    /// A guard gives up its lock: to the next caller in line, if nobody elsewhere waits for it;
    /// otherwise to the store.
    fn release(&mut self, hold: HoldName, undelivered: bool, to: Option<C>) {
        let passable = self.holds.passable(hold, undelivered, self.shared.now);
        let Some((key, remaining)) = passable else {
            // The lock was lost before, so the end of the guard changes nothing.
            return self.shared.refuse(to, Refusal::Lost(NOT_HELD));
        };
        if undelivered && self.pass_run_on(hold, &key, remaining) {
            return;
        }
        let action = self.queued.released(&key, remaining, &mut self.shared);
        if let Action::Grant { caller, fencing_token } = action {
            let next = self.queued.next(caller, &mut self.shared);
            let next = next.expect("BUG: a caller in line is known");
            self.pass_on(hold.ownership, next, fencing_token, Work::Own);
            return self.shared.answer(to, Ok(Outcome::Done));
        }
        let ended = self.holds.end(hold.ownership, &mut self.shared);
        let Ended { token, keep_until, .. } = ended.expect("BUG: it was held just now");
        if action == Action::Reacquire {
            self.queued.reacquire(&key, hold.ownership, token, &mut self.shared);
            return self.shared.answer(to, Ok(Outcome::Done));
        }
        // `hold_at_least` is for callers that have held the lock.
        let keep_until = if undelivered { Moment::default() } else { keep_until };
        self.releases.begin(hold.ownership, (key, token), keep_until, to, &self.shared);
    }

    /// If this was a run whose caller went away before it took the run: true if another caller has
    /// it now.
    fn pass_run_on(&mut self, hold: HoldName, key: &str, remaining: Duration) -> bool {
        if remaining.is_zero() {
            self.bursts.run_lost(hold.ownership, &mut self.shared);
            return false;
        }
        let fencing_token = self.holds.fencing_token(hold);
        match (self.bursts.next_runner(hold.ownership), fencing_token) {
            (Some((acquirer, followed)), Some(fencing_token)) => {
                self.pass_on(hold.ownership, acquirer, fencing_token, Work::Burst { followed });
                true
            }
            _ => {
                self.bursts.run_undone(key);
                false
            }
        }
    }

    fn leak(&mut self, hold: HoldName) {
        if self.holds.contains(hold)
            && let Some(Ended { key, .. }) = self.holds.end(hold.ownership, &mut self.shared)
        {
            self.queued.leave_ownership(&key, hold.ownership, &mut self.shared);
        }
    }

    /// The lock was lost. If its lease has run out, the store may still hold the key for us, though
    /// nobody relies on it any longer. If the store says that it is not ours, its key has
    /// disappeared other than by a release, and the waiters have not been notified. If it was taken
    /// away by force, this token may hold it again. The same release serves all three: it frees
    /// what is ours, and passes on what nobody holds.
    fn lose(&mut self, ownership: u64, loss: Loss) {
        if let Some(Ended { key, token, .. }) = self.end_lost(ownership, loss) {
            self.shared.undo(ownership, &key, &token);
        }
    }

    /// The store grants a lock to one holder at a time: the previous one no longer has it.
    fn lose_key(&mut self, key: &Arc<str>, loss: Loss) {
        if let Some(ownership) = self.queued.ownership(key) {
            self.end_lost(ownership, loss);
        }
    }

    fn end_lost(&mut self, ownership: u64, loss: Loss) -> Option<Ended> {
        let ended = self.holds.end(ownership, &mut self.shared)?;
        self.shared.tell(Output::Lost(ownership, loss));
        self.queued.leave_ownership(&ended.key, ownership, &mut self.shared);
        self.bursts.run_lost(ownership, &mut self.shared);
        Some(ended)
    }

    fn renewed(&mut self, lock: (u64, Duration), sent_at: Moment, answer: Said<Renewal>) {
        let (number, _) = lock;
        if let Ok(Renewal::Renewed { contended: true }) = answer {
            self.queued.contended(number, self.holds.key(number).cloned(), &mut self.shared);
        }
        if answer.is_ok() {
            self.presence.renewed(lock.1, self.shared.now);
        }
        if let Some(loss) = self.holds.renewed(lock, sent_at, answer, &mut self.shared) {
            self.lose(number, loss);
        }
    }

    fn released(&mut self, number: u64, sent_at: Moment, answer: Said<Release>) {
        let released = self.releases.answered(number, sent_at, answer, &mut self.shared);
        let Some((key, token, taken_up_by)) = released else { return };
        if let Some(by) = taken_up_by.filter(|_| !Mutant::HandOffIsNotWatched.is_on()) {
            self.hand_offs.watch(number, (Arc::clone(&key), token), by, &mut self.shared);
        }
        self.freed(&key);
    }

    /// Nobody here holds the lock of this key any more.
    fn freed(&mut self, key: &Arc<str>) {
        self.queued.recheck_if_polling(key, &mut self.shared);
        self.bursts.run_ended(key, &mut self.shared);
    }

    // What is asked in bulk.

    fn query(&mut self, mut query: Query, to: C) {
        if let Query::EndWindow { run, end, waited, .. } = &mut query {
            *waited = self.bursts.end_window(run, *end, &mut self.shared);
        }
        self.bulk.ask(query, to, &self.shared);
    }

    fn tell(&mut self, to: C, answer: Said<Outcome>, aftermath: Aftermath) {
        let failed = |error| Refusal::Failed(error, aftermath);
        self.shared.answer(to, answer.map_err(failed));
    }

    fn extended(
        &mut self,
        (hold, to): (HoldName, C),
        sent_at: Moment,
        answer: Said<Option<Duration>>,
    ) {
        let remaining = match answer {
            Ok(remaining) => remaining,
            Err(error) => return self.tell(to, Err(error), Aftermath::Unknown),
        };
        let event =
            remaining.map_or(Event::NotOurs, |remaining| Event::Extended { sent_at, remaining });
        // This is not about a later hold by the same token: that may end sooner, since a grant
        // gives the lease that was asked for.
        let is_of_this_hold = !self.holds.is_asked_after(hold.ownership, sent_at);
        if is_of_this_hold
            && let Some(loss) = self.holds.step(hold.ownership, event, &mut self.shared)
        {
            self.lose(hold.ownership, loss);
        }
        let is_held = remaining.is_some() && self.holds.contains(hold);
        let answer = if is_held { Ok(Outcome::Done) } else { Err(Refusal::Lost(NOT_HELD)) };
        self.shared.answer(to, answer);
    }

    fn found(&mut self, (key, to): (Arc<str>, C), _: Moment, answer: Said<Option<Holder>>) {
        let behind = self.queued.waiters_behind_entry(&key);
        let more = |holder: Holder| Holder { waiters: holder.waiters + behind, ..holder };
        let holder = answer.map(|holder| Outcome::Holder(holder.map(more)));
        self.tell(to, holder, Aftermath::Nothing);
    }

    fn force_released(&mut self, (key, to): (Arc<str>, C), sent_at: Moment, answer: Said<Release>) {
        if let Ok(Release { ours: true, .. }) = answer {
            // Not a hold that was asked for after the release, and granted before the release was
            // answered.
            let ownership = self.queued.ownership(&key);
            if ownership.is_some_and(|ownership| !self.holds.is_asked_after(ownership, sent_at)) {
                self.lose_key(&key, Loss::Forced);
            }
            self.freed(&key);
        }
        if let Ok(Release { handed_over: true, .. }) = answer {
            // A token that holds nothing, for watching a lock that was never ours.
            let number = self.shared.draw();
            let lock = (key, self.shared.token(number));
            let by = self.shared.now + RESERVATION;
            self.hand_offs.watch(number, lock, by, &mut self.shared);
        }
        let ours = answer.map(|answer| Outcome::Truth(answer.ours));
        self.tell(to, ours, Aftermath::Unknown);
    }

    fn window_ended(&mut self, (waited, to): (bool, C), _: Moment, answer: Said<bool>) {
        let waits = answer.map(|waits| Outcome::Truth(waits || waited));
        self.tell(to, waits, Aftermath::Unknown);
    }

    // The end.

    /// Releases what is held, refuses those who wait, and ends once that is done.
    fn stop(&mut self, limit: Duration, to: Option<C>) {
        self.shutdown.begin(self.shared.now + limit, to);
        let shared = &mut self.shared;
        self.queued.close(shared);
        self.polled.close(shared);
        self.requests.close();
        self.bursts.close(shared);
        self.bulk.close(shared);
        for number in self.holds.numbers() {
            if let Some(Ended { key, token, keep_until }) = self.end_lost(number, Loss::Closed) {
                self.releases.begin(number, (key, token), keep_until, None, &self.shared);
            }
        }
    }
}

#[cfg(lock_mutants)]
mod test_access;
#[cfg(test)]
mod tests;
