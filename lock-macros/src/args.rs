//! The arguments of an attribute, each checked on its own, all mistakes reported at once.

use std::{env, iter};

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens as _, quote_spanned};
use syn::{
    Error, Expr, ExprClosure, ExprLit, ExprPath, Ident, Lit, Path, Result, Token,
    ext::IdentExt as _,
    parse::{ParseStream, Parser as _, discouraged::Speculative as _},
    spanned::Spanned as _,
};

use crate::{attribute::Attribute, duration::Length, renamed, template::Template};

/// The shortest lease of the runtime. A shorter one is most often an integer that was meant to be
/// seconds.
const SHORTEST_LEASE: u64 = 50;

/// A shorter wait, as an integer, was most often meant to be seconds.
const SHORTEST_WAIT: u64 = 50;

/// The longest lease of the runtime, and the longest pause of its debounce.
const LONGEST: u64 = 24 * 60 * 60 * 1000;

/// The pause of the runtime's debounce, if none is given.
const DEFAULT_WAIT: u64 = 1000;

/// The arguments that have no value.
const FLAGS: [&str; 5] = ["skip", "reentrant", "leading", "detached", "durable"];

/// The arguments of one attribute.
pub(crate) struct Args {
    pub(crate) id: Option<Id>,
    /// In the order of the arguments.
    pub(crate) durations: Vec<Duration>,
    pub(crate) locks: Option<Expr>,
    pub(crate) guard: Option<Ident>,
    pub(crate) or_else: Option<Expr>,
    pub(crate) skip: bool,
    pub(crate) reentrant: bool,
    /// The location of each of these flags, if it was given.
    pub(crate) leading: Option<Span>,
    pub(crate) detached: Option<Span>,
    pub(crate) durable: Option<Span>,
    /// The name of the run, in a durable function.
    pub(crate) run: Option<Ident>,
    pub(crate) on_lost: OnLost,
    krate: Option<Path>,
}

/// A duration, and the location of its value.
pub(crate) struct Duration {
    /// Also the name of the builder's method.
    pub(crate) key: Ident,
    pub(crate) length: Length,
    value: Span,
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
    // Input: the tokens between the parentheses of the attribute, and the attribute's location.
    // Output: the arguments that could be parsed.
    pub(crate) fn parse(
        attribute: Attribute,
        tokens: TokenStream,
        place: Span,
        all_mistakes: &mut Mistakes,
    ) -> Self {
        let mut mistakes = Mistakes::default();
        let parser = |input: ParseStream<'_>| Ok(split(attribute, input, &mut mistakes));
        let arguments = parser.parse2(tokens).unwrap_or_default();
        let mut args = Self {
            id: None,
            durations: Vec::new(),
            locks: None,
            guard: None,
            or_else: None,
            skip: false,
            reentrant: false,
            leading: None,
            detached: None,
            durable: None,
            run: None,
            on_lost: OnLost::Stop,
            krate: None,
        };
        let mut seen = Vec::new();
        for Argument { key, value } in arguments {
            let name = key.unraw().to_string();
            let usage = attribute.usage(&name);
            if usage.is_empty() {
                let instead = attribute.meant(&name).map_or_else(
                    || format!("it takes {}", attribute.allowed()),
                    |usage| format!("write `{usage}`"),
                );
                let text = format!("`{}` has no argument `{name}`; {instead}", attribute.name());
                mistakes.push(Error::new(key.span(), text));
            } else if seen.contains(&name) {
                let text = format!("`{name}` is given twice; keep one of them");
                mistakes.push(Error::new(key.span(), text));
            } else {
                if let Err(error) = args.set(attribute, (&name, usage), &key, value) {
                    mistakes.push(error);
                }
                seen.push(name);
            }
        }
        if attribute == Attribute::Locked && mistakes.0.is_none() && args.id.is_none() {
            mistakes.push(Error::new(
                place,
                "`#[locked]` needs the id of the lock: \
                 write `#[locked(id = \"invoice:{invoice_id}\")]`, where `invoice_id` is an \
                 argument of the function, or `#[locked(id = \"nightly\")]`",
            ));
        }
        if mistakes.0.is_none() {
            args.compare(attribute, &mut mistakes);
        }
        if args.krate.is_none()
            && let Some(name) = renamed::name(env::args())
        {
            let text = format!("`lock` is called `{name}` in this crate; add `crate = {name}`");
            mistakes.push(Error::new(place, text));
            // With the name known, the rest compiles.
            args.krate = syn::parse_str(&name).ok();
        }
        if let Some(error) = mistakes.0 {
            all_mistakes.push(error);
        }
        args
    }

