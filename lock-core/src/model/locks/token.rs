//! Tokens of clients that are known by their index.

use std::sync::LazyLock;

use crate::{Token, model::NAMES, token};

/// The token of a client's acquisition. They are made once: the model compares them very often.
pub(super) fn token(client: usize, number: u64) -> Token {
    static TOKENS: LazyLock<Vec<Token>> = LazyLock::new(|| {
        let of = |name| (0..NUMBERS).map(move |number| token::made_by(name, number));
        NAMES.into_iter().flat_map(of).collect()
    });
    const NUMBERS: u64 = 4;
    TOKENS[client * NUMBERS as usize + number as usize].clone()
}

/// The client of a token that [`token`] has made.
pub(super) fn client_of(token: &Token) -> usize {
    let client = NAMES.iter().position(|name| token::is_of(token, name));
    client.expect("BUG: a token that no client has made")
}
