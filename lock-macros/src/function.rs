//! The annotated function: its signature parsed, its body left as tokens.

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use quote::{ToTokens as _, format_ident, quote};
use syn::{
    Attribute as Outer, Error, FnArg, GenericArgument, Ident, Pat, PatIdent, PathArguments, Result,
    ReturnType, Signature, Token, Type, TypeImplTrait, Visibility,
    ext::IdentExt as _,
    parse::{ParseStream, Parser as _},
    parse_quote, parse_quote_spanned,
    spanned::Spanned as _,
    visit_mut::{self, VisitMut},
};

use crate::{attribute::Attribute, span::at};

/// An `async fn` with a body.
pub(crate) struct Function {
    pub(crate) attrs: Vec<Outer>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    /// Never parsed, so that a half-typed body also expands.
    pub(crate) body: Group,
    /// What the arguments bind, `self` included.
    pub(crate) bindings: Vec<Binding>,
    /// Statements that bind the unused names, in the scope around the body.
    pub(crate) unused: TokenStream,
}

/// A name that an argument binds, and the `cfg`s of that argument.
pub(crate) struct Binding {
    pub(crate) cfgs: Vec<Outer>,
    pub(crate) name: Ident,
}

impl Function {
    pub(crate) fn parse(attribute: Attribute, item: TokenStream) -> Result<Self> {
        let parser = |input: ParseStream<'_>| Self::parse_item(attribute, input);
        parser.parse2(ungroup(item))
    }

    fn parse_item(attribute: Attribute, input: ParseStream<'_>) -> Result<Self> {
        let name = attribute.name();
        let attrs = input.call(Outer::parse_outer)?;
        let vis = input.parse()?;
        let first = input.fork();
        let mut sig = input.parse::<Signature>().map_err(|error| {
            let is_fn = first.peek(Token![const])
                && (first.peek2(Token![fn]) || first.peek2(Token![async]))
                || first.peek(Token![async])
                || first.peek(Token![unsafe]) && first.peek2(Token![fn])
                || first.peek(Token![fn]);
            let text = format!("`{name}` goes on an `async fn`, and this is not one");
            if is_fn { error } else { Error::new(first.span(), text) }
        })?;
        let body = input.parse::<TokenStream>()?;
        let Some(TokenTree::Group(body)) = ungroup(body).into_iter().next() else {
            let text = format!(
                "`{name}` needs the body of the function; \
                 write it on the `async fn` of each `impl`, or give this one a body"
            );
            return Err(Error::new(sig.ident.span(), text));
        };
        if let Some(token) = sig.constness {
            let text = format!(
                "`{name}` cannot wait for the store in a `const fn`; write `async fn {}`",
                sig.ident
            );
            return Err(Error::new(token.span, text));
        }
        if sig.asyncness.is_none() {
            let function = &sig.ident;
            let text = if is_boxed_future(&sig.output) {
                format!(
                    "`{name}` needs an `async fn`, and this function returns a future. Under \
                     `#[async_trait]`, or for a `dyn Trait`, put the attribute on an inherent \
                     method `async fn {function}` of the type, and call that method from here"
                )
            } else {
                format!(
                    "`{name}` needs an `async fn`: write `async fn {function}`. If that is what you \
                     wrote, another attribute has changed it: put this one above `#[tokio::main]` or \
                     `#[tokio::test]`"
                )
            };
            return Err(Error::new(sig.fn_token.span, text));
        }
        let bindings = bind(&mut sig);
        Ok(Self { attrs, vis, sig, body, bindings, unused: TokenStream::new() })
    }

