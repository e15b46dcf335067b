//! The state that follows from the entries of all copies of the demo: which instances are alive,
//! which of them held which lock when, and what was written. It reads no clock: callers pass the
//! time.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// How far back the timeline goes.
pub(crate) const WINDOW_MS: u64 = 40_000;
/// The interval at which an instance announces that it is alive ..
pub(crate) const ALIVE_MS: u64 = 1_000;
/// .. and the silence after which it counts as gone: its copy of the demo was killed.
const GONE_AFTER_MS: u64 = 4_000;
/// How many events are kept in words.
const LINES: usize = 60;
/// The end of a grant while the store has not answered the release ..
const RELEASING: &str = "releasing";
/// .. and if it never does: the lock stays held for the rest of the lease.
pub(crate) const NOT_RELEASED: &str = "could not release";
/// The pause that ends a burst, and the bound for a burst without a pause.
pub(crate) const DEBOUNCE_WAIT_MS: u64 = 1_000;
pub(crate) const DEBOUNCE_MAX_WAIT_MS: u64 = 5_000;

/// Something that an instance has done, or that was done to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// An id that no other instance, past or present, has.
    pub(crate) instance: String,
    pub(crate) name: String,
    /// The id of the process that runs the instance.
    pub(crate) copy: u32,
    pub(crate) event: Event,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Event {
    /// It is alive, and does this.
    Alive {
        doing: Doing,
        id: String,
        /// The token of the lock that it holds.
        fence: Option<u64>,
    },
    /// It waits in line.
    Waits {
        id: String,
    },
    /// It has left the line without the lock.
    GaveUp {
        id: String,
        why: String,
    },
    Holds {
        id: String,
        fence: u64,
        lease_ms: u64,
    },
    /// It has asked the store to release the lock, and no longer uses it.
    Releases {
        id: String,
    },
    Released {
        id: String,
        how: String,
    },
    Lost {
        id: String,
    },
    /// It freed the lock as an operator would. The library notifies the holder.
    Forced {
        id: String,
    },
    /// It ended without releasing anything.
    Killed,
    /// Its page was closed.
    Left,
    /// It wrote to the ledger of a lock, or was refused.
    Wrote {
        id: String,
        fence: u64,
        accepted: bool,
    },
    /// A debounced call was made.
    Called,
    /// A burst of calls has become this run.
    Ran,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Doing {
    Nothing,
    Waiting,
    Holding,
    Releasing,
    /// It has lost its lock, and has not reacted yet.
    Lost,
    Killed,
}

/// Everything that a page shows beyond its own instance.
#[derive(Debug, Default)]
pub(crate) struct Board {
    pub(crate) people: BTreeMap<String, Person>,
    pub(crate) spans: VecDeque<Span>,
    pub(crate) ledgers: BTreeMap<String, Ledger>,
    pub(crate) burst: Burst,
    pub(crate) lines: VecDeque<Line>,
}

/// An instance, as the others see it.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) copy: u32,
    pub(crate) doing: Doing,
    pub(crate) id: String,
    pub(crate) since_ms: u64,
    pub(crate) seen_ms: u64,
}

/// A period in which an instance waited for a lock or held it.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) instance: String,
    pub(crate) name: String,
    pub(crate) id: String,
    /// The token of a grant; `None` for a wait.
    pub(crate) fence: Option<u64>,
    pub(crate) from_ms: u64,
    pub(crate) to_ms: Option<u64>,
    pub(crate) end: String,
}

/// What the writers to a ledger have reported.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) fence: u64,
    pub(crate) by: String,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
}

/// The debounced calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Burst {
    pub(crate) calls: u64,
    pub(crate) runs: u64,
    /// Calls since the last run, and the times of the first and the last of them.
    pub(crate) open: Option<(u64, u64, u64)>,
    /// How many calls became the last run, and the name of the instance that ran it.
    pub(crate) last: Option<(u64, String)>,
}

