//! The current faults of the network.

use std::{ops::RangeInclusive, time::Duration};

use tokio::time::Instant;

use lock_judge::Random;

/// The direction of the bytes that a fault of a [`Proxy`](super::Proxy) affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server: commands.
    ToServer,
    /// From the server to the client: replies.
    ToClient,
    /// Both of them, each separately.
    Both,
}

/// One of the two ways through a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    ToServer,
    ToClient,
}

/// The faults that are switched on.
#[derive(Debug, Default)]
pub(super) struct Faults {
    to_server: LaneFaults,
    to_client: LaneFaults,
    /// The number of replies up to and including the one that is dropped.
    drop_reply: Option<u64>,
    /// The same for the one before which the connection is cut.
    cut_reply: Option<u64>,
    /// The last one of each group of this many subscription messages is dropped.
    drop_message: Option<u64>,
    messages: u64,
}

#[derive(Debug, Default)]
pub(super) struct LaneFaults {
    pub(super) black_hole: bool,
    pub(super) hold: bool,
    pub(super) delay: Option<Delay>,
    /// How many bytes still pass until the connection is cut.
    pub(super) cut_after: Option<usize>,
    /// The next bytes are the last of their connection in this direction.
    pub(super) half_close: bool,
}

/// A delay from a range, from its own sequence of random numbers.
#[derive(Clone, Debug)]
pub(super) struct Delay {
    range: RangeInclusive<Duration>,
    random: Random,
}

/// What happens to a piece of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    Swallowed,
    /// This many of them pass; then the connection is cut.
    Cut(usize),
    Whole,
}

/// When a piece of bytes arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    At(Instant),
    /// When the network heals.
    Healed,
}

/// What happens to a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyFate {
    Pass,
    Drop,
    CutInstead,
}

impl Faults {
    /// Changes one direction or both.
    pub(super) fn change(&mut self, direction: Direction, change: impl Fn(&mut LaneFaults)) {
        if direction != Direction::ToClient {
            change(&mut self.to_server);
        }
        if direction != Direction::ToServer {
            change(&mut self.to_client);
        }
    }

    pub(super) fn drop_reply(&mut self, nth: u64) {
        self.drop_reply = Some(nth);
    }

    pub(super) fn cut_reply(&mut self, nth: u64) {
        self.cut_reply = Some(nth);
    }

    pub(super) fn drop_messages(&mut self, every: u64) {
        (self.drop_message, self.messages) = (Some(every.max(1)), 0);
    }

    /// Decides about the next message of a subscription.
    pub(super) fn drops_message(&mut self) -> bool {
        self.messages += 1;
        self.drop_message.is_some_and(|every| self.messages.is_multiple_of(every))
    }

    pub(super) fn lane(&mut self, lane: Lane) -> &mut LaneFaults {
        match lane {
            Lane::ToServer => &mut self.to_server,
            Lane::ToClient => &mut self.to_client,
        }
    }

    /// Decides about the next reply. Each fault applies to one reply.
    pub(super) fn meet_reply(&mut self) -> ReplyFate {
        let cut = is_met(&mut self.cut_reply);
        let drop = is_met(&mut self.drop_reply);
        match (cut, drop) {
            (true, _) => ReplyFate::CutInstead,
            (false, true) => ReplyFate::Drop,
            (false, false) => ReplyFate::Pass,
        }
    }
}

/// Counts down to the chosen reply.
fn is_met(countdown: &mut Option<u64>) -> bool {
    let Some(left) = countdown else {
        return false;
    };
    *left = left.saturating_sub(1);
    let met = *left == 0;
    if met {
        *countdown = None;
    }
    met
}

impl LaneFaults {
    /// Decides about the next `length` bytes.
    pub(super) fn pass(&mut self, length: usize) -> Passage {
        if self.black_hole {
            return Passage::Swallowed;
        }
        let Some(left) = &mut self.cut_after else {
            return Passage::Whole;
        };
        if let Some(still_left) = left.checked_sub(length).filter(|left| *left > 0) {
            *left = still_left;
            return Passage::Whole;
        }
        let last = *left;
        self.cut_after = None;
        Passage::Cut(last)
    }

    /// When bytes that arrive at the proxy now are delivered.
    pub(super) fn arrival(&mut self, now: Instant) -> Arrival {
        if self.hold {
            return Arrival::Healed;
        }
        Arrival::At(now + self.delay.as_mut().map_or(Duration::ZERO, Delay::next))
    }
}

impl Delay {
    pub(super) fn new(range: RangeInclusive<Duration>, seed: u64) -> Self {
        assert!(!range.is_empty(), "a range of delays should not be empty");
        Self { range, random: Random::new(seed) }
    }

    fn next(&mut self) -> Duration {
        let bits = self.random.any();
        let share = f64::from((bits >> 32) as u32) / f64::from(u32::MAX);
        let (shortest, longest) = (*self.range.start(), *self.range.end());
        shortest + (longest - shortest).mul_f64(share)
    }
}
