//! The page of the demo, in a real browser, on real servers: what its buttons do, and what it shows
//! when something is wrong.

mod browser;
mod copy;
mod looks;
mod requests;
mod servers;
mod states;
mod told;

use std::time::{Duration, Instant};

use lock_tests::{RedisServer, eventually};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    browser::{Browser, DESKTOP, Look, PATIENCE, TELEPHONE},
    copy::Copy,
};

/// The page has to show what a guard reports within this time.
const SOON: Duration = Duration::from_secs(1);

/// Runs one test at a time: two browsers are enough for two cores.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::const_new(());
    ONE.lock().await
}

/// Two pages on two copies of the demo, on one server.
struct Two {
    one: Browser,
    other: Browser,
    copies: [Copy; 2],
    server: RedisServer,
}

impl Two {
    async fn open(look: Look) -> Self {
        let server = RedisServer::start();
        let copies = [Copy::start(Some(&server.url()), 0), Copy::start(Some(&server.url()), 0)];
        let one = Browser::open(&copies[0].url, look).await;
        let other = Browser::open(&copies[1].url, look).await;
        for page in [&one, &other] {
            page.choose("lease-for", "2000").await;
        }
        Self { one, other, copies, server }
    }

    /// `one` holds the lock, and `other` waits for it.
    async fn contend(&self) {
        let Self { one, other, .. } = self;
        one.press("acquire").await;
        one.shows_within(SOON, "doing", "You hold invoice:7").await;
        other.press("acquire").await;
        other.shows_within(SOON, "doing", "You wait in line for invoice:7").await;
        for page in [one, other] {
            // The name is the store's word for the holder, and not what the pages tell each other.
            page.shows("store-says", &format!("held by {} (process ", one.text("name").await))
                .await;
            page.shows("store-says", "); 1 is waiting.").await;
        }
    }

    /// Brings both pages back to their initial state.
    async fn calm(&self) {
        for page in [&self.other, &self.one] {
            match page.text("doing").await.as_str() {
                text if text.starts_with("You hold nothing") => {}
                text if text.starts_with("This process is dead") => {
                    page.press("restart").await;
                }
                text if text.starts_with("You wait") => {
                    page.press("stop-waiting").await;
                }
                _ => {
                    page.press("drop").await;
                }
            }
            page.shows("doing", "You hold nothing").await;
            if page.text("condition").await != "The network works." {
                page.press("repair").await;
            }
            page.shows("condition", "The network works.").await;
        }
        self.one.shows("store-says", "is free").await;
    }

    /// Closes the pages and ends the copies, and fails if a lock is left.
    async fn close(self) {
        let Self { one, other, copies, server } = self;
        one.close().await;
        other.close().await;
        for copy in copies {
            assert!(copy.end().success(), "the demo ends successfully");
        }
        let keys = server.keys().await;
        let locks: Vec<_> =
            keys.iter().filter(|(key, ..)| key.starts_with("lock-demo:invoice")).collect();
        assert!(locks.is_empty(), "{locks:?} is left");
        server.assert_every_key_expires(&["~fence"]).await;
    }
}

#[tokio::test]
async fn two_pages_contend_and_one_breaks() {
    let _alone = alone().await;
    let two = Two::open(DESKTOP).await;
    contend(&two).await;
    wait_for_leases(&two).await;
    let words = two.one.text("lines").await;
    for event in
        ["was killed", "lost invoice:7", "freed invoice:7 by force", "refused as out of date"]
    {
        assert!(words.contains(event), "“{event}” is in the timeline in words: {words}");
    }
    two.close().await;
}

/// Only what does not take a lease to happen: the layout is the same for the rest.
#[tokio::test]
async fn two_pages_contend_on_a_telephone() {
    let _alone = alone().await;
    let two = Two::open(TELEPHONE).await;
    contend(&two).await;
    two.close().await;
}

/// One page holds, and the other waits, until the lock is released, or is taken by force.
async fn contend(two: &Two) {
    let Two { one, other, .. } = two;
    assert_ne!(one.text("name").await, other.text("name").await);
    for page in [one, other] {
        let wide =
            "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
        assert_eq!(page.run(wide, "").await, false, "it is not wider than the screen");
    }

    // One page holds and the other waits, which both pages list in this order; the waiter gets the
    // lock on release.
    two.contend().await;
    for (page, line) in [(one, ["(this page)", ""]), (other, ["", "(this page)"])] {
        let holder = format!("holds{}{}", one.text("name").await, padded(line[0]));
        let waiter = format!("1.{}{}", other.text("name").await, padded(line[1]));
        page.shows("line", &holder).await;
        page.shows("line", &waiter).await;
        let text = page.text("line").await;
        assert!(text.find(&holder) < text.find(&waiter), "the holder first: {text}");
    }
    let first = number(&one.text("token").await);
    let before = one.text("renewals").await;
    eventually(PATIENCE, || async { one.text("renewals").await != before }).await;
    one.press("release").await;
    other.shows_within(SOON, "doing", "You hold invoice:7").await;
    one.shows_within(SOON, "answer", "guard.release().await → Ok(())").await;
    assert!(number(&other.text("token").await) > first, "each grant has a larger token");
    one.press("try").await;
    one.shows_within(SOON, "answer", "lock.try_acquire().await → Ok(None)").await;
    other.press("extend").await;
    other.shows_within(SOON, "answer", "guard.extend(10s).await → Ok(())").await;
    other.shows_within(SOON, "countdown", "valid for 1").await;
    other.press("drop").await;
    other.shows_within(SOON, "answer", "drop(guard)").await;

    // A waiting future is dropped, and so leaves the line.
    two.contend().await;
    other.press("stop-waiting").await;
    other.shows_within(SOON, "doing", "You hold nothing").await;
    one.shows("store-says", "nobody is waiting").await;
    two.calm().await;

    two.contend().await;
    other.press("force").await;
    says_lost(one, "force").await;
    other.shows_within(SOON, "doing", "You hold invoice:7").await;
    two.calm().await;
}

