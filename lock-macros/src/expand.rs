//! From arguments and a function to the code that calls the runtime.
//!
//! Paths are absolute and new names start with `__lock_`. New tokens carry the hygiene of a macro,
//! so that neither names nor lints of the user's code reach them; their location is the user's
//! token that they stand for, because that is where an error about them is shown.

use proc_macro2::{Delimiter, Group, Literal, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Error, Ident, parse_quote_spanned};

use crate::{
    args::{Args, Mistakes},
    attribute::Attribute,
    check::check,
    detached, durable,
    function::{self, Function},
    span::at,
    stack::Stack,
    values::{configure, modes, values},
    ways::{ended, leave, own_ways, reported},
};

// Input: the tokens of the attribute and of the item under it.
// Output: the item with the attribute applied, and with the others of ours that are under it; or
//         every mistake, and the item without them, so that nothing else in the crate is told that
//         the item is missing.
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
                Attribute::Locked if locks.is_empty() => locked(&args, &function),
                Attribute::Locked => all_locked(&args, &locks, &function),
                Attribute::Debounced => debounced(&args, &locks, &mut function),
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
            // Nothing calls the arguments used now; that is not another mistake.
            quote!(#errors #[allow(unused_variables)] #item)
        }
    }
}

// Output: the function with the return type that it will have without the mistakes, or each of its
//         callers would be told that it has another one. Its body is checked, and not run.
fn stub(args: &Args, function: &mut Function) -> TokenStream {
    let span = Span::mixed_site();
    let krate = args.krate(span);
    let body = body(function, &TokenStream::new());
    let (output, _) = function::debounced(&function.output(), &krate);
    let output = match args.durable {
        Some(_) if cfg!(feature = "durable") => durable::output(&krate),
        _ => output,
    };
    function.sig.output = parse_quote_spanned!(span=> -> #output);
    function.with(quote_spanned!(span=> ::core::mem::drop(#body); loop {}))
}

// Output: statements that
//
//     evaluate the id; make the body, which takes every argument; acquire the lock and run the body;
//     drop both body and arguments; release; make the output, of a lock error if need be.
//
// The body is made first, because an argument that is alive at an `.await` out here would have a
// second place in the future. So it finds the guard behind a reference.
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
        let __lock_held = #krate::__private::Held::new();
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

// Output: the same under the locks of several attributes, each of which has its own way out.
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
        // There is no other number, which the compiler does not know.
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
        let __lock_held = #krate::__private::Held::several();
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

// Output: an array of what is asked for, in the order of the attributes.
fn wanted(krate: &TokenStream, all: &[&Args], function: &Function) -> TokenStream {
    let wanted = all.iter().map(|args| {
        let (values, configure, modes) = (values(args, function), configure(args), modes(args));
        quote_spanned! {Span::mixed_site()=> {
            #values
            #krate::__private::want(__lock_locks, __lock_id, #configure, #modes)
        }}
    });
    quote_spanned!(Span::mixed_site()=> [#(#wanted),*])
}

fn body_of_several(all: &[&Args], function: &Function) -> TokenStream {
    let guards = all.iter().enumerate().filter_map(|(number, args)| {
        let guard = args.guard.as_ref()?;
        let number = Literal::usize_unsuffixed(number);
        Some(quote_spanned!(Span::mixed_site()=> let #guard = __lock_held[#number].guard();))
    });
    body(function, &quote!(#(#guards)*))
}

// Output: signature with an `Option` in the return type, and statements with one call of the
//         runtime, which polls the body if this call is the one that runs. The body is dropped
//         before the run is over. Locks are taken inside of the run, and their errors leave as the
//         debounce's own, unless their attribute has a way.
fn debounced(args: &Args, locked: &[Args], function: &mut Function) -> TokenStream {
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
        // The user did not write the `Result` that these would be about.
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

// Output: statements, and an expression of what becomes of the call, once its run is over and the
//         body is dropped. The call of a detached function is begun here, so that it counts from
//         here; the rest of it is a task of its own, which takes the arguments.
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
            let __lock_run = #krate::__private::Held::new();
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
            let __lock_run = #krate::__private::Held::new();
            let __lock_held = #krate::__private::Held::several();
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
    // What the future itself is told of is this place: if it is not known to borrow nothing, that
    // is said once, of an argument.
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

// Output: an attribute of the statement that makes the body. A guard lives as long as the body, so
//         that it could be dropped sooner is no advice for its user.
fn quiet(all: &[&Args]) -> TokenStream {
    if all.iter().all(|args| args.guard.is_none()) {
        return TokenStream::new();
    }
    quote_spanned!(Span::mixed_site()=> #[allow(clippy::significant_drop_tightening)])
}

// Input: the function, and statements to run before its body.
// Output: a future of the function's own output. A `return` in it is its own, and the statement
//         that never runs tells the compiler its type, so that errors land on the user's tokens.
//         It owns all arguments that may be used, mentioned or not, so that they are dropped with
//         it.
fn body(function: &Function, before: &TokenStream) -> TokenStream {
    let span = Span::mixed_site();
    let output = function::erased(&function.output());
    // New braces, since the user's own would be called unnecessary here.
    let mut body = Group::new(Delimiter::Brace, function.body.stream());
    body.set_span(at(function.body.span()));
    // Captures are dropped in the order in which they are mentioned, arguments the other way round.
    let captures = function.bindings.iter().rev().map(|binding| {
        let (cfgs, name) = (&binding.cfgs, &binding.name);
        quote_spanned! {span=>
            #(#cfgs)*
            #[allow(clippy::used_underscore_binding)]
            let _ = &#name;
        }
    });
    quote_spanned! {span=>
        async move {
            #[allow(
                unreachable_code,
                clippy::diverging_sub_expression,
                clippy::empty_loop,
                clippy::let_unit_value,
                clippy::let_with_type_underscore,
                clippy::needless_return,
            )]
            if false {
                let __lock_return: #output = loop {};
                return __lock_return;
            }
            #(#captures)*
            #before
            #body
        }
    }
}

// Named, because this file is a module of `fuzz` too, where it is looked for elsewhere.
#[cfg(test)]
#[path = "expand/tests.rs"]
mod tests;
