//! `#[debounced(detached)]`: a call that goes on without its caller, so it owns its arguments.

use proc_macro2::Span;
use syn::{
    Error, FnArg, Lifetime, ParenthesizedGenericArguments, ReceiverKind, TraitBound, Type,
    TypeFnPtr, TypeReference,
    spanned::Spanned as _,
    visit_mut::{self, VisitMut},
};

use crate::{
    args::{Args, Mistakes},
    function::Function,
};

/// What is refused, each on the token that it is about.
pub(crate) fn check(args: &Args, function: &Function, mistakes: &mut Mistakes) {
    let Some(detached) = args.detached else { return };
    if args.durable.is_some() {
        let text = "a durable call is kept in the store, and runs even if its caller is gone; \
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
                                from it; take this by value, as `String` for `&str` or `Arc<T>` \
                                for `&T`";
                    mistakes.push(Error::new(place, text));
                }
            }
        }
    }
}

fn borrowed_for(lifetime: &Lifetime) -> Option<Span> {
    (lifetime.ident != "static").then(|| lifetime.span())
}

// Output: where it borrows for a time that can end.
fn borrowed(ty: &Type) -> Option<Span> {
    #[derive(Default)]
    struct Borrowed(Option<Span>);
    impl VisitMut for Borrowed {
        fn visit_type_reference_mut(&mut self, reference: &mut TypeReference) {
            let for_ever = reference.lifetime.as_ref().is_some_and(|l| l.ident == "static");
            if !for_ever {
                self.0.get_or_insert(reference.and_token.span());
            }
            visit_mut::visit_type_reference_mut(self, reference);
        }

        fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
            self.0 = self.0.or_else(|| borrowed_for(lifetime));
        }

        // What a function is called with is not held by who holds the function.
        fn visit_type_fn_ptr_mut(&mut self, _: &mut TypeFnPtr) {}

        fn visit_parenthesized_generic_arguments_mut(
            &mut self,
            _: &mut ParenthesizedGenericArguments,
        ) {
        }

        fn visit_trait_bound_mut(&mut self, bound: &mut TraitBound) {
            if bound.lifetimes.is_none() {
                visit_mut::visit_trait_bound_mut(self, bound);
            }
        }
    }
    let mut borrowed = Borrowed::default();
    borrowed.visit_type_mut(&mut ty.clone());
    borrowed.0
}
