//! One held lock from its holder's view: until when the holder believes in it, and its release.

use std::{cell::Cell, future::poll_fn, rc::Rc, sync::Arc, task::Poll, time::Duration};

use lock_core::{
    Moment, Token,
    engine::io::{Command, HoldName, Outcome, Refusal},
};
use lock_judge::Section;

use crate::{
    process::Process,
    tasks::Told,
    world::{LONGEST_LEASE, MILLI},
};

/// What the longest `extend` adds to a lease. An extension puts the next renewal off.
pub(crate) const LONGEST_EXTENSION: u64 = 1000;

/// State of a lock that its holder and its process share.
pub(crate) struct Hold {
    pub(crate) name: HoldName,
    pub(crate) key: Arc<str>,
    pub(crate) token: Token,
    pub(crate) fencing_token: u64,
    pub(crate) deadline: Cell<Moment>,
    /// When it was declared lost, by the keeper or by the holder itself.
    pub(crate) lost_at: Cell<Option<u64>>,
    /// The task that waits for its loss.
    pub(crate) task: Cell<usize>,
}

/// A lock that is released when this is dropped.
pub(crate) struct Held {
    pub(crate) hold: Rc<Hold>,
    process: Rc<Process>,
    is_delivered: bool,
    is_defused: bool,
}

/// A hold that its holder has not released.
pub(crate) struct Open {
    pub(crate) hold: Rc<Hold>,
    asked: u64,
    granted: u64,
}

impl Open {
    /// The earliest time at which the store can have granted this hold to the process: a hand-over
    /// inside a process rests on a grant that may be a lease old.
    fn standing_since(&self) -> u64 {
        if self.hold.fencing_token.is_multiple_of(1024) {
            return self.asked;
        }
        let before = (LONGEST_LEASE + LONGEST_EXTENSION) * MILLI * 102 / 100;
        self.asked.min(self.granted.saturating_sub(before))
    }
}

impl Held {
    pub(crate) fn new(hold: &Rc<Hold>, process: &Rc<Process>) -> Self {
        let (hold, process) = (Rc::clone(hold), Rc::clone(process));
        Self { hold, process, is_delivered: false, is_defused: false }
    }

    /// Records that it has reached its caller.
    pub(crate) fn delivered(mut self, asked: u64) -> Self {
        self.is_delivered = true;
        let open = Open { hold: Rc::clone(&self.hold), asked, granted: self.process.world.now() };
        self.process.open.borrow_mut().insert(self.hold.name.caller, open);
        self
    }

    /// Drop will release nothing: another part takes care of that.
    pub(crate) fn defuse(&mut self) {
        self.is_defused = true;
    }

    /// May the lock still be believed to be held? Once false, it stays false.
    pub(crate) fn is_held(&self) -> bool {
        self.process.looks_at(&self.hold)
    }

    /// Holds the lock for that long. False if it was lost: only the keeper reports that, and has to
    /// do so in time.
    pub(crate) async fn hold_for(&self, nanos: u64) -> bool {
        self.hold.task.set(self.process.tasks.current());
        let lost = poll_fn(|_| match self.hold.lost_at.get() {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending,
        });
        self.process.within(nanos, lost).await.is_none() && self.is_held()
    }

    /// Releases the lock, and waits for that.
    pub(crate) async fn release(mut self) -> Result<Told, Refusal> {
        self.process.end_section(&self.hold);
        self.is_defused = true;
        let name = self.hold.name;
        let release = |to| Command::Release { hold: name, undelivered: false, to: Some(to) };
        self.process.ask(None, release).await
    }

    /// Adds to the lease.
    pub(crate) async fn extend(&self, by: Duration) -> Result<(), Refusal> {
        let name = self.hold.name;
        match self.process.ask(None, |to| Command::Extend(name, by, to)).await? {
            Told::Else(Outcome::Done) => Ok(()),
            _ => panic!("an extension is done or refused"),
        }
    }

    /// Leaves the lock to whichever caller adopts the token.
    pub(crate) fn leak(mut self) -> Token {
        self.process.end_section(&self.hold);
        self.is_defused = true;
        self.process.send(Command::Leak(self.hold.name));
        self.hold.token.clone()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.is_defused {
            return;
        }
        self.process.end_section(&self.hold);
        let undelivered = !self.is_delivered;
        self.process.send(Command::Release { hold: self.hold.name, undelivered, to: None });
    }
}

impl Process {
    fn looks_at(&self, hold: &Hold) -> bool {
        let now = self.world.now();
        if hold.lost_at.get().is_none() && self.host.clock(now) >= hold.deadline.get() {
            hold.lost_at.set(Some(now));
        }
        hold.lost_at.get().is_none()
    }

    /// Records a hold that is over, unless it was recorded before.
    pub(crate) fn end_section(&self, hold: &Hold) {
        let open = self.open.borrow_mut().remove(&hold.name.caller);
        if let Some(open) = open {
            self.write_down(&open);
        }
    }

    fn write_down(&self, open: &Open) {
        let Open { hold, asked, granted } = open;
        let is_held = self.looks_at(hold);
        let world = &self.world;
        let until = hold.lost_at.get().unwrap_or(world.now());
        // Where no machine stalls, the signal itself has to come in time, so its delay counts
        // against it.
        let overdue = self.host.clock(until).after(hold.deadline.get());
        let overdue = match world.weather.may_stall() {
            true => self.host.elsewhere(overdue),
            false => self.host.elsewhere(overdue).min(MILLI / 100),
        };
        let mut judge = world.judge.borrow_mut();
        judge.totals.held(&hold.key, is_held);
        judge.history.section(Section {
            id: hold.key.to_string(),
            client: self.client as u64,
            token: hold.fencing_token,
            asked: *asked,
            standing_since: open.standing_since(),
            granted: *granted,
            valid_until: until - overdue.min(until),
        });
    }

    /// Records the open holds of a process when it ends, however it ends.
    pub(crate) fn end_sections(&self) {
        for open in std::mem::take(&mut *self.open.borrow_mut()).into_values() {
            self.write_down(&open);
        }
    }

    /// The keeper reports that a lock is lost: this is judged unless its deadline has passed.
    pub(crate) fn declare_lost(self: &Rc<Self>, hold: &Rc<Hold>, now: Moment) {
        let open = self.open.borrow();
        if let Some(open) = open.get(&hold.name.caller).filter(|_| hold.lost_at.get().is_none())
            && now < hold.deadline.get()
            && !self.is_closing.get()
        {
            self.world.judge.borrow_mut().history.loss(lock_judge::Loss {
                id: hold.key.to_string(),
                token: hold.fencing_token,
                standing_since: open.standing_since(),
                at: self.world.now(),
            });
        }
        if hold.lost_at.get().is_none() {
            hold.lost_at.set(Some(self.world.now()));
        }
        self.wake(hold.task.get());
    }
}
