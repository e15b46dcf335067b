//! What operators ask about locks, and do to them, in memory.

use std::{sync::Arc, time::Duration};

use super::{Now, Subscriber, Table, book::Book};
use crate::{
    contract::{
        ClientRecord, ExtendRequest, ForceReleaseRequest, Holder, IntroduceRequest, Notice,
        Release, ScanFor, ScanPage, ScanRequest,
    },
    limits::whole_millis,
    maps::ByKey,
};

/// The operations of operators.
impl<L: Subscriber> Table<L> {
    /// Adds to the remaining time of a lock.
    pub fn extend(&mut self, request: &ExtendRequest, at: Now) -> Option<Duration> {
        let now = at.moment;
        self.held_by(&request.key, &request.token, now).map(|lock| {
            lock.expiry = lock.expiry + request.by;
            whole_millis(lock.expiry.after(now))
        })
    }

    /// Returns the holder of a lock.
    pub fn holder(&mut self, key: &Arc<str>, at: Now) -> Option<Holder> {
        let now = at.moment;
        let waiters = self.queues.get(key).map_or(0, |queue| queue.living(now));
        self.held(key, now).map(|lock| {
            let remaining = Some(whole_millis(lock.expiry.after(now)));
            let holder = Holder::new(lock.token.clone(), remaining).waiters(waiters);
            holder.seen_at(Duration::from_micros(at.micros))
        })
    }

    /// Takes a lock away from its holder.
    pub fn force_release(&mut self, request: &ForceReleaseRequest, at: Now) -> Release {
        let (now, key) = (at.moment, &request.key);
        let holder = self.held(key, now).map(|lock| lock.token.clone());
        if request.holder.is_some() && holder != request.holder {
            return Release::not_ours();
        }
        self.locks.remove(key);
        let first = self.first_waiter(key, now);
        let answer = Release { ours: holder.is_some(), handed_over: first.is_some() };
        if let Some((first, _)) = first {
            self.hand_over(key, first, now);
        }
        if let Some(holder) = holder {
            self.tell(&holder, |number| Notice::Revoked { number });
        }
        answer
    }

    /// Keeps what a client says about itself.
    pub fn introduce(&mut self, request: &IntroduceRequest, at: Now) {
        let record = (request.record.clone(), at.moment + request.keep);
        self.records.insert(Arc::clone(&request.key), record);
    }

    /// Returns what a client has said about itself.
    pub fn client(&mut self, key: &Arc<str>, at: Now) -> Option<ClientRecord> {
        let known = self.records.get(key).filter(|(_, expiry)| at.moment <= *expiry);
        known.map(|(record, _)| record.clone())
    }

    /// Returns one page of the ids of a kind.
    pub fn scan(&mut self, request: &ScanRequest, at: Now) -> ScanPage {
        let now = at.moment;
        match request.what {
            ScanFor::HeldLocks => page(&self.locks, request, |lock| now <= lock.expiry),
            ScanFor::Debounces => page(&self.windows, request, |(_, expiry)| now <= *expiry),
            ScanFor::Waiting => page(&self.books, request, Book::has_waiting),
            ScanFor::SetAside => {
                // Here, one key identifies a book.
                let by_book = ScanRequest { what: ScanFor::Waiting, ..request.clone() };
                page(&self.books, &by_book, Book::has_set_aside)
            }
        }
    }
}

/// The ids behind the cursor, in the order of their keys. The cursor is the last key of the
/// previous page.
fn page<V>(map: &ByKey<V>, request: &ScanRequest, is_there: impl Fn(&V) -> bool) -> ScanPage {
    let cursor = request.cursor.as_deref();
    let mut keys = map.keys_where(is_there);
    keys.retain(|key| cursor.is_none_or(|at| **key > *at));
    let rest = keys.split_off(keys.len().min(request.count.max(1)));
    let next = if rest.is_empty() { None } else { keys.last().cloned() };
    let ids = keys.iter().filter_map(|key| request.id_in(key)).map(Into::into).collect();
    ScanPage::new(ids, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Moment, Token,
        contract::{AcquireRequest, IfHeld},
        token,
    };

    #[derive(Clone)]
    struct Line;

    impl Subscriber for Line {
        fn is_there(&self) -> bool {
            true
        }
    }

    fn at(millis: u64) -> Now {
        let moment = Moment::from_nanos(millis * 1_000_000);
        Now { moment, micros: 1_790_000_000_000_000 + millis * 1000 }
    }

    fn take(table: &mut Table<Line>, key: &str, token: Token) {
        let lease = Duration::from_secs(1);
        table.acquire(&AcquireRequest::new(key, token, lease), at(0));
    }

    #[test]
    fn a_holder_says_how_long_ago_its_token_was_made() {
        let mut table = Table::default();
        take(&mut table, "a", token::made_by("client", 1_790_000_000_000_000));
        take(&mut table, "b", token::made_by("client", 2));
        let held_for = |table: &mut Table<Line>, key: &str| {
            table.holder(&key.into(), at(400)).expect("it is held").held_for
        };
        assert_eq!(held_for(&mut table, "a"), Some(Duration::from_millis(400)));
        assert_eq!(held_for(&mut table, "b"), None, "a plain counter");
    }

    #[test]
    fn a_release_by_force_that_names_a_holder_leaves_another_one_alone() {
        let mut table: Table<Line> = Table::default();
        let (one, other) = (token::made_by("one", 2), token::made_by("other", 2));
        take(&mut table, "a", one.clone());
        let waits = AcquireRequest::new("a", other.clone(), Duration::from_secs(1));
        table.subscribe("one", Line);
        table.subscribe("other", Line);
        table.acquire(&waits.if_held(IfHeld::Wait), at(0));
        table.notices();
        let from = |token: &Token| ForceReleaseRequest::new("a").only_from(Some(token.clone()));
        assert_eq!(table.force_release(&from(&other), at(1)), Release::not_ours());
        assert!(table.notices().is_empty(), "nobody is told");
        assert_eq!(table.force_release(&from(&one), at(1)), Release::freed().handed_over(true));
        assert_eq!(table.notices().len(), 2);
    }

    #[test]
    fn a_record_is_kept_for_as_long_as_was_asked() {
        let mut table: Table<Line> = Table::default();
        let record = ClientRecord::unknown().name(Some("billing-7".into()));
        let keep = Duration::from_secs(1);
        table.introduce(&IntroduceRequest::new("c", record.clone(), keep), at(0));
        assert_eq!(table.client(&"c".into(), at(1000)), Some(record));
        assert_eq!(table.client(&"c".into(), at(1001)), None);
        table.forget_expired(at(1001).moment);
        assert_eq!(table.records.len(), 0);
    }

    #[test]
    fn pages_have_each_id_of_their_kind_once() {
        let mut table: Table<Line> = Table::default();
        for key in ["p:a1", "p:a2", "p:a~3", "p:b", "q:a4", "p:~run:a5"] {
            take(&mut table, key, token::made_by("client", 2));
        }
        let (mut ids, mut cursor) = (Vec::new(), None);
        loop {
            let request = ScanRequest::new(ScanFor::HeldLocks, "p:", 2).ids("a").after(cursor);
            let page = table.scan(&request, at(0));
            ids.extend(page.ids);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(ids, ["a1", "a2", "a~3"].map(Arc::from));
        let all = ScanRequest::new(ScanFor::HeldLocks, "p:", 100);
        assert_eq!(table.scan(&all, at(0)).ids.len(), 4);
        assert!(table.scan(&all, at(1001)).ids.is_empty(), "their leases have run out");
    }
}
