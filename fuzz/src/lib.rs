//! Fuzz targets for everything that parses untrusted input: the arguments of the attributes, URLs
//! and the environment, and the replies of a server.
//!
//! Each function takes any bytes, panics if the result is wrong, and returns whether the bytes
//! meant anything. `fuzz/run` has libFuzzer search for inputs that panic. `tests/seeds.rs` tries
//! many inputs like the seeds without libFuzzer, so that every run of the suite does some of the
//! same.

// The modules of the attributes, which a crate of procedural macros cannot export.
#[path = "../../lock-macros/src/args.rs"]
mod args;
#[path = "../../lock-macros/src/attribute.rs"]
mod attribute;
#[path = "../../lock-macros/src/check.rs"]
mod check;
#[path = "../../lock-macros/src/duration.rs"]
mod duration;
#[path = "../../lock-macros/src/expand/mod.rs"]
mod expand;
#[path = "../../lock-macros/src/function.rs"]
mod function;
#[path = "../../lock-macros/src/names.rs"]
mod names;
#[path = "../../lock-macros/src/renamed.rs"]
mod renamed;
#[path = "../../lock-macros/src/span.rs"]
mod span;
#[path = "../../lock-macros/src/stack.rs"]
mod stack;
#[path = "../../lock-macros/src/template.rs"]
mod template;
#[path = "../../lock-macros/src/values.rs"]
mod values;
#[path = "../../lock-macros/src/ways.rs"]
mod ways;

use std::str::FromStr as _;

use lock::__fuzzing::{environment, reply as read_reply, store_url, wake};
use proc_macro2::{Span, TokenStream, TokenTree};
use syn::LitStr;

use crate::{
    attribute::Attribute,
    duration::Length,
    template::{Piece, Template},
};

/// The deepest nesting of tokens that is tried: the compiler itself overflows its stack on deeper
/// ones.
const DEEPEST: usize = 32;

/// The item that the attribute is on, unless the input names another.
const FUNCTION: &str = "async fn pay(&self, id: u64, mut text: String) -> Result<u8, Error> { 1 }";

/// A password that no message may repeat.
const SECRET: &str = "s3cr3t-pa55w0rd";

/// The arguments of an attribute in the first line, and its item in the others.
pub fn attribute(input: &[u8]) -> bool {
    let Some((first, text)) = input.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let which = if first % 2 == 0 { Attribute::Locked } else { Attribute::Debounced };
    let (args, item) = text.split_once('\n').unwrap_or((text, FUNCTION));
    if too_deep(args) || too_deep(item) {
        return false;
    }
    let (Ok(args), Ok(item)) = (TokenStream::from_str(args), TokenStream::from_str(item)) else {
        return false;
    };
    let expanded = expand::expand(which, args, &item);
    // Either code that compiles, or an error that says what is wrong.
    let parsed = syn::parse2::<syn::File>(expanded.clone());
    let is_function = syn::parse2::<syn::ItemFn>(item).is_ok();
    let has_error = has_error(expanded);
    assert!(parsed.is_ok() || !is_function || has_error, "{:?}", parsed.err());
    !has_error
}

fn too_deep(text: &str) -> bool {
    text.matches(['(', '[', '{', '<', '&', '*', '!', '-', '|']).count() > DEEPEST
}

fn has_error(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "compile_error",
        TokenTree::Group(group) => has_error(group.stream()),
        _ => false,
    })
}

/// A duration as it is written in an attribute.
pub fn duration(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let read = |text: &str| {
        let literal = LitStr::new(text, Span::call_site());
        Length::parse("lease", syn::parse_quote!(#literal)).ok()?.milliseconds()
    };
    let Some(milliseconds) = read(text) else { return false };
    // It means the same as its plainest spelling.
    let mut rest = milliseconds;
    let mut plain = String::new();
    for (unit, length) in
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)]
    {
        if rest >= length || (unit == "ms" && plain.is_empty()) {
            plain.push_str(&format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    assert_eq!(read(&plain), Some(milliseconds), "{text} {plain}");
    true
}

/// A template in the first line, and values for it in the others, twice as many as it takes.
pub fn template(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let mut lines = text.split('\n');
    let first = lines.next().unwrap_or_default();
    let Ok(template) = Template::parse(&LitStr::new(first, Span::call_site())) else {
        return false;
    };
    let mut id = || {
        let mut values = Vec::new();
        let mut id = lock::__private::Id::new();
        for piece in &template.pieces {
            match piece {
                Piece::Text(text) => id.literal(text),
                Piece::Value { .. } => {
                    values.push(lines.next().unwrap_or_default());
                    id.value(values[values.len() - 1]);
                }
            }
        }
        (values, id.finish())
    };
    let (one, other) = (id(), id());
    assert_eq!(one.0 == other.0, one.1 == other.1, "{one:?} {other:?}");
    one.0 != other.0
}

/// A URL of a store, or the lines of an environment; a `*` is a password.
pub fn url(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let text = text.replace('*', SECRET);
    let (url, lines) = text.split_once('\n').unwrap_or((&text, ""));
    let read = keeps_secret(store_url(url));
    let variable = |name: &str| {
        let mut lines = lines.split('\n').filter_map(|line| line.split_once('='));
        lines.find(|(variable, _)| *variable == name).map(|(_, value)| value.to_owned())
    };
    match environment(variable) {
        Ok(url) => read | keeps_secret(store_url(&url)),
        Err(error) => read | keeps_secret(Err(error)),
    }
}

fn keeps_secret(read: Result<(), lock::Error>) -> bool {
    read.map_err(|error| {
        let text = format!("{error} {error:?}");
        assert!(!text.contains(SECRET), "{text}");
    })
    .is_ok()
}

/// A reply of a server, or a message of its publisher.
pub fn reply(input: &[u8]) -> bool {
    read_reply(input) > 0 || wake(input)
}
