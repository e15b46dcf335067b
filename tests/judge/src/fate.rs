//! The fate of a request on a network where everything can go wrong.

use crate::Random;

/// The fate of a request and of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is executed, and its answer arrives.
    Answered,
    /// It is executed twice, as if it had been sent again; the second answer reaches no caller.
    Twice,
    /// It is not executed.
    RequestLost,
    /// It is executed, and its answer is lost.
    ReplyLost,
}

impl Fate {
    /// Each mishap befalls one request in thirty.
    pub fn draw(random: &mut Random) -> Self {
        match random.below(30) {
            0 => Self::RequestLost,
            1 => Self::ReplyLost,
            2 => Self::Twice,
            _ => Self::Answered,
        }
    }
}
