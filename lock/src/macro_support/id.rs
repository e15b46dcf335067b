//! The values in an attribute's arguments: ids and durations.

use std::{
    fmt::{self, Display},
    time::Duration,
};

/// A duration in an attribute's argument.
#[must_use]
pub const fn milliseconds(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The id that an expression gives, unchanged.
pub fn display<T: Display + ?Sized>(id: &T) -> String {
    id.to_string()
}

/// An id built from a template.
#[derive(Debug, Default)]
pub struct Id(String);

impl Id {
    /// An empty id.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends text of the template, unchanged.
    pub fn literal(&mut self, text: &str) {
        self.0.push_str(text);
    }

    /// Appends a value, escaped: every character but alphanumerics, `-`, `_` and `.` becomes the
    /// `%XX` of its bytes. So no value can look like text of the template, or like two values.
    pub fn value<T: Display + ?Sized>(&mut self, value: &T) {
        use fmt::Write;

        // Writing to a `String` never fails. A value that cannot be shown would give the id of
        // another one, so this panics, as `format!` does.
        write!(Escaped(&mut self.0), "{value}").expect("a value in an id could not be formatted");
    }

    /// Returns the id.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character.is_alphanumeric() || matches!(character, '-' | '_' | '.') {
                self.0.push(character);
            } else {
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    write!(self.0, "%{byte:02X}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(values: &[&str]) -> String {
        let mut id = Id::new();
        for value in values {
            id.literal(":");
            id.value(*value);
        }
        id.finish()
    }

    #[test]
    fn plain_values_stay_readable() {
        assert_eq!(id(&["42", "a-b_c.d", "Ärger"]), ":42:a-b_c.d:Ärger");
    }

    #[test]
    #[should_panic(expected = "a value in an id could not be formatted")]
    fn a_value_that_is_shown_in_part_gives_no_id() {
        struct Half;
        impl Display for Half {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("half")?;
                Err(fmt::Error)
            }
        }
        Id::new().value(&Half);
    }

    #[test]
    fn values_cannot_look_like_the_template_or_like_each_other() {
        assert_eq!(id(&["a:b", "c"]), ":a%3Ab:c");
        assert_ne!(id(&["a:b", "c"]), id(&["a", "b:c"]));
        assert_ne!(id(&["a%3Ab"]), id(&["a:b"]));
        assert_eq!(id(&["~{x}\n", "€"]), ":%7E%7Bx%7D%0A:%E2%82%AC");
    }
}
