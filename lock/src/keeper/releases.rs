//! Locks on their way to being free: releases are repeated until the store has answered.

use std::{mem, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{
    SILENCE_LIMIT,
    holds::lost,
    task::{BATCH, Done, Task},
    timers::Timer,
};
use crate::{
    Error, Token,
    core::Moment,
    id::Named,
    keeper::store_error,
    store::{Ownership, ReleaseRequest, StoreError},
};

/// The pauses between two tries of a release.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// How long a release is tried. Most leases have run out by then, and what a store has not
/// answered for half a minute it will not answer soon.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// A lock that has no guard any more.
pub(super) struct Release {
    lock: Named,
    token: Token,
    /// `hold_at_least` keeps the key until then.
    keep_until: Moment,
    give_up_at: Moment,
    /// When the first try was sent that had no answer.
    silent_since: Option<Moment>,
    tries: u32,
    timer: Moment,
    reply: Option<oneshot::Sender<Result<(), Error>>>,
}

/// A batch of releases and its answers.
pub(super) struct Released {
    numbers: Vec<u64>,
    sent_at: Moment,
    answers: Vec<Result<Ownership, StoreError>>,
}

impl Task {
    /// A guard gives up its lock.
    pub(super) fn release(
        &mut self,
        number: u64,
        undelivered: bool,
        reply: Option<oneshot::Sender<Result<(), Error>>>,
    ) {
        match self.take_hold(number) {
            Some((hold, keep_until)) => {
                // Released is not lost: whoever still waits for the loss waits for ever.
                hold.set_deadline(Moment::NEVER);
                // `hold_at_least` is for those that have held it.
                let keep_until = if undelivered { Moment::default() } else { keep_until };
                self.begin_release(number, &hold.lock, &hold.token, keep_until, reply);
            }
            // Lost before; the guard's own end changes nothing.
            None => {
                if let Some(reply) = reply {
                    let _ = reply.send(Err(lost()));
                }
            }
        }
    }

    pub(super) fn release_all(&mut self) {
        for number in self.hold_numbers() {
            if let Some((hold, keep_until)) = self.take_hold(number) {
                hold.lost().cancel();
                self.begin_release(number, &hold.lock, &hold.token, keep_until, None);
            }
        }
    }

    pub(super) fn begin_release(
        &mut self,
        number: u64,
        lock: &Named,
        token: &Token,
        keep_until: Moment,
        reply: Option<oneshot::Sender<Result<(), Error>>>,
    ) {
        let release = Release {
            lock: lock.clone(),
            token: token.clone(),
            keep_until,
            give_up_at: self.clock.now() + GIVE_UP_AFTER,
            silent_since: None,
            tries: 0,
            timer: Moment::NEVER,
            reply,
        };
        self.releases.insert(number, release);
        self.to_release.push(number);
    }

    pub(super) fn release_timer(&mut self, number: u64, now: Moment) {
        let Some(release) = self.releases.get_mut(&number) else { return };
        release.timer = Moment::NEVER;
        if now >= release.give_up_at {
            // The lease frees the lock; nothing here knows more.
            self.releases.remove(&number);
        } else {
            self.to_release.push(number);
        }
    }

    pub(super) fn send_releases(&mut self) {
        let now = self.clock.now();
        for numbers in mem::take(&mut self.to_release).chunks(BATCH) {
            let requests = numbers.iter().filter_map(|number| {
                let release = self.releases.get(number)?;
                let (key, token) = (Arc::clone(&release.lock.key), release.token.clone());
                // Rounded up: at least means at least.
                let keep = release.keep_until.after(now);
                let keep = Duration::from_millis(keep.as_nanos().div_ceil(1_000_000) as u64);
                Some((*number, ReleaseRequest { key, token, keep }))
            });
            let (numbers, requests): (Vec<_>, Vec<_>) = requests.unzip();
            self.call_store(move |store| async move {
                let answers = store.release(&requests).await;
                Done::Released(Released { numbers, sent_at: now, answers })
            });
        }
    }

    pub(super) fn take_released(&mut self, released: Released) {
        let now = self.clock.now();
        let mut answers = released.answers.into_iter();
        for number in released.numbers {
            let Some(release) = self.releases.get_mut(&number) else { continue };
            match answers.next() {
                Some(Ok(ownership)) => {
                    // After a try without an answer, a lock that is not ours was freed by that
                    // try: the same request twice is answered as once.
                    let ours = ownership == Ownership::Ours || release.silent_since.is_some();
                    if let Some(reply) = release.reply.take() {
                        let _ = reply.send(if ours { Ok(()) } else { Err(lost()) });
                    }
                    let key = Arc::clone(&release.lock.key);
                    self.releases.remove(&number);
                    self.wake_line(&key);
                }
                failure => {
                    let since = *release.silent_since.get_or_insert(released.sent_at);
                    let refused = matches!(failure, Some(Err(StoreError::Rejected(_))));
                    // Whoever waits for the answer is told in time that there is none; the release
                    // itself is tried on, for a lock that nobody holds must not stay taken.
                    if (refused || now >= since + SILENCE_LIMIT)
                        && let (Some(reply), Some(Err(error))) = (release.reply.take(), &failure)
                    {
                        let _ = reply.send(Err(store_error(error)));
                    }
                    // A connection that broke is tried again at once, ahead of whatever is asked
                    // next: whoever drops a guard and then acquires the same lock must find it
                    // free, if the new connection is there in time.
                    release.tries += 1;
                    if release.tries == 1 {
                        self.to_release.push(number);
                        continue;
                    }
                    let delay = RETRY.0.saturating_mul(1 << release.tries.min(8)).min(RETRY.1);
                    self.timers.reset(Timer::Release(number), &mut release.timer, now + delay);
                }
            }
        }
    }
}
