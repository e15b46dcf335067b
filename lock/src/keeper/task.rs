//! The keeper's loop.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc::{self, error::TryRecvError};

use super::{
    Command,
    attempts::{Acquired, Attempt},
    bulk::{Answered, Load},
    calls::{Called, PendingBurst, PendingCall, Untaken},
    holds::{Extended, Holds, Renewed},
    lines::{Caller, Line},
    maps::{ByKey, ByNumber},
    releases::{Claim, GIVE_UP_AFTER, Release, Released},
    shards::Shards,
    shutdown::{Flush, Stopping},
    timers::{Timer, Timers},
};
use crate::{
    Error, Token,
    clock::Clock,
    contract::CurrentDelivery,
    core::{Jitter, Moment, outage::SILENCE_LIMIT},
    store::Store,
};

/// How many items go into one call of the store: scripts of more would keep a Redis server from
/// its other clients for longer than a third of a millisecond.
pub(super) const BATCH: usize = 100;

/// How many messages one turn takes, so that a flood of them cannot keep deadlines from being
/// looked at.
const TURN: usize = 1024;

pub(super) type InFlight = Pin<Box<dyn Future<Output = Done> + Send>>;

/// All that a keeper knows.
pub(super) struct Task {
    pub(super) id: String,
    pub(super) store: Arc<dyn Store>,
    /// Its callers drive it, and it may have answers at once. Decided when it is made.
    pub(super) is_embedded: bool,
    pub(super) clock: Arc<dyn Clock>,
    /// When this turn began, or began to send: what it does counts from there. A turn that was
    /// held up acts on a time that is too early, which makes a lease shorter and never longer; a
    /// holder asks the clock itself.
    pub(super) now: Moment,
    queue: mpsc::UnboundedReceiver<Command>,
    pub(super) timers: Timers,
    pub(super) in_flight: FuturesUnordered<InFlight>,
    /// Answers and messages that wait for this turn.
    pub(super) done: VecDeque<Done>,
    commands: VecDeque<Command>,
    pub(super) delivery: Arc<CurrentDelivery>,
    /// Shared with the callers: no two tokens have one number.
    pub(super) numbers: Arc<AtomicU64>,
    /// Callers that ask for themselves.
    pub(super) attempts: ByNumber<Attempt>,
    /// Callers that wait in line.
    pub(super) callers: ByNumber<Caller>,
    /// What is known of each lock that somebody here holds or waits for, by its key.
    pub(super) lines: ByKey<Line>,
    /// Where the entries are whose callers have left.
    pub(super) entries: ByNumber<Arc<str>>,
    pub(super) holds: Holds,
    /// Ownership and caller of guards that nobody took.
    pub(super) unclaimed: Vec<(u64, u64)>,
    pub(super) releases: ByNumber<Release>,
    /// Locks that were handed over, by their keys, until they are claimed.
    pub(super) claims: ByKey<Claim>,
    pub(super) claimed_keys: ByNumber<Arc<str>>,
    pub(super) calls: ByNumber<PendingCall>,
    /// Runs that were given away and not taken yet, by the numbers of their tokens.
    pub(super) untaken: ByNumber<Untaken>,
    /// The debounced calls of each id, by the key of the run's lock.
    pub(super) bursts: ByKey<PendingBurst>,
    /// Where the burst is that a timer or a wake-up is about.
    pub(super) burst_keys: ByNumber<Arc<str>>,
    /// What the next turn sends, by the parts of the store.
    pub(super) shards: Shards,
    pub(super) flushes: Vec<Flush>,
    /// How many claims of durable calls have not been answered.
    #[cfg(feature = "durable")]
    pub(super) claiming: usize,
    pub(super) stopping: Option<Stopping>,
    /// It has ended because it was told to. Said before those are told who wait for the end.
    pub(super) ended: Arc<AtomicBool>,
}

/// A call of the store that has been answered.
pub(super) enum Done {
    Acquired(Acquired),
    Renewed(Renewed),
    Released(Released),
    Extended(Extended),
    Called(Vec<Called>),
    #[cfg(feature = "durable")]
    Claimed(super::durable::ClaimAnswer),
    InBulk(Answered),
    Bulk(Load, Box<Done>),
}

/// What a turn of the keeper leaves.
pub(super) enum Turn {
    /// Nothing to do before that time, unless a message or an answer comes.
    Wait(Option<Moment>),
    /// Everything is done, and nothing will follow.
    Ended,
}

impl Task {
    pub(super) fn new(
        id: &str,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        queue: mpsc::UnboundedReceiver<Command>,
        (numbers, delivery): (Arc<AtomicU64>, Arc<CurrentDelivery>),
    ) -> Self {
        Self {
            id: id.to_owned(),
            delivery,
            numbers,
            store,
            is_embedded: false,
            now: clock.now(),
            clock,
            queue,
            timers: Timers::default(),
            in_flight: FuturesUnordered::new(),
            done: VecDeque::new(),
            commands: VecDeque::new(),
            attempts: Default::default(),
            callers: Default::default(),
            lines: Default::default(),
            entries: Default::default(),
            holds: Holds::default(),
            unclaimed: Vec::new(),
            releases: Default::default(),
            claims: Default::default(),
            claimed_keys: Default::default(),
            calls: Default::default(),
            untaken: Default::default(),
            bursts: Default::default(),
            burst_keys: Default::default(),
            shards: Shards::default(),
            flushes: Vec::new(),
            #[cfg(feature = "durable")]
            claiming: 0,
            stopping: None,
            ended: Arc::default(),
        }
    }

