//! Where generated code is located.

use proc_macro2::Span;

/// The hygiene of this macro, at a location of the user's.
pub(crate) fn at(location: Span) -> Span {
    Span::mixed_site().located_at(location)
}
