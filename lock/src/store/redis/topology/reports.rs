//! Which server is the primary, according to the Sentinels. Pure.
//!
//! A failover raises the configuration epoch, and a Sentinel that missed it reports the previous
//! epoch until it learns of the new one. So the highest epoch counts, and a lower one does not
//! replace it. Only if all Sentinels agree on a server is it believed at any epoch: an operator has
//! set them up again, and epochs begin again.

use redis::Value;

/// What one Sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) epoch: u64,
    pub(super) host: String,
    pub(super) port: u16,
}

/// The last report of each Sentinel that can be reached, and what follows from them.
#[derive(Debug)]
pub(super) struct Reports {
    of: Vec<Option<Report>>,
    believed: Option<Report>,
    /// How often a Sentinel has announced that another server takes over.
    doubts: u64,
    /// The Sentinel that has last announced that and has not yet said which server, and the number
    /// of that doubt.
    doubted: Option<(usize, u64)>,
}

impl Reports {
    pub(super) fn of(sentinels: usize) -> Self {
        Self { of: vec![None; sentinels], believed: None, doubts: 0, doubted: None }
    }

    /// A Sentinel has announced that another server takes over from this one. Returns whether this
    /// is the one that is believed in. No server is believed in until that Sentinel has said more.
    pub(super) fn doubt(&mut self, sentinel: usize, host: &str, port: u16) -> bool {
        let doubts = self.believed.as_ref().is_some_and(|it| (&*it.host, it.port) == (host, port));
        if doubts {
            self.doubts += 1;
            self.doubted = Some((sentinel, self.doubts));
        }
        doubts
    }

    /// The number of doubts so far, for an answer to a question that is asked now; see
    /// [`take`](Self::take).
    pub(super) fn doubts(&self) -> u64 {
        self.doubts
    }

    /// Takes a Sentinel's report, with the number of doubts when it was asked for; `None` if the
    /// Sentinel gives none. Returns where the primary is, if that is news or was in doubt.
    pub(super) fn take(
        &mut self,
        sentinel: usize,
        report: Option<(u64, Report)>,
    ) -> Option<&Report> {
        // An answer that was in flight before the doubt was announced knows nothing of it.
        let asked = report.as_ref().map_or(u64::MAX, |(asked, _)| *asked);
        self.of[sentinel] = report.map(|(_, report)| report);
        let best = self.of.iter().flatten().max_by_key(|report| report.epoch);
        let is_news = best.is_some_and(|best| match &self.believed {
            None => true,
            Some(believed) if best.epoch > believed.epoch => true,
            Some(believed) => {
                let agree = |report: &Option<Report>| {
                    report.as_ref().is_some_and(|report| report.is_at(best))
                };
                // The server may be the same, with a lower epoch: the next failover's epoch is then
                // also lower.
                best != believed && self.of.iter().all(agree)
            }
        });
        let before = self.believed.clone();
        if is_news {
            self.believed = best.cloned();
        }
        let moved = match (&before, &self.believed) {
            (Some(before), Some(now)) => !now.is_at(before),
            (None, Some(_)) => true,
            _ => false,
        };
        // Others may lag behind: their reports do not settle a doubt, but a new primary does.
        let settled = self.doubted.is_some_and(|(by, doubt)| by == sentinel && asked >= doubt);
        if moved || settled {
            self.doubted = None;
        }
        self.believed.as_ref().filter(|_| moved || settled)
    }
}

impl Report {
    fn is_at(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }

