//! The page for its users: by keyboard, with a screen reader, in the dark, on a phone; and its
//! pictures.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use fantoccini::key::Key;
use serde_json::Value;

use crate::{
    SOON, Two, alone,
    browser::{Browser, DESKTOP, Look, TELEPHONE},
    copy::Copy,
};

const DARK: Look = Look { dark: true, ..DESKTOP };

/// The maximum size of each of the documentation's pictures, in bytes.
const LARGEST: u64 = 150 * 1024;

/// Moves from the first control to the last, and presses some on the way: each takes effect, keeps
/// the focus, and the focus is visible.
#[tokio::test]
async fn the_keyboard_is_enough() {
    let _alone = alone().await;
    let copy = Copy::start(None, 0);
    let page = Browser::open(&copy.url, DESKTOP).await;
    let controls: Vec<String> = page
        .run(
            "return [...document.querySelectorAll('a, input, select, button, summary')]
                .filter((control) => control.checkVisibility()).map((control) => control.id)",
            "",
        )
        .await
        .as_array()
        .expect("a list")
        .iter()
        .map(|id| id.as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(controls.len() > 18, "{controls:?}");
    page.run("document.body.focus()", "").await;
    for control in &controls {
        page.key(Key::Tab.into()).await;
        assert_eq!(page.focus().await, *control, "in the order of the page");
        let outline =
            page.run("return getComputedStyle(document.activeElement).outlineStyle", "").await;
        assert_ne!(outline, "none", "the focus on `{control}` can be seen");
        let (key, shown) = match control.as_str() {
            "acquire" => (Key::Enter, Some(("doing", "You hold invoice:7"))),
            "extend" => (Key::Space, Some(("answer", "guard.extend"))),
            "release" => (Key::Enter, Some(("answer", "guard.release().await → Ok(())"))),
            "force" => (Key::Space, Some(("answer", "lock.force_release().await"))),
            "kill" => (Key::Enter, Some(("doing", "This process is dead"))),
            "restart" => (Key::Enter, Some(("doing", "You hold nothing"))),
            "write" => (Key::Space, Some(("wrote", "ledger.write"))),
            "call" => (Key::Enter, Some(("called", "Ok(Some(()))"))),
            _ => continue,
        };
        page.allows(control).await;
        page.key(key.into()).await;
        if let Some((id, text)) = shown {
            page.shows(id, text).await;
        }
        assert_eq!(page.focus().await, *control, "a control that was pressed keeps the focus");
    }
    page.close().await;
}

/// Takes a picture for the documentation if `LOCK_PICTURES` names its folder.
pub(crate) async fn picture(page: &Browser, look: Look, first: &str, last: &str, name: &str) {
    if let Some(folder) = env::var_os("LOCK_PICTURES").map(PathBuf::from) {
        fs::create_dir_all(&folder).expect("the folder of pictures can be made");
        page.picture(look, first, last, &folder.join(name)).await;
    }
}

/// Checks contrast, names of controls and structure in the states that look different, and takes
/// the pictures of these states.
#[tokio::test]
async fn every_state_can_be_read() {
    let _alone = alone().await;
    let two = Two::open(DESKTOP).await;
    let Two { one, other, .. } = &two;
    readable(one, "at the beginning").await;

    two.contend().await;
    one.shows("renewals", "3 times").await;
    readable(one, "holding").await;
    picture(one, DESKTOP, "header", "#line-card", "holding.webp").await;
    other.look(TELEPHONE).await;
    readable(other, "waiting, on a telephone").await;
    picture(other, TELEPHONE, "header", "#line-card", "waiting-telephone.webp").await;

    one.press("silent").await;
    other.shows("doing", "You hold invoice:7").await;
    other.press("write").await;
    other.shows_within(SOON, "wrote", "accepted").await;
    one.press("write").await;
    one.shows_within(SOON, "wrote", "refused").await;
    readable(one, "lost").await;
    one.look(DARK).await;
    readable(one, "lost, in the dark").await;
    picture(one, DARK, "#timeline-card", "#line-card", "lost-dark.webp").await;
    one.look(DESKTOP).await;
    two.calm().await;

    for _ in 0..6 {
        one.press("call").await;
        other.press("call").await;
    }
    one.shows("burst", "12 calls so far").await;
    picture(one, DESKTOP, "#debounce-card", "#debounce-card", "debounce.webp").await;
    readable(one, "in a burst").await;
    one.shows("burst", "12 calls, one run").await;

    one.press("kill").await;
    one.shows("doing", "This process is dead").await;
    one.look(DARK).await;
    readable(one, "dead, in the dark").await;
    one.look(DESKTOP).await;
    two.calm().await;
    two.close().await;

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/demo");
    for name in ["holding", "waiting-telephone", "lost-dark", "debounce", "servers"] {
        let name = format!("{name}.webp");
        let size = fs::metadata(folder.join(&name)).map_or(0, |file| file.len());
        assert!((1..LARGEST).contains(&size), "docs/demo/{name} has {size} bytes");
    }
}

/// Asks axe, which knows the rules of the Web Content Accessibility Guidelines.
async fn readable(page: &Browser, state: &str) {
    let Some(axe) = env::var_os("AXE") else {
        panic!("AXE does not name axe.min.js: `tests/run` fetches it and does");
    };
    let axe = fs::read_to_string(&axe).unwrap_or_else(|error| panic!("{}: {error}", axe.display()));
    page.inject(&axe).await;
    let outcome = page
        .run_to_its_end(
            "const done = arguments[arguments.length - 1];
             axe.run(document, {
                 runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
             }).then((results) => done({
                 passes: results.passes.length,
                 violations: results.violations.flatMap((rule) => rule.nodes.map((node) =>
                     `${rule.id}: ${node.target}: ${node.failureSummary}`)),
             }), (error) => done({ passes: 0, violations: [String(error)] }))",
        )
        .await;
    assert_eq!(outcome["violations"], Value::Array(Vec::new()), "{state}");
    let rules = outcome["passes"].as_u64().unwrap_or_default();
    assert!(rules > 20, "{state}: {rules} rules were looked at");
}
