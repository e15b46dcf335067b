//! Which arguments of a function its attributes and its body use.

use std::mem;

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{ToTokens as _, format_ident, quote_spanned};
use syn::{
    Attribute, Expr, ExprPath, FieldPat, FnArg, Member, Meta, Pat, PatIdent, Token,
    ext::IdentExt as _,
    spanned::Spanned as _,
    visit_mut::{self, VisitMut},
};

use crate::{
    args::{Args, Id},
    function::Function,
    span::at,
    template::Piece,
};

impl Args {
    /// Whether this attribute may use the argument of this name. It may say yes too often: a string
    /// in an expression can be a format string.
    pub(crate) fn may_use(&self, name: &Ident) -> bool {
        let name = name.unraw().to_string();
        let id = match &self.id {
            Some(Id::Template(template)) => template
                .pieces
                .iter()
                .any(|piece| matches!(piece, Piece::Value { root, .. } if *root == name)),
            _ => false,
        };
        let mut expressions = self.expressions().chain(&self.or_else);
        id || expressions.any(|expression| mentions(expression.to_token_stream(), &name))
    }
}

fn mentions(tokens: TokenStream, name: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident.unraw() == name,
        TokenTree::Group(group) => mentions(group.stream(), name),
        TokenTree::Literal(literal) => literal.to_string().contains(name),
        TokenTree::Punct(_) => false,
    })
}

/// Whether a body names this argument; fields and methods of that name do not count.
fn is_named(body: TokenStream, name: &str) -> bool {
    let mut dots = 0;
    body.into_iter().any(|token| {
        let before = mem::take(&mut dots);
        match token {
            TokenTree::Ident(ident) => before != 1 && ident.unraw() == name,
            TokenTree::Group(group) => is_named(group.stream(), name),
            TokenTree::Literal(literal) => literal.to_string().contains(&format!("{{{name}")),
            TokenTree::Punct(punct) => {
                dots = if punct.as_char() == '.' { before + 1 } else { 0 };
                false
            }
        }
    })
}

impl Function {
    /// Takes the names that nothing uses out of the arguments; the statements
    /// [`unused`](Self::unused) bind them instead.
    ///
    /// The body takes all other arguments, which counts as a use. If it took the unused ones as
    /// well, the compiler would not warn of them. A name that is missed here gets no warning; a
    /// name that is taken by mistake can still be used.
    pub(crate) fn take_unused(&mut self, all: &[&Args]) {
        let body = self.body.stream();
        let is_unused = |name: &Ident| {
            let text = name.unraw().to_string();
            !text.starts_with('_')
                && !is_named(body.clone(), &text)
                && !all.iter().any(|args| args.may_use(name))
        };
        for (index, argument) in self.sig.inputs.iter_mut().enumerate() {
            let FnArg::Typed(argument) = argument else { continue };
            let mut taken = Taken {
                index,
                is_unused: &is_unused,
                patterns: Vec::new(),
                is_shorthand: false,
                all: true,
            };
            taken.visit_pat_mut(&mut argument.pat);
            if taken.patterns.is_empty() {
                continue;
            }
            let (all, patterns) = (taken.all, taken.patterns);
            let place = at(patterns[0].0.ident.span());
            self.bindings.retain(|it| patterns.iter().all(|(taken, _)| taken.ident != it.name));
            let (structs, patterns, values) = rebound(index, &patterns);
            let (cfgs, attrs) = divided(&mut argument.attrs, all);
            self.unused.extend(quote_spanned! {place=>
                #(#structs)*
                #(#cfgs)*
                #(#attrs)*
                let #patterns = #values;
            });
        }
    }
}

