//! `#[debounced(durable)]`: a function whose calls are kept in the store.
//!
//! The function itself only stores its arguments. Its body becomes a function of a type that has
//! the function's name (types and functions have separate namespaces). That type also has
//! `register`, which lets a process run the calls that others have made.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote_spanned};
use syn::{
    Attribute as Outer, Error, FnArg, GenericParam, Ident, Lifetime, Pat, PatIdent, PatType, Type,
    ext::IdentExt as _, parse_quote_spanned, spanned::Spanned as _, visit_mut::VisitMut,
};

use super::locked;
use crate::{
    args::{Args, Mistakes},
    function::Function,
    names,
    span::at,
    values,
};

/// Reports each mistake at the token that it is about.
pub(crate) fn check(args: &Args, function: &Function, mistakes: &mut Mistakes) {
    if !cfg!(feature = "durable") {
        let text = "durable calls need the feature `durable` of `lock`: write \
                    `lock = { version = \"..\", features = [\"durable\"] }` in Cargo.toml";
        mistakes.push(Error::new(args.durable.unwrap_or_else(Span::call_site), text));
    }
    if let Some(handler) = &args.or_else {
        let text = "a durable call returns `Result<Receipt, lock::Error>`, so a lock error needs \
                    no conversion; leave `or_else` out";
        mistakes.push(Error::new_spanned(handler, text));
    }
    if let Some(leading) = args.leading {
        let text = "durable calls run when their burst is over; leave `leading` out";
        mistakes.push(Error::new(leading, text));
    }
    let limit = args.duration("hold_at_most");
    if let Some(limit) = limit.and_then(|limit| limit.length.expression()) {
        for name in names::used(limit) {
            if function.binds(&name) {
                let text = "`hold_at_most` is the same for all calls of a durable function, \
                            because other processes also run them; write a value that does not \
                            depend on the arguments";
                mistakes.push(Error::new(name.span(), text));
            }
        }
    }
    let mut borrowed = false;
    for argument in &function.sig.inputs {
        match argument {
            FnArg::Receiver(receiver) => {
                let text = "a durable function must be a free function: a call may run in another \
                            process, which has no `self`";
                mistakes.push(Error::new_spanned(receiver, text));
            }
            FnArg::Typed(argument) => borrowed |= check_argument(argument, mistakes),
        }
    }
    // The lifetime of a borrowed argument is not another mistake.
    let generics = &function.sig.generics;
    let mut others = generics.params.iter().filter(|param| match param {
        GenericParam::Lifetime(_) => !borrowed,
        _ => true,
    });
    if others.next().is_some() || !borrowed && generics.where_clause.is_some() {
        let text = "a durable function cannot have generics: a process that runs a call of another \
                    process would not know the types";
        mistakes.push(Error::new(function.sig.ident.span(), text));
    }
}

