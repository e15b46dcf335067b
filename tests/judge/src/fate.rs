//! What becomes of a request on a network on which everything goes wrong.

use crate::Random;

/// What becomes of a request, and of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is executed, and its answer comes.
    Answered,
    /// It is executed twice, as it is if it was sent again: the second answer comes to nobody.
    Twice,
    /// It is not executed.
    RequestLost,
    /// It is executed, and its answer comes to nobody.
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
