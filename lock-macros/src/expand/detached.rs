//! `#[debounced(detached)]`: a call that goes on without its caller, so it owns its arguments.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote_spanned;
use syn::{
    BoundLifetimes, Error, FnArg, GenericParam, Lifetime, ParenthesizedGenericArguments, Path,
    ReceiverKind, Token, TraitBound, Type, TypeFnPtr, TypeImplTrait, TypeParam, TypeParamBound,
    TypeReference, WherePredicate,
    punctuated::Punctuated,
    spanned::Spanned as _,
    visit_mut::{self, VisitMut},
};

use crate::{
    args::{Args, Mistakes},
    function::{self, Function},
    span::at,
};

/// Reports each mistake at the token that it is about.
pub(crate) fn check(args: &Args, function: &Function, mistakes: &mut Mistakes) {
    let Some(detached) = args.detached else { return };
    if args.durable.is_some() {
        let text = "a durable call is kept in the store, and runs even if its caller goes away; \
                    leave `detached` out";
        mistakes.push(Error::new(detached, text));
        return;
    }
    for argument in &function.sig.inputs {
        match argument {
            FnArg::Receiver(receiver) => {
                let place = match &receiver.kind {
                    ReceiverKind::Reference(_, Some(lifetime), _) => borrowed_for(lifetime),
                    ReceiverKind::Reference(and, None, _) => Some(and.span()),
                    ReceiverKind::Typed(_, ty) => borrowed(ty),
                    _ => None,
                };
                if let Some(place) = place {
                    let text = "a detached call goes on without its caller, so it cannot borrow \
                                `self` from it; take `self: Arc<Self>`, or `self` if it is cheap \
                                to clone";
                    mistakes.push(Error::new(place, text));
                }
            }
            FnArg::Typed(argument) => {
                if let Some(place) = borrowed(&argument.ty) {
                    let text = "a detached call goes on without its caller, so it cannot borrow \
                                from it; take this by value, such as `String` instead of `&str`, \
                                or `Arc<T>` instead of `&T`";
                    mistakes.push(Error::new(place, text));
                }
            }
        }
    }
}

fn borrowed_for(lifetime: &Lifetime) -> Option<Span> {
    (lifetime.ident != "static").then(|| lifetime.span())
}

// Output: the location where the type borrows for a lifetime other than `'static`.
fn borrowed(ty: &Type) -> Option<Span> {
    #[derive(Default)]
    struct Borrowed {
        place: Option<Span>,
        // The lifetimes that do not count. A value that holds a function does not hold what the
        // function is called with: lifetimes that a `for<..>` around this names, and unnamed ones
        // in a function's type.
        named: Vec<Ident>,
        in_function: bool,
    }
    impl Borrowed {
        fn within(
            &mut self,
            lifetimes: Option<&BoundLifetimes>,
            is_function: bool,
            visit: impl FnOnce(&mut Self),
        ) {
            let (named, in_function) = (self.named.len(), self.in_function);
            let lifetimes = lifetimes.iter().flat_map(|lifetimes| &lifetimes.lifetimes);
            self.named.extend(lifetimes.filter_map(|param| match param {
                GenericParam::Lifetime(param) => Some(param.lifetime.ident.clone()),
                _ => None,
            }));
            self.in_function |= is_function;
            visit(self);
            self.named.truncate(named);
            self.in_function = in_function;
        }
    }
    impl VisitMut for Borrowed {
        fn visit_type_reference_mut(&mut self, reference: &mut TypeReference) {
            if reference.lifetime.is_none() && !self.in_function {
                self.place.get_or_insert(reference.and_token.span());
            }
            visit_mut::visit_type_reference_mut(self, reference);
        }

        fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
            let is_call_s =
                self.named.contains(&lifetime.ident) || self.in_function && lifetime.ident == "_";
            if !is_call_s {
                self.place = self.place.or_else(|| borrowed_for(lifetime));
            }
        }

        fn visit_type_fn_ptr_mut(&mut self, function: &mut TypeFnPtr) {
            let lifetimes = function.lifetimes.take();
            self.within(lifetimes.as_ref(), true, |it| {
                visit_mut::visit_type_fn_ptr_mut(it, function);
            });
        }

        fn visit_parenthesized_generic_arguments_mut(
            &mut self,
            arguments: &mut ParenthesizedGenericArguments,
        ) {
            self.within(None, true, |it| {
                visit_mut::visit_parenthesized_generic_arguments_mut(it, arguments);
            });
        }

        fn visit_trait_bound_mut(&mut self, bound: &mut TraitBound) {
            let lifetimes = bound.lifetimes.take();
            self.within(lifetimes.as_ref(), false, |it| {
                visit_mut::visit_trait_bound_mut(it, bound);
            });
        }
    }
    let mut borrowed = Borrowed::default();
    borrowed.visit_type_mut(&mut ty.clone());
    borrowed.place
}

