//! Which arguments of a function are named by what is written in its attributes.

use std::mem;

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{ToTokens as _, format_ident, quote_spanned};
use syn::{
    Expr, ExprPath, FieldPat, FnArg, Member, Pat, PatIdent, Token,
    ext::IdentExt as _,
    spanned::Spanned as _,
    visit_mut::{self, VisitMut},
};

use crate::{
    args::{Args, Id},
    duration::Length,
    expand::at,
    function::Function,
    template::Piece,
};

impl Args {
    /// Whether this attribute may use the argument of this name. It may say yes too often: a text
    /// in an expression can be a format string.
    pub(crate) fn may_use(&self, name: &Ident) -> bool {
        let name = name.unraw().to_string();
        let durations = self.durations.iter().filter_map(|duration| match &duration.length {
            Length::Expression(expression) => Some(expression),
            _ => None,
        });
        let id = match &self.id {
            Some(Id::Template(template)) => template
                .pieces
                .iter()
                .any(|piece| matches!(piece, Piece::Value { root, .. } if *root == name)),
            Some(Id::Expression(expression)) => mentions(expression.to_token_stream(), &name),
            None => false,
        };
        let mut expressions = self.locks.iter().chain(&self.or_else).chain(durations);
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
    /// Takes the names that nothing uses out of the arguments, for the statements
    /// [`unused`](Self::unused) to bind them.
    ///
    /// The body takes all other arguments, which is a use; these would not be called unused any
    /// more. What this finds too few of, the compiler does not warn about; what it finds too many
    /// of, can be used all the same.
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
            let mut taken = Taken { index, is_unused: &is_unused, patterns: Vec::new(), all: true };
            taken.visit_pat_mut(&mut argument.pat);
            for PatIdent { mutability, ident, .. } in &taken.patterns {
                let (attrs, renamed) = (&argument.attrs, renamed(index, ident));
                let statement = quote_spanned! {at(ident.span())=>
                    #(#attrs)*
                    let #mutability #ident = #renamed;
                };
                self.unused.extend(statement);
                self.bindings.retain(|binding| binding.name != *ident);
            }
            if taken.all && !taken.patterns.is_empty() {
                argument.attrs.retain(|attr| attr.path().is_ident("cfg"));
            }
        }
    }
}

/// Takes names out of the pattern of one argument.
struct Taken<'a> {
    index: usize,
    is_unused: &'a dyn Fn(&Ident) -> bool,
    patterns: Vec<PatIdent>,
    /// None was left.
    all: bool,
}

impl VisitMut for Taken<'_> {
    fn visit_pat_ident_mut(&mut self, pattern: &mut PatIdent) {
        if (self.is_unused)(&pattern.ident) {
            // The alternatives of `A(x) | B(x)` bind one name.
            if self.patterns.iter().all(|other| other.ident != pattern.ident) {
                self.patterns.push(pattern.clone());
            }
            pattern.ident = renamed(self.index, &pattern.ident);
            pattern.mutability = None;
        } else {
            self.all = false;
        }
        visit_mut::visit_pat_ident_mut(self, pattern);
    }

    fn visit_field_pat_mut(&mut self, field: &mut FieldPat) {
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

// Output: the plain names that an expression uses and does not bind itself, each once. What is in
//         the macros that it calls is not looked into.
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
