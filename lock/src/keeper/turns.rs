//! The keeper: carries out what the engine decides, one turn after the other. It decides nothing
//! itself.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    iter,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use foldhash::fast::FixedState;
use lock_core::{
    Moment,
    contract::{Notice, Renewal, StoreError},
    engine::{
        Engine,
        calls::{Answer, Sent},
        io::{Command, Grant, HoldName, Loss, Output, Work},
    },
    mutant::Mutant,
};
use tokio::sync::mpsc::{self, error::TryRecvError};

use super::{
    caller::{Caller, Told},
    executor::Executor,
    held::{Held, Hold, Owner},
};
use crate::{
    clock::Clock,
    events::Events,
    observe::{self, Mode},
};

/// How many messages one turn takes, so that a flood of them cannot keep deadlines from being
/// checked.
const TURN: usize = 1024;

/// What comes through the queue.
pub(super) enum Message<O: Owner> {
    Command(Command<Caller<O>>),
    /// The store has sent a notice.
    Notice(Notice),
}

pub(super) struct Keeper<O: Owner> {
    engine: Engine<Caller<O>>,
    executor: Executor<O>,
    clock: Arc<dyn Clock>,
    /// Where the keeper reports what it finds.
    events: Events,
    /// What each guard shares with the keeper, by the number in its token.
    holds: HashMap<u64, Arc<Hold>, FixedState>,
    queue: mpsc::UnboundedReceiver<Message<O>>,
    /// Messages that were taken out of the queue, and that wait for a turn on the keeper's own
    /// thread.
    waiting: VecDeque<Message<O>>,
    /// Whether it has ended because it was told to. Set before the callers that wait for the end
    /// are answered.
    ended: Arc<AtomicBool>,
}

impl<O: Owner> Keeper<O> {
    pub(super) fn new(
        engine: Engine<Caller<O>>,
        executor: Executor<O>,
        (clock, events): (Arc<dyn Clock>, Events),
        queue: mpsc::UnboundedReceiver<Message<O>>,
    ) -> Self {
        Self {
            engine,
            executor,
            clock,
            events,
            holds: HashMap::default(),
            queue,
            waiting: VecDeque::new(),
            ended: Arc::default(),
        }
    }

