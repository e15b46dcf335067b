//! Callers that want locks.

use std::{rc::Rc, sync::Arc, time::Duration};

use lock_core::{
    Token,
    engine::io::{Acquire, Command, Patience, Refusal, Terms},
};
use lock_judge::Random;

use crate::{
    held::{Held, LONGEST_EXTENSION},
    process::Process,
    tasks::Told,
    weather::Weather,
    world::{IDS, MILLI, lock_key, ms},
};

const LONG: Duration = Duration::from_secs(20);

/// How much longer than its patience a caller may have to wait for its answer: for a last look, as
/// long as the store may be silent.
const LAST_LOOK: u64 = 6000 * MILLI;

/// The longest that a lock may be free while a caller waits for it: a heartbeat, a cut and a lost
/// reply.
const HEARTBEAT: u64 = 12_000 * MILLI;

/// Makes one acquisition after another.
pub(crate) async fn call(process: Rc<Process>, mut random: Random, rounds: u64) {
    for _ in 0..rounds {
        if random.one_in(3) {
            process.sleep(random.below(300 * MILLI)).await;
        }
        let key = lock_key(random.below(IDS));
        let hold =
            if random.one_in(5) { random.below(3000 * MILLI) } else { random.below(60 * MILLI) };
        let mut terms = Terms::of_run(process.lease, None);
        // A hand-over between callers with different leases is a new request with the same token.
        if random.one_in(3) {
            terms.lease = (process.lease / 3).max(ms(400));
        }
        if random.one_in(4) {
            terms.hold_at_least = ms(random.below(300));
        }
        // The limit is chosen so that it never ends a hold where nothing goes wrong.
        if random.one_in(6) {
            let limit = terms.lease + ms(random.below(1000));
            let is_harmless =
                !process.world.weather.is_calm() || u128::from(hold) * 2 < limit.as_nanos();
            terms.hold_at_most = is_harmless.then_some(limit);
        }
        let asked = process.world.now();
        let told = match random.below(7) {
            0 => acquire(&process, &key, terms, Patience::For(Duration::ZERO)).await,
            1 => {
                let patience = random.below(200 * MILLI);
                let acquire = acquire(&process, &key, terms, Patience::For(LONG));
                match process.within(patience, acquire).await {
                    Some(told) => told,
                    None => continue,
                }
            }
            2 => {
                let patience = Patience::Attempts { attempts: 3, delay: ms(50) };
                acquire(&process, &key, terms, patience).await
            }
            3 => {
                let patience = Patience::For(ms(1 + random.below(600)));
                acquire(&process, &key, terms, patience).await
            }
            _ => acquire(&process, &key, terms, Patience::For(LONG)).await,
        };
        let Some(held) = granted(&process, &key, told) else {
            if process.is_closing.get() {
                return;
            }
            continue;
        };
        let held = held.delivered(asked);
        let mut left = hold;
        if random.one_in(6) && terms.hold_at_most.is_none() {
            left = hold / 2;
            if held.hold_for(hold - left).await {
                extend(&process, &held, ms(1 + random.below(LONGEST_EXTENSION))).await;
            }
        }
        if !held.hold_for(left).await && process.world.weather.is_calm() {
            process.world.violation(format!("{key}: lost where nothing goes wrong"));
        }
        if random.one_in(6) && terms.hold_at_most.is_none() {
            // The extension's caller goes away: its answer may come when another caller has the
            // lock.
            let by = ms(1 + random.below(LONGEST_EXTENSION));
            process.within(random.below(4 * MILLI), held.extend(by)).await;
        }
        match random.below(8) {
            0 => leak(&process, held, &mut random),
            1..4 => drop(held.release().await),
            4 => drop(held),
            5 => {
                let token = held.hold.token.clone();
                drop(held);
                flush(&process, &key, &token, terms).await;
            }
            // Dropped by another task than the one that acquired it.
            _ => drop(process.spawn(async move { drop(held) })),
        }
    }
}

