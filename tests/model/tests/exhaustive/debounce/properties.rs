//! What must hold in every state of debounced calls, and what must be seen in some.

use stateright::Property;

use super::{Debounce, Event};
use crate::{play::Bound, scene::Scene};

type World = crate::world::World<Debounce>;

macro_rules! seen {
    ($name:literal, $event:ident) => {
        Property::sometimes($name, |scene: &Scene<Debounce>, _| scene.play.saw(Event::$event))
    };
}

pub(super) fn of(play: &Debounce, bound: Bound) -> Vec<Property<Scene<Debounce>>> {
    let mut properties = vec![
        Property::always("runs do not overlap", |_, world: &World| {
            let running = |index: &usize| world.peers[*index].callers.is_held(world.now);
            world.living().filter(running).count() <= 1
        }),
        Property::always("no older call runs after a newer one", |_, world: &World| {
            !world.judge.older_ran
        }),
        // A process cannot know whether a run that another one was granted was also done.
        Property::always("a call is superseded by a run", |_, world: &World| {
            !world.judge.superseded_by_nothing
        }),
        Property::always("fencing tokens grow from run to run", |_, world: &World| {
            !world.judge.token_fell
        }),
        seen!("a call runs", Ran),
        seen!("a call is superseded", Superseded),
        seen!("the next window runs", RanAgain),
    ];
    let has_bursts = play.calls.iter().any(|calls| *calls > 1);
    if bound.lasting > 0 {
        properties.push(seen!("a call waits for a run", WaitedForRun));
    }
    if bound.late > 0 {
        properties.push(seen!("a claim is repeated", GrantedAgain));
        properties.push(Property::sometimes(
            "a runner sleeps past its deadline",
            |_, world: &World| {
                let mut callers = world.living().map(|index| &world.peers[index].callers);
                callers.any(|callers| callers.runs() && !callers.is_held(world.now))
            },
        ));
        if has_bursts {
            properties.push(seen!("a run is lost before it was taken", LostUntaken));
        }
    }
    if bound.faults > 0 {
        properties.push(seen!("an older caller takes over", TookOver));
        properties.push(seen!("a run follows one that died", RanAfterCrash));
        if has_bursts {
            properties.push(seen!("a run is passed on", PassedOn));
        }
    }
    properties
}
