//! Notices on their way.

use lock_core::contract::Notice;

/// A notice on its way, as a type that can be ordered: its kind, and the number in the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Word {
    Granted(u64),
    Contended(u64),
    Revoked(u64),
    Flushed(u64),
}

impl Word {
    pub(crate) fn of(notice: Notice) -> Self {
        match notice {
            Notice::Granted { number } => Self::Granted(number),
            Notice::Contended { number } => Self::Contended(number),
            Notice::Revoked { number } => Self::Revoked(number),
            Notice::Flushed { number } => Self::Flushed(number),
            other => panic!("no server says {other:?} about one lock"),
        }
    }

    pub(crate) fn notice(self) -> Notice {
        match self {
            Self::Granted(number) => Notice::Granted { number },
            Self::Contended(number) => Notice::Contended { number },
            Self::Revoked(number) => Notice::Revoked { number },
            Self::Flushed(number) => Notice::Flushed { number },
        }
    }

    pub(crate) fn number(self) -> u64 {
        let (Self::Granted(number)
        | Self::Contended(number)
        | Self::Revoked(number)
        | Self::Flushed(number)) = self;
        number
    }
}