/// Faults that last until a lease has run out: silence, a cut and a death; and a process that is
/// blocked.
async fn wait_for_leases(two: &Two) {
    let Two { one, other, .. } = two;
    for (button, condition) in [("silent", "No message arrives"), ("cut", "There is no connection")]
    {
        two.contend().await;
        let pressed = one.press(button).await;
        one.shows_within(SOON, "condition", condition).await;
        other.shows("doing", "You hold invoice:7").await;
        // The guard reported the loss before any other client had the lock, and the page showed it
        // within a second.
        assert!(pressed.elapsed() > SOON, "the guard was valid for the rest of its lease");
        says_lost(one, button).await;
        stale_writer_is_refused(one, other).await;
        two.calm().await;
    }

    two.contend().await;
    one.press("block").await;
    one.shows_within(SOON, "blocked", "Frozen for").await;
    let renewals = number(&one.text("renewals").await);
    one.shows("blocked", "Freezes the code").await;
    one.shows_within(SOON, "answer", "The lock was kept").await;
    assert!(number(&one.text("renewals").await) >= renewals + 3, "it was renewed all the time");
    assert_eq!(one.text("is-held").await, "true");
    other.shows_within(SOON, "doing", "You wait in line").await;
    two.calm().await;

    two.contend().await;
    let pressed = one.press("kill").await;
    one.shows_within(SOON, "doing", "This process is dead").await;
    one.shows_within(SOON, "answer", "Nobody has released the lock").await;
    assert_eq!(one.text("is-held").await, "–", "there is no guard to ask");
    other.shows("doing", "You hold invoice:7").await;
    assert!(pressed.elapsed() > SOON, "the lock was held for the rest of its lease");
    two.calm().await;
}

/// Checks that the page shows everything about a guard's loss within a second.
async fn says_lost(page: &Browser, after: &str) {
    let began = Instant::now();
    page.shows_within(SOON, "lost", "lost").await;
    page.shows_within(SOON, "is-held", "false").await;
    page.shows_within(SOON, "doing", "You have lost invoice:7").await;
    page.shows_within(SOON, "answer", "guard.lost().await → ()").await;
    assert!(began.elapsed() < 2 * SOON, "after {after}");
}

async fn stale_writer_is_refused(stale: &Browser, holder: &Browser) {
    holder.press("write").await;
    holder.shows_within(SOON, "wrote", "accepted").await;
    stale.press("write").await;
    stale.shows_within(SOON, "wrote", "refused").await;
    let (mine, largest) = (stale.text("mine").await, stale.text("largest").await);
    assert!(number(&mine) < number(&largest), "{mine} is below {largest}");
}

#[tokio::test]
async fn a_burst_of_calls_is_one_run() {
    let _alone = alone().await;
    for look in [DESKTOP, TELEPHONE] {
        let two = Two::open(look).await;
        let Two { one, other, .. } = &two;
        for _ in 0..6 {
            one.press("call").await;
            other.press("call").await;
        }
        for page in [one, other] {
            page.shows("burst", "The last burst: 12 calls, one run").await;
            assert_eq!([page.text("calls").await, page.text("runs").await], ["12", "1"]);
        }
        // The last call to reach the server ran; either page may have made it.
        eventually(PATIENCE, || async {
            let mut said = [one.text("called").await, other.text("called").await];
            said.sort_unstable();
            let ran = said[1].starts_with("debounce.call(..).await → Ok(Some(()))");
            let replaced = said[0].starts_with("debounce.call(..).await → Ok(None)");
            if ran && replaced { Ok(()) } else { Err(said) }
        })
        .await;
        two.close().await;
    }
}

/// The text after a space, or nothing if it is empty.
fn padded(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" {text}") }
}

/// The digits of a text as a number.
fn number(text: &str) -> u64 {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    if text == "once" {
        return 1;
    }
    digits.parse().unwrap_or_else(|_| panic!("{text:?} holds a number"))
}
