//! Callers of durable functions, and the worker of each process that runs them: the part of
//! `lock/src/durable/worker.rs` that the store sees.

use std::{cell::Cell, rc::Rc, sync::Arc};

use lock_core::{
    contract::{DueCalls, DueRequest, FinishRequest, KeepRequest, TakeBackRequest},
    engine::io::{Command, Outcome, Query, Refusal, RunClaim, Terms, Work},
};
use lock_judge::Random;

use crate::{
    books::Arguments,
    held::Held,
    process::Process,
    tasks::Told,
    world::{MILLI, book, durable_run_key, ms},
};

/// The ids of the durable functions.
pub(crate) const IDS: [&str; 2] = ["x0", "x1"];

/// How often a worker looks for calls that other processes have made, and by how much it lets their
/// caller go first.
const LOOK: u64 = 2000 * MILLI;
const LATER: u64 = 300 * MILLI;

/// How many runs of one function a process carries out at once.
const RUNS: usize = 2;

/// The pause before a request without an answer is repeated.
const AGAIN: u64 = 50 * MILLI;

struct Worker {
    process: Rc<Process>,
    looks_at: Cell<u64>,
    task: Cell<usize>,
    running: Cell<usize>,
    random: std::cell::RefCell<Random>,
}

pub(crate) fn begin(process: &Rc<Process>, calls: Random, runs: Random, rounds: u64) {
    let worker = Rc::new(Worker {
        process: Rc::clone(process),
        looks_at: Cell::new(u64::MAX),
        task: Cell::new(0),
        running: Cell::new(0),
        random: std::cell::RefCell::new(runs),
    });
    worker.task.set(process.spawn(work(Rc::clone(&worker))));
    process.spawn_counted(call(worker, calls, rounds));
}

/// Makes one call after another.
async fn call(worker: Rc<Worker>, mut random: Random, rounds: u64) {
    let process = &worker.process;
    for round in 0..rounds {
        process.sleep(random.below(1500 * MILLI)).await;
        let id = IDS[random.below(IDS.len() as u64) as usize];
        let fails = if random.one_in(3) { random.below(5) as u32 } else { 0 };
        let call = random.any() >> 16 << 4 | round;
        let arguments = Arguments { call, fails, attempts: 1 + random.below(3) as u32 };
        let wait = ms(random.below(300));
        let max_wait = random.one_in(3).then(|| wait + ms(random.below(300)));
        let request = KeepRequest::new(book(), id, arguments.text(), wait)
            .max_wait(max_wait)
            .retry(arguments.attempts, ms(20 + random.below(200)));
        match insist(process, || Query::Keep(request.clone())).await {
            Ok(Told::Else(Outcome::Kept(kept))) => {
                let due = process.world.now() + kept.due_in.as_nanos() as u64;
                worker.looks_at.set(worker.looks_at.get().min(due));
                process.wake(worker.task.get());
            }
            Ok(_) => process.world.violation("a call to be kept has another's answer"),
            Err(Refusal::Closed) if process.is_closing.get() => return,
            Err(Refusal::Failed(error, _)) if process.world.weather.is_calm() => {
                process.world.violation(error);
            }
            Err(_) => {}
        }
        if random.one_in(8) {
            let request = match random.one_in(2) {
                true => TakeBackRequest::run_again(book(), id),
                false => TakeBackRequest::forget(book(), id),
            };
            let _ = process.query(Query::TakeBack(request)).await;
            let _ = process.query(Query::SetAside(book())).await;
        }
    }
}

/// Asks again while the store does not answer, within the time that a caller can be expected to
/// wait.
async fn insist(process: &Rc<Process>, ask: impl Fn() -> Query) -> Result<Told, Refusal> {
    let began = process.world.now();
    loop {
        let answer = process.query(ask()).await;
        let is_silence = matches!(answer, Err(Refusal::Failed(..)));
        if !is_silence || process.world.now() > began + LOOK {
            return answer;
        }
        process.sleep(AGAIN).await;
    }
}