async fn acquire(
    process: &Rc<Process>,
    key: &Arc<str>,
    terms: Terms,
    patience: Patience,
) -> Result<Told, Refusal> {
    let (world, began) = (Rc::clone(&process.world), process.world.now());
    let told = process
        .ask_for(key, terms, |acquirer| {
            Command::Acquire(Box::new(Acquire { acquirer, patience, adopt: None }))
        })
        .await;
    let took = world.now() - began;
    let judges = world.weather;
    if let Patience::For(patience) = patience
        && !patience.is_zero()
    {
        let gap = world.store.borrow_mut().lines.longest_gap(key, [began, world.now()]);
        if gap > HEARTBEAT && judges != Weather::Stalls {
            let gap = Duration::from_nanos(gap);
            world.violation(format!("{key}: free for {gap:?} while {} waits", process.id));
        }
        let most = patience.as_nanos() as u64 * 102 / 100;
        let late = if judges.is_calm() { 100 * MILLI } else { LAST_LOOK };
        if took > most + late && judges != Weather::Stalls {
            let took = Duration::from_nanos(took);
            world.violation(format!("{key}: patience of {patience:?}, and it took {took:?}"));
        }
        if let Err(Refusal::BusyFor(_)) = told
            && took < patience.as_nanos() as u64 * 98 / 100
        {
            world.violation(format!("{key}: refused before its patience of {patience:?} is over"));
        }
    }
    told
}

/// Returns the lock if it was granted, and counts the other outcomes.
fn granted(process: &Process, key: &str, told: Result<Told, Refusal>) -> Option<Held> {
    let is_calm = process.world.weather.is_calm();
    match told {
        Ok(Told::Granted(held, _)) => return Some(held),
        Ok(Told::Else(_)) => process.world.violation(format!("{key}: neither granted nor refused")),
        Err(Refusal::BusyFor(_) | Refusal::BusyAtEach(..)) => {
            process.world.judge.borrow_mut().totals.busy += 1;
        }
        Err(Refusal::Failed(error, _)) if is_calm => {
            process.world.violation(format!("{key}: {error}"));
        }
        Err(Refusal::Failed(..)) => {}
        Err(Refusal::Closed) if process.is_closing.get() => {}
        Err(_) => process.world.violation(format!("{key}: refused for no reason")),
    }
    None
}

async fn extend(process: &Process, held: &Held, by: Duration) {
    let extended = held.extend(by).await;
    if process.world.weather.is_calm() && extended.is_err() {
        process.world.violation(format!("{}: not extended", held.hold.key));
    }
}

/// Flushes: afterwards, a lock that was dropped before is free.
async fn flush(process: &Rc<Process>, key: &Arc<str>, token: &Token, terms: Terms) {
    let _ = process.ask(None, Command::Flush).await;
    let world = &process.world;
    let holder = world.store.borrow_mut().holder(key, world.now());
    let number = lock_core::token::parts(token).1;
    let is_kept = !terms.hold_at_least.is_zero() || process.cares_for(number);
    if world.weather.is_calm() && holder.as_ref() == Some(token) && !is_kept {
        // The entry may serve callers that came later.
        if !process.waits_for(key) {
            world.violation(format!("{key}: held after a flush"));
        }
    }
}

/// Leaks a lock, which another caller adopts, or does not.
fn leak(process: &Rc<Process>, held: Held, random: &mut Random) {
    let (key, token) = (Arc::clone(&held.hold.key), held.leak());
    process.leaked(lock_core::token::parts(&token).1);
    let world = &process.world;
    let to = random.below(world.processes.borrow().len() as u64) as usize;
    let to = Rc::clone(&world.processes.borrow()[to]);
    let (late, hold) = (random.below(200 * MILLI), random.below(100 * MILLI));
    let adopting = Rc::clone(&to);
    to.spawn_counted(async move {
        adopting.sleep(late).await;
        let (asked, terms) = (adopting.world.now(), Terms::of_run(adopting.lease, None));
        let (patience, adopt) = (Patience::For(Duration::ZERO), Some(token));
        let told = adopting.ask_for(&key, terms, |acquirer| {
            Command::Acquire(Box::new(Acquire { acquirer, patience, adopt }))
        });
        match told.await {
            Ok(Told::Granted(held, _)) => {
                adopting.world.judge.borrow_mut().totals.adopted += 1;
                held.delivered(asked).hold_for(hold).await;
            }
            Ok(_) => adopting.world.violation("neither adopted nor refused"),
            Err(_) if !adopting.world.weather.is_calm() => {}
            Err(_) => adopting.world.violation(format!("{key}: not adopted")),
        }
    });
}
