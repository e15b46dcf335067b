//! The records of the world of a history.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    time::Duration,
};

use lock_tests::{Forgetting, History, Loss, RedisServer, Refusal, Section, ms, now};

use super::{calls::Calls, world::nanos};

/// How long an acquire may take: its `wait`, the time-out of a call, and a time in which its
/// process is stopped.
const PATIENCE: Duration = Duration::from_secs(12);

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) history: History,
    pub(super) calls: Calls,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) forgettings: u64,
    /// Holds whose deadline passed: the lock, and when its holder noticed.
    pub(super) ran_out: Vec<(String, u64)>,
    /// Releases by force under way: the client, the lock, and since when.
    forcing: BTreeSet<(u64, String, u64)>,
    /// The usage of the first client, whose process is never killed: KiB, threads, files, tasks.
    pub(super) usage: Vec<[u64; 4]>,
    /// How many clients have connected, and how many have ended.
    pub(super) ready: u64,
    pub(super) done: u64,
}

/// The sums of what the resources have counted.
#[derive(Default)]
pub(super) struct Resource {
    /// The values of the fenced counters, and how many writes they have accepted.
    pub(super) count: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    /// How many writes the counters without a check have lost.
    pub(super) lost_unchecked: u64,
}

/// The usage of the process that lived from the beginning to the end.
pub(super) struct Usage {
    pub(super) first_tasks: u64,
    pub(super) first_files: u64,
    pub(super) tasks: u64,
    pub(super) files: u64,
    /// The maximum in the middle third and in the last one, in KiB.
    pub(super) middle: u64,
    pub(super) last: u64,
    pub(super) grew: u64,
}

impl Ledger {
    /// A client has ended, but what it was about to do may still happen: its requests may be on
    /// their way.
    pub(super) fn ended(&mut self, client: u64) {
        self.calls.ended(client);
        let forcing = std::mem::take(&mut self.forcing);
        let (its, others) = forcing.into_iter().partition(|(of, ..)| *of == client);
        self.forcing = others;
        let its: BTreeSet<(u64, String, u64)> = its;
        for (_, id, from) in its {
            self.forced(&id, [from, now() + nanos(ms(10_000))]);
        }
    }

    fn forced(&mut self, id: &str, [from, to]: [u64; 2]) {
        self.history.forgetting(Forgetting { id: Some(id.to_owned()), from, to });
    }

    pub(super) fn hear(&mut self, client: u64, words: &[String]) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if self.calls.hear(client, &words) {
            return;
        }
        let took_too_long = |asked: u64, at: u64| at - asked > nanos(PATIENCE);
        match words[..] {
            ["section", id, token, asked, granted, until] => {
                let (token, asked, granted) = (number(token), number(asked), number(granted));
                if took_too_long(asked, granted) {
                    self.history.violation(format!("an acquire took too long: {words:?}"));
                }
                self.history.section(Section {
                    id: id.to_owned(),
                    client,
                    token,
                    asked,
                    standing_since: standing_since(token, asked, granted),
                    granted,
                    valid_until: number(until),
                });
            }
            ["refused", id, token, asked, at] => {
                let (token, asked, at) = (number(token), number(asked), number(at));
                let standing_since = standing_since(token, asked, at);
                let id = id.to_owned();
                self.history.refusal(Refusal { id, token, standing_since, at });
            }
            ["lost", id, token, asked, at, "told"] => {
                let (token, asked, at) = (number(token), number(asked), number(at));
                let standing_since = standing_since(token, asked, at);
                self.history.loss(Loss { id: id.to_owned(), token, standing_since, at });
            }
            ["lost", id, _, _, at, "late"] => self.ran_out.push((id.to_owned(), number(at))),
            ["late", ..] => self.history.violation(format!("a loss without a signal: {words:?}")),
            ["failed", kind, asked, at] => {
                *self.failures.entry(kind.to_owned()).or_default() += 1;
                if took_too_long(number(asked), number(at)) {
                    self.history.violation(format!("a failure took too long: {words:?}"));
                }
            }
            ["forcing", id, from] => {
                self.forcing.insert((client, id.to_owned(), number(from)));
            }
            ["forced", id, from, to] => {
                self.forcing.remove(&(client, id.to_owned(), number(from)));
                self.forced(id, [number(from), number(to)]);
            }
            ["usage", ref numbers @ ..] if client == 0 => {
                let numbers: Vec<u64> = numbers.iter().map(|word| number(word)).collect();
                self.usage.push(numbers.try_into().expect("four numbers"));
            }
            ["usage", ..] | ["rate", _] => {}
            ["ready"] => self.ready += 1,
            ["done"] => self.done += 1,
            _ => panic!("not understood: {words:?}"),
        }
    }
}

/// A grant of the store leaves room for 1,023 tokens of hand-overs inside the process. These do not
/// ask the store, whose grant may be as old as the longest lease plus its extensions.
fn standing_since(token: u64, asked: u64, granted: u64) -> u64 {
    let is_handed_over = !token.is_multiple_of(1024);
    if is_handed_over { asked.min(granted.saturating_sub(nanos(ms(2500)))) } else { asked }
}

impl Resource {
    pub(super) async fn of(server: &RedisServer, ids: &mut Vec<String>) -> Self {
        let mut all = Self::default();
        let mut connection = server.connection().await;
        for (id, _, _) in server.keys().await {
            let fields: HashMap<String, u64> =
                redis::cmd("HGETALL").arg(&id).query_async(&mut connection).await.unwrap();
            let field = |name| fields.get(name).copied().unwrap_or(0);
            all.count += field("count");
            all.accepted += field("accepted");
            all.refused += field("refused");
            all.lost_unchecked += field("writes") - field("unchecked");
            ids.push(id);
        }
        all
    }
}

impl Usage {
    pub(super) fn of(samples: &[[u64; 4]]) -> Self {
        let third = samples.len() / 3;
        let most = |samples: &[[u64; 4]]| samples.iter().map(|sample| sample[0]).max().unwrap_or(0);
        let (middle, last) = (most(&samples[third..2 * third]), most(&samples[2 * third..]));
        let (first, end) = (samples[0], samples[samples.len() - 1]);
        Self {
            first_tasks: first[3],
            first_files: first[2],
            tasks: end[3],
            files: end[2],
            middle,
            last,
            grew: last.saturating_sub(middle),
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first_tasks, first_files, tasks, files, middle, last, .. } = self;
        write!(
            f,
            "{middle} then {last} KiB, {first_files} then {files} files, {first_tasks} then \
             {tasks} tasks"
        )
    }
}

pub(super) fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}
