//! One open page: an instance of a service, with a runtime and a client of its own. This module
//! interferes with it and shows its state from outside; the code that runs in it is in `life`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use lock::LockGuard;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    answer::{About, Answer},
    board::{Doing, Entry, Event},
    command::{Command, Interference, Step},
    life,
    network::{Condition, Network},
    process::{Process, random},
};

pub(crate) struct Instance {
    /// An id that no other instance, past or present, has. The page names it in its requests.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) process: Weak<Process>,
    state: Mutex<State>,
}

/// The state of an instance that can be read from outside, even while its runtime is blocked.
pub(crate) struct State {
    life: Option<Life>,
    pub(crate) doing: Doing,
    /// The lock that it holds, waits for, or held last.
    pub(crate) lock: String,
    pub(crate) lease: Duration,
    pub(crate) since: Instant,
    /// Kept after the lock is lost, so that the page can still show what it says.
    pub(crate) guard: Option<Arc<LockGuard>>,
    /// Waits for `guard.lost()`, which never resolves once the guard is released.
    watch: Option<AbortOnDropHandle<()>>,
    pub(crate) renewals: u32,
    remaining: Duration,
    /// An extension is in progress, so the remaining lease grows without a renewal.
    extends: bool,
    /// The last grant, for writes with a token that may be stale.
    pub(crate) grant: Option<(String, u64)>,
    pub(crate) blocked_until: Option<Instant>,
    pub(crate) condition: Condition,
    pub(crate) answers: VecDeque<Answer>,
    pub(crate) numbered: u64,
    /// Steps that it has not begun yet.
    pub(crate) queued: usize,
    /// The number of debounced calls so far, and the number of the latest one that was answered.
    calls: u64,
    answered: u64,
    /// Pages that show it now (a duplicated page shares its instance), and in total so far.
    pub(crate) viewers: usize,
    pub(crate) visits: u64,
    /// It has ended, and never starts again.
    pub(crate) closed: bool,
}

/// One life of the instance, from a start to a kill or to the end of the instance.
struct Life {
    steps: mpsc::UnboundedSender<Step>,
    killed: CancellationToken,
    ended: oneshot::Receiver<()>,
    network: Network,
}

impl Instance {
    pub(crate) async fn start(process: &Arc<Process>, name: String) -> Result<Arc<Self>, String> {
        let instance = Arc::new(Self {
            id: format!("{:016x}{:016x}", random(), random()),
            name,
            process: Arc::downgrade(process),
            state: Mutex::new(State {
                life: None,
                doing: Doing::Nothing,
                lock: String::new(),
                lease: Duration::ZERO,
                since: Instant::now(),
                guard: None,
                watch: None,
                renewals: 0,
                remaining: Duration::ZERO,
                extends: false,
                grant: None,
                blocked_until: None,
                condition: Condition::Open,
                answers: VecDeque::new(),
                numbered: 0,
                queued: 0,
                calls: 0,
                answered: 0,
                viewers: 0,
                visits: 0,
                closed: false,
            }),
        });
        instance.revive().await?;
        Arc::clone(&instance).close_when_left();
        Ok(instance)
    }

    /// Starts a life, with a client that the store has not seen before.
    ///
    /// Returns false if the instance is alive, or has ended for good.
    async fn revive(self: &Arc<Self>) -> Result<bool, String> {
        let Some(process) = self.process.upgrade() else { return Ok(false) };
        let this = Arc::downgrade(self);
        let killed = CancellationToken::new();
        let dead = killed.clone();
        let (locks, network) = process
            .address
            .connect_breakable(&self.name, &process.servers, move |warning| {
                if let Some(this) = this.upgrade().filter(|_| !dead.is_cancelled()) {
                    this.answer("on_warning(..)", &warning.to_string(), "", false);
                }
            })
            .await?;
        let (steps, received) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        {
            let mut state = self.state();
            if state.life.is_some() || state.closed {
                return Ok(false);
            }
            state.life = Some(Life { steps, killed: killed.clone(), ended, network });
            state.condition = Condition::Open;
            state.blocked_until = None;
            state.queued = 0;
        }
        self.turn(Doing::Nothing, "");
        life::start(Arc::clone(self), locks, received, killed, end);
        Ok(true)
    }

    /// Carries out an interference, or queues a step for the instance's own code.
    pub(crate) async fn command(self: &Arc<Self>, command: Command) {
        match command {
            Command::Own(step) => {
                let mut state = self.state();
                match &state.life {
                    Some(life) => {
                        // The receiver is gone if the life is ending.
                        let _ = life.steps.send(step);
                        state.queued += 1;
                    }
                    None => {
                        drop(state);
                        self.answer("..", "the process is dead", "Start it again first.", false);
                    }
                }
            }
            Command::Foreign(interference) => match interference {
                Interference::Network { condition } => self.set_network(condition),
                Interference::Force { id } => self.force(&id).await,
                Interference::Kill => self.kill(),
                Interference::Restart => match self.revive().await {
                    Ok(true) => self.answer(
                        "start the process",
                        "started",
                        "It has a new client, and holds nothing.",
                        true,
                    ),
                    Ok(false) => self.answer("start the process", "already running", "", false),
                    Err(why) => self.answer("start the process", &why, "", false),
                },
                Interference::Write => self.write_to_ledger().await,
            },
        }
    }

