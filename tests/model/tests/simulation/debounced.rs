//! Callers of debounced functions.

use std::rc::Rc;

use lock_core::engine::io::{Command, DebouncedCall, Outcome, Refusal, Terms, Work};
use lock_judge::Random;

use crate::{
    process::Process,
    tasks::Told,
    world::{MILLI, run_key, window_key},
};

/// Makes one call after another.
pub(crate) async fn call(process: Rc<Process>, mut random: Random, rounds: u64) {
    let world = Rc::clone(&process.world);
    for _ in 0..rounds {
        process.sleep(random.below(400 * MILLI)).await;
        let limit = random.one_in(8).then_some(process.lease);
        let terms = Terms::of_run(process.lease, limit);
        let (asked, made) = (world.now(), world.store.borrow().micros(world.now()));
        let run = run_key();
        let calling = process.ask_for(&run, terms, |acquirer| {
            let (window, terms) = (window_key(), world.window);
            Command::Debounce(Box::new(DebouncedCall { acquirer, window, terms }))
        });
        let told = match random.one_in(6) {
            true => process.within(random.below(600 * MILLI), calling).await,
            false => Some(calling.await),
        };
        let is_calm = world.weather.is_calm();
        match told {
            None => {}
            Some(Ok(Told::Granted(held, work))) => {
                let (client, token) = (&process.id, held.hold.token.as_str());
                world.store.borrow_mut().bursts.taken(&window_key(), client, token);
                if matches!(work, Work::Burst { followed: true }) {
                    process.send(Command::RunTaken(held.hold.name));
                }
                let longest = if random.one_in(5) { 3000 } else { 60 };
                held.delivered(asked).hold_for(random.below(longest * MILLI)).await;
            }
            Some(Ok(Told::Else(Outcome::Superseded))) => {
                let now = world.store.borrow().micros(world.now());
                let mut judge = world.judge.borrow_mut();
                judge.totals.superseded += 1;
                let (bursts, client) = (&mut world.store.borrow_mut().bursts, &process.id);
                bursts.superseded(&window_key(), client, [made, now], &mut judge);
            }
            Some(Ok(Told::Else(_))) => world.violation("a debounced call has another's answer"),
            Some(Err(Refusal::Closed)) if process.is_closing.get() => return,
            Some(Err(Refusal::Failed(error, _))) if is_calm => world.violation(error),
            Some(Err(Refusal::Lost(what))) if is_calm => world.violation(what),
            Some(Err(Refusal::Failed(..) | Refusal::Lost(_))) => {}
            Some(Err(_)) => world.violation("a debounced call is refused for no reason"),
        }
    }
}