    pub(super) fn ended(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ended)
    }

    /// Does what needs no store, which is all it takes to pass a lock on to the next caller in
    /// line. True if there is more to do. `own` is a message that was not sent through the queue;
    /// it stays where it is if others have to be taken first.
    pub(super) fn local_turn(&mut self, own: &mut Option<Message<O>>) -> bool {
        // A timer that is due comes first, and may need the store.
        let now = self.clock.now();
        let overdue = self.engine.next_timeout().is_some_and(|next| next <= now);
        for _ in 0..TURN {
            if overdue || !self.waiting.is_empty() {
                return true;
            }
            // The caller's own message comes last.
            match self.queue.try_recv().ok().or_else(|| own.take()) {
                Some(message) if is_local(&message) => self.take(message, now),
                // The messages behind it wait as well, so that they keep their order.
                Some(message) => self.waiting.push_back(message),
                None => break,
            }
        }
        self.engine.wants_turn() || !self.queue.is_empty()
    }

    /// Takes a message that was not sent through the queue, behind all that were.
    pub(super) fn enqueue(&mut self, message: Message<O>) {
        self.waiting.extend(iter::from_fn(|| self.queue.try_recv().ok()));
        self.waiting.push_back(message);
    }

    /// Does all there is to do now, and returns when the next turn is due, if nothing happens
    /// before; breaks off when the keeper has ended. `waker` is woken when an answer of the store
    /// arrives.
    pub(super) fn turn(&mut self, waker: &Waker) -> ControlFlow<(), Option<Moment>> {
        let mut context = Context::from_waker(waker);
        let now = self.clock.now();
        #[cfg(feature = "metrics")]
        if let Some(due) = self.engine.next_timeout().filter(|due| *due <= now) {
            observe::late(&self.events, now.after(due));
        }
        self.engine.timeout(now);
        self.carry_out(now);
        for _ in 0..TURN {
            if let Some(answer) = self.executor.next(&mut context) {
                self.see(&answer, now);
                self.engine.answered(answer, now);
                self.carry_out(now);
                continue;
            }
            match self.waiting.pop_front().map_or_else(|| self.queue.try_recv(), Ok) {
                Ok(message) => self.take(message, now),
                Err(TryRecvError::Empty) => break,
                // The last client is gone.
                Err(TryRecvError::Disconnected) => {
                    self.engine.command(Command::Abandon, now);
                    self.carry_out(now);
                    break;
                }
            }
        }
        self.send();
        self.executor.poll(&mut context);
        if self.engine.has_ended() {
            return ControlFlow::Break(());
        }
        let waits = !self.waiting.is_empty() || !self.queue.is_empty();
        let busy = waits || !self.executor.answers.is_empty();
        ControlFlow::Continue(if busy { Some(now) } else { self.engine.next_timeout() })
    }

    /// When the next turn is due, if nothing happens before.
    pub(super) fn next_timer(&self) -> Option<Moment> {
        self.engine.next_timeout()
    }

    /// Does anything come after this turn: a timer, or an answer?
    pub(super) fn goes_on(&self) -> bool {
        self.next_timer().is_some() || self.executor.is_busy()
    }

    /// Sends what the turn has gathered. An answer that comes at once may require more to be sent:
    /// an embedded store frees a lock for the next caller; after a connection has broken, a release
    /// has to be tried again, ahead of the acquires.
    fn send(&mut self) {
        let now = self.clock.now();
        loop {
            if let Some(answer) = self.executor.answers.pop_front() {
                self.see(&answer, now);
                self.engine.answered(answer, now);
            } else if let Some(call) = self.engine.poll_call(now) {
                self.executor.begin(call);
            } else {
                if self.engine.has_ended() {
                    self.close(now);
                }
                if !self.carry_out(now) {
                    return;
                }
            }
            self.carry_out(now);
        }
    }

    /// Reports what an answer shows about the store.
    #[inline(always)]
    fn see(&self, answer: &Answer<Caller<O>>, now: Moment) {
        if let Answer::Renewed(sent, answers) = answer {
            self.see_renewals(sent, answers, now);
        }
        #[cfg(feature = "metrics")]
        observe::answered(&self.events, answer.failure());
    }

    /// Reports renewals that have failed, once for a whole batch: there may be very many.
    #[cold]
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
    fn see_renewals(
        &self,
        sent: &Sent<(u64, Duration)>,
        answers: &[Result<Renewal, StoreError>],
        now: Moment,
    ) {
        #[cfg(feature = "metrics")]
        observe::renewed(&self.events, now.after(sent.sent_at()));
        let mut failures =
            sent.asked().iter().zip(answers).filter_map(|((ownership, _), answer)| {
                let error = answer.as_ref().err()?;
                Some((self.holds.get(ownership)?, error))
            });
        if let Some((hold, error)) = failures.next() {
            observe::not_renewed(&self.events, (hold, 1 + failures.count()), error);
        }
    }

    /// The keeper has ended. A message that came meanwhile is answered like one that comes later.
    fn close(&mut self, now: Moment) {
        self.ended.store(true, Ordering::Release);
        self.queue.close();
        while let Ok(message) = self.queue.try_recv() {
            self.take(message, now);
        }
    }

    fn take(&mut self, message: Message<O>, now: Moment) {
        match message {
            Message::Notice(notice) => self.engine.notice(notice, now),
            Message::Command(command) => {
                // A call that is dated before it was made would be covered by a run that came
                // before it, and nothing would run for it. The process may have been stopped since
                // the turn began.
                let is_dated = matches!(command, Command::Debounce(_));
                let now = if is_dated { self.clock.now().max(now) } else { now };
                match command {
                    Command::Release { hold, .. } | Command::Leak(hold) => {
                        if let Entry::Occupied(held) = self.holds.entry(hold.ownership)
                            && held.get().name == hold
                        {
                            if held.get().lost().is_raised() {
                                self.engine.command(Command::Expired(hold), now);
                                self.carry_out(now);
                            } else {
                                held.remove();
                            }
                        }
                    }
                    Command::RunTaken(hold) => self.look_at(hold, now),
                    _ => {}
                }
                self.engine.command(command, now);
            }
        }
        self.carry_out(now);
    }

    /// The holder may find the deadline passed before the engine does. The holder no longer relies
    /// on the lock then, and nobody else may.
    fn look_at(&mut self, name: HoldName, now: Moment) {
        let hold = self.holds.get(&name.ownership);
        if hold.is_some_and(|hold| hold.name == name && hold.lost().is_raised()) {
            self.engine.command(Command::Expired(name), now);
        }
    }

    /// Carries out the engine's output for callers. True if there was any.
    fn carry_out(&mut self, now: Moment) -> bool {
        let mut any = false;
        while let Some(output) = self.engine.poll() {
            any = true;
            match output {
                Output::Granted(to, grant) => self.grant(to, grant, now),
                Output::Answered(to, answer) => drop(to.reply.send(answer.map(Told::Else))),
                Output::Deadline(ownership, at) => {
                    let Some(hold) = self.holds.get(&ownership) else { continue };
                    hold.set_deadline(at);
                    self.look_at(hold.name, now);
                }
                Output::Lost(ownership, loss) => {
                    let Some(hold) = self.holds.remove(&ownership) else { continue };
                    if !Mutant::LossIsNotSignalled.is_on() {
                        hold.lost().raise();
                    }
                    observe::lost(&self.events, &hold, observe::reason(loss), now);
                }
                Output::Waiting(id) => observe::waits(&self.events, id),
            }
        }
        any
    }

    fn grant(&mut self, to: Caller<O>, grant: Grant, now: Moment) {
        let Grant { hold: name, token, fencing_token, deadline, work } = grant;
        let Caller { reply, lock } = to;
        let (lock, owner) = lock.expect("BUG: only a caller that asks for a lock gets one");
        let here = (Arc::clone(&self.clock), owner.process());
        let mode = match work {
            Work::Own => Mode::Exclusive,
            Work::Burst { .. } => Mode::Run,
            Work::Durable { .. } => Mode::Durable,
        };
        let grant = (fencing_token, mode);
        let hold = Hold::new(name, (lock, token), grant, (now, deadline), here);
        self.holds.insert(name.ownership, Arc::clone(&hold));
        let held = Held::new(hold, owner);
        if let Err(Ok(Told::Granted(held, _))) = reply.send(Ok(Told::Granted(held, work))) {
            // Its caller has just gone away. Released by this turn and not by the guard's drop,
            // whose message would come after a `flush` that is already in the queue.
            held.defuse();
            self.holds.remove(&name.ownership);
            let release = Command::Release { hold: name, undelivered: true, to: None };
            self.engine.command(release, now);
        }
    }
}

impl<O: Owner> Drop for Keeper<O> {
    fn drop(&mut self) {
        // Even if a store has panicked: nobody renews these locks any more, so nobody may rely on
        // them.
        let is_told_to = self.ended.load(Ordering::Acquire);
        let reason = if is_told_to { observe::reason(Loss::Closed) } else { observe::PANICKED };
        for hold in self.holds.values() {
            hold.lost().raise();
            // In a forked process, nothing is lost, and the locks of what reports it may be held
            // for ever.
            if hold.is_of_this_process() {
                observe::lost(&self.events, hold, reason, self.clock.now());
            }
        }
    }
}

/// May a caller's own thread do this? Not for a notice: an answer that came before it has to be
/// taken first.
fn is_local<O: Owner>(message: &Message<O>) -> bool {
    matches!(
        message,
        Message::Command(
            Command::Acquire(_)
                | Command::Debounce(_)
                | Command::RunTaken(_)
                | Command::Cancel(_)
                | Command::Release { .. }
                | Command::Leak(_)
        )
    )
}
