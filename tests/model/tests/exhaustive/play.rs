//! What differs between locks, debounced calls and durable calls: what callers do, and what must
//! hold.

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

/// What callers do, and how it is judged.
pub(crate) trait Play: Sized + Debug + Send + Sync + 'static {
    /// What the callers of one process know.
    type Callers: Clone + Hash + Send + Sync;
    /// What only the model knows.
    type Judge: Clone + Hash + Send + Sync;
    /// What a caller does.
    type Act: Copy + Debug + PartialEq + Eq + Ord + Hash + Send + Sync;

    fn callers(&self, process: usize) -> Self::Callers;
    fn judge(&self) -> Self::Judge;

    /// What the callers of a process may do, at times of their own.
    fn acts(&self, world: &World<Self>, process: usize) -> Vec<Self::Act>;
    /// What they may do that counts as a fault.
    fn faults(&self, world: &World<Self>, process: usize) -> Vec<Self::Act>;
    /// What they do at once, unless they are late.
    fn due(&self, world: &World<Self>, process: usize) -> Option<Self::Act>;
    /// When they next do something of their own accord.
    fn next_timer(&self, world: &World<Self>, process: usize) -> Moment;
    fn act(&self, world: &mut World<Self>, process: usize, act: Self::Act);

    /// A caller of a process is told something.
    fn told(&self, world: &mut World<Self>, process: usize, output: Output<Who>);
    /// The server has executed a call.
    fn executed(&self, world: &mut World<Self>, executed: &Executed<'_>);

    /// Is something in progress in this process that takes time?
    fn lasts(&self, callers: &Self::Callers) -> bool;
    /// Have the callers of this process begun anything?
    fn has_begun(&self, process: usize, callers: &Self::Callers) -> bool;
    /// Do the callers of this process want to do something later?
    fn is_calling(&self, callers: &Self::Callers) -> bool;
    /// Are the callers of this process done?
    fn is_done(&self, callers: &Self::Callers) -> bool;
    /// Is something in the server that no caller of a living process wants any more?
    fn has_leftovers(&self, world: &World<Self>) -> bool;
    /// Is the server in the state that it must be in when all callers are done?
    fn is_left_well(&self, world: &World<Self>) -> bool;

    /// The lock that is looked at before and after each call.
    fn key(&self) -> &'static str;
    /// When everything must be over.
    fn end(&self) -> Duration;
    fn properties(&self, bound: Bound) -> Vec<Property<Scene<Self>>>;
}

/// A call that was executed, and the holder of the lock before and after it.
pub(crate) struct Executed<'a> {
    pub(crate) call: &'a Call<Who>,
    pub(crate) answer: &'a Answer<Who>,
    pub(crate) before: Option<Token>,
    pub(crate) after: Option<Token>,
}

/// What may happen, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Bound {
    /// How often time may pass although something could be done.
    pub(crate) late: u8,
    /// How often time may pass while something is in progress that takes time.
    pub(crate) lasting: u8,
    /// How often time may pass before callers do what they want to do later.
    pub(crate) calling: u8,
    /// Cuts, crashes, callers that go away and lost notices, in total.
    pub(crate) faults: u8,
    /// Losses of all data.
    pub(crate) wipes: u8,
}
