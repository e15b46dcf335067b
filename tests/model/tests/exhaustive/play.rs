//! What is different for locks, debounced calls and durable calls: what callers do, and what must hold.

use std::{fmt::Debug, hash::Hash, time::Duration};

use lock_core::{
    Moment, Token,
    engine::{
        calls::{Answer, Call},
        io::Output,
    },
};
use lock_model::Who;
use stateright::Property;

use crate::{scene::Scene, world::World};

/// What callers do, and what is made of it.
pub(crate) trait Play: Sized + Debug + Send + Sync + 'static {
    /// What the callers of one process know.
    type Callers: Clone + Hash + Send + Sync;
    /// What is known to nobody but the model.
    type Judge: Clone + Hash + Send + Sync;
    /// What a caller does.
    type Act: Copy + Debug + PartialEq + Eq + Ord + Hash + Send + Sync;

    fn callers(&self, process: usize) -> Self::Callers;
    fn judge(&self) -> Self::Judge;

    /// What the callers of a process may do, each in its own time.
    fn acts(&self, world: &World<Self>, process: usize) -> Vec<Self::Act>;
    /// What they may do that is counted as a fault.
    fn faults(&self, world: &World<Self>, process: usize) -> Vec<Self::Act>;
    /// What they do at once, unless they are late, and when they do something by themselves.
    fn due(&self, world: &World<Self>, process: usize) -> Option<Self::Act>;
    fn next_timer(&self, world: &World<Self>, process: usize) -> Moment;
    fn act(&self, world: &mut World<Self>, process: usize, act: Self::Act);

    /// A caller of a process is told something.
    fn told(&self, world: &mut World<Self>, process: usize, output: Output<Who>);
    /// The server has executed a call.
    fn executed(&self, world: &mut World<Self>, executed: &Executed<'_>);

    /// Does something go on that lasts, in this process?
    fn lasts(&self, callers: &Self::Callers) -> bool;
    /// Have the callers of this process begun with anything?
    fn has_begun(&self, process: usize, callers: &Self::Callers) -> bool;
    /// Do the callers of this process want to do something later?
    fn is_calling(&self, callers: &Self::Callers) -> bool;
    /// Are the callers of this process done?
    fn is_done(&self, callers: &Self::Callers) -> bool;
    /// Is something in the server that no caller of a living process wants any more?
    fn has_leftovers(&self, world: &World<Self>) -> bool;
    /// Is the server as it has to be when all are done?
    fn is_left_well(&self, world: &World<Self>) -> bool;

    /// Which lock is looked at before and after each call.
    fn key(&self) -> &'static str;
    /// By when all must be over.
    fn end(&self) -> Duration;
    fn properties(&self, bound: Bound) -> Vec<Property<Scene<Self>>>;
}

/// A call that was executed, and who held the lock before and after it.
pub(crate) struct Executed<'a> {
    pub(crate) call: &'a Call<Who>,
    pub(crate) answer: &'a Answer<Who>,
    pub(crate) before: Option<Token>,
    pub(crate) after: Option<Token>,
}

/// What may happen, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Bound {
    /// Times that pass though somebody could go on.
    pub(crate) late: u8,
    /// Times that pass while something goes on that lasts.
    pub(crate) lasting: u8,
    /// Times that pass before callers do what they want to do later.
    pub(crate) calling: u8,
    /// Cuts, crashes, callers that go away, notices that are lost, in all.
    pub(crate) faults: u8,
    /// Losses of all data.
    pub(crate) wipes: u8,
}
