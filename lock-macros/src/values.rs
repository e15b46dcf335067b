//! The arguments of an attribute as code: their values, evaluated once per call, and how they are
//! set.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, format_ident, quote_spanned};
use syn::{Expr, Ident, ext::IdentExt as _, spanned::Spanned as _};

use crate::{
    args::{Args, Duration, Id, OnLost},
    function::Function,
    names,
    span::at,
    template::{Piece, Template},
};

// Output: statements that evaluate the values of the attribute, before the body takes the arguments
//         of the function.
pub(crate) fn values(args: &Args, function: &Function) -> TokenStream {
    let (locks, id) = (locks(args), id(args, function));
    let durations = args.durations.iter().filter_map(evaluated);
    let borrowed = args.expressions().map(|expression| borrowed(expression, function));
    quote_spanned! {Span::mixed_site()=>
        let __lock_locks = #locks;
        let __lock_id = #id;
        #(#durations)*
        #(#borrowed)*
    }
}

// Output: statements that use the arguments in an expression once more, at their location in it.
//         The body takes the arguments after the expression, so one that the expression has moved
//         is an error, which is then shown at the expression.
fn borrowed(expression: &Expr, function: &Function) -> TokenStream {
    let used = names::used(expression).into_iter();
    let used = used.filter(|name| function.binds(name));
    let used = used.map(|name| {
        quote_spanned! {at(name.span())=>
            #[allow(clippy::used_underscore_binding)]
            let _ = &#name;
        }
    });
    used.collect()
}

/// A statement that evaluates a duration, unless it is known already.
pub(crate) fn evaluated(duration: &Duration) -> Option<TokenStream> {
    let expression = duration.length.expression()?;
    let span = at(expression.span());
    let name = variable(&duration.key, span);
    Some(quote_spanned!(span=> let #name: ::core::time::Duration = #expression;))
}

/// The variable that has the value of a duration, once it is evaluated.
fn variable(key: &Ident, span: Span) -> Ident {
    format_ident!("__lock_{key}", span = span)
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
    quote_spanned! {span=> {
        let __lock_locks: &#krate::Locks = &(#locks);
        #krate::__private::given(__lock_locks)
    }}
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
                #krate::__private::display(::core::concat!(::core::module_path!(), "::", #name))
            }
        }
    }
}

fn interpolated(args: &Args, template: &Template, function: &Function) -> TokenStream {
    let span = at(template.span);
    let krate = args.krate(span);
    if let [Piece::Text(text)] = template.pieces.as_slice() {
        return quote_spanned!(span=> #krate::__private::display(#text));
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

// Output: a closure that sets the values that were given.
pub(crate) fn configure(args: &Args) -> TokenStream {
    let calls = args.durations.iter().map(|duration| set(args, duration));
    let span = Span::mixed_site();
    let leading = args.leading.map(|_| quote_spanned!(span=> .leading(true)));
    quote_spanned!(span=> |__lock_it| __lock_it #(#calls)* #leading)
}

/// A call of the builder's method.
pub(crate) fn set(args: &Args, duration: &Duration) -> TokenStream {
    let Duration { key, length, .. } = duration;
    let span = at(key.span());
    let mut method = key.clone();
    method.set_span(span);
    let value = match length.milliseconds() {
        Some(milliseconds) => {
            let krate = args.krate(span);
            quote_spanned!(span=> #krate::__private::milliseconds(#milliseconds))
        }
        None => variable(key, span).into_token_stream(),
    };
    quote_spanned!(span=> .#method(#value))
}

// Output: what happens to the body when the lock is lost, and to a call from a body under the lock.
pub(crate) fn modes(args: &Args) -> TokenStream {
    let span = Span::mixed_site();
    let krate = args.krate(span);
    let on_lost = match args.on_lost {
        OnLost::Stop => quote_spanned!(span=> Stop),
        OnLost::Continue => quote_spanned!(span=> Continue),
    };
    let reentry = if args.reentrant {
        quote_spanned!(span=> Allowed)
    } else {
        quote_spanned!(span=> Refused)
    };
    quote_spanned! {span=>
        (#krate::__private::OnLost::#on_lost, #krate::__private::Reentry::#reentry)
    }
}