// Input: the unused names of one argument, and whether each was also the name of a field.
// Output: structs to declare, a pattern that binds the names, and the values that it binds them to.
//         One statement binds all names, as the argument did, because an `#[expect]` is about all
//         of them together. The name of a field is that of a field again, or the compiler would
//         advise renaming it.
fn rebound(
    index: usize,
    taken: &[(PatIdent, bool)],
) -> (Vec<TokenStream>, TokenStream, TokenStream) {
    let (mut structs, mut patterns, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (PatIdent { by_ref, mutability, ident, .. }, is_shorthand) in taken {
        let (span, renamed) = (at(ident.span()), renamed(index, ident));
        if *is_shorthand {
            let field = format_ident!("__Lock_{index}_{}", ident.unraw(), span = span);
            structs.push(quote_spanned! {span=>
                #[allow(non_camel_case_types, non_snake_case, clippy::items_after_statements)]
                struct #field<T> { #ident: T }
            });
            patterns.push(quote_spanned!(span=> #field { #by_ref #mutability #ident }));
            values.push(quote_spanned!(span=> #field { #ident: #renamed }));
        } else {
            // A `ref mut` stays in the pattern of the argument.
            let mutability = mutability.filter(|_| by_ref.is_none());
            patterns.push(quote_spanned!(span=> #mutability #ident));
            values.push(renamed.into_token_stream());
        }
    }
    match (patterns.as_slice(), values.as_slice()) {
        ([pattern], [value]) => (structs, pattern.clone(), value.clone()),
        _ => {
            let span = at(taken[0].0.ident.span());
            let patterns = quote_spanned!(span=> (#(#patterns),*));
            (structs, patterns, quote_spanned!(span=> (#(#values),*)))
        }
    }
}

// Input: the attributes of an argument, and whether all names that it binds were taken out.
// Output: its `cfg`s, and the lint levels for the names that were taken out. An attribute that is
//         not a lint level stays with the argument, whatever it means.
fn divided(attrs: &mut Vec<Attribute>, all: bool) -> (Vec<Attribute>, Vec<Attribute>) {
    const LEVELS: [&str; 5] = ["allow", "warn", "deny", "forbid", "expect"];
    let is_level = |attr: &Attribute| {
        let path = attr.path();
        LEVELS.iter().any(|level| path.is_ident(level))
            || path.is_ident("cfg_attr")
                && LEVELS.iter().any(|level| mentions(attr.to_token_stream(), level))
    };
    let cfgs = attrs.iter().filter(|attr| attr.path().is_ident("cfg")).cloned().collect();
    if all {
        return (cfgs, attrs.extract_if(.., |attr| is_level(attr)).collect());
    }
    // Both places get the levels, but an `#[expect]` is fulfilled in only one of them: here, if it
    // expects unused variables. The other place gets an `#[allow]`.
    let mut levels = Vec::new();
    for attr in attrs {
        if !is_level(attr) {
            continue;
        }
        let mut level = attr.clone();
        if attr.path().is_ident("expect") {
            let tokens = attr.to_token_stream();
            let of_unused = ["unused_variables", "unused"];
            let happens_here = of_unused.iter().any(|lint| mentions(tokens.clone(), lint));
            let other = if happens_here { &mut *attr } else { &mut level };
            if let Meta::List(list) = &mut other.meta {
                let span = list.path.span();
                list.path = Ident::new("allow", span).into();
            }
        }
        levels.push(level);
    }
    (cfgs, levels)
}

/// Takes names out of the pattern of one argument.
struct Taken<'a> {
    index: usize,
    is_unused: &'a dyn Fn(&Ident) -> bool,
    /// The names taken out, and whether each was also the name of a field.
    patterns: Vec<(PatIdent, bool)>,
    /// Whether the next name is also that of a field.
    is_shorthand: bool,
    /// Whether all names were taken out.
    all: bool,
}

impl VisitMut for Taken<'_> {
    fn visit_pat_ident_mut(&mut self, pattern: &mut PatIdent) {
        let is_shorthand = mem::take(&mut self.is_shorthand);
        if (self.is_unused)(&pattern.ident) {
            // The alternatives of `A(x) | B(x)` bind the same name.
            if self.patterns.iter().all(|(other, _)| other.ident != pattern.ident) {
                self.patterns.push((pattern.clone(), is_shorthand));
            }
            pattern.ident = renamed(self.index, &pattern.ident);
            pattern.mutability.take_if(|_| pattern.by_ref.is_none());
        } else {
            self.all = false;
        }
        visit_mut::visit_pat_ident_mut(self, pattern);
    }

    fn visit_field_pat_mut(&mut self, field: &mut FieldPat) {
        self.is_shorthand = field.colon_token.is_none();
        let colon = field.colon_token.unwrap_or_else(|| Token![:](field.pat.span()));
        visit_mut::visit_field_pat_mut(self, field);
        let is_renamed = match (&field.member, &*field.pat) {
            (Member::Named(member), Pat::Ident(pattern)) => pattern.ident != *member,
            _ => false,
        };
        if is_renamed {
            field.colon_token = Some(colon);
        }
    }
}

fn renamed(index: usize, name: &Ident) -> Ident {
    format_ident!("__lock_{index}_{}", name.unraw(), span = at(name.span()))
}

// Output: the plain names that an expression uses and does not bind itself, each once. The
//         arguments of macros that it calls are not searched.
pub(crate) fn used(expression: &Expr) -> Vec<Ident> {
    #[derive(Default)]
    struct Names {
        used: Vec<Ident>,
        bound: Vec<Ident>,
    }
    impl VisitMut for Names {
        fn visit_expr_path_mut(&mut self, path: &mut ExprPath) {
            if let (None, Some(name)) = (&path.qself, path.path.get_ident())
                && !self.used.contains(name)
            {
                self.used.push(name.clone());
            }
        }

        fn visit_pat_ident_mut(&mut self, pattern: &mut PatIdent) {
            self.bound.push(pattern.ident.clone());
            visit_mut::visit_pat_ident_mut(self, pattern);
        }
    }
    let mut names = Names::default();
    names.visit_expr_mut(&mut expression.clone());
    let Names { mut used, bound } = names;
    used.retain(|name| !bound.contains(name));
    used
}
