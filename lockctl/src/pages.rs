//! The man page, and the completion for shells.

use std::{fs, io, path::Path};

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{
    arguments::{Arguments, NAME},
    exit::{Exit, Failure},
    output::Output,
};

pub(crate) fn completion(shell: Shell, output: Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), NAME, &mut script);
    output.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Done)
}

pub(crate) fn man(into: Option<&Path>, output: Output) -> Result<Exit, Failure> {
    let Some(folder) = into else {
        let mut page = Vec::new();
        let rendered = Man::new(whole(Arguments::command())).render(&mut page);
        rendered.expect("BUG: a vector takes what is written to it");
        // That is what clap_mangen calls the section after the options.
        let page = String::from_utf8_lossy(&page).replacen(".SH EXTRA", ".SH NOTES", 1);
        output.line(page.trim_end())?;
        return Ok(Exit::Done);
    };
    let unwritable = |error: io::Error| {
        Failure::usage(format!("{} cannot be written: {error}", folder.display()))
    };
    fs::create_dir_all(folder).map_err(unwritable)?;
    let command = Arguments::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, folder).map_err(unwritable)?;
    Ok(Exit::Done)
}

/// Adds the details of all commands to the notes of the program's page, which otherwise has one
/// line for each command. That is for readers who read only this page.
fn whole(mut command: Command) -> Command {
    command.build();
    let mut notes = String::from("Commands in detail:\n");
    for one in command.get_subcommands().filter(|one| one.get_name() != "help") {
        notes.push_str(&format!("\n{}\n", one.clone().render_usage().to_string().trim()));
        for argument in one.get_arguments() {
            if argument.is_global_set() || matches!(argument.get_id().as_str(), "help") {
                continue;
            }
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            notes.push_str(&format!("  {argument}: {help}\n"));
        }
    }
    let known = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    Arguments::command().disable_help_subcommand(true).after_long_help(format!("{notes}\n{known}"))
}
