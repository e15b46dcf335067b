//! Checks of the attributes' arguments against the function.

use syn::{Error, Ident, Type, ext::IdentExt as _};

use crate::{
    args::{Args, Id, Mistakes},
    attribute::Attribute,
    function::Function,
    template::{Piece, Template},
};

/// Reports each mistake at the token that it is about.
pub(crate) fn check<'a>(
    attribute: Attribute,
    all: impl Iterator<Item = &'a Args>,
    function: &Function,
    mistakes: &mut Mistakes,
) {
    let mut run = None;
    let mut guards: Vec<&Ident> = Vec::new();
    for args in all {
        run = run.or(args.run.as_ref());
        if let Some(Id::Template(template)) = &args.id {
            check_template(template, function, mistakes);
        }
        let Some(guard) = &args.guard else { continue };
        if function.binds(guard) {
            let text =
                format!("`{guard}` is an argument of the function; give the guard another name");
            mistakes.push(Error::new(guard.span(), text));
        } else if guards.iter().any(|other| other.unraw() == guard.unraw()) {
            let text =
                format!("`{guard}` is the guard of another lock; give this one another name");
            mistakes.push(Error::new(guard.span(), text));
        } else if run.is_some_and(|run| run.unraw() == guard.unraw()) {
            let text = format!("`{guard}` is the name of the run; give the guard another name");
            mistakes.push(Error::new(guard.span(), text));
        }
        guards.push(guard);
    }
    if let Some(run) = run
        && function.binds(run)
    {
        let text = format!("`{run}` is an argument of the function; give the run another name");
        mistakes.push(Error::new(run.span(), text));
    }
    if let Type::Never(never) = function.output() {
        let text = format!(
            "`{}` must be able to return a lock error, and `!` is never returned; \
             return a `Result<std::convert::Infallible, _>`",
            attribute.name()
        );
        mistakes.push(Error::new_spanned(never, text));
    }
}

// A name that is not an argument may be a constant; if there is none, the compiler reports it.
// Refused here are the names for which the compiler could not say what to do.
fn check_template(template: &Template, function: &Function, mistakes: &mut Mistakes) {
    for piece in &template.pieces {
        let Piece::Value { root, .. } = piece else { continue };
        if function.argument(root).is_some() {
            continue;
        }
        let unused = format!("_{root}");
        let text = if root == "self" {
            "this function has no `self`; an id takes arguments, their fields, and constants"
                .to_owned()
        } else if function.argument(&unused).is_some() {
            format!(
                "the argument is called `{unused}`; call it `{root}`, since it is used here, or \
                 write `{{{unused}}}`"
            )
        } else {
            continue;
        };
        mistakes.push(Error::new(template.span, text));
    }
}