/// Runs what is due.
async fn work(worker: Rc<Worker>) {
    let process = Rc::clone(&worker.process);
    loop {
        let looks_at = match look(&worker).await {
            Err(Refusal::Closed) => return,
            Ok(looks_at) => looks_at,
            Err(_) => process.world.now() + LOOK,
        };
        worker.looks_at.set(looks_at.min(worker.looks_at.get()));
        // A call that is due earlier makes the worker look earlier.
        loop {
            let until = worker.looks_at.get();
            process.sleep_or(until, || worker.looks_at.get() < until).await;
            if process.world.now() >= worker.looks_at.get() {
                break;
            }
        }
        worker.looks_at.set(u64::MAX);
    }
}

/// Begins the runs that are due. Returns when to look next.
async fn look(worker: &Rc<Worker>) -> Result<u64, Refusal> {
    let (process, world) = (&worker.process, &worker.process.world);
    let room = RUNS - worker.running.get();
    if room == 0 {
        return Ok(world.now() + LATER);
    }
    let due = process.query(Query::Due(DueRequest::new(book(), room))).await?;
    let Told::Else(Outcome::Due(DueCalls { ids, next, .. })) = due else {
        world.violation("what is due has another's answer");
        return Ok(world.now() + LOOK);
    };
    for id in ids {
        if worker.running.get() == RUNS {
            break;
        }
        let id: Arc<str> = id.into();
        let limit = worker.random.borrow_mut().one_in(8).then(|| process.lease + ms(2000));
        let (key, terms) = (durable_run_key(&id), Terms::of_run(process.lease, limit));
        let asked = world.now();
        let told = process.ask_for(&key, terms, |acquirer| {
            let id = Arc::clone(&id);
            Command::Claim(Box::new(RunClaim { acquirer, book: book(), id }))
        });
        match told.await? {
            Told::Granted(held, Work::Durable { call, attempt, arguments }) => {
                let held = held.delivered(asked);
                worker.running.set(worker.running.get() + 1);
                let run = (call, attempt, Arguments::read(&arguments));
                process.spawn(carry_out(Rc::clone(worker), id, held, run));
            }
            Told::Else(Outcome::NothingDue) => {}
            _ => world.violation("a claim has another's answer"),
        }
    }
    let next = next.map_or(LOOK, |next| next.as_nanos() as u64 + LATER);
    Ok(world.now() + next.min(LOOK))
}

/// One run, from its claim to the outcome of its call.
async fn carry_out(
    worker: Rc<Worker>,
    id: Arc<str>,
    held: Held,
    (call, attempt, arguments): (u64, u32, Arguments),
) {
    let (process, world) = (&worker.process, &worker.process.world);
    let longest = if worker.random.borrow_mut().one_in(5) { 3000 } else { 100 };
    let takes = worker.random.borrow_mut().below(longest * MILLI);
    if held.hold_for(takes).await {
        // The work under the lock is over, and the store frees it when the run is finished.
        process.end_section(&held.hold);
        world.store.borrow_mut().books.ended(arguments);
        let error = (attempt <= arguments.fails).then(|| "it was to fail".into());
        let numbers = (call, held.hold.fencing_token);
        let key = durable_run_key(&id);
        let request = FinishRequest::new(book(), id, key, held.hold.token.clone(), numbers);
        let request = request.failed(error);
        // While the lock is held, no other run begins; if no answer comes by then, the call is run
        // again.
        while held.is_held() {
            match insist(process, || Query::Finish(request.clone())).await {
                Err(Refusal::Failed(..)) => {}
                _ => break,
            }
        }
    }
    // The answer means that the lock is free; this is for the guard, and for an answer that did not
    // come.
    let _ = held.release().await;
    worker.running.set(worker.running.get() - 1);
    worker.looks_at.set(0);
    process.wake(worker.task.get());
}
