//! The arguments of an attribute, each checked on its own, all mistakes reported at once.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens as _, quote_spanned};
use syn::{
    Error, Expr, ExprLit, ExprPath, Ident, Lit, Path, Result, Token,
    ext::IdentExt as _,
    parse::{ParseStream, Parser as _, discouraged::Speculative as _},
};

use crate::{attribute::Attribute, duration, template::Template};

/// A shorter lease is refused by the runtime; here the user sees it where it is written. It is
/// most often an integer that was meant to be seconds.
const SHORTEST_LEASE: u64 = 50;

/// What the user asked for. A duration is in milliseconds.
pub(crate) struct Args {
    pub(crate) id: Option<Id>,
    /// Names of builder methods, in the order of the arguments.
    pub(crate) durations: Vec<(Ident, u64)>,
    pub(crate) locks: Option<Expr>,
    pub(crate) guard: Option<Ident>,
    pub(crate) or_else: Option<Expr>,
    pub(crate) skip: bool,
    pub(crate) on_lost: OnLost,
    krate: Option<Path>,
}

pub(crate) enum Id {
    Template(Template),
    Expression(Expr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLost {
    Stop,
    Continue,
}

/// One `key` or `key = value`.
struct Argument {
    key: Ident,
    value: Option<Expr>,
}

impl Args {
    pub(crate) fn parse(attribute: Attribute, tokens: TokenStream) -> Result<Self> {
        let mut mistakes = Mistakes(None);
        let parser = |input: ParseStream<'_>| Ok(split(attribute, input, &mut mistakes));
        let arguments = parser.parse2(tokens)?;
        let mut args = Self {
            id: None,
            durations: Vec::new(),
            locks: None,
            guard: None,
            or_else: None,
            skip: false,
            on_lost: OnLost::Stop,
            krate: None,
        };
        let mut seen = Vec::new();
        for Argument { key, value } in arguments {
            let name = key.unraw().to_string();
            let usage = attribute.usage(&name);
            if usage.is_empty() {
                let text = format!(
                    "`{}` has no argument `{name}`; it takes {}",
                    attribute.name(),
                    attribute.allowed()
                );
                mistakes.push(Error::new(key.span(), text));
            } else if seen.contains(&name) {
                let text = format!("`{name}` is given twice; keep one of them");
                mistakes.push(Error::new(key.span(), text));
            } else {
                if let Err(error) = args.set(&name, usage, &key, value) {
                    mistakes.push(error);
                }
                seen.push(name);
            }
        }
        if attribute == Attribute::Locked && mistakes.0.is_none() && args.id.is_none() {
            mistakes.push(Error::new(
                Span::call_site(),
                "`#[locked]` needs the id of the lock: \
                 write `#[locked(id = \"invoice:{invoice_id}\")]`, where `invoice_id` is an \
                 argument of the function, or `#[locked(id = \"nightly\")]`",
            ));
        }
        mistakes.0.map_or(Ok(args), Err)
    }

    /// The path of the runtime, located at `span` if the user gave none.
    pub(crate) fn krate(&self, span: Span) -> TokenStream {
        let path = self.krate.as_ref().map(Path::to_token_stream);
        path.unwrap_or_else(|| quote_spanned!(span=> ::lock))
    }

    // Input: a key of this attribute, for the first time, its usage, and what follows it.
    fn set(&mut self, name: &str, usage: &str, key: &Ident, value: Option<Expr>) -> Result<()> {
        let value = match (name, value) {
            ("skip", None) => {
                self.skip = true;
                return Ok(());
            }
            ("skip", Some(value)) => {
                let text = "`skip` is a flag: write `skip` alone, or leave it out";
                return Err(Error::new_spanned(value, text));
            }
            (_, None) => {
                let text = format!("`{name}` needs a value: write `{usage}`");
                return Err(Error::new(key.span(), text));
            }
            (_, Some(value)) => ungroup(value),
        };
        match name {
            "id" => self.id = Some(Id::parse(value)?),
            "locks" => self.locks = Some(value),
            "guard" => self.guard = Some(identifier(value, usage)?),
            "or_else" => self.or_else = Some(handler(value)?),
            "on_lost" => self.on_lost = OnLost::parse(&value)?,
            "crate" => self.krate = Some(path(value, usage)?.path),
            _ => {
                let milliseconds = duration::milliseconds(name, &value)?;
                self.durations.push((key.unraw(), at_least(name, milliseconds, &value)?));
            }
        }
        Ok(())
    }
}

impl Id {
    fn parse(value: Expr) -> Result<Self> {
        match value {
            Expr::Lit(ExprLit { lit: Lit::Str(literal), .. }) => {
                Template::parse(&literal).map(Self::Template)
            }
            expression => Ok(Self::Expression(expression)),
        }
    }
}

impl OnLost {
    fn parse(value: &Expr) -> Result<Self> {
        if let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = value {
            match text.value().as_str() {
                "stop" => return Ok(Self::Stop),
                "continue" => return Ok(Self::Continue),
                _ => {}
            }
        }
        let text = "`on_lost` is `\"stop\"`, the default, or `\"continue\"`";
        Err(Error::new_spanned(value, text))
    }
}

/// All errors so far.
struct Mistakes(Option<Error>);

impl Mistakes {
    fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            none => *none = Some(error),
        }
    }
}

