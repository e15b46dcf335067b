//! What the page shows when something is wrong with the demo, its server or the page itself.

use std::net::TcpListener;

use lock_tests::{Random, RedisServer, eventually};

use crate::{
    Two, alone,
    browser::{Browser, DESKTOP, PATIENCE},
    copy::Copy,
};

#[tokio::test]
async fn without_a_server_its_locks_are_in_memory() {
    let _alone = alone().await;
    let copy = Copy::start(None, 0);
    let page = Browser::open(&copy.url, DESKTOP).await;
    page.shows("store", "keeps the locks in memory").await;
    page.choose("lease-for", "2000").await;
    for button in ["silent", "cut", "force"] {
        page.press("acquire").await;
        page.shows("doing", "You hold invoice:7").await;
        page.press(button).await;
        page.shows("doing", "You have lost").await;
        page.press("drop").await;
        page.press("repair").await;
        page.shows("condition", "The network works.").await;
        page.shows("store-says", "is free").await;
    }
    // Each id is a lock of its own.
    page.write("id", "invoice:8").await;
    page.press("acquire").await;
    page.shows("doing", "You hold invoice:8").await;
    page.shows("store-says", "invoice:8 is held").await;
    page.press("write").await;
    page.shows("wrote", "accepted").await;
    page.press("kill").await;
    page.shows("doing", "This process is dead").await;
    page.shows("store-says", "is held").await;
    page.shows("store-says", "is free").await;
    page.close().await;
    assert!(copy.end().success());
}

#[tokio::test]
async fn a_reload_in_the_middle_of_a_hold_changes_nothing() {
    let _alone = alone().await;
    let copy = Copy::start(None, 0);
    let page = Browser::open(&copy.url, DESKTOP).await;
    page.press("acquire").await;
    page.shows("doing", "You hold invoice:7").await;
    let before = (page.text("name").await, page.text("token").await);
    page.reload().await;
    page.shows("doing", "You hold invoice:7").await;
    assert_eq!((page.text("name").await, page.text("token").await), before);
    assert_eq!(page.text("is-held").await, "true");
    page.press("release").await;
    page.shows("answer", "guard.release().await → Ok(())").await;
    page.close().await;
}

#[tokio::test]
async fn a_page_that_is_loaded_anew_is_about_the_same_lock() {
    let _alone = alone().await;
    let copy = Copy::start(None, 0);
    let page = Browser::open(&copy.url, DESKTOP).await;
    page.write("id", "invoice:8").await;
    page.press("acquire").await;
    page.shows("doing", "You hold invoice:8").await;
    page.reload().await;
    page.shows("doing", "You hold invoice:8").await;
    page.shows("store-says", "invoice:8 is held").await;
    let field = page.run("return document.getElementById('id').value", "").await;
    assert_eq!(field, "invoice:8");
    page.close().await;
}

/// A browser opens at most six connections to one server, and each page keeps one.
#[tokio::test]
async fn as_many_pages_work_as_the_browser_has_connections_for() {
    let _alone = alone().await;
    let copy = Copy::start(None, 0);
    let page = Browser::open(&copy.url, DESKTOP).await;
    let first = page.pages().await.remove(0);
    for _ in 0..4 {
        page.open_another().await;
        page.shows("doing", "You hold nothing").await;
    }
    page.open_another().await;
    page.shows("banner", "Five pages of this demo are open").await;
    page.look_at(first).await;
    page.press("acquire").await;
    page.shows("doing", "You hold invoice:7").await;
    page.close_one().await;
    let mut names = Vec::new();
    for rest in page.pages().await {
        page.look_at(rest).await;
        page.shows("doing", "You hold nothing").await;
        assert_eq!(page.text("banner").await, "");
        names.push(page.text("name").await);
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 5, "each is an instance of its own: {names:?}");
}

#[tokio::test]
async fn a_page_that_is_closed_releases_its_lock() {
    let _alone = alone().await;
    let copy = Copy::start(None, 0);
    let page = Browser::open(&copy.url, DESKTOP).await;
    let other = Browser::open(&copy.url, DESKTOP).await;
    page.choose("lease-for", "30000").await;
    page.press("acquire").await;
    page.shows("doing", "You hold invoice:7").await;
    other.press("acquire").await;
    other.shows("doing", "You wait").await;
    page.close().await;
    // Long before its lease has run out.
    other.shows("doing", "You hold invoice:7").await;
    other.close().await;
}

