//! Where generated code is located.

use proc_macro2::Span;

/// A span with the hygiene of this macro, at a location in the user's code.
pub(crate) fn at(location: Span) -> Span {
    Span::mixed_site().located_at(location)
}
