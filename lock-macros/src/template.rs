//! The id as a template: `"invoice:{order.id}"`.
//!
//! # Why two different lists of arguments never give the same id
//!
//! Let a template be `T0 {v1} T1 {v2} .. {vn} Tn`, where the `T`s are its texts, and let `A` be the
//! set of characters that an escaped value consists of: alphanumerics and `-`, `_`, `.`, `%`. The
//! escape `e` is one to one, so it is enough that an id determines `e(v1) .. e(vn)`.
//!
//! Every text *between* two values has a character outside `A`; [`pieces`] refuses other templates.
//! `T0` and `Tn` have a fixed length and can be cut off. The rest starts with `e(v1) T1`. Let `k`
//! be the index in `T1` of its first character outside `A`. Before that character there are only
//! `e(v1)` and the first `k` characters of `T1`, all of them in `A`. So it is the first character
//! outside `A` in the rest, and its position there is known: `e(v1)` ends `k` characters before it.
//! Cut off `e(v1) T1`, whose length is now known, and go on with `e(v2)`; the last value is all
//! that is left. A value may be empty: nothing above needs a character from it.

use proc_macro2::Span;
use syn::{Error, Ident, LitStr, Member, ext::IdentExt as _, parse::Parser as _};

/// The longest id of the runtime, in bytes.
const LONGEST: usize = 1024;

/// A parsed template and the location of its literal.
pub(crate) struct Template {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) span: Span,
}

/// A part of an id.
pub(crate) enum Piece {
    /// Used as it is.
    Text(String),
    /// `{root.field.0}`, escaped when the function is called. `root` has no `r#`.
    Value { root: String, fields: Vec<Member> },
}

impl Template {
    pub(crate) fn parse(literal: &LitStr) -> syn::Result<Self> {
        let span = literal.span();
        match pieces(&literal.value(), span) {
            Ok(pieces) => Ok(Self { pieces, span }),
            Err(problem) => Err(Error::new(span, problem)),
        }
    }
}

// Input: the text of the literal, escapes resolved.
// Output: its pieces, where no text is empty and no two texts are neighbours; or the first problem.
fn pieces(template: &str, span: Span) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some(brace) = rest.find(['{', '}']) {
        text.push_str(&rest[..brace]);
        let (this, after) = (&rest[brace..=brace], &rest[brace + 1..]);
        if let Some(after) = after.strip_prefix(this) {
            text.push_str(this);
            rest = after;
            continue;
        }
        if this == "}" {
            return Err("this id has a `}` without its `{`; write `}}` for a brace".to_owned());
        }
        let Some((name, after)) = after.split_once('}') else {
            return Err("this id has a `{` without its `}`; write `{{` for a brace".to_owned());
        };
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        if !separated(&pieces) {
            return Err(format!(
                "nothing separates `{{{name}}}` from the value before it, so different arguments \
                 could give the same id; put a character between them that is neither alphanumeric \
                 nor one of `-`, `_`, `.`, `%`, for example `:`"
            ));
        }
        pieces.push(value(name, span)?);
        rest = after;
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    if pieces.is_empty() {
        return Err("an id cannot be empty".to_owned());
    }
    // The runtime also refuses these; here the error is shown where the user wrote the id.
    if matches!(pieces.first(), Some(Piece::Text(text)) if text.starts_with('~')) {
        return Err(
            "an id cannot begin with `~`, which marks the library's own keys; write another \
             character before it"
                .to_owned(),
        );
    }
    let texts = pieces.iter().map(|piece| match piece {
        Piece::Text(text) => text.len(),
        Piece::Value { .. } => 0,
    });
    let bytes = texts.sum::<usize>();
    if bytes > LONGEST {
        return Err(format!("an id may have at most {LONGEST} bytes, but this one has {bytes}"));
    }
    Ok(pieces)
}

/// Whether another value may come next: the condition of the proof above.
fn separated(pieces: &[Piece]) -> bool {
    match pieces {
        [] | [Piece::Text(_)] => true,
        [.., Piece::Text(text)] => text.contains(|c: char| !is_kept(c)),
        [.., Piece::Value { .. }] => false,
    }
}

/// Whether an escaped value may contain `c`. A wrong yes is harmless; a wrong no would break the
/// proof above.
fn is_kept(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '%')
}

/// Parses the text between two braces.
fn value(name: &str, span: Span) -> Result<Piece, String> {
    const EXPRESSION: &str = "for anything else use an expression: `id = format!(\"..\", ..)`";
    if name.is_empty() {
        return Err(format!(
            "`{{}}` names no value; write `{{name}}` or `{{name.field}}`, and {EXPRESSION}"
        ));
    }
    if let Some((name, specification)) = name.split_once(':')
        && is_path(name)
        && !specification.starts_with(':')
    {
        return Err(format!(
            "an id cannot contain format specifications; write `{{{name}}}`, and {EXPRESSION}"
        ));
    }
    let refused = || {
        format!(
            "`{{{name}}}` is not a name or a field, as in `{{name}}` or `{{name.field.0}}`; {EXPRESSION}"
        )
    };
    if !is_path(name) {
        return Err(refused());
    }
    let mut parts = name.split('.');
    let root = parts.next().unwrap_or_default();
    let root = root.strip_prefix("r#").unwrap_or(root).to_owned();
    if matches!(root.as_str(), "_" | "Self" | "super" | "crate") || identifier(&root).is_err() {
        return Err(refused());
    }
    let fields = parts.map(|part| member(part, span)).collect::<syn::Result<_>>();
    Ok(Piece::Value { root, fields: fields.map_err(|_| refused())? })
}

