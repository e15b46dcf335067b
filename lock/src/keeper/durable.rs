//! Durable calls: what is asked is passed on; a claim that is granted is held like any lock.

use std::{sync::Arc, time::Duration};

use super::{
    Client, Command, Terms, UNDONE,
    holds::{Grant, Taker, comes_too_late},
    reply::Reply,
    store_error,
    task::{Done, Task},
};
use crate::{
    Error, LockGuard, Token,
    core::Moment,
    id::Named,
    store::{DurableBook, DurableClaim, DurableReply, DurableRequest, DurableStep, StoreError},
};

/// A run that somebody wants to do.
pub(super) struct Claiming {
    number: u64,
    book: DurableBook,
    id: Arc<str>,
    run: Named,
    lease: Duration,
    hold_at_most: Option<Duration>,
    client: Arc<Client>,
    reply: Reply<Result<Claimed, Error>>,
}

impl Claiming {
    pub(super) fn refuse(self, error: Error) {
        let _ = self.reply.send(Err(error));
    }
}

/// What became of it.
pub(crate) enum Claimed {
    /// There is nothing to run, or not now.
    Nothing,
    Granted {
        guard: LockGuard,
        call: u64,
        attempt: u32,
        arguments: String,
    },
}

/// The answer to a claim.
pub(super) struct ClaimAnswer {
    claiming: Box<Claiming>,
    sent_at: Moment,
    answer: Result<DurableReply, StoreError>,
}

impl Taker for Claiming {
    fn number(&self) -> u64 {
        self.number
    }

    fn lock(&self) -> &Named {
        &self.run
    }

    fn terms(&self) -> Terms {
        Terms::of_run(self.lease, self.hold_at_most)
    }

    fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Client {
    /// One step of durable calls; not a claim.
    pub(crate) async fn durable(&self, request: DurableRequest) -> Result<DurableReply, Error> {
        self.berth.ensure_timers()?;
        self.ask(|reply| Command::Durable { request: Box::new(request), reply }).await
    }

    /// The run of this id, if it is due.
    pub(crate) async fn claim(
        self: &Arc<Self>,
        book: DurableBook,
        id: Arc<str>,
        run: Named,
        (lease, hold_at_most): (Duration, Option<Duration>),
    ) -> Result<Claimed, Error> {
        let claimed = self
            .withdrawable(|number, reply| {
                let client = Arc::clone(self);
                Command::Claim(Box::new(Claiming {
                    number,
                    book,
                    id,
                    run,
                    lease,
                    hold_at_most,
                    client,
                    reply,
                }))
            })
            .await?;
        Ok(match claimed {
            Claimed::Granted { guard, call, attempt, arguments } => {
                Claimed::Granted { guard: guard.delivered(), call, attempt, arguments }
            }
            Claimed::Nothing => Claimed::Nothing,
        })
    }
}

impl Task {
    pub(super) fn send_claim(&mut self, claiming: Box<Claiming>) {
        let sent_at = self.now;
        let step = DurableStep::Claim {
            id: Arc::clone(&claiming.id),
            run: Arc::clone(&claiming.run.key),
            token: Token::new(&self.id, claiming.number),
            lease: claiming.lease,
        };
        let request = DurableRequest::new(claiming.book.clone(), step);
        self.claiming += 1;
        self.call_in_bulk(
            1,
            move |store| async move { store.durable(&[request]).await },
            move |mut answers| {
                let answer = answers.pop().expect("BUG: there is one answer for each item");
                Done::Claimed(ClaimAnswer { claiming, sent_at, answer })
            },
        );
    }

    pub(super) fn take_claimed(&mut self, claimed: ClaimAnswer) {
        let ClaimAnswer { claiming, sent_at, answer } = claimed;
        self.claiming -= 1;
        let (number, lease) = (claiming.number, claiming.lease);
        let token = Token::new(&self.id, number);
        let unusable = self.is_stopping() || comes_too_late(sent_at, lease, self.now);
        let refused = matches!(answer, Err(StoreError::Rejected(_)));
        match answer {
            Ok(DurableReply::Claimed(DurableClaim::Granted {
                fence,
                call,
                attempt,
                arguments,
            })) if !unusable => {
                self.lose_key(&claiming.run.key);
                let line = self.line(&claiming.run);
                let fencing_token = line.queue.taken_by(number, fence, false);
                let grant = Grant { tenure: number, token, sent_at, lease, fencing_token };
                let guard = self.begin_hold(&*claiming, grant);
                let granted = Claimed::Granted { guard, call, attempt, arguments };
                if let Err(Ok(Claimed::Granted { guard, .. })) = claiming.reply.send(Ok(granted)) {
                    guard.defuse();
                    self.unclaimed.push((number, number));
                }
            }
            Ok(DurableReply::Claimed(DurableClaim::Granted { .. })) | Err(_) => {
                // Granted too late, or perhaps: nobody is there to do it.
                if !refused {
                    self.begin_release(number, &claiming.run, &token, Moment::default(), None);
                }
                let error = match answer {
                    Err(error) => store_error(&error, UNDONE),
                    _ => store_error(&StoreError::unavailable("the answer came too late"), UNDONE),
                };
                let _ = claiming.reply.send(Err(error));
            }
            Ok(_) => drop(claiming.reply.send(Ok(Claimed::Nothing))),
        }
    }
}
