//! A process: an engine and its connection, driven as the keeper of `lock` drives them.

use std::sync::Arc;

use lock_core::{
    Moment,
    contract::{Delivery, Notice},
    engine::{
        Engine,
        calls::Call,
        io::{Caller, Command, Output},
    },
};

use crate::connection::Connection;

/// A caller, by its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who(pub u64);

impl Caller for Who {
    fn is_gone(&self) -> bool {
        false
    }
}

/// One process.
#[expect(missing_debug_implementations, reason = "engines have none")]
#[derive(Clone, Hash)]
pub struct Process {
    engine: Engine<Who>,
    /// Calls on their way to the store, and answers on the way back.
    pub calls: Connection,
    numbers: u64,
}

/// The outputs to callers, in order.
pub type Told = Vec<Output<Who>>;

impl Process {
    /// Creates a process whose tokens begin with this name. It is connected, and receives notices.
    pub fn new(name: &str) -> Self {
        let mut engine = Engine::new(name, Arc::new(|_| 0));
        engine.notice(Notice::Connected(Delivery::Push), Moment::default());
        Self { engine, calls: Connection::default(), numbers: 0 }
    }

    /// The engine, for inspection.
    pub fn engine(&self) -> &Engine<Who> {
        &self.engine
    }

    /// Draws a number for a caller: callers have even ones.
    pub fn draw(&mut self) -> u64 {
        self.numbers += 2;
        self.numbers
    }

    /// When the next timer is due.
    pub fn next_timer(&self) -> Moment {
        self.engine.next_timeout().unwrap_or(Moment::NEVER).min(self.calls.next_end())
    }

    /// Takes a turn for timers only: those of the engine, and calls that were not answered in time.
    pub fn turn(&mut self, now: Moment) -> Told {
        self.engine.timeout(now);
        while let Some(answer) = self.calls.take_overdue(now) {
            self.engine.answered(answer, now);
        }
        self.end_turn(now)
    }

    /// Handles a caller's command.
    pub fn command(&mut self, command: Command<Who>, now: Moment) -> Told {
        self.engine.timeout(now);
        self.engine.command(command, now);
        self.end_turn(now)
    }

    /// Handles a notice.
    pub fn notice(&mut self, notice: Notice, now: Moment) -> Told {
        self.engine.timeout(now);
        self.engine.notice(notice, now);
        self.end_turn(now)
    }

    /// Handles the answer to the oldest call.
    pub fn take_answer(&mut self, now: Moment) -> Told {
        self.engine.timeout(now);
        if let Some(answer) = self.calls.take_answer() {
            self.engine.answered(answer, now);
        }
        self.end_turn(now)
    }

    /// Breaks and replaces the connection. Returns the calls on it that the store has not executed.
    pub fn cut(&mut self, now: Moment) -> (Vec<Call<Who>>, Told) {
        self.engine.timeout(now);
        let (left, answers) = self.calls.cut();
        for answer in answers {
            self.engine.answered(answer, now);
        }
        self.engine.notice(Notice::Connected(Delivery::Push), now);
        (left, self.end_turn(now))
    }

    fn end_turn(&mut self, now: Moment) -> Told {
        let mut told = Vec::new();
        loop {
            while let Some(output) = self.engine.poll() {
                told.push(output);
            }
            match self.engine.poll_call(now) {
                Some(call) => self.calls.send(call, now),
                None => break,
            }
        }
        while let Some(output) = self.engine.poll() {
            told.push(output);
        }
        told
    }
}
