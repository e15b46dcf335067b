//! The waiters and the holder of each lock, and since when it is free, as the store sees it; and
//! whether waiters are treated fairly.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use lock_core::{Token, contract::Delivery, token};

use crate::{
    held::LONGEST_EXTENSION,
    judge::Judge,
    process::Process,
    weather::Weather,
    world::{LONGEST_LEASE, MILLI},
};

/// How long a notice and the turn that follows it take, where nothing goes wrong.
const NOTICE: u64 = 20 * MILLI;

/// The longest that a lock with a queue may be free where at most notices are lost: the process
/// that handed the lock over takes care of a reservation that runs out, if necessary by a look of
/// its own.
const TURN: u64 = 100 * MILLI;

/// The longest that a lock may be held without a renewal: there may be several extensions, and each
/// may be executed twice.
const LONGEST: Duration = Duration::from_millis(LONGEST_LEASE + 10 * LONGEST_EXTENSION);

pub(crate) struct Lines {
    weather: Weather,
    lines: BTreeMap<Arc<str>, Line>,
    /// Processes that were told that others wait for what the token of this number holds.
    contended: BTreeSet<(String, u64)>,
}

#[derive(Default)]
struct Line {
    /// The holder of the lock, and when its lease ends unless it is renewed.
    holder: Option<(Token, u64)>,
    free_since: u64,
    /// It became free because its time was up.
    ran_out: bool,
    /// Its holder came when the previous holder's time was up, and may not know of other waiters.
    is_newcomer: bool,
    /// The tokens in the queue, and since when.
    queued: BTreeMap<String, u64>,
    /// The recent times in which the lock was free.
    gaps: Vec<(u64, u64)>,
}

impl Lines {
    pub(crate) fn new(weather: Weather) -> Self {
        Self { weather, lines: BTreeMap::new(), contended: BTreeSet::new() }
    }

    fn line(&mut self, key: &Arc<str>) -> &mut Line {
        self.lines.entry(Arc::clone(key)).or_default()
    }

    pub(crate) fn forgotten(&mut self) {
        for line in self.lines.values_mut() {
            line.queued.clear();
        }
    }

    pub(crate) fn set_ahead(&mut self, nanos: u64) {
        for line in self.lines.values_mut() {
            if let Some((_, until)) = &mut line.holder {
                *until = until.saturating_sub(nanos);
            }
        }
    }

    /// Called before an operation on a lock: its time may be up.
    pub(crate) fn look(&mut self, key: &Arc<str>, now: u64) {
        let line = self.line(key);
        // The store rounds down what remains.
        if let Some((_, until)) =
            line.holder.take_if(|(_, until)| until.saturating_add(MILLI) < now)
        {
            (line.free_since, line.ran_out) = (until, true);
        }
    }

    /// Called after the operation.
    pub(crate) fn now_held(
        &mut self,
        key: &Arc<str>,
        holder: Option<(Token, Duration)>,
        now: u64,
        judge: &mut Judge,
    ) {
        let left = holder.as_ref().map_or(Duration::ZERO, |(_, left)| *left);
        if left > LONGEST {
            judge.violation(format!("{key}: held for {left:?}, though its holder may die"));
        }
        let is_prompt = self.weather.is_calm();
        let line = self.line(key);
        match (holder, line.holder.is_some()) {
            (Some((token, left)), was_held) => {
                if !was_held {
                    let since = line.free_since;
                    let waited = |queued: &u64| now.saturating_sub(since.max(*queued));
                    let longest = line.queued.values().map(waited).max().unwrap_or(0);
                    if is_prompt && longest > TURN {
                        let longest = Duration::from_nanos(longest);
                        judge.violation(format!("{key}: free for {longest:?} though others wait"));
                    }
                    line.gaps.push((since, now));
                }
                line.queued.remove(token.as_str());
                let left = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
                line.holder = Some((token, now.saturating_add(left)));
            }
            (None, true) => {
                line.holder = None;
                (line.free_since, line.ran_out) = (now, false);
            }
            (None, false) => {}
        }
    }

    /// A token is in the queue.
    pub(crate) fn queued(&mut self, key: &Arc<str>, token: &Token, now: u64) {
        self.line(key).queued.entry(token.as_str().to_owned()).or_insert(now);
    }

    /// A token has left the queue.
    pub(crate) fn left(&mut self, key: &Arc<str>, token: &Token) {
        self.line(key).queued.remove(token.as_str());
    }

    /// A token is granted a lock that was free, or that it already held. Where nothing goes wrong,
    /// a newcomer passes no waiter, unless the holder's time was up.
    pub(crate) fn granted(
        &mut self,
        key: &Arc<str>,
        token: &Token,
        is_new: bool,
        now: u64,
        judge: &mut Judge,
    ) {
        let is_calm = self.weather.is_calm();
        let line = self.line(key);
        let was_queued = line.queued.remove(token.as_str()).is_some();
        // The store rounds down what remains: it may be up by now.
        let is_up = |(holder, until): &(Token, u64)| *until <= now && holder != token;
        let ran_out = line.holder.as_ref().map_or(line.ran_out, is_up);
        if line.holder.as_ref().is_none_or(is_up) {
            line.is_newcomer = is_new && ran_out;
        }
        let passes = line.queued.values().any(|since| *since < now);
        if is_calm && is_new && !was_queued && line.holder.is_none() && passes && !line.ran_out {
            judge.violation(format!("{key}: a newcomer has passed those who wait"));
        }
    }

    pub(crate) fn heard_of_contention(&mut self, client: &str, number: u64) {
        self.contended.insert((client.to_owned(), number));
    }

    /// A process keeps a lock for its own next caller. Returns what is wrong with that, if
    /// anything.
    pub(crate) fn passed_on(
        &mut self,
        process: &Process,
        key: &Arc<str>,
        ownership: u64,
        now: u64,
    ) -> Option<String> {
        if self.contended.contains(&(process.id.clone(), ownership)) {
            return Some(format!("{key}: kept, though its holder knows that others wait"));
        }
        let hears = self.weather == Weather::Calm && process.delivery != Delivery::Polling;
        let line = self.line(key);
        let of_others = |token: &&String| token::is_of(&(**token).clone().into(), &process.id);
        let others = line.queued.iter().filter(|(token, _)| !of_others(token));
        let longest = others.map(|(_, since)| *since + NOTICE).min();
        let waits = longest.is_some_and(|since| since < now);
        (hears && waits && !line.is_newcomer)
            .then(|| format!("{key}: kept, though others have waited long"))
    }

    /// The longest stretch in this time in which the lock was free.
    pub(crate) fn longest_gap(&mut self, key: &Arc<str>, [from, to]: [u64; 2]) -> u64 {
        self.look(key, to);
        let line = self.line(key);
        let open = line.holder.is_none().then_some((line.free_since, to));
        let gaps = line.gaps.iter().copied().chain(open);
        gaps.map(|(since, until)| until.min(to).saturating_sub(since.max(from))).max().unwrap_or(0)
    }
}
