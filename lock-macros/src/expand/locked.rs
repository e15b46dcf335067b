//! `#[locked]`: a body that runs under one lock, or under those of several attributes.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};

use super::parts::{body, body_of_several, quiet, wanted};
use crate::{
    args::Args,
    function::Function,
    values::{configure, modes, values},
    ways::{ended, leave, own_ways, reported},
};

// Output: statements that
//
//     evaluate the id; make the body, which takes every argument; acquire the lock and run the body;
//     drop both body and arguments; release; make the output, from a lock error if there is one.
//
// The body is made first, because an argument that is alive at an `.await` out here would take up
// space in the future a second time. So the body finds the guard behind a reference.
pub(crate) fn locked(args: &Args, function: &Function) -> TokenStream {
    let span = Span::mixed_site();
    let krate = args.krate(span);
    let (values, configure) = (values(args, function), configure(args));
    let guard = args.guard.iter();
    let before = quote_spanned!(span=> #(let #guard = __lock_held.guard();)*);
    let body = body(function, &before);
    let modes = modes(args);
    let (quiet, unused) = (quiet(&[args]), &function.unused);
    let leave = leave(args, function, &function.output(), "LockedOutput");
    let ended = ended(
        &[args],
        function,
        &quote_spanned!(span=> #krate::__private::finish(__lock_held, __lock_result).await),
        &quote_spanned!(span=> ::core::result::Result::Err(__lock_error) => #leave,),
    );
    quote_spanned! {span=>
        #values
        let __lock_held = #krate::__private::Slot::new();
        let __lock_result = {
            #unused
            let __lock_held = &__lock_held;
            #quiet
            let __lock_body = ::core::pin::pin!(#body);
            #krate::__private::run(
                __lock_held, __lock_locks, __lock_id, #configure, #modes, __lock_body
            ).await
        };
        #ended
    }
}

// Output: the same under the locks of several attributes, each of which handles its own errors.
pub(crate) fn all_locked(first: &Args, others: &[Args], function: &Function) -> TokenStream {
    let span = Span::mixed_site();
    let krate = first.krate(span);
    let all = first.iter_with(others).collect::<Vec<_>>();
    let wanted = wanted(&krate, &all, function);
    let body = body_of_several(&all, function);
    let (quiet, unused) = (quiet(&all), &function.unused);
    let output = function.output();
    let failed = |number: TokenStream| quote_spanned!(span=> ::core::result::Result::Err((#number, __lock_error)));
    let mut arms = own_ways(&all, function, (&output, "LockedOutput"), failed, |value| value);
    if all.iter().any(|args| args.or_else.is_none()) {
        let failed = failed(quote_spanned!(span=> _));
        let leave = reported(first, &output, "LockedOutput");
        arms.push(quote_spanned!(span=> #failed => #leave,));
    } else {
        // The arms above cover every number that can occur, which the compiler does not know.
        arms.push(quote_spanned!(span=> ::core::result::Result::Err(_) => ::core::unreachable!(),));
    }
    let ended = ended(
        &all,
        function,
        &quote_spanned!(span=> #krate::__private::finish_all(__lock_held, __lock_result).await),
        &quote!(#(#arms)*),
    );
    quote_spanned! {span=>
        let __lock_wanted = #wanted;
        let __lock_held = #krate::__private::Slot::several();
        let __lock_result = {
            #unused
            let __lock_held = &__lock_held;
            #quiet
            let __lock_body = ::core::pin::pin!(#body);
            #krate::__private::run_all(__lock_held, __lock_wanted, __lock_body).await
        };
        #ended
    }
}
