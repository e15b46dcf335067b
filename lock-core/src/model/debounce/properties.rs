//! What must hold in every state of the debounce model, and what must be seen in some.

use stateright::{Model, Property};

use super::{Action, Debounce, END, Event, State};
use crate::Moment;

pub(super) fn of(model: &Debounce) -> Vec<Property<Debounce>> {
    let mut properties = vec![
        Property::always("runs do not overlap", |_, state: &State| {
            let running = |process: &usize| state.processes[*process].is_held(state.now);
            state.living().filter(running).count() <= 1
        }),
        Property::always("no older call runs after a newer one", |_, state: &State| {
            !state.older_ran
        }),
        // Of a process that was granted a run, another one cannot know whether it was done.
        Property::always("a call is superseded by a run", |_, state: &State| {
            !state.superseded_by_nothing
        }),
        Property::always("fences grow from run to run", |_, state: &State| !state.token_fell),
        Property::always("nobody waits for ever", |_, state: &State| {
            state.now < Moment::default() + END
        }),
        Property::always("in the end every call is answered", |model: &Debounce, state| {
            is_over(model, state).is_none_or(|done| done)
        }),
        Property::sometimes("a call runs", |m: &Debounce, _| m.saw(Event::Ran)),
        Property::sometimes("a call is superseded", |m: &Debounce, _| m.saw(Event::Superseded)),
        Property::sometimes("the next window runs", |m: &Debounce, _| m.saw(Event::RanAgain)),
    ];
    if model.bound.running > 0 {
        properties.push(Property::sometimes("a call waits for a run", |m: &Debounce, _| {
            m.saw(Event::WaitedForRun)
        }));
    }
    if model.bound.late > 0 {
        properties.extend([
            Property::sometimes("a claim is repeated", |m: &Debounce, _| {
                m.saw(Event::GrantedAgain)
            }),
            Property::sometimes("a reply comes too late", |m: &Debounce, _| {
                m.saw(Event::LateReply)
            }),
            Property::sometimes("a runner sleeps past its deadline", |_, state: &State| {
                let mut processes = state.living().map(|process| &state.processes[process]);
                processes.any(|this| this.runs() && !this.is_held(state.now))
            }),
        ]);
        if model.calls.iter().any(|calls| *calls > 1) {
            properties.push(Property::sometimes(
                "a run is lost before it was taken",
                |m: &Debounce, _| m.saw(Event::LostUntaken),
            ));
        }
    }
    if model.bound.faults > 0 {
        properties.extend([
            Property::sometimes("an older caller takes over", |m: &Debounce, _| {
                m.saw(Event::TookOver)
            }),
            Property::sometimes("a run follows one that died", |m: &Debounce, _| {
                m.saw(Event::RanAfterCrash)
            }),
            Property::sometimes("an old request is executed", |m: &Debounce, _| {
                m.saw(Event::ExecutedStale)
            }),
        ]);
        if model.calls.iter().any(|calls| *calls > 1) {
            properties.push(Property::sometimes("a run is passed on", |m: &Debounce, _| {
                m.saw(Event::PassedOn)
            }));
        }
    }
    properties
}

/// If nothing more happens by itself: is everything done?
fn is_over(model: &Debounce, state: &State) -> Option<bool> {
    if !state.is_quiet() {
        return None;
    }
    let mut actions = Vec::new();
    model.actions(state, &mut actions);
    actions.retain(|action| {
        use Action::{Cancel, Crash, ExecuteStale, Pause};
        !matches!(action, ExecuteStale(_) | Pause | Cancel(..) | Crash(..))
    });
    let done = state.living().all(|process| state.processes[process].is_done());
    actions.is_empty().then_some(done)
}