    fn set_network(&self, condition: Condition) {
        {
            let mut state = self.state();
            let Some(life) = &state.life else { return };
            if !life.network.is_breakable() {
                return;
            }
            life.network.set(condition);
            state.condition = condition;
        }
        let (call, meaning) = match condition {
            Condition::Open => ("repair the network", "Renewals reach the store again."),
            Condition::Silent => (
                "stop renewing",
                "Renewals no longer reach the store. The lease runs out unless you repair the \
                 network first.",
            ),
            Condition::Cut => (
                "cut the connection",
                "The library tries to reconnect. The guard stays valid for the rest of its lease.",
            ),
        };
        self.answer(call, "done", meaning, condition == Condition::Open);
    }

    /// Frees the lock as an operator would, with another client.
    async fn force(&self, id: &str) {
        let Some(process) = self.process.upgrade() else { return };
        let outcome = process.operator.lock(id).force_release().await;
        let call = "lock.force_release().await";
        match outcome {
            Ok(true) => {
                self.write(Event::Forced { id: id.to_owned() });
                self.answer(call, "Ok(true)", "The lock was freed, and its holder was told.", true);
            }
            Ok(false) => self.answer(call, "Ok(false)", "Nobody held it.", true),
            Err(error) => self.answer(call, &format!("Err({error})"), "", false),
        }
    }

    /// Ends the life as `kill -9` would: nothing is sent to the store, and a lock that the instance
    /// held stays held for the rest of the lease.
    fn kill(&self) {
        let mut state = self.state();
        let Some(life) = state.life.take() else { return };
        life.network.set(Condition::Cut);
        state.watch = None;
        // Dropping the guard would release the lock as soon as the store can be reached.
        if let Some(guard) = state.guard.take().and_then(Arc::into_inner) {
            let _ = guard.leak();
        }
        let held = matches!(state.doing, Doing::Holding | Doing::Releasing);
        state.doing = Doing::Killed;
        state.since = Instant::now();
        life.killed.cancel();
        drop(state);
        self.write(Event::Killed);
        let meaning = if held {
            "Nobody has released the lock. Others get it when its lease has run out, not before."
        } else {
            "It held no lock."
        };
        self.answer("kill -9", "killed", meaning, false);
    }

    /// Writes to the resource that the lock protects. Does not check the state of the lock: the
    /// resource decides by the token.
    async fn write_to_ledger(&self) {
        let Some(process) = self.process.upgrade() else { return };
        let (grant, dead, holds) = {
            let state = self.state();
            (state.grant.clone(), state.life.is_none(), state.doing == Doing::Holding)
        };
        let call = if holds {
            "ledger.write(value, guard.fencing_token())"
        } else {
            "ledger.write(value, old_token)"
        };
        let tell = |answer: &str, meaning: &str, good| {
            self.answer_about(About::Ledger, call, answer, meaning, good);
        };
        if dead {
            return tell("the process is dead", "Start it again first.", false);
        }
        let Some((id, fence)) = grant else {
            return tell("no token", "Acquire the lock first.", false);
        };
        match process.ledger.write(&id, &self.name, fence).await {
            Ok(accepted) => {
                self.write(Event::Wrote { id, fence, accepted });
                match (accepted, holds) {
                    (true, true) => tell("accepted", "No larger token has written before.", true),
                    (true, false) => tell(
                        "accepted",
                        "You no longer hold the lock, but no larger token has written yet, so the \
                         ledger could not tell.",
                        true,
                    ),
                    (false, _) => tell(
                        "refused",
                        "A larger token has written: this write is too late.",
                        false,
                    ),
                }
            }
            Err(why) => tell(&why, "", false),
        }
    }

    /// Polls what no event reports: renewals, and the end of a block.
    pub(crate) fn look(&self) {
        let mut state = self.state();
        if state.blocked_until.is_some_and(|until| until <= Instant::now()) {
            state.blocked_until = None;
        }
        if let Some(guard) = &state.guard {
            let remaining = guard.remaining();
            if remaining > state.remaining + Duration::from_millis(50) && !state.extends {
                state.renewals += 1;
            }
            state.remaining = remaining;
        }
    }

    /// Announces that it is alive, and what it does.
    pub(crate) fn announce(&self) {
        let state = self.state();
        let fence = state.guard.as_ref().map(|guard| guard.fencing_token());
        // With the state locked, so that the entry of its next change comes after this one.
        self.write(Event::Alive { doing: state.doing, id: state.lock.clone(), fence });
    }

    /// An extension begins (true) or has ended (false): its growth of the lease is not a renewal.
    pub(crate) fn extends(&self, extends: bool) {
        let mut state = self.state();
        state.extends = extends;
        if let Some(guard) = &state.guard {
            state.remaining = guard.remaining();
        }
    }

