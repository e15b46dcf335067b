//! The ways out of a function: its own output, what an attribute makes instead, and lock errors.

use proc_macro2::{Literal, Span, TokenStream};
use quote::quote_spanned;
use syn::{Expr, Ident, Type, spanned::Spanned as _};

use crate::{
    args::Args,
    function::{self, Function},
    names,
    span::at,
};

// Input: the pattern of an error of the lock of this number, which binds `__lock_error`; and what
//         becomes of a value that an attribute makes.
// Output: the arms of the attributes that make a value. Those that make none share one more, so
//         that a type with no way out is one error.
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

// Input: the type to make, the trait that makes it of an error, and in scope `__lock_error`.
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

// Output: the error as the type's own. Its location is the type, so that a type with no way out is
//         one error there.
pub(crate) fn reported(args: &Args, output: &Type, trait_: &str) -> TokenStream {
    let span = at(output.span());
    let (krate, output) = (args.krate(span), function::erased(output));
    let trait_ = Ident::new(trait_, span);
    quote_spanned!(span=> <#output as #krate::__private::#trait_>::from_lock_error(__lock_error))
}

// Output: what the user's closure makes of the error. The arguments are gone by then, so those that
//         it uses are copies, or it is told so: the compiler would advise to borrow them.
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

// Input: a result of the output, and the arms for its errors.
// Output: the output. If the user has not named its type, and a closure has to make the same, that
//         is named first: the compiler would compare the two as arms, and advise to box them.
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