// Output: statements that the compiler refuses, at the type of the argument, if an argument is not
//         `Send`. Otherwise it would report the whole future; after these errors it does not check
//         the future.
pub(crate) fn checks(function: &Function) -> TokenStream {
    let checks = function.sig.inputs.iter().flat_map(|argument| {
        let (attrs, names, place) = match argument {
            FnArg::Receiver(receiver) => {
                let place = match &receiver.kind {
                    ReceiverKind::Typed(_, ty) => ty.span(),
                    _ => receiver.self_token.span,
                };
                let name = Ident::new("self", receiver.self_token.span);
                (&receiver.attrs, vec![name], place)
            }
            FnArg::Typed(argument) => {
                let names = function::names(&mut argument.pat.clone());
                (&argument.attrs, names, argument.ty.span())
            }
        };
        let span = at(place);
        let cfgs = attrs.iter().filter(|attr| attr.path().is_ident("cfg")).collect::<Vec<_>>();
        let checks = names.into_iter().map(move |mut name| {
            name.set_span(place.resolved_at(name.span()));
            quote_spanned! {span=>
                #(#cfgs)*
                #[allow(clippy::used_underscore_binding)]
                let _: &dyn ::core::marker::Send = &#name;
            }
        });
        checks.collect::<Vec<_>>()
    });
    checks.collect()
}

// Output: the location of the type of the first argument that may borrow, because it is generic
//         without a `'static` bound. The bound can also come from a trait, so this is a place for
//         the compiler's error and not a mistake.
pub(crate) fn place(function: &Function) -> Option<Span> {
    struct Find<'a> {
        unbounded: Vec<&'a Ident>,
        found: bool,
    }
    impl VisitMut for Find<'_> {
        fn visit_path_mut(&mut self, path: &mut Path) {
            let first = path.segments.first();
            self.found |= first.is_some_and(|first| self.unbounded.contains(&&first.ident));
            visit_mut::visit_path_mut(self, path);
        }

        fn visit_type_impl_trait_mut(&mut self, ty: &mut TypeImplTrait) {
            self.found |= !is_for_ever(&ty.bounds);
            visit_mut::visit_type_impl_trait_mut(self, ty);
        }
    }
    let generics = &function.sig.generics;
    let predicates = generics.where_clause.iter().flat_map(|clause| &clause.predicates);
    let for_ever = predicates.filter_map(|predicate| match predicate {
        WherePredicate::Type(predicate) if is_for_ever(&predicate.bounds) => {
            Some(&predicate.bounded_ty)
        }
        _ => None,
    });
    let for_ever = for_ever.collect::<Vec<_>>();
    let is_bounded = |param: &TypeParam| {
        let is_it = |ty: &&Type| matches!(ty, Type::Path(it) if it.path.is_ident(&param.ident));
        is_for_ever(&param.bounds) || for_ever.iter().any(is_it)
    };
    let unbounded = generics.type_params().filter(|param| !is_bounded(param));
    let mut find = Find { unbounded: unbounded.map(|param| &param.ident).collect(), found: false };
    function.sig.inputs.iter().find_map(|argument| {
        let FnArg::Typed(argument) = argument else { return None };
        find.visit_type_mut(&mut (*argument.ty).clone());
        find.found.then(|| argument.ty.span())
    })
}

fn is_for_ever(bounds: &Punctuated<TypeParamBound, Token![+]>) -> bool {
    bounds.iter().any(|it| matches!(it, TypeParamBound::Lifetime(it) if it.ident == "static"))
}