#[tokio::test]
async fn a_demo_that_is_started_again_is_a_new_instance() {
    let _alone = alone().await;
    let copy = Copy::start(None, 0);
    let page = Browser::open(&copy.url, DESKTOP).await;
    page.press("acquire").await;
    page.shows("doing", "You hold invoice:7").await;
    let port = copy.port();
    // An open page does not delay the end.
    assert!(copy.end().success());
    page.shows("banner", "does not answer").await;
    let copy = Copy::start(None, port);
    page.shows("banner", "started again").await;
    page.shows("doing", "You hold nothing").await;
    page.press("acquire").await;
    page.shows("doing", "You hold invoice:7").await;
    // The message was read, and is no longer true.
    assert_eq!(page.text("banner").await, "");
    // Not closed with checks: its failed requests are in the console, as intended.
    drop(page);
    assert!(copy.end().success());
}

#[tokio::test]
async fn a_server_that_is_down_is_said() {
    let _alone = alone().await;
    let server = RedisServer::start();
    let copy = Copy::start(Some(&server.url()), 0);
    let page = Browser::open(&copy.url, DESKTOP).await;
    page.choose("lease-for", "2000").await;
    page.press("acquire").await;
    page.shows("doing", "You hold invoice:7").await;
    server.kill();
    page.shows("doing", "You have lost").await;
    page.shows("store-says", "The store does not answer").await;
    page.press("write").await;
    page.shows("wrote", "the ledger's server").await;
    page.press("acquire").await;
    page.shows("answer", "lock.acquire().await → Err(").await;
    server.restart();
    page.shows("store-says", "is free").await;
    page.press("acquire").await;
    page.shows("doing", "You hold invoice:7").await;
    page.close().await;
    assert!(copy.end().success());

    // The same for a server that is down from the beginning.
    server.kill();
    let copy = Copy::start(Some(&server.url()), 0);
    let page = Browser::open(&copy.url, DESKTOP).await;
    page.shows("store-says", "The store does not answer").await;
    server.restart();
    page.shows("store-says", "is free").await;
    page.close().await;
}

#[tokio::test]
async fn what_it_cannot_start_with_is_said_in_a_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let port = taken.local_addr().expect("it has an address").port();
    let output = Copy::fail(None, port);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        said.trim(),
        format!("demo: port {port} is taken: choose another with `--port`, or `--port 0`")
    );

    let output = Copy::fail(Some("redis://user:secret@[half"), 0);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with("demo: LOCK_URL is not the URL of a Redis server"), "{said}");
    assert!(!said.contains("secret"), "a password is printed: {said}");
}

/// Both pages press every button, as fast as they can. In the end all is well, and no lock is held.
#[tokio::test]
async fn two_pages_press_everything_at_once() {
    let _alone = alone().await;
    let two = Two::open(DESKTOP).await;
    let mut random = Random::new(7);
    for page in [&two.one, &two.other] {
        // Without `block`, which only takes time, above all when it is repeated. Disabled buttons
        // are also pressed: the page may be a moment behind.
        let script = "
            performance.setResourceTimingBufferSize(10000);
            const buttons = [...document.querySelectorAll('button')]
                .filter((button) => button.id !== 'block');
            let seed = Number(arguments[0]);
            for (let press = 0; press < 400; press += 1) {
                seed = (seed * 48271) % 2147483647;
                const button = buttons[seed % buttons.length];
                button.setAttribute('aria-disabled', 'false');
                button.click();
            }";
        page.run(script, &(1 + random.below(1_000_000)).to_string()).await;
    }
    for page in [&two.one, &two.other] {
        eventually(PATIENCE, || async {
            let answered = "return performance.getEntriesByType('resource')
                .filter((entry) => entry.name.endsWith('/commands')).length";
            let answered = page.run(answered, "").await;
            if answered == 400 { Ok(()) } else { Err(answered) }
        })
        .await;
        // Whatever state an instance is in, and whatever it still has to do.
        if page.text("doing").await != "This process is dead." {
            page.press("kill").await;
        }
        page.shows("doing", "This process is dead").await;
        page.press("restart").await;
        page.shows("doing", "You hold nothing").await;
    }
    two.calm().await;
    two.contend().await;
    two.calm().await;
    two.close().await;
}
