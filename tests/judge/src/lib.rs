//! What the simulation and the histories share: randomness from a seed, and the judge of what the
//! holders saw. Neither knows the library, so a mistake there cannot hide one here.
#![forbid(unsafe_code)]

mod calls;
mod fate;
mod history;
mod random;

pub use self::{
    calls::{Call, Outcome},
    fate::Fate,
    history::{Forgetting, History, Loss, Refusal, Section, Verdict},
    random::Random,
};
