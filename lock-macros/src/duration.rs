//! Durations as arguments: an integer of milliseconds, a string with units, or any expression.

use syn::{Error, Expr, ExprLit, ExprUnary, Lit, UnOp};

/// The units of a string, from the largest to the smallest, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A duration, as it was written.
pub(crate) enum Length {
    /// An integer.
    Integer(u64),
    /// A string, in milliseconds.
    Text(u64),
    /// An expression of type `Duration`, known only when the function is called.
    Expression(Expr),
}

impl Length {
    // Input: the value of the argument `key`.
    pub(crate) fn parse(key: &str, value: Expr) -> syn::Result<Self> {
        let mistake = |problem: String| {
            let text = format!("{problem}; {}", forms(key));
            Err(Error::new_spanned(&value, text))
        };
        match inner(&value) {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => match parse(&text.value()) {
                Ok(milliseconds) => Ok(Self::Text(milliseconds)),
                Err(problem) => mistake(problem),
            },
            Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) if number.suffix().is_empty() => {
                match number.base10_parse() {
                    Ok(milliseconds) => Ok(Self::Integer(milliseconds)),
                    Err(_) => mistake(format!("`{key}` is too long")),
                }
            }
            Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. })
                if matches!(inner(expr), Expr::Lit(_)) =>
            {
                mistake(format!("`{key}` must be a duration"))
            }
            Expr::Lit(_) => mistake(format!("`{key}` must be a duration")),
            expression => Ok(Self::Expression(expression.clone())),
        }
    }

    /// The milliseconds, unless they are known only when the function is called.
    pub(crate) fn milliseconds(&self) -> Option<u64> {
        match self {
            Self::Integer(milliseconds) | Self::Text(milliseconds) => Some(*milliseconds),
            Self::Expression(_) => None,
        }
    }

    /// The expression, if it is one.
    pub(crate) fn expression(&self) -> Option<&Expr> {
        match self {
            Self::Integer(_) | Self::Text(_) => None,
            Self::Expression(expression) => Some(expression),
        }
    }
}

/// The value without parentheses, and without the group that a macro puts around `$name:expr`.
fn inner(value: &Expr) -> &Expr {
    match value {
        Expr::Group(group) => inner(&group.expr),
        Expr::Paren(paren) => inner(&paren.expr),
        other => other,
    }
}

/// All forms of a duration, with which every error here ends.
fn forms(key: &str) -> String {
    format!(
        "write `{key} = 1500` for milliseconds, or `{key} = \"250ms\"`, `\"1.5s\"`, \
         `\"1m30s\"`, `\"2h\"`, or an expression of type `Duration`"
    )
}

/// Parses `"250ms"`, `"1m30s"`, `"1.5s"`: each unit at most once, the larger ones first, a
/// fraction with the last one only.
fn parse(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Err("this duration is empty".to_owned());
    }
    let mut total = 0_u64;
    let mut units = UNITS.as_slice();
    let mut rest = text;
    while !rest.is_empty() {
        let (digits, after) = split(rest, |c| c.is_ascii_digit());
        if digits.is_empty() {
            return Err(format!("`{rest}` does not start with a number"));
        }
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split(after, |c| c.is_ascii_digit()),
            None => ("0", after),
        };
        if fraction.is_empty() {
            return Err(format!("`{digits}.` has no digits after its point"));
        }
        let (unit, after) = split(after, |c| !c.is_ascii_digit());
        if unit.is_empty() {
            return Err(format!("`{}` has no unit", &rest[..rest.len() - after.len()]));
        }
        let Some(place) = units.iter().position(|(name, _)| *name == unit) else {
            return Err(if UNITS.iter().any(|(name, _)| *name == unit) {
                format!("`{unit}` comes after the same or a smaller unit")
            } else {
                format!("`{unit}` is not a unit: the units are `d`, `h`, `m`, `s` and `ms`")
            });
        };
        let length = units[place].1;
        let whole = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(length));
        let part = part(fraction, length)
            .ok_or_else(|| format!("`{text}` is not a whole number of milliseconds"))?;
        if part > 0 && !after.is_empty() {
            return Err(format!("`{text}` has a fraction before its last unit"));
        }
        let sum = whole.and_then(|whole| whole.checked_add(part)?.checked_add(total));
        total = sum.ok_or_else(|| format!("`{text}` is too long"))?;
        units = &units[place + 1..];
        rest = after;
    }
    Ok(total)
}