    /// Reads the answers to `SENTINEL MASTER`, which has names and values, and to the
    /// `GET-MASTER-ADDR-BY-NAME` after it.
    ///
    /// Both are needed. The Sentinel that leads a failover raises its epoch when the replica is
    /// promoted. For another second its first answer has the new epoch with the old address, which
    /// would outbid the Sentinels that name the new one. The second answer has the new address by
    /// then.
    pub(super) fn read(state: Value, place: Value) -> Option<Self> {
        let mut pairs: Vec<(String, String)> = match state {
            Value::Map(pairs) => pairs
                .into_iter()
                .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
                .collect(),
            Value::Array(words) => {
                let words: Vec<_> = words.into_iter().map(text).collect::<Option<_>>()?;
                words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
            }
            _ => return None,
        };
        pairs.retain(|(name, _)| name == "config-epoch");
        let Value::Array(words) = place else { return None };
        let mut words = words.into_iter().map(text);
        Some(Self {
            epoch: pairs.first()?.1.parse().ok()?,
            host: words.next()?.filter(|host| !host.is_empty())?,
            port: words.next()??.parse().ok()?,
        })
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(text) => String::from_utf8(text).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(reports: &mut Reports, sentinel: usize, epoch: u64, port: u16) -> Option<u16> {
        let asked = reports.doubts();
        late_news(reports, sentinel, (asked, epoch, port))
    }

    fn late_news(
        reports: &mut Reports,
        sentinel: usize,
        (asked, epoch, port): (u64, u64, u16),
    ) -> Option<u16> {
        let report = Report { epoch, host: "127.0.0.1".to_owned(), port };
        reports.take(sentinel, Some((asked, report))).map(|report| report.port)
    }

    #[test]
    fn the_highest_epoch_counts_and_is_not_taken_back() {
        let mut reports = Reports::of(3);
        assert_eq!(news(&mut reports, 0, 3, 1), Some(1), "the first answer counts");
        assert_eq!(news(&mut reports, 1, 3, 1), None);
        assert_eq!(news(&mut reports, 2, 4, 2), Some(2));
        assert_eq!(news(&mut reports, 0, 3, 1), None, "it has not heard of the failover yet");
        // The Sentinel that has heard of it is gone; the others still lag behind.
        assert_eq!(reports.take(2, None), None);
        assert_eq!(news(&mut reports, 1, 3, 1), None);
        assert_eq!(news(&mut reports, 1, 4, 2), None, "it is there already");
    }

    #[test]
    fn a_higher_epoch_at_the_same_place_is_no_news() {
        let mut reports = Reports::of(2);
        assert_eq!(news(&mut reports, 0, 3, 1), Some(1));
        assert_eq!(news(&mut reports, 0, 5, 1), None);
        assert_eq!(news(&mut reports, 1, 4, 2), None, "older than what is believed");
    }

    #[test]
    fn a_doubt_is_settled_by_what_is_new_or_by_whose_it_was() {
        let mut reports = Reports::of(3);
        assert_eq!(news(&mut reports, 0, 3, 1), Some(1));
        assert!(!reports.doubt(0, "127.0.0.1", 2), "that server is not believed in");
        assert!(reports.doubt(0, "127.0.0.1", 1));
        assert_eq!(news(&mut reports, 1, 3, 1), None, "it may not have heard of it");
        assert_eq!(news(&mut reports, 2, 4, 2), Some(2), "it has");
        let asked = reports.doubts();
        assert!(reports.doubt(1, "127.0.0.1", 2));
        assert_eq!(late_news(&mut reports, 1, (asked, 4, 2)), None, "it was asked before");
        assert_eq!(news(&mut reports, 1, 4, 2), Some(2), "it was nothing");
        assert!(reports.doubt(1, "127.0.0.1", 2));
        let report = reports.take(1, None).map(|report| report.port);
        assert_eq!(report, Some(2), "it cannot say more");
    }

    #[test]
    fn sentinels_that_were_set_up_anew_are_believed_when_all_agree() {
        let mut reports = Reports::of(2);
        assert_eq!(news(&mut reports, 0, 9, 1), Some(1));
        assert_eq!(news(&mut reports, 0, 0, 7), None);
        assert_eq!(news(&mut reports, 1, 0, 7), Some(7));
    }

    /// They may name the same server as before, and one of them may be gone by the next failover.
    #[test]
    fn sentinels_that_were_set_up_anew_can_fail_over() {
        let mut reports = Reports::of(3);
        assert_eq!(news(&mut reports, 0, 9, 1), Some(1));
        for sentinel in 0..3 {
            assert_eq!(news(&mut reports, sentinel, 0, 1), None, "it is there already");
        }
        assert_eq!(reports.take(2, None), None);
        assert_eq!(news(&mut reports, 0, 1, 7), Some(7));
    }

    #[test]
    fn answers_are_read_in_both_protocols() {
        let word = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        // The address here may be the previous one.
        let fields = [("name", "main"), ("ip", "::2"), ("port", "6379"), ("config-epoch", "12")];
        let array = fields.iter().flat_map(|(name, value)| [word(name), word(value)]).collect();
        let map = fields.iter().map(|(name, value)| (word(name), word(value))).collect();
        let place = || Value::Array(vec![word("::1"), word("6380")]);
        let wanted = Report { epoch: 12, host: "::1".to_owned(), port: 6380 };
        assert_eq!(Report::read(Value::Array(array), place()), Some(wanted.clone()));
        assert_eq!(Report::read(Value::Map(map), place()), Some(wanted));
        for nonsense in [Value::Nil, Value::Array(vec![word("ip")]), Value::Int(7)] {
            assert_eq!(Report::read(nonsense.clone(), place()), None);
            assert_eq!(Report::read(place(), nonsense), None);
        }
    }
}