/// Whether this could be `name.field.0`. The exact rules of identifiers are left to their parser.
fn is_path(name: &str) -> bool {
    let word = |part: &str| {
        let part = part.strip_prefix("r#").unwrap_or(part);
        !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    name.split('.').all(word) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn member(part: &str, span: Span) -> syn::Result<Member> {
    if part.chars().all(|c| c.is_ascii_digit()) {
        return LitStr::new(part, span).parse().map(Member::Unnamed);
    }
    let mut name = identifier(part)?;
    name.set_span(span);
    Ok(Member::Named(name))
}

/// Parses any identifier, including a keyword, which may be the name of a raw identifier.
fn identifier(name: &str) -> syn::Result<Ident> {
    Ident::parse_any.parse_str(name)
}

#[cfg(test)]
mod tests {
    use quote::ToTokens as _;

    use super::*;

    /// Texts in quotes, values in braces.
    fn shown(template: &str) -> Result<String, String> {
        let show = |piece: &Piece| match piece {
            Piece::Text(text) => format!("'{text}'"),
            Piece::Value { root, fields } => {
                let fields = fields.iter().map(|field| format!(".{}", field.to_token_stream()));
                format!("{{{root}{}}}", fields.collect::<String>())
            }
        };
        Ok(pieces(template, Span::call_site())?.iter().map(show).collect())
    }

    #[test]
    fn texts_and_values() {
        for (template, expected) in [
            ("nightly", "'nightly'"),
            ("invoice:{invoice_id}", "'invoice:'{invoice_id}"),
            ("{a}", "{a}"),
            ("{a}:{b}", "{a}':'{b}"),
            ("x{a}-:-{b}y", "'x'{a}'-:-'{b}'y'"),
            ("{a}é日 {b}", "{a}'é日 '{b}"),
            ("{self.tenant}", "{self.tenant}"),
            ("{order.lines.0.1.id}", "{order.lines.0.1.id}"),
            ("{r#type}", "{type}"),
            ("{type}", "{type}"),
            ("{a.r#type}", "{a.r#type}"),
            ("{ünïcode}", "{ünïcode}"),
            ("{{}}", "'{}'"),
            ("{{a}}:{{{a}}}", "'{a}:{'{a}'}'"),
            ("{a}{{{b}", "{a}'{'{b}"),
            ("a~{b}", "'a~'{b}"),
        ] {
            assert_eq!(shown(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn other_templates_say_what_is_wrong() {
        for (template, expected) in [
            ("", "cannot be empty"),
            ("~{a}", "cannot begin with `~`"),
            (&"é".repeat(513), "at most 1024 bytes, but this one has 1026"),
            ("{}", "`{}` names no value"),
            ("a{", "`{` without its `}`"),
            ("a{b", "`{` without its `}`"),
            ("a}", "`}` without its `{`"),
            ("{a}}", "`}` without its `{`"),
            ("{a:?}", "write `{a}`"),
            ("{a.b:>5}", "write `{a.b}`"),
            ("{0}", "`{0}` is not a name"),
            ("{ a }", "`{ a }` is not a name"),
            ("{a.}", "`{a.}` is not a name"),
            ("{.a}", "`{.a}` is not a name"),
            ("{a.len()}", "`{a.len()}` is not a name"),
            ("{a + 1}", "`{a + 1}` is not a name"),
            ("{a::B}", "`{a::B}` is not a name"),
            ("{a[0]}", "`{a[0]}` is not a name"),
            ("{&a}", "`{&a}` is not a name"),
            ("{_}", "`{_}` is not a name"),
            ("{Self}", "`{Self}` is not a name"),
            ("{a.0x1}", "`{a.0x1}` is not a name"),
            ("{a.٣}", "`{a.٣}` is not a name"),
            ("{a.4294967296}", "`{a.4294967296}` is not a name"),
            ("{a}{b}", "nothing separates `{b}` from"),
            ("{a}-{b}", "nothing separates `{b}` from"),
            ("{a}x1_.%{b}", "nothing separates `{b}` from"),
            ("{a}é日{b}", "nothing separates `{b}` from"),
            ("{a}:{b}{c}", "nothing separates `{c}` from"),
        ] {
            let problem = shown(template).expect_err(template);
            assert!(problem.contains(expected), "{template}: {problem}");
        }
    }
}
