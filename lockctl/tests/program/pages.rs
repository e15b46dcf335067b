//! The man page, the help and the completion; and mistakes on the command line.

use crate::common::{PASSWORD, file, finish, program, run};

const COMMANDS: [&str; 9] =
    ["list", "show", "watch", "release", "debounce", "calls", "doctor", "completion", "man"];

#[tokio::test]
async fn the_man_page_has_each_command_and_the_exit_codes() {
    let page = run(&["man"]).await.exits(0).stdout;
    assert!(page.contains(".TH lockctl 1"), "{page}");
    for command in COMMANDS {
        assert!(page.contains(&format!("lockctl {command}")), "{command}: {page}");
        assert!(page.contains(&format!("lockctl\\-{command}(1)")), "{command}: {page}");
    }
    for text in ["Exit status", "LOCK_URL", "\\-\\-json", "\\-\\-run\\-again"] {
        assert!(page.contains(text), "{text}: {page}");
    }
}

#[tokio::test]
async fn each_command_has_a_page_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("man1");
    run(&["man", "--into", path.to_str().unwrap()]).await.exits(0);
    for command in COMMANDS {
        let page = std::fs::read_to_string(path.join(format!("lockctl-{command}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    assert!(path.join("lockctl.1").exists());
}

#[tokio::test]
async fn shells_complete_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completion", shell]).await.exits(0).stdout;
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: no {command}");
        }
    }
}

#[tokio::test]
async fn the_help_has_the_exit_codes() {
    let help = run(&["--help"]).await.exits(0);
    help.says("Exit status:").says("5  the store refuses").says("--password-file");
}

#[tokio::test]
async fn mistakes_on_the_command_line_are_named_without_passwords() {
    let url = format!("redis://user:{PASSWORD}@127.0.0.1:1/");
    for words in [
        vec!["--ur", url.as_str(), "list"],
        vec!["show"],
        vec!["show", "a", url.as_str()],
        vec!["doctor", url.as_str(), "--url", url.as_str()],
        vec!["watch", "a", "--interval", "1ms"],
        vec!["release"],
        vec!["debounce", "--flush"],
        vec!["debounce", "a", "--flush", "--cancel"],
        vec!["calls", "--run-again", "a"],
        vec!["--user", "u", "list"],
        vec!["list", "--limit", "0"],
        vec!["debounce", "--limit", "0"],
        vec!["calls", "a", "--limit", "0"],
        vec!["list", "a", "redis://u:hu'hush-hush@h"],
        vec!["list", "a", "redis://u:hu hush-hush@h"],
        vec!["list", "a", "redis:/:hush-hush@h"],
        vec!["watch", "x", "--interval", "redis://:hu'hush-hush@h"],
    ] {
        let ran = run(&words).await.exits(2);
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{ran}");
    }
}

#[tokio::test]
async fn a_store_that_is_not_named_or_cannot_be_is_a_mistake() {
    run(&["list"]).await.exits(2).says("LOCK_URL");
    for url in
        ["http://127.0.0.1/", "memory:", "redis://h:port/", "redis+sentinel://h", " redis://h"]
    {
        for command in [&["list"][..], &["doctor"]] {
            run(&[&["--url", url], command].concat()).await.exits(2);
        }
    }
    let missing = run(&["--url", "redis://h", "--password-file", "/no/such/file", "list"]).await;
    missing.exits(2).says("/no/such/file");
    let empty = file("\n");
    let path = empty.path().to_str().unwrap();
    run(&["--url", "redis://h", "--password-file", path, "list"]).await.exits(2).says("empty");
}

#[tokio::test]
async fn a_store_that_is_out_of_reach_has_a_code_of_its_own() {
    let url = format!("redis://user:{PASSWORD}@127.0.0.1:1/");
    for words in [&["list"][..], &["show", "a"], &["debounce"], &["calls"], &["doctor"]] {
        let mut command = program(words);
        command.env("LOCK_URL", &url);
        finish(command).await.exits(4).says("127.0.0.1:1");
    }
}

/// A list that is cut at a limit, and then counted or filtered, is wrong without any sign of it.
#[tokio::test]
async fn examples_that_go_on_to_programs_name_a_limit() {
    let guide = include_str!("../../../docs/operations.md").to_owned();
    let help = run(&["--help"]).await.exits(0).stdout;
    for text in [guide, help] {
        let goes_on = |line: &&str| line.contains("list") && line.contains("| jq");
        let examples: Vec<_> = text.lines().filter(goes_on).collect();
        assert!(!examples.is_empty(), "{text}");
        for example in examples {
            assert!(example.contains("--limit"), "{example}");
        }
    }
}
