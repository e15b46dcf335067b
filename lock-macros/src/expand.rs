//! From arguments and a function to the code that calls the runtime.
//!
//! Paths are absolute and new names start with `__lock_`. New tokens carry the hygiene of a macro,
//! so that neither names nor lints of the user's code reach them; their location is the user's
//! token that they stand for, because that is where an error about them is shown.

use proc_macro2::{Delimiter, Group, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{
    Error, Ident, Result, Type, ext::IdentExt as _, parse_quote_spanned, spanned::Spanned as _,
};

use crate::{
    args::{Args, Id, OnLost},
    attribute::Attribute,
    function::{self, Function},
    template::{Piece, Template},
};

// Input: the tokens of the attribute and of the item under it.
// Output: the item with the attribute applied; or every mistake, and the item as it was, so that
//         nothing else in the crate is told that the item is missing.
pub(crate) fn expand(attribute: Attribute, args: TokenStream, item: &TokenStream) -> TokenStream {
    let expanded = match (Args::parse(attribute, args), Function::parse(attribute, item.clone())) {
        (Ok(args), Ok(function)) => check(attribute, &args, &function).map(|()| match attribute {
            Attribute::Locked => locked(&args, &function),
            Attribute::Debounced => debounced(&args, function),
        }),
        (Err(mut error), Err(other)) => {
            error.combine(other);
            Err(error)
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    expanded.unwrap_or_else(|error| {
        let errors = error.into_compile_error();
        // Nothing calls the arguments used now; that is not another mistake.
        quote!(#errors #[allow(unused_variables)] #item)
    })
}

/// What can only be said of the arguments and the function together.
fn check(attribute: Attribute, args: &Args, function: &Function) -> Result<()> {
    let mut bindings = function.bindings.iter();
    if let Some(guard) = &args.guard
        && bindings.any(|binding| binding.name == *guard)
    {
        let text = format!("`{guard}` is an argument of the function; give the guard another name");
        return Err(Error::new(guard.span(), text));
    }
    match function.output() {
        Type::Never(never) => {
            let text = format!(
                "`{}` must be able to return a lock error, and `!` is never returned; \
                 return a `Result<std::convert::Infallible, _>`",
                attribute.name()
            );
            Err(Error::new_spanned(never, text))
        }
        _ => Ok(()),
    }
}

// Output: signature as before, and
//
//     evaluate the id; make the body, which takes every argument; acquire the lock and run the body;
//     drop both body and arguments; release; make the output, of a lock error if need be.
//
// The body is made first, because an argument that is alive at an `.await` out here would have a
// second place in the future. So it finds the guard behind a reference.
fn locked(args: &Args, function: &Function) -> TokenStream {
    let span = Span::mixed_site();
    let krate = args.krate(span);
    let (locks, id, configure) = (locks(args), id(args, function), configure(args));
    let guard = args.guard.iter();
    let guard = quote_spanned!(span=> #(let #guard = __lock_held.guard();)*);
    let body = body(function, &guard);
    let on_lost = match args.on_lost {
        OnLost::Stop => quote_spanned!(span=> #krate::__private::OnLost::Stop),
        OnLost::Continue => quote_spanned!(span=> #krate::__private::OnLost::Continue),
    };
    let leave = leave(args, &function.output(), "LockedOutput");
    let statements = quote_spanned! {span=>
        let __lock_locks = #locks;
        let __lock_id = #id;
        let __lock_held = #krate::__private::Held::new();
        let __lock_result = {
            let __lock_held = &__lock_held;
            let __lock_body = ::core::pin::pin!(#body);
            #krate::__private::run(
                __lock_held, __lock_locks, __lock_id, #configure, #on_lost, __lock_body
            ).await
        };
        match #krate::__private::finish(__lock_held, __lock_result).await {
            ::core::result::Result::Ok(__lock_output) => __lock_output,
            ::core::result::Result::Err(__lock_error) => #leave,
        }
    };
    item(function, statements)
}

// Output: signature with an `Option` in the return type, and one call of the runtime, which polls
//         the body if this call is the one that runs.
fn debounced(args: &Args, mut function: Function) -> TokenStream {
    let span = Span::mixed_site();
    let krate = args.krate(span);
    let (locks, id, configure) = (locks(args), id(args, &function), configure(args));
    let body = body(&function, &TokenStream::new());
    let (output, is_result) = function::debounced(&function.output(), &krate);
    let leave = leave(args, &output, "DebouncedOutput");
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
    let statements = quote_spanned! {span=>
        let __lock_locks = #locks;
        let __lock_id = #id;
        let __lock_result = {
            let __lock_body = ::core::pin::pin!(#body);
            #krate::__private::debounce(__lock_locks, __lock_id, #configure, __lock_body).await
        };
        match __lock_result {
            ::core::result::Result::Ok(::core::option::Option::Some(__lock_output)) => #ran,
            ::core::result::Result::Ok(::core::option::Option::None) => {
                ::core::result::Result::Ok(::core::option::Option::None)
            }
            ::core::result::Result::Err(__lock_error) => #leave,
        }
    };
    item(&function, statements)
}

/// The function with other statements. The braces are the user's: they end the item, and an item
/// whose end is not the user's would not be called dead code.
fn item(function: &Function, statements: TokenStream) -> TokenStream {
    let Function { attrs, vis, sig, body, .. } = function;
    let mut block = Group::new(Delimiter::Brace, statements);
    block.set_span(body.span());
    quote!(#(#attrs)* #vis #sig #block)
}

// Output: a `Result<Locks, Error>`.
fn locks(args: &Args) -> TokenStream {
    let Some(locks) = &args.locks else {
        let span = Span::mixed_site();
        let krate = args.krate(span);
        return quote_spanned!(span=> #krate::__private::ambient());
    };
    let span = at(locks.span());
    let krate = args.krate(span);
    quote_spanned!(span=> #krate::__private::given(&(#locks)))
}

// Output: a `String`.
fn id(args: &Args, function: &Function) -> TokenStream {
    match &args.id {
        Some(Id::Template(template)) => interpolated(args, template, function),
        Some(Id::Expression(expression)) => {
            let span = at(expression.span());
            let krate = args.krate(span);
            quote_spanned!(span=> #krate::__private::display(&(#expression)))
        }
        None => {
            let span = Span::mixed_site();
            let krate = args.krate(span);
            let name = function.sig.ident.unraw().to_string();
            quote_spanned! {span=>
                #krate::__private::String::from(
                    ::core::concat!(::core::module_path!(), "::", #name)
                )
            }
        }
    }
}

fn interpolated(args: &Args, template: &Template, function: &Function) -> TokenStream {
    let span = at(template.span);
    let krate = args.krate(span);
    if let [Piece::Text(text)] = template.pieces.as_slice() {
        return quote_spanned!(span=> #krate::__private::String::from(#text));
    }
    let pieces = template.pieces.iter().map(|piece| match piece {
        Piece::Text(text) => quote_spanned!(span=> __lock_id.literal(#text);),
        Piece::Value { root, fields } => {
            let root = function.resolve(root, template.span);
            quote_spanned!(span=> __lock_id.value(&#root #(.#fields)*);)
        }
    });
    quote_spanned! {span=> {
        let mut __lock_id = #krate::__private::Id::new();
        #(#pieces)*
        __lock_id.finish()
    }}
}

/// The hygiene of this macro, at a location of the user's.
pub(crate) fn at(location: Span) -> Span {
    Span::mixed_site().located_at(location)
}

// Output: a closure that sets what was given.
fn configure(args: &Args) -> TokenStream {
    let calls = args.durations.iter().map(|(key, milliseconds)| {
        let span = at(key.span());
        let krate = args.krate(span);
        let mut method = key.clone();
        method.set_span(span);
        quote_spanned!(span=> .#method(#krate::__private::milliseconds(#milliseconds)))
    });
    quote_spanned!(Span::mixed_site()=> |__lock_it| __lock_it #(#calls)*)
}

// Input: the function, and statements to run before its body.
// Output: a future of the function's own output. A `return` in it is its own, and the statement
//         that never runs tells the compiler its type, so that errors land on the user's tokens.
//         It owns all arguments, mentioned or not, so that they are dropped with it.
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

// Input: the type to make, the trait that makes it of an error, and in scope `__lock_error`.
// Output: an expression. Its location is the type, so that a type with no way out is one error
//         there.
fn leave(args: &Args, output: &Type, trait_: &str) -> TokenStream {
    let span = at(output.span());
    let krate = args.krate(span);
    let output = function::erased(output);
    let leave = if let Some(handler) = &args.or_else {
        let span = at(handler.span());
        let krate = args.krate(span);
        quote_spanned!(span=> #krate::__private::or_else::<#output, _>(#handler)(__lock_error))
    } else {
        let trait_ = Ident::new(trait_, span);
        quote_spanned!(span=> <#output as #krate::__private::#trait_>::from_lock_error(__lock_error))
    };
    if !args.skip {
        return leave;
    }
    quote_spanned! {span=>
        if #krate::__private::is_busy(&__lock_error) {
            <#output as #krate::__private::Skipped>::skipped()
        } else {
            #leave
        }
    }
}
