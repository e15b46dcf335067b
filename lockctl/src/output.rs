//! The output: tables for people, JSON for programs.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::exit::{Exit, Failure};

/// The standard output, and how to write to it.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    only_reads: bool,
    is_terminal: bool,
    has_colour: bool,
}

impl Output {
    /// `only_reads` says that the command changes nothing.
    pub(crate) fn new(json: bool, only_reads: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        // https://no-color.org
        let is_wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let is_able = env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { json, only_reads, is_terminal, has_colour: is_terminal && is_wanted && is_able }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints a value as JSON, on one line.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).expect("BUG: what is printed can be serialized");
        self.line(&escaped(&text))
    }

    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
        written.map_err(|error| self.unwritable(&error))
    }

    /// For a command that only reads, a reader that stops reading is no failure, as in
    /// `lockctl list | head`. For a command that changes something, exit code 0 would report as
    /// done what was not done.
    fn unwritable(self, error: &io::Error) -> Failure {
        if self.only_reads && error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::new(Exit::Done, "");
        }
        Failure::new(Exit::Failed, format!("the output cannot be written: {error}"))
    }

    /// Prints a table, as wide as the terminal. Without a terminal, it is as wide as its content,
    /// so that each row is one line for tools such as `grep`.
    pub(crate) fn table(self, heads: &[&str], rows: Vec<Vec<Cell>>) -> Result<(), Failure> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if let (true, Some(width)) = (self.is_terminal, table.width()) {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        if self.has_colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(heads.iter().map(|head| Cell::new(head).add_attribute(Attribute::Bold)));
        table.add_rows(rows);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }
}

/// A cell with untrusted text.
pub(crate) fn cell(text: &str) -> Cell {
    Cell::new(printable(text))
}

/// A cell with text that is [`printable`] already.
pub(crate) fn plain(text: &str) -> Cell {
    Cell::new(text)
}

/// A cell in a colour, which catches the eye.
pub(crate) fn coloured(text: &str, colour: Color) -> Cell {
    Cell::new(text).fg(colour)
}

/// The text with invisible characters escaped, and backslashes, which mark the escapes. What others
/// have put into an id or a name must not move the cursor, nor look like another line or another
/// id.
pub(crate) fn printable(text: &str) -> String {
    // `escape_debug` also escapes quotes, which are visible. A backslash of the text is doubled, so
    // the one before a quote is always the escape.
    text.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\"")
}

/// JSON without control characters. serde_json leaves DEL and those from U+0080 on, which terminals
/// also obey. They occur only inside strings, where an escape means the same.
fn escaped(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_control() {
            safe.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A time as people read it: exact below a second, in whole seconds above.
pub(crate) fn time(time: Duration) -> String {
    // A lock without an expiry, which a foreign client took.
    if time > Duration::from_secs(100 * 365 * 86_400) {
        return "for ever".to_owned();
    }
    let exact = if time < Duration::from_secs(1) {
        Duration::from_millis(time.subsec_millis().into())
    } else {
        Duration::from_secs(time.as_secs())
    };
    humantime::format_duration(exact).to_string()
}

/// A time as programs read it: whole milliseconds, and null for what has no end.
pub(crate) fn millis(time: Duration) -> Option<u64> {
    u64::try_from(time.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_wrote_cannot_move_the_cursor() {
        assert_eq!(printable("invoice:7 ünï"), "invoice:7 ünï");
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{202e}d"), "a\\u{1b}[2Jb\\nc\\u{202e}d");
        assert_eq!(printable("it's \\' \"7\" हिन्दी"), "it's \\\\' \"7\" हिन्दी");
    }

    #[test]
    fn different_texts_never_look_alike() {
        // Invisible characters, line breaks, and blanks other than the space.
        for c in
            "\u{a0}\u{ad}\u{61c}\u{200b}\u{200d}\u{200f}\u{2028}\u{2029}\u{2060}\u{206f}\u{feff}\
                  \u{e0041}\u{9b}\u{7f}"
                .chars()
        {
            let shown = printable(&format!("a{c}b"));
            assert_eq!(shown, format!("a\\u{{{:x}}}b", u32::from(c)));
            // A text that spells out the escape.
            assert_ne!(printable(&shown), shown);
        }
    }

    #[test]
    fn json_has_no_control_characters_and_means_the_same() {
        let text = "a\u{9b}2J\u{7f}\u{85}\u{1b}\n\\ü";
        let json = serde_json::to_string(text).unwrap();
        let safe = escaped(&json);
        assert!(
            safe.contains("\\u009b2J\\u007f\\u0085") && !safe.contains(char::is_control),
            "{safe}"
        );
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
    }

    #[test]
    fn times_are_short() {
        for (millis, text) in [(0, "0s"), (850, "850ms"), (9_700, "9s"), (62_000, "1m 2s")] {
            assert_eq!(time(Duration::from_millis(millis)), text);
        }
        assert_eq!(time(Duration::MAX), "for ever");
        assert_eq!(
            (super::millis(Duration::MAX), super::millis(Duration::from_millis(7))),
            (None, Some(7))
        );
    }
}