    /// The function with other statements. The braces are the user's: they end the item, and the
    /// compiler does not report dead code for an item whose end is not the user's.
    pub(crate) fn with(&self, statements: TokenStream) -> TokenStream {
        let Self { attrs, vis, sig, body, .. } = self;
        let mut block = Group::new(Delimiter::Brace, statements);
        block.set_span(body.span());
        quote!(#(#attrs)* #vis #sig #block)
    }

    /// A copy of the function, to be changed.
    pub(crate) fn copy(&self) -> Self {
        let bindings = self.bindings.iter();
        let bindings = bindings
            .map(|Binding { cfgs, name }| Binding { cfgs: cfgs.clone(), name: name.clone() });
        Self {
            attrs: self.attrs.clone(),
            vis: self.vis.clone(),
            sig: self.sig.clone(),
            body: self.body.clone(),
            bindings: bindings.collect(),
            unused: self.unused.clone(),
        }
    }

    /// The declared return type, `()` at the function's name if there is none.
    pub(crate) fn output(&self) -> Type {
        match &self.sig.output {
            ReturnType::Type(_, output) => (**output).clone(),
            ReturnType::Default => parse_quote_spanned!(self.sig.ident.span()=> ()),
        }
    }

    /// Whether an argument binds this name, with `r#` or without.
    pub(crate) fn binds(&self, name: &Ident) -> bool {
        self.argument(&name.unraw().to_string()).is_some()
    }

    /// The binding of this name, which is given without `r#`.
    pub(crate) fn argument(&self, name: &str) -> Option<&Ident> {
        let mut names = self.bindings.iter().map(|binding| &binding.name);
        names.find(|binding| binding.unraw() == name)
    }

    /// The value `name`, without `r#`, in a literal at `location`. It is located there, and
    /// resolved as the argument of that name, whose hygiene differs if a macro wrote only one of
    /// the two. A name that is not an argument may be a constant.
    pub(crate) fn resolve(&self, name: &str, location: Span) -> Ident {
        if let Some(argument) = self.argument(name) {
            let mut value = argument.clone();
            value.set_span(location.resolved_at(argument.span()));
            return value;
        }
        match syn::parse_str::<Ident>(name) {
            Ok(mut value) => {
                value.set_span(at(location));
                value
            }
            Err(_) if name == "self" => Ident::new(name, at(location)),
            Err(_) => Ident::new_raw(name, at(location)),
        }
    }
}

/// Whether this is what `#[async_trait]` makes of an `async fn`, or the same written by hand for a
/// `dyn Trait`.
fn is_boxed_future(output: &ReturnType) -> bool {
    let ReturnType::Type(_, output) = output else { return false };
    let output = output.to_token_stream().to_string();
    output.contains("Future") && (output.contains("Box") || output.starts_with("impl"))
}

/// Whether the type has an `impl Trait` in it.
pub(crate) fn is_opaque(output: &Type) -> bool {
    struct Find(bool);
    impl VisitMut for Find {
        fn visit_type_impl_trait_mut(&mut self, _: &mut TypeImplTrait) {
            self.0 = true;
        }
    }
    let mut find = Find(false);
    find.visit_type_mut(&mut output.clone());
    find.0
}

/// The same type with each `impl Trait` left to inference, as it must be in a body.
pub(crate) fn erased(output: &Type) -> Type {
    struct Erase;
    impl VisitMut for Erase {
        fn visit_type_mut(&mut self, ty: &mut Type) {
            match ty {
                Type::ImplTrait(_) => *ty = parse_quote_spanned!(ty.span()=> _),
                _ => visit_mut::visit_type_mut(self, ty),
            }
        }
    }
    let mut output = output.clone();
    Erase.visit_type_mut(&mut output);
    output
}

/// What a debounced function returns instead of `output`, and whether `output` is a `Result`.
pub(crate) fn debounced(output: &Type, krate: &TokenStream) -> (Type, bool) {
    let mut changed = output.clone();
    if let Some(value) = value_of_result(&mut changed) {
        let option = at(value.span());
        *value = parse_quote_spanned!(option=> ::core::option::Option<#value>);
        return (changed, true);
    }
    let span = at(output.span());
    let option: Type = parse_quote_spanned!(span=> ::core::option::Option<#output>);
    (parse_quote_spanned!(span=> ::core::result::Result<#option, #krate::Error>), false)
}

/// The `T` of `Result<T, ..>`, whatever its path, so that an alias like `io::Result` also counts.
fn value_of_result(output: &mut Type) -> Option<&mut Type> {
    match output {
        Type::Group(group) => value_of_result(&mut group.elem),
        Type::Paren(paren) => value_of_result(&mut paren.elem),
        Type::Path(path) => {
            let last = path.path.segments.last_mut()?;
            let PathArguments::AngleBracketed(arguments) = &mut last.arguments else {
                return None;
            };
            let mut arguments = arguments.args.iter_mut();
            let first = arguments.find_map(|argument| match argument {
                GenericArgument::Type(value) => Some(value),
                _ => None,
            });
            first.filter(|_| last.ident == "Result")
        }
        _ => None,
    }
}

/// Collects what the arguments bind, and names those that bind nothing, so that the body can own
/// and drop them.
fn bind(sig: &mut Signature) -> Vec<Binding> {
    let mut bindings = Vec::new();
    for (index, argument) in sig.inputs.iter_mut().enumerate() {
        let (attrs, names) = match argument {
            FnArg::Receiver(receiver) => {
                let name = Ident::new("self", receiver.self_token.span);
                (&receiver.attrs, vec![name])
            }
            FnArg::Typed(argument) => {
                if let Pat::Wild(wild) = &*argument.pat {
                    let span = at(wild.underscore_token.span);
                    // rustdoc shows this name.
                    let name = format_ident!("_{index}", span = span);
                    *argument.pat = parse_quote!(#name);
                }
                (&argument.attrs, names(&mut argument.pat))
            }
        };
        let cfgs = attrs.iter().filter(|attr| attr.path().is_ident("cfg"));
        let cfgs = cfgs.cloned().collect::<Vec<_>>();
        bindings.extend(names.into_iter().map(|name| Binding { cfgs: cfgs.clone(), name }));
    }
    bindings
}

pub(crate) fn names(pattern: &mut Pat) -> Vec<Ident> {
    struct Names(Vec<Ident>);
    impl VisitMut for Names {
        fn visit_pat_ident_mut(&mut self, pattern: &mut PatIdent) {
            // The alternatives of `A(x) | B(x)` bind the same name.
            if !self.0.contains(&pattern.ident) {
                self.0.push(pattern.ident.clone());
            }
            visit_mut::visit_pat_ident_mut(self, pattern);
        }
    }
    let mut names = Names(Vec::new());
    names.visit_pat_mut(pattern);
    names.0
}

/// Takes the tokens out of the group without delimiters in which a macro passes on a fragment.
pub(crate) fn ungroup(tokens: TokenStream) -> TokenStream {
    let mut trees = tokens.clone().into_iter();
    match (trees.next(), trees.next()) {
        (Some(TokenTree::Group(group)), None) if group.delimiter() == Delimiter::None => {
            ungroup(group.stream())
        }
        _ => tokens,
    }
}
