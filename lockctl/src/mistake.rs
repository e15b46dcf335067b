//! Reports what is wrong with a command line without repeating what was typed: a value in the wrong
//! place may be a URL with a password, or a part of one.

use std::collections::BTreeSet;

use clap::{
    Command, CommandFactory as _, Error,
    error::{ContextKind, ContextValue},
};

use crate::arguments::Arguments;

/// The error of clap, with `***` in place of everything that is not the name of an option or a
/// command.
///
/// The reasons that parsers give are kept: those of [`crate::arguments`] do not repeat the value.
pub(crate) fn without_values(mut wrong: Error) -> Error {
    let mut command = Arguments::command();
    command.build();
    let mut names = BTreeSet::new();
    collect(&command, &mut names);
    let named = |word: &String| if names.contains(word) { word.clone() } else { "***".to_owned() };
    let context: Vec<_> = wrong.context().map(|(kind, value)| (kind, value.clone())).collect();
    for (kind, value) in context {
        let safe = match (kind, value) {
            // These texts are the program's own.
            (ContextKind::Usage | ContextKind::ValidValue, _) => continue,
            // The mistake is that no value was given.
            (ContextKind::InvalidValue, ContextValue::String(value)) if value.is_empty() => {
                continue;
            }
            (ContextKind::InvalidValue, _) => ContextValue::String("***".to_owned()),
            (_, ContextValue::String(word)) => ContextValue::String(named(&word)),
            (_, ContextValue::Strings(words)) => {
                ContextValue::Strings(words.iter().map(named).collect())
            }
            // Suggestions repeat what was typed.
            (_, ContextValue::StyledStr(_) | ContextValue::StyledStrs(_)) => {
                wrong.remove(kind);
                continue;
            }
            _ => continue,
        };
        wrong.insert(kind, safe);
    }
    wrong
}

/// The names of all options and commands, as clap writes them.
fn collect(command: &Command, names: &mut BTreeSet<String>) {
    names.insert(command.get_name().to_owned());
    for argument in command.get_arguments() {
        names.insert(argument.to_string());
        names.extend(argument.get_long().map(|long| format!("--{long}")));
    }
    for one in command.get_subcommands() {
        collect(one, names);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn said(words: &[&str]) -> String {
        let wrong = Arguments::try_parse_from([&["lockctl"], words].concat()).unwrap_err();
        without_values(wrong).render().to_string()
    }

    #[test]
    fn nothing_that_was_typed_is_repeated() {
        for typed in
            ["redis://u:hu'sh@h", "redis://u:hu sh@h", "redis:/:hush@h", "--hush", "--sh=x", "hush"]
        {
            for words in [
                &["list", "a", typed][..],
                &[typed],
                &[typed, "list"],
                &["watch", "x", "--interval", typed],
                &["watch", "x", "--hush", typed],
                &["list", "--limit", typed],
                &["list", &format!("--limit={typed}")],
                &["list", &format!("--json={typed}")],
                &["completion", typed],
                &["doctor", typed, "--url", typed],
                &["doctor", typed, "--unknown"],
                &["help", typed],
                &["--user", typed, "list"],
                &["debounce", "--flush", typed, "--cancel"],
            ] {
                let Err(wrong) = Arguments::try_parse_from([&["lockctl"], words].concat()) else {
                    panic!("{words:?} is taken");
                };
                assert!(wrong.use_stderr(), "{words:?}");
                let said = said(words);
                assert!(!said.contains("sh@") && !said.contains("hu"), "{words:?}: {said}");
            }
        }
    }

    #[test]
    fn names_of_options_and_commands_are_told() {
        for (words, wanted) in [
            (&["watch", "x", "--interval", "1 fortnight"][..], "'***' for '--interval <TIME>': "),
            (&["list", "--limit", "0"], "'***' for '--limit <NUMBER>': at least 1"),
            (&["--ur", "x", "list"], "'--url'"),
            (&["shw"], "'show'"),
            (&["list", "--limit"], "a value is required for '--limit <NUMBER>'"),
            (&["show"], "<ID>"),
            (&["debounce", "a", "--flush", "--cancel"], "'--flush' cannot be used with '--cancel'"),
            (&["completion", "x"], "[possible values: bash"),
            (&["show", "a", "b"], "Usage: lockctl show"),
        ] {
            let said = said(words);
            assert!(said.contains(wanted), "{words:?}: {said}");
        }
    }
}
