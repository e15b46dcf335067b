//! What the store was told about debounced calls, and what may happen to them.
//!
//! The store is held to what it can know: calls are in the order in which they were made, according
//! to the age that each states when it reaches the store.

use std::{collections::BTreeMap, sync::Arc};

use lock_core::{
    contract::{DebounceRequest, EndWindowRequest, WindowEnd},
    token,
};

use crate::judge::Judge;

/// The rounding error, in microseconds.
const GRAIN: u64 = 2000;

#[derive(Default)]
pub(crate) struct Bursts {
    windows: BTreeMap<Arc<str>, Window>,
    /// The store was restored to an earlier state, or its clock was set back, of which it notices
    /// only the part that exceeds the time since the last call. What it can know of the calls is
    /// not known here.
    is_unknown: bool,
}

/// The calls of one id. Times are microseconds of the store's clock.
#[derive(Default)]
struct Window {
    /// When each call was made, by its token.
    made: BTreeMap<String, u64>,
    /// The number of the last call of each client, and its time.
    last: BTreeMap<String, (u64, u64)>,
    newest: u64,
    /// The time up to which runs cover calls, and the token of the last run.
    covered: u64,
    ran: Option<String>,
    /// The time up to which calls are covered by the runs that each client was granted, and by
    /// those it has taken.
    granted: BTreeMap<String, u64>,
    taken: BTreeMap<String, u64>,
    by_grant: BTreeMap<String, u64>,
    /// The time up to which calls were cancelled, in the store and in each client.
    cancelled: u64,
    cancelled_by: BTreeMap<String, u64>,
}

impl Bursts {
    fn window(&mut self, window: &Arc<str>) -> &mut Window {
        self.windows.entry(Arc::clone(window)).or_default()
    }

    /// The store has lost what it knew.
    pub(crate) fn forgotten(&mut self) {
        for window in self.windows.values_mut() {
            window.made.clear();
            window.last.clear();
            (window.newest, window.covered, window.ran) = (0, 0, None);
        }
    }

    /// From now on, what the store knows is unknown.
    pub(crate) fn lost_track(&mut self) {
        self.is_unknown = true;
    }

    /// A call reaches the store.
    pub(crate) fn told(&mut self, request: &DebounceRequest, micros: u64) {
        let window = self.window(&request.window);
        let token = request.token.as_str();
        let (client, number) = token::parts(&request.token);
        let (last, before) = window.last.get(client).copied().unwrap_or_default();
        if window.made.contains_key(token) || number < last {
            return;
        }
        let age = u64::try_from(request.age.as_micros()).unwrap_or(u64::MAX);
        let mut made = micros.saturating_sub(age).max(before + 1);
        if age == 0 {
            made = made.max(window.newest + 1);
        }
        window.made.insert(token.to_owned(), made);
        window.last.insert(client.to_owned(), (number, made));
        window.newest = window.newest.max(made);
    }

    /// A run begins, or is told again that it has begun: it covers all calls up to now, so that
    /// none of them runs after it.
    pub(crate) fn granted(&mut self, request: &DebounceRequest, judge: &mut Judge) {
        let is_unknown = self.is_unknown;
        let window = self.window(&request.window);
        let token = request.token.as_str();
        if window.ran.as_deref() == Some(token) {
            // A repeated grant does not cover later calls.
            return;
        }
        let made = window.made.get(token).copied().unwrap_or_default();
        if made + GRAIN < window.covered && !is_unknown {
            judge.violation(format!(
                "{}: an older call runs after a newer one: {token}, made at {made}, {} us before",
                request.window,
                window.covered - made
            ));
        }
        window.covered = window.covered.max(window.newest);
        window.ran = Some(token.to_owned());
        let (client, _) = token::parts(&request.token);
        window.granted.insert(client.to_owned(), window.covered);
        window.by_grant.insert(token.to_owned(), window.covered);
    }

    /// A window in which a call waited was ended.
    pub(crate) fn ended(&mut self, request: &EndWindowRequest, micros: u64) {
        if request.end == WindowEnd::Cancel {
            let window = self.window(&request.window);
            window.covered = window.newest.max(micros);
            window.cancelled = window.cancelled.max(window.covered);
        }
    }

    /// A client is about to end a window: its own calls are cancelled without waiting for the
    /// store.
    pub(crate) fn asked_to_end(
        &mut self,
        client: &str,
        (window, end): (&Arc<str>, WindowEnd),
        micros: u64,
    ) {
        if end == WindowEnd::Cancel {
            self.window(window).cancelled_by.insert(client.to_owned(), micros);
        }
    }

    /// The caller of a run has taken it.
    pub(crate) fn taken(&mut self, window: &Arc<str>, client: &str, token: &str) {
        let window = self.window(window);
        let until = window.by_grant.get(token).copied().unwrap_or_default();
        let taken = window.taken.entry(client.to_owned()).or_default();
        *taken = until.max(*taken);
    }

    /// A call was told that another one runs, or that its burst was cancelled: checks that there is
    /// such a run or cancellation. A client knows whether a run of its own was taken by a caller,
    /// so its grants alone do not count.
    pub(crate) fn superseded(
        &mut self,
        window: &Arc<str>,
        client: &str,
        [made, now]: [u64; 2],
        judge: &mut Judge,
    ) {
        if self.is_unknown {
            return;
        }
        let of = self.window(window);
        let others = of.granted.iter().filter(|(other, _)| *other != client);
        let covered = others.map(|(_, until)| *until);
        let own = [of.taken.get(client), of.cancelled_by.get(client)];
        let until = covered.chain(own.into_iter().flatten().copied()).max();
        let until = until.unwrap_or_default().max(of.cancelled);
        // Its age was measured with a clock that may be faster.
        let grain = GRAIN + (now - made) / 100;
        if made > until + grain {
            judge.violation(format!(
                "{window}: {client} is superseded by nothing at {now}: made at {made}, covered {until}"
            ));
        }
    }
}
