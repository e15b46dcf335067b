//! How a function ends: with its own output, a value that an attribute makes instead, or a lock
//! error.

use proc_macro2::{Literal, Span, TokenStream};
use quote::quote_spanned;
use syn::{Expr, Ident, Type, spanned::Spanned as _};

use crate::{
    args::Args,
    function::{self, Function},
    names,
    span::at,
};

// Input: `failed`, the pattern for an error of the lock with a given number, which binds
//         `__lock_error`; and `made`, what to do with a value that an attribute makes.
// Output: the arms of the attributes that make a value. The others share one more arm, which the
//         caller adds, so that a type that cannot hold a lock error is reported once.
pub(crate) fn own_ways(
    all: &[&Args],
    function: &Function,
    (output, trait_): (&Type, &str),
    failed: impl Fn(TokenStream) -> TokenStream,
    made: impl Fn(TokenStream) -> TokenStream,
) -> Vec<TokenStream> {
    let span = Span::mixed_site();
    let mut arms = Vec::new();
    for (number, args) in all.iter().enumerate() {
        let number = Literal::usize_unsuffixed(number);
        let failed = failed(quote_spanned!(span=> #number));
        let krate = args.krate(span);
        if args.skip {
            let skipped = made(skipped(args, output));
            arms.push(quote_spanned! {span=>
                #failed if #krate::__private::is_busy(&__lock_error) => #skipped,
            });
        }
        if let Some(handler) = &args.or_else {
            let handled = made(handled(args, function, handler, (output, trait_)));
            arms.push(quote_spanned!(span=> #failed => #handled,));
        }
    }
    arms
}

// Input: the type to make, and the trait that makes it from an error; `__lock_error` is in scope.
// Output: an expression.
pub(crate) fn leave(args: &Args, function: &Function, output: &Type, trait_: &str) -> TokenStream {
    let leave = match &args.or_else {
        Some(handler) => handled(args, function, handler, (output, trait_)),
        None => reported(args, output, trait_),
    };
    if !args.skip {
        return leave;
    }
    let span = Span::mixed_site();
    let (krate, skipped) = (args.krate(span), skipped(args, output));
    quote_spanned! {span=>
        if #krate::__private::is_busy(&__lock_error) { #skipped } else { #leave }
    }
}

// Output: the error, converted to the output type. It is located at that type, so that a type that
//         cannot hold a lock error is reported once, there.
pub(crate) fn reported(args: &Args, output: &Type, trait_: &str) -> TokenStream {
    let span = at(output.span());
    let (krate, output) = (args.krate(span), function::erased(output));
    let trait_ = Ident::new(trait_, span);
    quote_spanned!(span=> <#output as #krate::__private::#trait_>::from_lock_error(__lock_error))
}

// Output: what the user's closure makes of the error. The arguments are dropped by then, so those
//         that it uses must be copies. This is checked first, because the compiler would advise
//         borrowing them.
fn handled(
    args: &Args,
    function: &Function,
    handler: &Expr,
    (output, trait_): (&Type, &str),
) -> TokenStream {
    let span = at(handler.span());
    let krate = args.krate(span);
    let closure = if trait_ == "LockedOutput" && function::is_opaque(output) {
        quote_spanned!(span=> #krate::__private::or_else_of(__lock_type, #handler))
    } else {
        let output = function::erased(output);
        quote_spanned!(span=> #krate::__private::or_else::<#output, _>(#handler))
    };
    let used = names::used(handler);
    let used = used.iter().filter(|name| function.binds(name));
    let copies = used.map(|name| {
        let krate = args.krate(at(name.span()));
        quote_spanned!(at(name.span())=> <_ as #krate::__private::Copied>::copied(&#name);)
    });
    quote_spanned!(span=> { #(#copies)* #closure(__lock_error) })
}

// Input: a result with the output, and the arms for its errors.
// Output: the output. If its type is an `impl Trait`, and a closure has to make the same type, that
//         type is fixed first. Otherwise the compiler would compare the two as arms, and advise
//         boxing them.
pub(crate) fn ended(
    all: &[&Args],
    function: &Function,
    result: &TokenStream,
    arms: &TokenStream,
) -> TokenStream {
    let span = Span::mixed_site();
    let arms = quote_spanned! {span=> {
        ::core::result::Result::Ok(__lock_output) => __lock_output,
        #arms
    }};
    match all.iter().find(|args| args.or_else.is_some()) {
        Some(args) if function::is_opaque(&function.output()) => {
            let krate = args.krate(span);
            quote_spanned! {span=>
                match #result {
                    __lock_result => {
                        let __lock_type = #krate::__private::output_of(&__lock_result);
                        match __lock_result #arms
                    }
                }
            }
        }
        _ => quote_spanned!(span=> match #result #arms),
    }
}

fn skipped(args: &Args, output: &Type) -> TokenStream {
    let span = at(output.span());
    let (krate, output) = (args.krate(span), function::erased(output));
    quote_spanned!(span=> <#output as #krate::__private::Skipped>::skipped())
}