    /// Checks two arguments against each other. For durations that are known only when the function
    /// is called, the runtime does.
    fn compare(&self, attribute: Attribute, mistakes: &mut Mistakes) {
        if let Some(run) = self.run.as_ref().filter(|_| self.durable.is_none()) {
            let text = "`run` is for durable functions: add `durable`, or leave `run` out";
            mistakes.push(Error::new(run.span(), text));
        }
        match attribute {
            Attribute::Locked => {
                if let (Some((limit, place)), Some((lease, _))) =
                    (self.known("hold_at_most"), self.known("lease"))
                    && limit < lease
                {
                    let text = format!(
                        "the lock would be lost before its first lease of {lease} ms is over; \
                         write a longer `hold_at_most`, or a shorter `lease`"
                    );
                    mistakes.push(Error::new(place, text));
                }
            }
            Attribute::Debounced => {
                let wait = match self.duration("wait") {
                    Some(wait) => wait.length.milliseconds(),
                    None => Some(DEFAULT_WAIT),
                };
                if let (Some((limit, place)), Some(wait)) = (self.known("max_wait"), wait)
                    && limit < wait
                {
                    let text = format!(
                        "`max_wait` is shorter than the `wait` of {wait} ms; write a `max_wait` of \
                         at least {wait} ms, or a shorter `wait`"
                    );
                    mistakes.push(Error::new(place, text));
                }
            }
        }
    }

    pub(crate) fn duration(&self, key: &str) -> Option<&Duration> {
        self.durations.iter().find(|duration| duration.key == key)
    }

    /// The expressions that each call evaluates, in this order. `or_else` is not one of them: it is
    /// evaluated only for an error.
    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expr> {
        let id = match &self.id {
            Some(Id::Expression(expression)) => Some(expression),
            _ => None,
        };
        let durations = self.durations.iter().filter_map(|duration| duration.length.expression());
        self.locks.iter().chain(id).chain(durations)
    }

    /// The milliseconds of a duration that is given as a literal, and the location of the literal.
    fn known(&self, key: &str) -> Option<(u64, Span)> {
        let duration = self.duration(key)?;
        Some((duration.length.milliseconds()?, duration.value))
    }

    /// These arguments, followed by those of the attributes below.
    pub(crate) fn iter_with<'a>(&'a self, others: &'a [Self]) -> impl Iterator<Item = &'a Self> {
        iter::once(self).chain(others)
    }

    /// The path of the runtime, located at `span` if the user gave none. The name of the crate is
    /// located at the attribute, whatever the `span`: if there is no crate of that name, all errors
    /// about it are then the same, and the compiler shows them once.
    pub(crate) fn krate(&self, span: Span) -> TokenStream {
        let path = self.krate.as_ref().map(Path::to_token_stream);
        path.unwrap_or_else(|| {
            let name = Ident::new("lock", Span::mixed_site());
            quote_spanned!(span=> ::#name)
        })
    }

    // Input: a key of this attribute that was not given before, its usage, and its value.
    fn set(
        &mut self,
        attribute: Attribute,
        (name, usage): (&str, &str),
        key: &Ident,
        value: Option<Expr>,
    ) -> Result<()> {
        let is_flag = FLAGS.contains(&name);
        let value = match (is_flag, value) {
            (true, None) => {
                match name {
                    "skip" => self.skip = true,
                    "reentrant" => self.reentrant = true,
                    "leading" => self.leading = Some(key.span()),
                    "detached" => self.detached = Some(key.span()),
                    _ => self.durable = Some(key.span()),
                }
                return Ok(());
            }
            (true, Some(value)) => {
                let text = format!("`{name}` is a flag: write `{name}` alone, or leave it out");
                return Err(Error::new_spanned(value, text));
            }
            (false, None) => {
                let text = format!("`{name}` needs a value: write `{usage}`");
                return Err(Error::new(key.span(), text));
            }
            (false, Some(value)) => ungroup(value),
        };
        match name {
            "id" => self.id = Some(Id::parse(value)?),
            "locks" => self.locks = Some(client(value)?),
            "guard" => self.guard = Some(identifier(value, usage)?),
            "run" => self.run = Some(identifier(value, usage)?),
            "or_else" => self.or_else = Some(handler(value)?),
            "on_lost" => self.on_lost = OnLost::parse(&value)?,
            "crate" => self.krate = Some(path(value, usage)?.path),
            _ => {
                let (key, place) = (key.unraw(), value.span());
                let length = Length::parse(name, value)?;
                if let Some(text) = out_of_range(attribute, name, &length) {
                    return Err(Error::new(place, text));
                }
                self.durations.push(Duration { key, length, value: place });
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
            // A string in parentheses is a template as well, or its braces would silently stay in
            // the id.
            Expr::Paren(inner) if is_text(&inner.expr) => Self::parse(*inner.expr),
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
#[derive(Default)]
pub(crate) struct Mistakes(pub(crate) Option<Error>);

impl Mistakes {
    /// Returns the value, or records the error.
    pub(crate) fn take<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    pub(crate) fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            none => *none = Some(error),
        }
    }
}

// Input: everything between the parentheses of the attribute.
// Output: the arguments that could be parsed. An argument that could not is reported as a mistake
//         and skipped up to the next comma.
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
    if let Ok(value) = input.fork().parse::<Expr>()
        && let Expr::Lit(literal) = &value
    {
        let usage = match Length::parse("wait", value.clone()) {
            Ok(Length::Integer(number)) if (1..SHORTEST_WAIT).contains(&number) => {
                format!("for the time to wait write `wait = \"{number}s\"`")
            }
            Ok(_) => format!("for the time to wait write `wait = {}`", literal.to_token_stream()),
            Err(_) => "for the id write `id = \"..\"`".to_owned(),
        };
        return Err(input.error(format!("this value needs a name before it; {usage}")));
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

fn is_text(value: &Expr) -> bool {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(_), .. }) => true,
        Expr::Paren(inner) => is_text(&inner.expr),
        _ => false,
    }
}

/// Takes the value out of the group without delimiters in which a macro passes `$name:expr`.
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
        // A path may be a keyword, `self` or `Self`, which is not a name.
        Expr::Path(path) if path.qself.is_none() => {
            syn::parse2(path.into_token_stream()).map_err(|_| error)
        }
        _ => Err(error),
    }
}

