//! Durable calls: what is asked is passed on; a claim that is granted is held like any lock.

use std::{sync::Arc, time::Duration};

use super::{
    Client, Command, Held, Terms, UNDONE,
    bulk::{Asked, Waiting},
    holds::{Grant, Taker, comes_too_late},
    reply::Reply,
    store_error,
    task::{Done, Task},
};
use crate::{
    Error, Token,
    contract::{
        ClaimRequest, DueCalls, DueRequest, DurableBook, DurableClaim, DurableFinish,
        FinishRequest, KeepRequest, Kept, SetAside, StoreError, TakeBackRequest,
    },
    core::Moment,
    id::Named,
    store::Store,
};

/// What is asked of the store for one caller, but for a claim.
pub(super) enum Step {
    Keep(Asked<KeepRequest, Kept>),
    Due(Asked<DueRequest, DueCalls>),
    Finish(Asked<FinishRequest, DurableFinish>),
    SetAside(Asked<DurableBook, Vec<SetAside>>),
    TakeBack(Asked<TakeBackRequest, bool>),
}

impl Step {
    /// Any key of its function: they are in one part of the store.
    pub(super) fn key(&self) -> &Arc<str> {
        let book = match self {
            Self::Keep(asked) => &asked.question.book,
            Self::Due(asked) => &asked.question.book,
            Self::Finish(asked) => &asked.question.book,
            Self::SetAside(asked) => &asked.question,
            Self::TakeBack(asked) => &asked.question.book,
        };
        &book.due
    }

    pub(super) fn refuse(self, error: Error) {
        match self {
            Self::Keep(asked) => drop(asked.reply.send(Err(error))),
            Self::Due(asked) => drop(asked.reply.send(Err(error))),
            Self::Finish(asked) => drop(asked.reply.send(Err(error))),
            Self::SetAside(asked) => drop(asked.reply.send(Err(error))),
            Self::TakeBack(asked) => drop(asked.reply.send(Err(error))),
        }
    }
}

/// The steps that wait to be sent, by their kinds: a batch is of one kind.
#[derive(Default)]
pub(super) struct Steps {
    pub(super) keep: Waiting<KeepRequest, Kept>,
    pub(super) due: Waiting<DueRequest, DueCalls>,
    pub(super) finish: Waiting<FinishRequest, DurableFinish>,
    pub(super) set_aside: Waiting<DurableBook, Vec<SetAside>>,
    pub(super) take_back: Waiting<TakeBackRequest, bool>,
}

impl Steps {
    pub(super) fn push(&mut self, step: Step) {
        match step {
            Step::Keep(Asked { question, reply }) => self.keep.push(question, reply),
            Step::Due(Asked { question, reply }) => self.due.push(question, reply),
            Step::Finish(Asked { question, reply }) => self.finish.push(question, reply),
            Step::SetAside(Asked { question, reply }) => self.set_aside.push(question, reply),
            Step::TakeBack(Asked { question, reply }) => self.take_back.push(question, reply),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keep.is_empty()
            && self.due.is_empty()
            && self.finish.is_empty()
            && self.set_aside.is_empty()
            && self.take_back.is_empty()
    }

    pub(super) fn refuse(&mut self, error: impl Fn() -> Error) {
        self.keep.refuse(&error);
        self.due.refuse(&error);
        self.finish.refuse(&error);
        self.set_aside.refuse(&error);
        self.take_back.refuse(&error);
    }
}

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
    pub(super) fn key(&self) -> &Arc<str> {
        &self.book.due
    }

    pub(super) fn refuse(self, error: Error) {
        let _ = self.reply.send(Err(error));
    }
}

/// What became of it.
pub(crate) enum Claimed {
    /// There is nothing to run, or not now.
    Nothing,
    Granted {
        held: Held,
        call: u64,
        attempt: u32,
        arguments: String,
    },
}

/// The answer to a claim.
pub(super) struct ClaimAnswer {
    claiming: Box<Claiming>,
    sent_at: Moment,
    answer: Result<DurableClaim, StoreError>,
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
    pub(crate) async fn keep(&self, request: KeepRequest) -> Result<Kept, Error> {
        self.step(request, Step::Keep).await
    }

    pub(crate) async fn due(&self, request: DueRequest) -> Result<DueCalls, Error> {
        self.step(request, Step::Due).await
    }

    pub(crate) async fn finish(&self, request: FinishRequest) -> Result<DurableFinish, Error> {
        self.step(request, Step::Finish).await
    }

    pub(crate) async fn set_aside(&self, book: DurableBook) -> Result<Vec<SetAside>, Error> {
        self.step(book, Step::SetAside).await
    }

    pub(crate) async fn take_back(&self, request: TakeBackRequest) -> Result<bool, Error> {
        self.step(request, Step::TakeBack).await
    }

    async fn step<Q, T>(
        &self,
        question: Q,
        step: impl FnOnce(Asked<Q, T>) -> Step,
    ) -> Result<T, Error> {
        self.berth.ensure_timers()?;
        self.ask(|reply| Command::Durable(Box::new(step(Asked { question, reply })))).await
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
            Claimed::Granted { held, call, attempt, arguments } => {
                Claimed::Granted { held: held.delivered(), call, attempt, arguments }
            }
            Claimed::Nothing => Claimed::Nothing,
        })
    }
}

impl Task {
    pub(super) fn send_claim(&mut self, shard: usize, claiming: Box<Claiming>) {
        let sent_at = self.now;
        let request = ClaimRequest::new(
            claiming.book.clone(),
            Arc::clone(&claiming.id),
            Arc::clone(&claiming.run.key),
            Token::new(&self.id, claiming.number),
            claiming.lease,
        );
        self.claiming += 1;
        self.call_in_bulk(shard, vec![request], <dyn Store>::claim, move |mut answers| {
            let answer = answers.pop().expect("BUG: there is one answer for each item");
            Done::Claimed(ClaimAnswer { claiming, sent_at, answer })
        });
    }

    pub(super) fn take_claimed(&mut self, claimed: ClaimAnswer) {
        let ClaimAnswer { claiming, sent_at, answer } = claimed;
        self.claiming -= 1;
        let (number, lease) = (claiming.number, claiming.lease);
        let token = Token::new(&self.id, number);
        let unusable = self.is_stopping() || comes_too_late(sent_at, lease, self.now);
        let refused = answer.as_ref().is_err_and(StoreError::is_refusal);
        match answer {
            Ok(DurableClaim::Granted { fence, call, attempt, arguments }) if !unusable => {
                self.lose_key(&claiming.run.key);
                let line = self.line(&claiming.run);
                let fencing_token = line.queue.taken_by(number, fence, false);
                let grant = Grant { ownership: number, token, sent_at, lease, fencing_token };
                let held = self.begin_hold(&*claiming, grant);
                let granted = Claimed::Granted { held, call, attempt, arguments };
                if let Err(Ok(Claimed::Granted { held, .. })) = claiming.reply.send(Ok(granted)) {
                    held.defuse();
                    self.unclaimed.push((number, number));
                }
            }
            Ok(DurableClaim::Granted { .. }) | Err(_) => {
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
