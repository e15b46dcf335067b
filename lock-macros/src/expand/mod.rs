//! Turns arguments and a function into the code that calls the runtime.
//!
//! Paths are absolute and new names start with `__lock_`. New tokens have the hygiene of a macro,
//! so that neither names nor lints of the user's code reach them. They are located at the user's
//! token that they stand for, because that is where an error about them is shown.

mod debounced;
mod detached;
mod durable;
mod locked;
mod parts;

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Error, parse_quote_spanned};

use crate::{
    args::{Args, Mistakes},
    attribute::Attribute,
    check::check,
    function::{self, Function},
    stack::Stack,
};

// Input: the tokens of the attribute and of the item under it.
// Output: the item with the attribute applied, and with our other attributes below it; or every
//         mistake, and the item without these attributes, so that nothing else in the crate fails
//         because the item is missing.
pub(crate) fn expand(attribute: Attribute, args: TokenStream, item: &TokenStream) -> TokenStream {
    let stack = Stack::of(item);
    let mut mistakes = Mistakes::default();
    let args = Args::parse(attribute, args, Span::call_site(), &mut mistakes);
    let locks = stack.locked(attribute, &mut mistakes);
    let function = mistakes.take(Function::parse(attribute, stack.item.clone()));
    if let (Some(function), None) = (&function, &mistakes.0) {
        check(attribute, args.iter_with(&locks), function, &mut mistakes);
        detached::check(&args, function, &mut mistakes);
        if args.durable.is_some() {
            durable::check(&args, function, &mut mistakes);
        }
    }
    let errors = mistakes.0.map(Error::into_compile_error);
    match function {
        Some(function) if errors.is_none() && args.durable.is_some() => {
            durable::durable(&args, &locks, &function, &stack.uses())
        }
        Some(mut function) if errors.is_none() => {
            function.take_unused(&args.iter_with(&locks).collect::<Vec<_>>());
            let statements = match attribute {
                Attribute::Locked if locks.is_empty() => locked::locked(&args, &function),
                Attribute::Locked => locked::all_locked(&args, &locks, &function),
                Attribute::Debounced => debounced::debounced(&args, &locks, &mut function),
            };
            let uses = stack.uses();
            function.with(quote!(#uses #statements))
        }
        Some(mut function) if attribute == Attribute::Debounced => {
            let stub = stub(&args, &mut function);
            quote!(#errors #[allow(unused_variables)] #stub)
        }
        _ => {
            let item = stack.item;
            // Without its attributes, the function may not use all its arguments; that is not
            // another mistake.
            quote!(#errors #[allow(unused_variables)] #item)
        }
    }
}

// Output: the function with the return type that it will have without the mistakes. Otherwise the
//         compiler would report a wrong type at each of its callers. The body is checked, but never
//         runs.
fn stub(args: &Args, function: &mut Function) -> TokenStream {
    let span = Span::mixed_site();
    let krate = args.krate(span);
    let body = parts::body(function, &TokenStream::new());
    let (output, _) = function::debounced(&function.output(), &krate);
    let output = match args.durable {
        Some(_) if cfg!(feature = "durable") => durable::output(&krate),
        _ => output,
    };
    function.sig.output = parse_quote_spanned!(span=> -> #output);
    function.with(quote_spanned!(span=> ::core::mem::drop(#body); loop {}))
}

#[cfg(test)]
mod tests;
