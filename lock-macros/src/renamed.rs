//! Whether the crate that is being compiled knows `lock` by another name.
//!
//! The compiler reports a crate that it cannot find, but not why. Its command line shows the
//! reason: there each crate has a name and a file. Where the arguments have another form or are
//! missing, as in an editor, the user sees only the compiler's error.

use std::path::Path;

/// The other name of `lock`, if it has one and does not also have its own.
pub(crate) fn name(arguments: impl Iterator<Item = String>) -> Option<String> {
    let mut found = None;
    let mut is_next = false;
    for argument in arguments {
        let joined = argument.strip_prefix("--extern=");
        let (was_next, value) = (is_next, joined.unwrap_or(&argument));
        is_next = argument == "--extern";
        if joined.is_none() && !was_next {
            continue;
        }
        let Some((name, file)) = value.split_once('=') else { continue };
        // There may be options before the name.
        let name = name.rsplit_once(':').map_or(name, |(_, name)| name);
        if name == "lock" {
            return None;
        }
        let file = Path::new(file).file_stem().and_then(|stem| stem.to_str());
        if file.is_some_and(|file| file == "liblock" || file.starts_with("liblock-")) {
            found = Some(name.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_name_is_found_where_there_is_one() {
        for (line, expected) in [
            (
                "rustc --extern dlock=/deps/liblock-1a2b.rmeta --extern serde=/libserde-1.rmeta",
                Some("dlock"),
            ),
            ("rustc --extern=dlock=/deps/liblock-1a2b.rlib", Some("dlock")),
            ("rustc --extern priv,noprelude:dlock=/deps/liblock.rlib", Some("dlock")),
            ("rustc --extern lock=/deps/liblock-1a2b.rmeta", None),
            ("rustc --extern old=/deps/liblock-1.rmeta --extern lock=/deps/liblock-2.rmeta", None),
            (
                "rustc --extern locks=/deps/liblocks-1a2b.rmeta --extern lock_api=/liblock_api-1.rmeta",
                None,
            ),
            ("rustc dlock=/deps/liblock-1a2b.rmeta --extern", None),
            ("rustc @/tmp/arguments", None),
        ] {
            let found = name(line.split(' ').map(str::to_owned));
            assert_eq!(found.as_deref(), expected, "{line}");
        }
    }
}
