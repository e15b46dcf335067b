//! Durations as arguments: an integer of milliseconds, or a string with units.

use syn::{Error, Expr, ExprLit, Lit, spanned::Spanned as _};

/// The units of a string, from the largest to the smallest, in milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The milliseconds that the argument `key` asks for.
pub(crate) fn milliseconds(key: &str, value: &Expr) -> syn::Result<u64> {
    let number = match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => {
            return parse(&text.value())
                .map_err(|problem| Error::new(text.span(), format!("{problem}; {}", forms(key))));
        }
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) if number.suffix().is_empty() => number,
        _ => {
            let text = format!("`{key}` is not a duration here; {}", forms(key));
            return Err(Error::new_spanned(value, text));
        }
    };
    number
        .base10_parse()
        .map_err(|_| Error::new(value.span(), format!("`{key}` is too long; {}", forms(key))))
}

/// Both forms, as the last words of every error here.
fn forms(key: &str) -> String {
    format!(
        "write `{key} = 500` for milliseconds, or `{key} = \"250ms\"`, `\"10s\"`, `\"1m30s\"`, `\"2h\"`"
    )
}

/// Parses `"250ms"`, `"1m30s"`: each unit at most once, the larger ones first.
fn parse(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Err("this duration is empty".to_owned());
    }
    let mut total = 0_u64;
    let mut units = UNITS.as_slice();
    let mut rest = text;
    while !rest.is_empty() {
        let (digits, after) = split(rest, |c| c.is_ascii_digit());
        let (unit, after) = split(after, |c| !c.is_ascii_digit());
        if digits.is_empty() {
            return Err(format!("`{rest}` does not start with a whole number"));
        }
        if unit.is_empty() {
            return Err(format!("`{digits}` has no unit"));
        }
        let Some(place) = units.iter().position(|(name, _)| *name == unit) else {
            return Err(if UNITS.iter().any(|(name, _)| *name == unit) {
                format!("`{unit}` comes after the same or a smaller unit")
            } else {
                format!("`{unit}` is not a unit: there are `h`, `m`, `s` and `ms`")
            });
        };
        let sum = digits
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(units[place].1))
            .and_then(|part| part.checked_add(total));
        total = sum.ok_or_else(|| format!("`{text}` is too long"))?;
        units = &units[place + 1..];
        rest = after;
    }
    Ok(total)
}

/// Splits before the first character that is not wanted.
fn split(text: &str, wanted: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !wanted(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_have_units() {
        for (text, expected) in [
            ("0ms", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("1m", 60_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("1h1m1s1ms", 3_661_001),
            ("1h5ms", 3_600_005),
            ("90s", 90_000),
            ("007s", 7_000),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_strings_say_what_is_wrong() {
        for (text, expected) in [
            ("", "this duration is empty"),
            ("10", "`10` has no unit"),
            ("1m30", "`30` has no unit"),
            ("s", "`s` does not start with a whole number"),
            ("-1s", "`-1s` does not start with a whole number"),
            (" 1s", "` 1s` does not start with a whole number"),
            ("1 s", "` s` is not a unit: there are `h`, `m`, `s` and `ms`"),
            ("1.5s", "`.` is not a unit: there are `h`, `m`, `s` and `ms`"),
            ("1d", "`d` is not a unit: there are `h`, `m`, `s` and `ms`"),
            ("1S", "`S` is not a unit: there are `h`, `m`, `s` and `ms`"),
            ("1s1s", "`s` comes after the same or a smaller unit"),
            ("30s1m", "`m` comes after the same or a smaller unit"),
            ("18446744073709551615h", "`18446744073709551615h` is too long"),
            ("99999999999999999999s", "`99999999999999999999s` is too long"),
        ] {
            assert_eq!(parse(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn integers_are_milliseconds() {
        for (value, expected) in [
            ("0", Some(0)),
            ("500", Some(500)),
            ("30_000", Some(30_000)),
            ("\"30s\"", Some(30_000)),
            ("18446744073709551616", None),
            ("500u64", None),
            ("500ms", None),
            ("1.5", None),
            ("-1", None),
            ("Duration::from_secs(1)", None),
        ] {
            let parsed = syn::parse_str(value).and_then(|value| milliseconds("wait", &value));
            assert_eq!(parsed.ok(), expected, "{value}");
        }
    }
}
