//! Several of the attributes on one function.
//!
//! The compiler expands the outermost attribute first and hands it the item with the others still
//! on it. Each would then wrap what the one above it has made, which is the wrong way round. So the
//! first attribute takes the others off the item and expands all of them. It recognizes them by the
//! last segment of their path.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{
    Attribute as Outer, Error, Meta, Result,
    parse::{ParseStream, Parser as _},
    spanned::Spanned as _,
};

use crate::{
    args::{Args, Mistakes},
    attribute::Attribute,
    function,
    span::at,
};

/// The attributes of one item, from the top down.
pub(crate) struct Stack {
    others: Vec<(Attribute, Outer)>,
    /// The item without them.
    pub(crate) item: TokenStream,
}

impl Stack {
    pub(crate) fn of(item: &TokenStream) -> Self {
        let split = |input: ParseStream<'_>| {
            let attrs = input.call(Outer::parse_outer)?;
            Ok((attrs, input.parse::<TokenStream>()?))
        };
        let Ok((attrs, rest)) = split.parse2(function::ungroup(item.clone())) else {
            return Self { others: Vec::new(), item: item.clone() };
        };
        let mut others = Vec::new();
        let mut kept = Vec::new();
        for attr in attrs {
            match attr.path().segments.last() {
                Some(last) if last.ident == "locked" => others.push((Attribute::Locked, attr)),
                Some(last) if last.ident == "debounced" => {
                    others.push((Attribute::Debounced, attr))
                }
                _ => kept.push(attr),
            }
        }
        Self { others, item: quote!(#(#kept)* #rest) }
    }

    /// Statements that use the attributes that were taken out, because the compiler would otherwise
    /// report their imports as unused.
    pub(crate) fn uses(&self) -> TokenStream {
        let uses = self.others.iter().map(|(_, outer)| {
            let path = outer.path();
            quote_spanned! {at(path.span())=>
                #[allow(unused_imports)]
                use #path as _;
            }
        });
        uses.collect()
    }

    /// The arguments of each `#[locked]` below an attribute.
    pub(crate) fn locked(&self, above: Attribute, mistakes: &mut Mistakes) -> Vec<Args> {
        let mut all = Vec::new();
        for (attribute, outer) in &self.others {
            match (above, attribute) {
                (_, Attribute::Locked) => {
                    let place = outer.path().span();
                    let args = mistakes.take(tokens(outer));
                    all.extend(
                        args.map(|tokens| Args::parse(Attribute::Locked, tokens, place, mistakes)),
                    );
                }
                (Attribute::Locked, Attribute::Debounced) => mistakes.push(refused(
                    outer,
                    "`#[debounced]` goes above `#[locked]`: swap the two, or each call would hold \
                     the lock while it waits for more calls",
                )),
                (Attribute::Debounced, Attribute::Debounced) => {
                    mistakes.push(refused(outer, "`#[debounced]` is given twice; keep one of them"))
                }
            }
        }
        all
    }
}

fn refused(outer: &Outer, text: &str) -> Error {
    Error::new(outer.path().span(), text)
}

/// The tokens between the parentheses.
fn tokens(outer: &Outer) -> Result<TokenStream> {
    match &outer.meta {
        Meta::Path(_) => Ok(TokenStream::new()),
        Meta::List(list) => Ok(list.tokens.clone()),
        Meta::NameValue(pair) => Err(Error::new(
            pair.eq_token.span(),
            "expected parentheses here; write `#[locked(id = \"..\")]`",
        )),
    }
}