/// An event in words.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) at_ms: u64,
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Board {
    /// Applies an entry.
    pub(crate) fn apply(&mut self, at_ms: u64, entry: &Entry) {
        let person = self.people.entry(entry.instance.clone()).or_insert_with(|| Person {
            name: entry.name.clone(),
            copy: entry.copy,
            doing: Doing::Nothing,
            id: String::new(),
            since_ms: at_ms,
            seen_ms: at_ms,
        });
        person.seen_ms = at_ms;
        let killed = person.id.clone();
        let mut turn = |doing: Doing, id: &str| {
            if person.doing != doing || person.id != id {
                person.since_ms = at_ms;
            }
            person.doing = doing;
            id.clone_into(&mut person.id);
        };
        match &entry.event {
            // For boards that missed the entry with which the wait or the grant began.
            Event::Alive { doing, id, fence } => {
                turn(*doing, id);
                if matches!(doing, Doing::Waiting | Doing::Holding) {
                    self.resume(at_ms, entry, id, *fence);
                }
            }
            Event::Waits { id } => {
                turn(Doing::Waiting, id);
                self.close(&entry.instance, at_ms, "");
                self.open(at_ms, entry, id, None);
                self.tell(at_ms, entry, format!("waits for {id}"));
            }
            Event::GaveUp { id, why } => {
                turn(Doing::Nothing, id);
                self.close(&entry.instance, at_ms, "gave up");
                self.tell(at_ms, entry, format!("left the line for {id}: {why}"));
            }
            Event::Holds { id, fence, lease_ms } => {
                turn(Doing::Holding, id);
                self.close(&entry.instance, at_ms, "");
                self.open(at_ms, entry, id, Some(*fence));
                let lease = *lease_ms / 1000;
                self.tell(at_ms, entry, format!("holds {id}: token {fence}, lease {lease} s"));
            }
            Event::Releases { id } => {
                turn(Doing::Releasing, id);
                self.close(&entry.instance, at_ms, RELEASING);
            }
            Event::Released { id, how } => {
                turn(Doing::Nothing, id);
                self.close(&entry.instance, at_ms, "released");
                for span in &mut self.spans {
                    if span.instance == entry.instance && span.end == RELEASING {
                        let end = if how == NOT_RELEASED { NOT_RELEASED } else { "released" };
                        end.clone_into(&mut span.end);
                    }
                }
                self.tell(at_ms, entry, format!("{how} {id}"));
            }
            Event::Lost { id } => {
                turn(Doing::Lost, id);
                self.close(&entry.instance, at_ms, "lost");
                self.tell(at_ms, entry, format!("lost {id}, and was told"));
            }
            Event::Forced { id } => {
                self.tell(at_ms, entry, format!("freed {id} by force"));
            }
            Event::Killed => {
                turn(Doing::Killed, &killed);
                self.close(&entry.instance, at_ms, "killed");
                self.tell(at_ms, entry, "was killed, and released nothing".to_owned());
            }
            Event::Left => {
                self.people.remove(&entry.instance);
                self.close(&entry.instance, at_ms, "left");
                self.tell(at_ms, entry, "closed its page".to_owned());
            }
            Event::Wrote { id, fence, accepted } => {
                let ledger = self.ledgers.entry(id.clone()).or_default();
                if *accepted {
                    ledger.fence = ledger.fence.max(*fence);
                    ledger.by.clone_from(&entry.name);
                    ledger.accepted += 1;
                } else {
                    ledger.refused += 1;
                }
                let outcome = if *accepted { "accepted" } else { "refused as out of date" };
                self.tell(at_ms, entry, format!("wrote with token {fence}: {outcome}"));
            }
            Event::Called => {
                self.burst.calls += 1;
                let (calls, first, _) = self.burst.open.unwrap_or((0, at_ms, at_ms));
                self.burst.open = Some((calls + 1, first, at_ms));
            }
            Event::Ran => {
                let calls = self.burst.open.take().map_or(1, |(calls, ..)| calls);
                self.burst.runs += 1;
                self.burst.last = Some((calls, entry.name.clone()));
                self.tell(at_ms, entry, format!("ran the debounced call, for {calls} calls"));
            }
        }
    }

    /// Removes instances that have been silent for too long, and whatever else is out of date.
    pub(crate) fn sweep(&mut self, now_ms: u64) {
        let gone: Vec<(String, u64)> = self
            .people
            .iter()
            .filter(|(_, person)| person.seen_ms + GONE_AFTER_MS < now_ms)
            .map(|(instance, person)| (instance.clone(), person.seen_ms))
            .collect();
        for (instance, seen_ms) in gone {
            self.people.remove(&instance);
            // How long it went on after its last entry is unknown.
            self.close(&instance, seen_ms, "gone");
        }
        self.spans.retain(|span| span.to_ms.is_none_or(|to| to + WINDOW_MS > now_ms));
        // A call that failed, or whose instance was killed, never runs.
        if self.burst.open.is_some_and(|(_, first, _)| first + 3 * DEBOUNCE_MAX_WAIT_MS < now_ms) {
            self.burst.open = None;
        }
    }

    /// Resumes or opens the span of an instance that announces a wait or a grant which no open span
    /// shows: the instance had counted as gone, or the entry that began the span is no longer kept.
    fn resume(&mut self, at_ms: u64, entry: &Entry, id: &str, fence: Option<u64>) {
        let mut own = self.spans.iter_mut().filter(|span| span.instance == entry.instance);
        if own.any(|span| span.to_ms.is_none()) {
            return;
        }
        let gone = self.spans.iter_mut().rev().find(|span| {
            span.instance == entry.instance
                && span.id == id
                && span.fence == fence
                && span.end == "gone"
        });
        match gone {
            Some(span) => {
                span.to_ms = None;
                span.end.clear();
            }
            None => self.open(at_ms, entry, id, fence),
        }
    }

    fn open(&mut self, at_ms: u64, entry: &Entry, id: &str, fence: Option<u64>) {
        self.spans.push_back(Span {
            instance: entry.instance.clone(),
            name: entry.name.clone(),
            id: id.to_owned(),
            fence,
            from_ms: at_ms,
            to_ms: None,
            end: String::new(),
        });
    }

    fn close(&mut self, instance: &str, at_ms: u64, end: &str) {
        for span in &mut self.spans {
            if span.instance == instance && span.to_ms.is_none() {
                span.to_ms = Some(at_ms);
                end.clone_into(&mut span.end);
            }
        }
    }

    fn tell(&mut self, at_ms: u64, entry: &Entry, text: String) {
        self.lines.push_back(Line { at_ms, name: entry.name.clone(), text });
        if self.lines.len() > LINES {
            self.lines.pop_front();
        }
    }
}