// Input: everything between the parentheses of the attribute.
// Output: the arguments that could be read; what could not is a mistake, up to the next comma.
fn split(attribute: Attribute, input: ParseStream<'_>, mistakes: &mut Mistakes) -> Vec<Argument> {
    let mut arguments = Vec::new();
    while !input.is_empty() {
        let ahead = input.fork();
        match argument(attribute, &ahead) {
            Ok(argument) => {
                input.advance_to(&ahead);
                arguments.push(argument);
            }
            Err(error) => mistakes.push(error),
        }
        until_comma(input);
        let _ = input.parse::<Option<Token![,]>>();
    }
    arguments
}

fn until_comma(input: ParseStream<'_>) -> TokenStream {
    let mut tokens = TokenStream::new();
    while !input.peek(Token![,])
        && let Ok(token) = input.parse::<TokenTree>()
    {
        tokens.extend([token]);
    }
    tokens
}

fn argument(attribute: Attribute, input: ParseStream<'_>) -> Result<Argument> {
    if input.peek(syn::Lit) {
        let text = "this value needs a name before it; for the id write `id = \"..\"`";
        return Err(input.error(text));
    }
    let Ok(key) = input.call(Ident::parse_any) else {
        let text = format!("expected the name of an argument here: {}", attribute.allowed());
        return Err(input.error(text));
    };
    let mut value = None;
    if let Some(equals) = input.parse::<Option<Token![=]>>()? {
        if input.is_empty() || input.peek(Token![,]) {
            let text = format!("there is no value after this `=`{}", attribute.hint(&key));
            return Err(Error::new(equals.span, text));
        }
        let tokens = until_comma(&input.fork());
        value = Some(input.parse().map_err(|error| {
            let text = format!("{error}{}", attribute.hint(&key));
            Error::new_spanned(tokens, text)
        })?);
    }
    if input.is_empty() || input.peek(Token![,]) {
        Ok(Argument { key, value })
    } else if value.is_some() {
        Err(input.error("expected `,` before this"))
    } else {
        let text = format!("expected `=` or `,` here{}", attribute.hint(&key));
        Err(input.error(text))
    }
}

/// What a macro passes as `$name:expr` comes in a group without delimiters.
fn ungroup(mut value: Expr) -> Expr {
    while let Expr::Group(group) = value {
        value = *group.expr;
    }
    value
}

fn path(value: Expr, usage: &str) -> Result<ExprPath> {
    match value {
        Expr::Path(path) if path.qself.is_none() => Ok(path),
        other => {
            let text = format!("this is not a path; write `{usage}`");
            Err(Error::new_spanned(other, text))
        }
    }
}

fn identifier(value: Expr, usage: &str) -> Result<Ident> {
    let text = format!("this is not a name; write `{usage}`");
    let error = Error::new_spanned(&value, text);
    match value {
        Expr::Path(path) if path.qself.is_none() && !path.path.is_ident("self") => {
            path.path.require_ident().cloned().map_err(|_| error)
        }
        _ => Err(error),
    }
}

fn handler(value: Expr) -> Result<Expr> {
    match value {
        Expr::Closure(_) | Expr::Path(_) => Ok(value),
        other => {
            let text = "`or_else` takes a closure or the path of a function: \
                        write `or_else = |error| ..`";
            Err(Error::new_spanned(other, text))
        }
    }
}

fn at_least(key: &str, milliseconds: u64, value: &Expr) -> Result<u64> {
    let text = match key {
        "lease" if milliseconds < SHORTEST_LEASE => format!(
            "a lease is at least {SHORTEST_LEASE} ms, and this is {milliseconds} ms; \
             for seconds write `lease = \"{}s\"`",
            milliseconds.max(1)
        ),
        "hold_at_most" if milliseconds == 0 => {
            "the lock would be lost at once; write a longer time, or leave `hold_at_most` out"
                .to_owned()
        }
        _ => return Ok(milliseconds),
    };
    Err(Error::new_spanned(value, text))
}