// Input: the digits after the point, and the milliseconds of the unit.
// Output: the milliseconds that they stand for, if those are whole.
fn part(fraction: &str, length: u64) -> Option<u64> {
    let digits = fraction.trim_end_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    // With more digits, the result is never whole: the last digit is not 0, so the unit would have
    // to be divisible by two or by five as often as there are digits.
    let scale = 10_u128.checked_pow(u32::try_from(digits.len()).ok()?).filter(|s| *s < 1 << 64)?;
    let product = digits.parse::<u128>().ok()? * u128::from(length);
    (product % scale == 0).then(|| u64::try_from(product / scale).ok())?
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
            ("1d", 86_400_000),
            ("1d1h", 90_000_000),
            ("1.5s", 1_500),
            ("1.50s", 1_500),
            ("0.25d", 21_600_000),
            ("1m1.5s", 61_500),
            ("1.0m30s", 90_000),
            ("2.000ms", 2),
            ("0.0000078125d", 675),
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
            ("s", "`s` does not start with a number"),
            ("-1s", "`-1s` does not start with a number"),
            (" 1s", "` 1s` does not start with a number"),
            ("1 s", "` s` is not a unit: the units are `d`, `h`, `m`, `s` and `ms`"),
            ("1.s", "`1.` has no digits after its point"),
            (".5s", "`.5s` does not start with a number"),
            ("1.5", "`1.5` has no unit"),
            ("1.5.5s", "`.` is not a unit: the units are `d`, `h`, `m`, `s` and `ms`"),
            ("1,5s", "`,` is not a unit: the units are `d`, `h`, `m`, `s` and `ms`"),
            ("1w", "`w` is not a unit: the units are `d`, `h`, `m`, `s` and `ms`"),
            ("0.5ms", "`0.5ms` is not a whole number of milliseconds"),
            ("1.0001s", "`1.0001s` is not a whole number of milliseconds"),
            (
                "0.00000000000000000000000000000000000000001d",
                "`0.00000000000000000000000000000000000000001d` is not a whole number of milliseconds",
            ),
            ("1.5m30s", "`1.5m30s` has a fraction before its last unit"),
            ("1S", "`S` is not a unit: the units are `d`, `h`, `m`, `s` and `ms`"),
            ("1s1s", "`s` comes after the same or a smaller unit"),
            ("30s1m", "`m` comes after the same or a smaller unit"),
            ("18446744073709551615h", "`18446744073709551615h` is too long"),
            ("99999999999999999999s", "`99999999999999999999s` is too long"),
        ] {
            assert_eq!(parse(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn literals_are_milliseconds_and_all_else_is_an_expression() {
        for (value, expected) in [
            ("0", Some(Some(0))),
            ("500", Some(Some(500))),
            ("(500)", Some(Some(500))),
            ("30_000", Some(Some(30_000))),
            ("\"30s\"", Some(Some(30_000))),
            ("Duration::from_secs(1)", Some(None)),
            ("LIMIT", Some(None)),
            ("self.patience()", Some(None)),
            ("-LIMIT", Some(None)),
            ("18446744073709551616", None),
            ("500u64", None),
            ("500ms", None),
            ("1.5", None),
            ("-1", None),
            ("true", None),
        ] {
            let parsed = syn::parse_str(value).and_then(|value| Length::parse("wait", value));
            let parsed = parsed.map(|length| length.milliseconds());
            assert_eq!(parsed.ok(), expected, "{value}");
        }
    }
}
