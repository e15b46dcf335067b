//! The parts that several expansions share: the body as a future, and the locks that it runs under.

use proc_macro2::{Delimiter, Group, Literal, Span, TokenStream};
use quote::{quote, quote_spanned};

use crate::{
    args::Args,
    function::{self, Function},
    span::at,
    values::{configure, modes, values},
};

// Output: an array of the locks to acquire, in the order of the attributes.
pub(crate) fn wanted(krate: &TokenStream, all: &[&Args], function: &Function) -> TokenStream {
    let wanted = all.iter().map(|args| {
        let (values, configure, modes) = (values(args, function), configure(args), modes(args));
        quote_spanned! {Span::mixed_site()=> {
            #values
            #krate::__private::want(__lock_locks, __lock_id, #configure, #modes)
        }}
    });
    quote_spanned!(Span::mixed_site()=> [#(#wanted),*])
}

pub(crate) fn body_of_several(all: &[&Args], function: &Function) -> TokenStream {
    let guards = all.iter().enumerate().filter_map(|(number, args)| {
        let guard = args.guard.as_ref()?;
        let number = Literal::usize_unsuffixed(number);
        Some(quote_spanned!(Span::mixed_site()=> let #guard = __lock_held[#number].guard();))
    });
    body(function, &quote!(#(#guards)*))
}

// Output: an attribute for the statement that makes the body. A guard lives as long as the body, so
//         the lint's advice to drop it earlier does not help the user.
pub(crate) fn quiet(all: &[&Args]) -> TokenStream {
    if all.iter().all(|args| args.guard.is_none()) {
        return TokenStream::new();
    }
    quote_spanned!(Span::mixed_site()=> #[allow(clippy::significant_drop_tightening)])
}

// Input: the function, and statements to run before its body.
// Output: a future of the function's own output. A `return` in the body ends only this future. The
//         statement that never runs tells the compiler the type of the output, so that errors are
//         shown at the user's tokens. The future owns all arguments that may be used, mentioned or
//         not, so that they are dropped with it.
pub(crate) fn body(function: &Function, before: &TokenStream) -> TokenStream {
    let span = Span::mixed_site();
    let output = function::erased(&function.output());
    // New braces, because the compiler would report the user's own as unnecessary here.
    let mut body = Group::new(Delimiter::Brace, function.body.stream());
    body.set_span(at(function.body.span()));
    // Captures are dropped in the order in which they are mentioned, arguments in reverse order.
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