    /// Does what needs no store, which is all there is to passing a lock on to the next caller in
    /// line. True if there is more to do.
    ///
    /// `own` is a message that was not sent through the queue; it stays where it is if others have
    /// to be taken first.
    pub(super) fn local_turn(&mut self, own: &mut Option<Command>) -> bool {
        // A timer that is due comes first, and may want the store.
        self.now = self.clock.now();
        let now = self.now;
        let overdue = self.timers.next().is_some_and(|next| next <= now);
        if overdue || !self.commands.is_empty() || self.stopping.is_some() {
            return true;
        }
        for _ in 0..TURN {
            while self.release_unclaimed() {}
            let command = match self.queue.try_recv() {
                Ok(command) => command,
                // What was sent before has been taken: the caller's own comes last.
                Err(_) => match own.take() {
                    Some(command) => command,
                    None => break,
                },
            };
            // Not a wake-up: an answer that came before it has to be taken before it.
            let is_local = matches!(
                command,
                Command::Acquire(_)
                    | Command::Call(_)
                    | Command::RunTaken(_)
                    | Command::Cancel(_)
                    | Command::Release { .. }
                    | Command::Leak { .. }
            );
            if !is_local {
                // What comes behind it waits, too: messages keep their order.
                self.commands.push_back(command);
                break;
            }
            self.take_command(command);
        }
        while self.release_unclaimed() {}
        !self.commands.is_empty()
            || self.shards.want_to_send()
            || !self.flushes.is_empty()
            || !self.queue.is_empty()
    }

    /// Takes a message that was not sent through the queue, behind all that were.
    pub(super) fn enqueue(&mut self, command: Command) {
        while let Ok(earlier) = self.queue.try_recv() {
            self.commands.push_back(earlier);
        }
        self.commands.push_back(command);
    }

    /// Does all there is to do now. `waker` is woken when an answer of the store comes.
    pub(super) fn turn(&mut self, waker: &Waker) -> Turn {
        // Deadlines come before anything else: after a stall, nobody may be told anything new
        // about a lock before its loss is declared.
        self.now = self.clock.now();
        self.fire_timers();
        let mut context = Context::from_waker(waker);
        for _ in 0..TURN {
            while self.release_unclaimed() {}
            if let Some(done) = self.done.pop_front() {
                self.take_answer(done);
            } else if !self.in_flight.is_empty()
                && let Poll::Ready(Some(done)) = self.in_flight.poll_next_unpin(&mut context)
            {
                self.take_answer(done);
            } else if let Some(command) = self.commands.pop_front() {
                self.take_command(command);
            } else {
                match self.queue.try_recv() {
                    Ok(command) => self.take_command(command),
                    Err(TryRecvError::Empty) => break,
                    // The last client is gone.
                    Err(TryRecvError::Disconnected) if self.stopping.is_none() => {
                        self.stop(GIVE_UP_AFTER, None);
                    }
                    Err(TryRecvError::Disconnected) => break,
                }
            }
        }
        self.send();
        // What was just begun has not seen this waker yet, and would not wake anybody.
        if !self.in_flight.is_empty()
            && let Poll::Ready(Some(done)) = self.in_flight.poll_next_unpin(&mut context)
        {
            self.done.push_back(done);
        }
        self.answer_flushes();
        if self.stopping.is_some() && self.has_stopped() {
            self.end();
            return Turn::Ended;
        }
        let busy = !self.done.is_empty() || !self.commands.is_empty() || !self.queue.is_empty();
        Turn::Wait(if busy { Some(self.now) } else { self.next_timer() })
    }

    /// When the next turn is due, if nothing happens before.
    pub(super) fn next_timer(&self) -> Option<Moment> {
        let timers = self.timers.next().into_iter().chain(self.holds.due_by());
        timers.chain(self.stopping.as_ref().map(|stopping| stopping.by)).min()
    }

    /// Does anything come after this turn: a timer, or an answer?
    pub(super) fn goes_on(&self) -> bool {
        self.next_timer().is_some() || !self.in_flight.is_empty()
    }

    fn end(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.queue.close();
        // Whoever came in between is told as one that comes later.
        while let Ok(command) = self.queue.try_recv() {
            self.take_command(command);
        }
        for reply in self.stopping.take().into_iter().flat_map(|stopping| stopping.replies) {
            let _ = reply.send(());
        }
        for flush in self.flushes.drain(..) {
            let _ = flush.reply.send(());
        }
    }

