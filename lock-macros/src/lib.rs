//! Attributes of the `lock` crate.

mod args;
mod duration;
mod expand;
mod function;
mod template;

use proc_macro::TokenStream;

/// Locked.
#[proc_macro_attribute]
pub fn locked(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(args::Attribute::Locked, args.into(), item.into()).into()
}

/// Debounced.
#[proc_macro_attribute]
pub fn debounced(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(args::Attribute::Debounced, args.into(), item.into()).into()
}