fn client(value: Expr) -> Result<Expr> {
    if is_text(&value) {
        let text = "`locks` takes a `Locks`, which is connected once and kept, and not a URL; \
                    write `locks = self.locks`, or `locks = LOCKS` for a static";
        return Err(Error::new_spanned(value, text));
    }
    Ok(value)
}

fn handler(value: Expr) -> Result<Expr> {
    let problem = match &value {
        Expr::Closure(ExprClosure { asyncness: Some(_), .. }) => {
            "`or_else` must return the value immediately, so its closure cannot be `async`"
        }
        Expr::Closure(closure) if closure.inputs.len() != 1 => {
            "`or_else` takes the lock error, and nothing else"
        }
        Expr::Closure(_) | Expr::Path(_) => return Ok(value),
        _ => "`or_else` takes a closure or the path of a function",
    };
    Err(Error::new_spanned(value, format!("{problem}: write `or_else = |error| ..`")))
}

// The runtime also refuses these, except for integers that look like seconds; here the error is
// shown where the user wrote the value.
fn out_of_range(attribute: Attribute, key: &str, length: &Length) -> Option<String> {
    let milliseconds = length.milliseconds()?;
    let meant = seconds_meant(key, length);
    match (attribute, key) {
        (_, "lease") if milliseconds < SHORTEST_LEASE => Some(format!(
            "a lease is at least {SHORTEST_LEASE} ms, and this is {milliseconds} ms; \
             for seconds write `lease = \"{}s\"`",
            milliseconds.max(1)
        )),
        _ if meant.is_some() => meant,
        (_, "hold_at_most") if milliseconds == 0 => Some(
            "the lock would be lost immediately; write a longer time, or leave `hold_at_most` out"
                .to_owned(),
        ),
        (Attribute::Debounced, "wait") if milliseconds == 0 => Some(
            "without a pause, a burst never ends; write `wait = \"1ms\"` or more, or use \
             `#[locked]` to run every call"
                .to_owned(),
        ),
        (Attribute::Locked, "lease" | "hold_at_least")
        | (Attribute::Debounced, "wait" | "max_wait")
            if milliseconds > LONGEST =>
        {
            Some(format!(
                "`{key}` is at most 24 hours, and this is longer; write `{key} = \"24h\"` or less"
            ))
        }
        _ => None,
    }
}

// Nobody holds a lock for 30 ms, or waits for 5 ms: a small integer without a unit was meant to be
// seconds.
fn seconds_meant(key: &str, length: &Length) -> Option<String> {
    let Length::Integer(number) = length else { return None };
    let waits = matches!(key, "wait" | "max_wait");
    let plausible = if waits { SHORTEST_WAIT } else { 1000 };
    (1..plausible).contains(number).then(|| {
        format!(
            "`{key} = {number}` is {number} ms; write `{key} = \"{number}s\"` for seconds, or \
             `{key} = \"{number}ms\"`"
        )
    })
}