    fn take_answer(&mut self, done: Done) {
        match done {
            Done::Acquired(acquired) => self.take_acquired(acquired),
            Done::Renewed(renewed) => self.take_renewed(renewed),
            Done::Released(released) => self.take_released(released),
            Done::Extended(extended) => self.take_extended(extended),
            Done::Called(called) => called.into_iter().for_each(|called| self.take_called(called)),
            #[cfg(feature = "durable")]
            Done::Claimed(claimed) => self.take_claimed(claimed),
            Done::InBulk(answered) => self.take_bulk(answered),
            Done::Bulk(load, done) => {
                self.take_load(load);
                self.take_answer(*done);
            }
        }
    }

    fn take_command(&mut self, command: Command) {
        if self.stopping.is_some() {
            // Whoever asks for something new is told by `Closed`; what undoes is still done.
            match command {
                Command::Acquire(acquire) => drop(acquire.reply.send(Err(Error::closed()))),
                Command::Call(call) => drop(call.reply.send(Err(Error::closed()))),
                Command::Status { reply, .. } => drop(reply.send(Err(Error::closed()))),
                Command::ForceRelease { reply, .. } => drop(reply.send(Err(Error::closed()))),
                Command::Extend { reply, .. } => drop(reply.send(Err(Error::closed()))),
                Command::EndWindow { reply, .. } => drop(reply.send(Err(Error::closed()))),
                #[cfg(feature = "durable")]
                Command::Durable(step) => step.refuse(Error::closed()),
                #[cfg(feature = "durable")]
                Command::Claim(claiming) => claiming.refuse(Error::closed()),
                Command::Shutdown(reply) => self.stop(SILENCE_LIMIT, Some(reply)),
                Command::Flush(reply) => self.flush(reply),
                Command::Release { hold, undelivered, reply } => {
                    self.release(hold, undelivered, reply)
                }
                Command::Cancel(number) => self.cancel(number),
                Command::RunTaken(hold) => self.run_taken(hold),
                Command::Leak { hold } => self.leak(hold),
                Command::Notice(notice) => self.take_notice(notice),
            }
            return;
        }
        match command {
            Command::Acquire(acquire) => self.acquire(acquire),
            Command::Call(call) => self.register(call),
            Command::RunTaken(hold) => self.run_taken(hold),
            Command::EndWindow { keys, end, reply } => self.end_window(keys, end, reply),
            #[cfg(feature = "durable")]
            Command::Durable(step) => self.durable(*step),
            #[cfg(feature = "durable")]
            Command::Claim(claiming) => self.claim(claiming),
            Command::Cancel(number) => self.cancel(number),
            Command::Release { hold, undelivered, reply } => self.release(hold, undelivered, reply),
            Command::Extend { hold, by, reply } => self.extend(hold, by, reply),
            Command::Leak { hold } => self.leak(hold),
            Command::Status { lock, reply } => self.shard(&lock.key).bulk.status(lock, reply),
            Command::ForceRelease { lock, reply } => {
                self.shard(&lock.key).bulk.force_release(lock, reply);
            }
            Command::Notice(notice) => self.take_notice(notice),
            Command::Flush(reply) => self.flush(reply),
            Command::Shutdown(reply) => self.stop(SILENCE_LIMIT, Some(reply)),
        }
    }

    fn cancel(&mut self, number: u64) {
        self.cancel_caller(number);
        self.cancel_attempt(number);
        self.cancel_call(number);
    }

    fn fire_timers(&mut self) {
        let now = self.now;
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Hold(number) => self.hold_timer(number, now),
                Timer::Attempt(number) => self.attempt_timer(number),
                Timer::Caller(number) => self.caller_timer(number, now),
                Timer::Recheck(entry) => self.recheck_timer(entry, now),
                Timer::Claim(number) => self.claim_timer(number),
                Timer::Release(number) => self.release_timer(number, now),
                Timer::Burst(number) => self.burst_timer(number),
            }
        }
    }

    /// Sends what the turn has gathered. Releases go first: whoever drops a guard and then
    /// acquires the same lock must find it free.
    fn send(&mut self) {
        self.now = self.clock.now();
        loop {
            while self.release_unclaimed() {}
            self.send_releases();
            // An answer that comes at once may want more to be sent: an embedded store frees a
            // lock for the next caller; a connection that is broken wants a release tried again,
            // ahead of the acquires.
            if let Some(done) = self.done.pop_front() {
                self.take_answer(done);
                continue;
            }
            self.send_renewals();
            self.send_extensions();
            self.send_questions();
            self.send_acquires();
            self.send_bulk();
            if let Some(done) = self.done.pop_front() {
                self.take_answer(done);
            } else if self.unclaimed.is_empty() {
                return;
            }
        }
    }

    /// A number and a token that hold nothing, to look after a lock that was never ours.
    pub(super) fn nobody(&self) -> (u64, Token) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        (number, Token::new(&self.id, number))
    }

    /// A number for jitter: the same sequence for no two clients, and no two entries alike.
    pub(super) fn jitter(&self, number: u64) -> Jitter {
        let seed = self.id.bytes().fold(number, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        Jitter::new(seed >> 32)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // Also when a store has panicked: nobody renews these locks any more.
        self.lose_all();
    }
}
