//! Situations that users of locks have reported, with a minimal input for each kind.

mod bulk;
mod foreign_keys;
mod fork;
mod honest_errors;
mod slow_links;
mod user_code;
