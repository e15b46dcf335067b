//! What the simulation and the histories have in common: what is drawn from a seed, and the judge of
//! what the holders saw. Neither knows the library, so a mistake in one cannot hide one in the other.
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