// Output: whether the argument is borrowed.
fn check_argument(argument: &PatType, mistakes: &mut Mistakes) -> bool {
    const BORROWED: &str = "a durable argument is kept in the store: take it by value, such as \
                            `String` instead of `&str`";
    struct Borrowed(Option<(Span, &'static str)>);
    impl VisitMut for Borrowed {
        fn visit_type_mut(&mut self, ty: &mut Type) {
            let text = match ty {
                Type::Reference(_) => BORROWED,
                Type::ImplTrait(_) => {
                    "a durable argument is read from the store: write its type instead of `impl \
                     Trait`"
                }
                _ => return syn::visit_mut::visit_type_mut(self, ty),
            };
            self.0.get_or_insert((ty.span(), text));
        }

        fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
            if lifetime.ident != "static" {
                self.0.get_or_insert((lifetime.span(), BORROWED));
            }
        }
    }
    if !matches!(&*argument.pat, Pat::Ident(PatIdent { by_ref: None, subpat: None, .. })) {
        let text = "a durable argument needs a plain name: destructure it in the body";
        mistakes.push(Error::new_spanned(&argument.pat, text));
    }
    let mut borrowed = Borrowed(None);
    borrowed.visit_type_mut(&mut (*argument.ty).clone());
    borrowed.0.is_some_and(|(span, text)| {
        mistakes.push(Error::new(span, text));
        text == BORROWED
    })
}

/// What a durable function returns.
pub(crate) fn output(krate: &TokenStream) -> Type {
    let span = Span::mixed_site();
    parse_quote_spanned!(span=> ::core::result::Result<#krate::Receipt, #krate::Error>)
}

// Output: the function that stores its arguments, and the type with `register` and the body. Locks
//         are acquired in the run.
pub(crate) fn durable(
    args: &Args,
    locked: &[Args],
    function: &Function,
    uses: &TokenStream,
) -> TokenStream {
    let span = Span::mixed_site();
    let krate = args.krate(span);
    let Function { vis, sig, .. } = function;
    let name = &sig.ident;
    let text = name.unraw().to_string();
    let names = arguments(function).map(|(name, _)| name).collect::<Vec<_>>();
    let types = arguments(function).map(|(_, ty)| ty).collect::<Vec<_>>();
    let configure = values::configure(args);
    // The caller sets how long to wait, and the process that runs the call how long a run may take.
    let limit = args.duration("hold_at_most");
    let bound = limit.map(|limit| values::set(args, limit));
    let bound = quote_spanned!(span=> |__lock_it| __lock_it #bound);
    let evaluated = limit.and_then(values::evaluated);

    let mut keep = function.copy();
    for argument in &mut keep.sig.inputs {
        if let FnArg::Typed(argument) = argument
            && let Pat::Ident(pattern) = &mut *argument.pat
        {
            // The argument is only passed on, so a `mut` would be unused.
            pattern.mutability = None;
        }
    }
    let receipt = output(&krate);
    keep.sig.output = parse_quote_spanned!(span=> -> #receipt);
    keep.attrs.push(parse_quote_spanned!(span=> #[allow(clippy::missing_errors_doc)]));
    let values = values::values(args, function);
    let keep = keep.with(quote_spanned! {span=>
        #uses
        #values
        #krate::__private::durable_call(
            __lock_locks, __lock_id, #configure, #name::__lock_function, (#(#names,)*),
        ).await
    });

    let mut run = function.copy();
    run.attrs.clear();
    run.vis = syn::Visibility::Inherited;
    // Located where an error about an output that is not written is shown.
    run.sig.ident = format_ident!("__lock_body", span = at(name.span()));
    let binding = args.run.clone().unwrap_or_else(|| Ident::new("__lock_run", span));
    run.sig.inputs.push(parse_quote_spanned!(span=> #binding: #krate::DurableRun));
    run.attrs.push(parse_quote_spanned!(span=> #[allow(
        clippy::used_underscore_binding,
        clippy::unused_async,
    )]));
    for argument in &mut run.sig.inputs {
        if let FnArg::Typed(argument) = argument
            && let Pat::Ident(PatIdent { ident, .. }) = &*argument.pat
            && args.may_use(ident)
        {
            argument.attrs.push(parse_quote_spanned!(span=> #[allow(unused_variables)]));
        }
    }
    if !locked.is_empty() {
        run.take_unused(&locked.iter().collect::<Vec<_>>());
    }
    let run = match locked {
        [] => run.with(run.body.stream()),
        [one] => run.with(locked::locked(one, &run)),
        [first, others @ ..] => run.with(locked::all_locked(first, others, &run)),
    };
    // Errors about the types of the arguments or of the output are shown here, and nowhere else.
    let inputs = at(types.first().map_or_else(|| name.span(), |first| first.span()));
    let output = at(function.output().span());
    let handler = quote_spanned! {output=>
        fn __lock_handler(
            (#(#names,)*): (#(#types,)*), __lock_run: #krate::DurableRun,
        ) -> impl ::core::future::Future<Output = impl #krate::DurableOutput> + ::core::marker::Send {
            Self::__lock_body(#(#names,)* __lock_run)
        }
    };
    let krate_there = args.krate(inputs);
    let made = quote_spanned! {inputs=>
        #krate_there::__private::durable_function(Self::__lock_name(), Self::__lock_handler)
    };
    let cfgs: Vec<&Outer> =
        function.attrs.iter().filter(|attr| attr.path().is_ident("cfg")).collect();
    let about = format!("Runs the durable calls of [`{text}`](fn@{text}).");
    let register = format!(
        "Lets this process run the calls of [`{text}`](fn@{text}) that others have made, on the \
         current Tokio runtime, for as long as `locks` is in use. Calling the function has the \
         same effect.\n\n# Errors\n\n`Invalid` outside of a Tokio runtime."
    );
    quote_spanned! {span=>
        #keep

        #(#cfgs)*
        #[doc = #about]
        #[allow(non_camel_case_types, dead_code)]
        #[derive(Debug)]
        #vis struct #name {}

        #(#cfgs)*
        #[allow(dead_code)]
        impl #name {
            #[doc = #register]
            #vis fn register(locks: &#krate::Locks) -> ::core::result::Result<(), #krate::Error> {
                #evaluated
                #krate::__private::durable_register(
                    locks, Self::__lock_name(), #bound, Self::__lock_function,
                )
            }

            fn __lock_name() -> &'static str {
                ::core::concat!(::core::module_path!(), "::", #text)
            }

            fn __lock_function() -> #krate::__private::DurableFunction<(#(#types,)*)> {
                #made
            }

            #handler

            #run
        }
    }
}

fn arguments(function: &Function) -> impl Iterator<Item = (Ident, Type)> {
    function.sig.inputs.iter().filter_map(|argument| match argument {
        FnArg::Typed(PatType { pat, ty, .. }) => match &**pat {
            Pat::Ident(name) => Some((name.ident.clone(), (**ty).clone())),
            _ => None,
        },
        FnArg::Receiver(_) => None,
    })
}
