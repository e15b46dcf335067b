//! What must hold in every state of the lock model, and what must be seen in some.

use stateright::{Model, Property};

use super::{Action, END, Event, Locks, State};
use crate::Moment;

pub(super) fn of(model: &Locks) -> Vec<Property<Locks>> {
    let mut properties: Vec<Property<Locks>> = vec![
        Property::always("each fence is larger than all before", |_, state: &State| {
            !state.fence_fell
        }),
        Property::always("only the newest grant is renewed", |_, state: &State| !state.renewed_old),
        Property::always("a release leaves no waiter behind", |_, state: &State| {
            !state.store.leaves_waiter(state.now)
        }),
        Property::always("no lock is handed to the dead", |_, state: &State| !state.handed_to_dead),
        Property::always("a lock that has expired is soon taken", |_, state: &State| {
            !state.is_left_lying()
        }),
        Property::always("nothing is left of who went away", |_, state: &State| {
            // It is undone as soon as its process can speak.
            !state.is_quiet() || state.has_executed_stale || !state.has_leftovers(true)
        }),
        Property::always("nobody waits for ever", |_, state: &State| {
            state.now < Moment::default() + END
        }),
        Property::always("in the end all is done, and the lock is free", |model: &Locks, state| {
            is_over(model, state).is_none_or(|done| done)
        }),
        Property::sometimes("a lock is handed over", |m: &Locks, _| m.saw(Event::HandedOver)),
        Property::sometimes("a hand-over is claimed", |m: &Locks, _| m.saw(Event::Claimed)),
        Property::sometimes("a token waits", |m: &Locks, _| m.saw(Event::Queued)),
    ];
    if model.acquisitions[0] > 1 {
        properties.push(Property::sometimes("it passes inside a process", |m: &Locks, _| {
            m.saw(Event::LocalHandOver)
        }));
    }
    if model.bound.late + model.bound.holding > 0 {
        properties
            .push(Property::sometimes("a lease is renewed", |m: &Locks, _| m.saw(Event::Renewed)));
    }
    if model.bound.late > 0 {
        properties.extend([
            Property::sometimes("a holder sleeps past its deadline", |_, state: &State| {
                let mut clients = state.living().map(|client| &*state.clients[client]);
                clients.any(|this| this.hold().is_some() && !this.is_held(state.now))
            }),
            Property::sometimes("a reply comes too late", |m: &Locks, _| m.saw(Event::LateReply)),
            Property::sometimes("an expired lock is taken", |m: &Locks, _| {
                m.saw(Event::TookOverExpired)
            }),
            Property::sometimes("a request is repeated", |m: &Locks, _| m.saw(Event::GrantedAgain)),
        ]);
    }
    if model.bound.wipes == 0 {
        properties.extend([
            Property::always("at most one guard is valid", |_, state: &State| {
                state.valid_guards() <= 1
            }),
            Property::always("fencing tokens grow from guard to guard", |_, state: &State| {
                !state.token_fell
            }),
        ]);
    }
    if model.bound.faults > 0 {
        properties.extend([
            Property::sometimes("an old request is executed", |m: &Locks, _| {
                m.saw(Event::ExecutedStale)
            }),
            Property::sometimes("a waiter withdraws", |m: &Locks, _| m.saw(Event::Withdrawn)),
            Property::sometimes("an unclaimed lock is passed on", |m: &Locks, _| {
                m.saw(Event::PassedOn)
            }),
        ]);
    }
    properties
}

/// If nothing more happens by itself: is everything done?
fn is_over(model: &Locks, state: &State) -> Option<bool> {
    if !state.is_quiet() {
        return None;
    }
    let mut actions = Vec::new();
    model.actions(state, &mut actions);
    actions.retain(|action| {
        use Action::{Cancel, Crash, ExecuteStale, Wipe};
        !matches!(action, ExecuteStale(_) | Wipe | Cancel(..) | Crash(..))
    });
    let done = state.living().all(|client| state.clients[client].is_done());
    actions.is_empty().then_some(done && state.store.is_free(state.now))
}