    /// It begins a queued step.
    pub(crate) fn begins_a_step(&self) {
        let mut state = self.state();
        state.queued = state.queued.saturating_sub(1);
    }

    /// It begins to wait for a lock.
    pub(crate) fn waits(&self, id: &str, lease: Duration) {
        self.turn(Doing::Waiting, id);
        self.state().lease = lease;
        self.write(Event::Waits { id: id.to_owned() });
    }

    /// It was granted the lock.
    pub(crate) fn holds(self: &Arc<Self>, guard: LockGuard, lease: Duration) {
        let (id, fence) = (guard.id().to_owned(), guard.fencing_token());
        let lost = guard.lost();
        {
            let mut state = self.state();
            if state.life.is_none() {
                // Killed in the same moment: a drop would release the lock.
                let _ = guard.leak();
                return;
            }
            state.remaining = guard.remaining();
            state.extends = false;
            state.renewals = 0;
            state.lease = lease;
            state.grant = Some((id.clone(), fence));
            state.guard = Some(Arc::new(guard));
        }
        self.turn(Doing::Holding, &id);
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        self.write(Event::Holds { id, fence, lease_ms });
        // Not on the life's runtime, which may be blocked.
        if let Some(process) = self.process.upgrade() {
            let this = Arc::downgrade(self);
            let watch = process.runtime.spawn(async move {
                lost.await;
                if let Some(this) = this.upgrade() {
                    this.lost(fence);
                }
            });
            self.state().watch = Some(AbortOnDropHandle::new(watch));
        }
    }

    /// `guard.lost()` has resolved.
    fn lost(&self, fence: u64) {
        let id = {
            let mut state = self.state();
            let Some(guard) = state.guard.as_ref().filter(|guard| guard.fencing_token() == fence)
            else {
                return;
            };
            let id = guard.id().to_owned();
            state.doing = Doing::Lost;
            state.since = Instant::now();
            id
        };
        self.write(Event::Lost { id });
        self.answer(
            "guard.lost().await",
            "()",
            "The lock is no longer yours. A function under #[locked] is stopped at this point.",
            false,
        );
    }

    /// Takes the guard, to release or drop it.
    pub(crate) fn take_guard(&self) -> Option<(LockGuard, String)> {
        let mut state = self.state();
        state.watch = None;
        let guard = Arc::into_inner(state.guard.take()?)?;
        let id = guard.id().to_owned();
        Some((guard, id))
    }

    /// Counts a debounced call, and returns its number.
    pub(crate) fn calls(&self) -> u64 {
        let mut state = self.state();
        state.calls += 1;
        state.calls
    }

    /// Notes that a call was answered. Returns false if a later call was answered before it: the
    /// answers to a burst come all at once, in any order, and the page shows the last call's.
    pub(crate) fn is_answered(&self, call: u64) -> bool {
        let mut state = self.state();
        let is_last = call > state.answered;
        state.answered = state.answered.max(call);
        is_last
    }

    /// Notes that its runtime is blocked for `time`. Returns the number of renewals so far.
    pub(crate) fn blocks(&self, time: Duration) -> u32 {
        let mut state = self.state();
        state.blocked_until = Some(Instant::now() + time);
        state.renewals
    }

    pub(crate) fn turn(&self, doing: Doing, id: &str) {
        let mut state = self.state();
        if state.life.is_some() {
            state.doing = doing;
            state.since = Instant::now();
            id.clone_into(&mut state.lock);
        }
    }

    pub(crate) fn write(&self, event: Event) {
        if let Some(process) = self.process.upgrade() {
            process.journal.write(self.entry(event));
        }
    }

    fn entry(&self, event: Event) -> Entry {
        Entry {
            instance: self.id.clone(),
            name: self.name.clone(),
            copy: std::process::id(),
            event,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the instance in order, and releases the lock that it holds.
    pub(crate) async fn end(&self) {
        let life = {
            let mut state = self.state();
            state.closed = true;
            state.life.take()
        };
        if let Some(Life { steps, ended, network, killed: _ }) = life {
            network.set(Condition::Open);
            drop(steps);
            let end = async {
                // Not left to its runtime, which may be blocked for longer than the timeout below.
                if let Some((guard, _)) = self.take_guard() {
                    let _ = guard.release().await;
                }
                ended.await
            };
            // Bounded, because the runtime may be blocked, or the store unreachable.
            let _ = timeout(Duration::from_secs(3), end).await;
        }
        if let Some(process) = self.process.upgrade() {
            // Awaited, because the process may be about to end; bounded, because the server may be
            // unreachable.
            let told = process.journal.tell(self.entry(Event::Left));
            let _ = timeout(Duration::from_secs(1), told).await;
        }
    }
}

impl State {
    pub(crate) fn unmask(&self, text: &str) -> String {
        self.life.as_ref().map_or_else(|| text.to_owned(), |life| life.network.unmask(text))
    }

    pub(crate) fn proxy(&self) -> Option<String> {
        self.life.as_ref().and_then(|life| life.network.proxy())
    }

    pub(crate) fn is_breakable(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.network.is_breakable())
    }
}
