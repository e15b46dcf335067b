//! `#[debounced]`: a body that runs for the last call of a burst, under locks if there are any.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::{Ident, parse_quote_spanned};

use super::{
    detached,
    parts::{body_of_several, quiet, wanted},
};
use crate::{
    args::Args,
    function::{self, Function},
    span::at,
    values::{configure, values},
    ways::{leave, own_ways},
};

// Output: the signature, with an `Option` in the return type, and statements with one call of the
//         runtime, which polls the body if this call is the one that runs. The body is dropped
//         before the run is over. Locks are acquired inside the run, and their errors are returned
//         like the debounce's own, unless their attribute makes a value of them.
pub(crate) fn debounced(args: &Args, locked: &[Args], function: &mut Function) -> TokenStream {
    let span = Span::mixed_site();
    let krate = args.krate(span);
    let values = values(args, function);
    let (statements, outcome) = run(args, locked, function);
    let declared = function.output();
    let (output, is_result) = function::debounced(&declared, &krate);
    let leave = leave(args, function, &output, "DebouncedOutput");
    let mut ran = quote_spanned! {span=>
        ::core::result::Result::Ok(::core::option::Option::Some(__lock_output))
    };
    if is_result {
        ran = quote_spanned! {span=>
            match __lock_output {
                ::core::result::Result::Ok(__lock_output) => #ran,
                ::core::result::Result::Err(__lock_error) => ::core::result::Result::Err(__lock_error),
            }
        };
    } else {
        // These lints would be about a `Result` that the user did not write.
        function.attrs.push(parse_quote_spanned! {span=>
            #[allow(clippy::double_must_use, clippy::missing_errors_doc)]
        });
    }
    function.sig.output = parse_quote_spanned!(span=> -> #output);
    let superseded = quote_spanned! {span=>
        ::core::result::Result::Ok(::core::option::Option::None) => {
            ::core::result::Result::Ok(::core::option::Option::None)
        }
    };
    if locked.is_empty() {
        return quote_spanned! {span=>
            #values
            #statements
            match #outcome {
                ::core::result::Result::Ok(::core::option::Option::Some(__lock_output)) => #ran,
                #superseded
                ::core::result::Result::Err(__lock_error) => #leave,
            }
        };
    }
    let all = locked.iter().collect::<Vec<_>>();
    let wanted = wanted(&krate, &all, function);
    let failed = |number: TokenStream| {
        quote_spanned! {span=>
            ::core::result::Result::Ok(::core::option::Option::Some(
                ::core::result::Result::Err((#number, __lock_error))
            ))
        }
    };
    let made = |value| quote_spanned!(span=> { let __lock_output = #value; #ran });
    let arms = own_ways(&all, function, (&declared, "DebouncedOutput"), failed, made);
    let failed = failed(quote_spanned!(span=> _));
    quote_spanned! {span=>
        #values
        let __lock_wanted = #wanted;
        #statements
        match #outcome {
            ::core::result::Result::Ok(::core::option::Option::Some(
                ::core::result::Result::Ok(__lock_output)
            )) => #ran,
            #superseded
            #(#arms)*
            #failed | ::core::result::Result::Err(__lock_error) => #leave,
        }
    }
}

// Output: statements, and an expression for the outcome of the call, once its run is over and the
//         body is dropped. The call of a detached function begins here, so that its time counts
//         from here. The rest is a task of its own, which takes the arguments.
fn run(args: &Args, locked: &[Args], function: &Function) -> (TokenStream, TokenStream) {
    let span = Span::mixed_site();
    let krate = args.krate(span);
    let (configure, all) = (configure(args), locked.iter().collect::<Vec<_>>());
    let (body, quiet, unused) = (body_of_several(&all, function), quiet(&all), &function.unused);
    let call = quote_spanned!(span=> __lock_locks, __lock_id, #configure);
    let begin = if locked.is_empty() {
        quote_spanned!(span=> begin(#call))
    } else {
        quote_spanned!(span=> begin_under(&__lock_wanted, #call))
    };
    let (run, call) = match args.detached {
        None => ("debounce", call),
        Some(_) => ("debounce_begun", quote_spanned!(span=> __lock_begun)),
    };
    let run = if locked.is_empty() { run.to_owned() } else { format!("{run}_under") };
    let run = Ident::new(&run, span);
    let (statements, result) = if locked.is_empty() {
        let statements = quote_spanned! {span=>
            let __lock_run = #krate::__private::Slot::new();
            let __lock_result = {
                #unused
                let __lock_run = &__lock_run;
                let __lock_body = ::core::pin::pin!(#body);
                #krate::__private::#run(__lock_run, #call, __lock_body).await
            };
        };
        (statements, quote_spanned!(span=> __lock_result))
    } else {
        let statements = quote_spanned! {span=>
            let __lock_run = #krate::__private::Slot::new();
            let __lock_held = #krate::__private::Slot::several();
            let __lock_result = {
                #unused
                let __lock_run = &__lock_run;
                let __lock_held = &__lock_held;
                #quiet
                let __lock_body = ::core::pin::pin!(#body);
                #krate::__private::#run(
                    (__lock_run, __lock_held), __lock_wanted, #call, __lock_body
                ).await
            };
        };
        let result = quote_spanned! {span=>
            #krate::__private::finish_all(__lock_held, __lock_result).await
        };
        (statements, result)
    };
    let finish = quote_spanned!(span=> #krate::__private::finish(__lock_run, #result).await);
    let Some(detached) = args.detached else { return (statements, finish) };
    let checks = detached::checks(function);
    // Errors about the future as a whole are located here: if it may borrow, that is reported once,
    // at an argument.
    let span = at(detached::place(function).unwrap_or(detached));
    let krate = args.krate(span);
    let spawn = if locked.is_empty() { "detached" } else { "detached_under" };
    let spawn = Ident::new(spawn, span);
    let output = function::erased(&function.output());
    let outcome = quote_spanned! {span=> {
        #checks
        match #krate::__private::#begin {
            __lock_begun => <#output as #krate::__private::DetachedOutput>::#spawn(
                ::std::boxed::Box::pin(async move { #statements #finish })
            ),
        }.join().await
    }};
    (TokenStream::new(), outcome)
}
