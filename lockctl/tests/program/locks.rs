//! `list`, `show`, `watch` and `release`: on one server, behind Sentinels, and in a Cluster.

use std::{cell::RefCell, process::Stdio};

use lock::{LockGuard, Locks};
use lock_tests::{Cluster, Direction, Proxy, RedisServer, Sentinels, eventually, ms};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout},
    task::JoinHandle,
    time::timeout,
};

use crate::common::{
    PASSWORD, Terminal, assert_no_secrets, command, file, finish, program, run_at, run_unread,
    server, shown_in_terminal,
};

async fn holder(url: &str) -> Locks {
    Locks::builder().url(url).name("billing-7").build().await.unwrap()
}

/// Lets another client wait for a lock, and returns once the store knows of it.
async fn waiter(url: &str, id: &str) -> JoinHandle<Result<LockGuard, lock::Error>> {
    let other = Locks::connect(url).await.unwrap();
    let waiting = tokio::spawn(other.lock(id).wait(ms(30_000)).acquire());
    eventually(ms(10_000), async || match other.lock(id).status().await {
        Ok(lock::Status::Held { waiters: 1, .. }) => Ok(()),
        seen => Err(seen),
    })
    .await;
    waiting
}

/// Checks what each command says about a store, which may be of any kind.
async fn each_command(url: &str) {
    let locks = holder(url).await;
    let guards = [
        locks.lock("invoice:7").acquire().await.unwrap(),
        locks.lock("invoice:8").acquire().await.unwrap(),
        locks.lock("report").acquire().await.unwrap(),
    ];
    let waiting = waiter(url, "invoice:7").await;

    let listed = run_at(url, &["list", "--json"]).await.exits(0).json();
    let ids: Vec<_> = listed["locks"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, ["invoice:7", "invoice:8", "report"]);
    assert_eq!(listed["more"], false);
    let lock = &listed["locks"][0];
    assert_eq!(lock["waiters"], 1, "{lock}");
    assert!((1..=10_000).contains(&lock["remaining_ms"].as_u64().unwrap()), "{lock}");
    let by = &lock["holders"][0];
    assert_eq!((&by["name"], &by["pid"]), (&"billing-7".into(), &std::process::id().into()));
    assert!(by["host"].is_string() && by["version"].is_string(), "{by}");
    assert!(by["held_for_ms"].as_u64().is_some_and(|time| time < 60_000), "{by}");

    let some = run_at(url, &["list", "invoice:", "--json"]).await.exits(0).json();
    assert_eq!(some["locks"].as_array().unwrap().len(), 2);
    let one = run_at(url, &["list", "--limit", "1", "--json"]).await.exits(0).json();
    assert_eq!((one["locks"].as_array().unwrap().len(), &one["more"]), (1, &true.into()));
    let table = run_at(url, &["list"]).await.exits(0);
    table.says("HOLDER").says("invoice:8").says("billing-7 (process");
    let others = run_at(url, &["--prefix", "other:", "list", "--json"]).await.exits(0).json();
    assert_eq!(others["locks"].as_array().unwrap().len(), 0);

    let shown = run_at(url, &["show", "invoice:7", "--json"]).await.exits(0).json();
    assert_eq!((&shown["id"], &shown["state"]), (&"invoice:7".into(), &"held".into()));
    assert_eq!((&shown["holders"][0]["name"], &shown["waiters"]), (&"billing-7".into(), &1.into()));
    run_at(url, &["show", "invoice:7"]).await.exits(0).says("billing-7").says("waiters     1");
    let free = run_at(url, &["show", "no", "--json"]).await.exits(3).json();
    assert_eq!((&free["state"], &free["remaining_ms"]), (&"free".into(), &Value::Null));
    run_at(url, &["show", "no"]).await.exits(3).says("no is free");

    // There is no terminal, so nothing is done.
    run_at(url, &["release", "invoice:7"]).await.exits(2).says("--yes");
    assert!(guards[0].is_held());
    let released = run_at(url, &["release", "invoice:7", "--yes", "--json"]).await.exits(0).json();
    assert_eq!(released["result"], "released", "{released}");
    assert_eq!(released["holders"][0]["name"], "billing-7", "{released}");
    timeout(ms(10_000), guards[0].lost()).await.expect("the holder learns of it");
    let next = waiting.await.unwrap().unwrap();
    assert!(next.is_held() && guards[1].is_held());
    let free = run_at(url, &["release", "no", "--yes", "--json"]).await.exits(3).json();
    assert_eq!(free["result"], "free", "{free}");
    let said = run_at(url, &["release", "report", "--yes"]).await.exits(0);
    said.says("`lost()` resolves").says("released from billing-7");
}

#[tokio::test]
async fn on_one_server() {
    let server = server();
    each_command(&server.url()).await;
    server.assert_every_key_expires(&["~fence"]).await;
}

#[tokio::test]
async fn behind_sentinels() {
    let sentinels = Sentinels::start().await;
    each_command(&sentinels.url()).await;
}

#[tokio::test]
async fn in_a_cluster() {
    let cluster = Cluster::start().await;
    each_command(&cluster.url()).await;
}

#[tokio::test]
async fn a_person_is_asked_and_may_say_no() {
    let server = server();
    let locks = holder(&server.url()).await;
    let guard = locks.lock("a").acquire().await.unwrap();
    let url = server.url();
    let words = ["--url", &url, "release", "a"];
    for answer in ["", "n", "yesterday"] {
        let mut terminal = Terminal::start(&words);
        terminal.is_asked().await;
        let ran = terminal.answer(answer).await.exits(1);
        ran.says("billing-7").says("stops at its next .await").says("nothing was changed");
        assert!(guard.is_held());
    }
    let mut terminal = Terminal::start(&words);
    terminal.is_asked().await;
    terminal.answer("y").await.exits(0).says("released from billing-7");
    timeout(ms(10_000), guard.lost()).await.expect("the holder learns of it");
}

#[tokio::test]
async fn only_the_holder_that_was_shown_is_released() {
    let server = server();
    let locks = holder(&server.url()).await;
    let guard = locks.lock("a").acquire().await.unwrap();
    let mut terminal = Terminal::start(&["--url", &server.url(), "release", "a"]);
    terminal.is_asked().await;
    guard.release().await.unwrap();
    let next = locks.lock("a").acquire().await.unwrap();
    terminal.answer("y").await.exits(3).says("that holder no longer holds the lock");
    assert!(next.is_held());
    next.release().await.expect("it was held all the while");
}

#[tokio::test]
async fn a_terminal_gets_colours_and_its_own_width() {
    let server = server();
    let url = server.url();
    let _guard = holder(&url).await.lock("a").acquire().await.unwrap();
    let words = ["--url", &url, "doctor"];
    let mut plain = program(&words);
    plain.env("NO_COLOR", "1");
    let mut coloured = program(&words);
    coloured.env_remove("NO_COLOR");
    let shown = shown_in_terminal(coloured, 80).await;
    assert!(shown.contains("\u{1b}["), "{shown}");
    let shown = shown_in_terminal(plain, 80).await;
    assert!(!shown.contains('\u{1b}') && shown.contains("persistence"), "{shown}");
    let widest = shown.lines().map(|line| line.trim_end().chars().count()).max();
    assert!(widest.is_some_and(|widest| (60..=80).contains(&widest)), "{shown}");
    // Without a terminal, each row is a line.
    let ran = run_at(&url, &["doctor"]).await.exits(0);
    assert!(ran.stdout.lines().any(|line| line.len() > 120), "{ran}");
    assert!(!ran.stdout.contains('\u{1b}'), "{ran}");
}

#[tokio::test]
async fn a_foreign_client_is_shown_without_its_token() {
    let server = server();
    let url = server.url();
    let token = "0123456789abcdef0123456789abcdef";
    command(&server, &["SET", "lock:f", token, "NX", "PX", "60000"]).await;
    command(&server, &["SET", "lock:forever", token, "NX"]).await;
    for words in [&["list"][..], &["show", "f"], &["list", "--json"], &["show", "forever"]] {
        let ran = run_at(&url, words).await.exits(0);
        assert!(!ran.stdout.contains(token), "{ran}");
    }
    run_at(&url, &["show", "f"]).await.exits(0).says("an unknown client");
    let forever = run_at(&url, &["show", "forever", "--json"]).await.exits(0).json();
    assert_eq!(forever["remaining_ms"], Value::Null, "{forever}");
    let ran = run_at(&url, &["release", "f", "--yes"]).await.exits(0);
    ran.says("is not notified");
    assert!(!ran.stdout.contains(token), "{ran}");
    run_at(&url, &["show", "f"]).await.exits(3);
}

#[tokio::test]
async fn what_strangers_wrote_does_not_move_the_cursor() {
    let server = server();
    command(&server, &["SET", "lock:a\u{1b}[2J\nb", "t", "NX", "PX", "60000"]).await;
    let c1 = "c\u{9b}2J";
    command(&server, &["SET", &format!("lock:{c1}"), "t", "NX", "PX", "60000"]).await;
    let ran = run_at(&server.url(), &["list"]).await.exits(0);
    ran.says("a\\u{1b}[2J\\nb").says("c\\u{9b}2J");
    assert!(!ran.stdout.contains(['\u{1b}', '\u{9b}']), "{ran}");
    let ran = run_at(&server.url(), &["list", "c", "--json"]).await.exits(0);
    ran.says("c\\u009b2J");
    assert_eq!(ran.json()["locks"][0]["id"], c1);
    // A name is escaped once.
    let locks = Locks::builder().url(server.url()).name("x\u{9b}").build().await.unwrap();
    let _guard = locks.lock("d").acquire().await.unwrap();
    run_at(&server.url(), &["list", "d"]).await.exits(0).says(" x\\u{9b} (process");
}

#[tokio::test]
async fn what_the_server_refuses_has_a_code_of_its_own() {
    let server = server();
    let password = format!(">{PASSWORD}");
    command(&server, &["ACL", "SETUSER", "poor", "on", &password, "~*", "+ping"]).await;
    let url = server.url_with("poor", PASSWORD, 0);
    let ran = run_at(&url, &["show", "a"]).await.exits(5);
    ran.says("docs/servers.md").says("`lockctl doctor` says what is missing");
    let wrong = server.url_with("poor", &format!("not-{PASSWORD}"), 0);
    run_at(&wrong, &["list"]).await.exits(5);
    // The same with the password in a file, and with the URL in the environment.
    let path = file(PASSWORD);
    let words = ["--user", "poor", "--password-file", path.path().to_str().unwrap(), "show", "a"];
    let mut command = program(&words);
    command.env("LOCK_URL", server.url());
    finish(command).await.exits(5).says("docs/servers.md");
}

/// A running `watch`.
struct Watching {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(url: &str, words: &[&str]) -> Self {
        let mut command =
            program(&[&["--url", url, "watch", "--interval", "20ms"], words].concat());
        command.stdout(Stdio::piped());
        let mut child = tokio::process::Command::from(command).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = timeout(ms(20_000), self.lines.next_line()).await.expect("a line comes in time");
        let line = line.unwrap().expect("it goes on");
        assert_no_secrets(&line);
        line
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    /// Interrupts it, as Ctrl-C does. Returns the line that it has printed since the last one, if
    /// any.
    async fn interrupt(mut self) -> Option<String> {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
        let status = timeout(ms(20_000), self.child.wait()).await.expect("it ends").unwrap();
        assert_eq!(status.code(), Some(0));
        self.lines.next_line().await.unwrap()
    }
}

#[tokio::test]
async fn each_change_is_a_line() {
    let server = RedisServer::builder().cluster_of_one(false).append_only(true).start();
    let url = server.url();
    let mut watching = Watching::start(&url, &["a", "--json"]);
    let line = watching.json().await;
    assert_eq!((&line["id"], &line["state"]), (&"a".into(), &"free".into()));
    assert!(line["at"].as_str().unwrap().ends_with('Z'), "{line}");

    let locks = holder(&url).await;
    let guard = locks.lock("a").acquire().await.unwrap();
    let line = watching.json().await;
    assert_eq!((&line["state"], &line["waiters"]), (&"held".into(), &0.into()));
    assert_eq!(line["holders"][0]["name"], "billing-7");
    let waiting = waiter(&url, "a").await;
    assert_eq!(watching.json().await["waiters"], 1);
    guard.release().await.unwrap();
    let next = waiting.await.unwrap().unwrap();
    let line = watching.json().await;
    assert_eq!((&line["state"], &line["waiters"]), (&"held".into(), &0.into()));
    next.release().await.unwrap();
    assert_eq!(watching.json().await["state"], "free");

    server.kill();
    let line = watching.json().await;
    assert_eq!(line["state"], "unreachable");
    assert!(line["error"].as_str().unwrap().contains("127.0.0.1"), "{line}");
    server.restart();
    assert_eq!(watching.json().await["state"], "free");
    watching.interrupt().await;
}

#[tokio::test]
async fn changes_are_told_to_people() {
    let server = server();
    let mut watching = Watching::start(&server.url(), &["a"]);
    assert!(watching.line().await.ends_with("Z  free"));
    let _guard = holder(&server.url()).await.lock("a").acquire().await.unwrap();
    let line = watching.line().await;
    assert!(line.contains("held by billing-7 (process") && line.ends_with("waiters 0"), "{line}");
    watching.interrupt().await;
}

#[tokio::test]
async fn a_lock_is_released_where_nobody_reads_on_and_nobody_is_asked_unseen() {
    let server = server();
    let url = server.url();
    let locks = holder(&url).await;
    let guard = locks.lock("a").acquire().await.unwrap();
    run_unread(&url, &["list"]).await.exits(0);
    // A person who does not see the holder cannot decide whether to release it.
    let words = ["--url", &url, "release", "a"];
    let ran = Terminal::start_unread(&words).end().await.exits(1);
    ran.says("nothing was changed");
    assert!(guard.is_held() && !ran.stderr.contains("[y/N]"), "{ran}");
    run_unread(&url, &["release", "a", "--yes"]).await.exits(0);
    timeout(ms(10_000), guard.lost()).await.expect("the holder learns of it");
    run_at(&url, &["show", "a"]).await.exits(3);

    let guard = locks.lock("b").acquire().await.unwrap();
    run_unread(&url, &["release", "b", "--yes", "--json"]).await.exits(0);
    timeout(ms(10_000), guard.lost()).await.expect("the holder learns of it");
    run_unread(&url, &["release", "b", "--yes", "--json"]).await.exits(1);
}

#[tokio::test]
async fn a_client_of_this_library_without_a_record_is_told_from_a_stranger() {
    let server = server();
    let url = server.url();
    let _guard = Locks::connect(&url).await.unwrap().lock("a").acquire().await.unwrap();
    // A token of a version in which tokens had no time.
    let old = format!("{:032x}:7", 0xabc);
    command(&server, &["SET", "lock:old", &old, "NX", "PX", "60000"]).await;
    let token = format!("{:032x}:1790000000000000", 0xdef);
    command(&server, &["SET", "lock:nameless", &token, "NX", "PX", "60000"]).await;
    command(&server, &["SET", "lock:foreign", "t:7", "NX", "PX", "60000"]).await;
    for id in ["old", "nameless"] {
        let ran = run_at(&url, &["show", id]).await.exits(0);
        ran.says("an unnamed client of this library");
        run_at(&url, &["list", id]).await.exits(0).says("an unnamed client");
    }
    run_at(&url, &["show", "foreign"]).await.exits(0).says("an unknown client");
    run_at(&url, &["release", "nameless", "--yes"]).await.exits(0).says("`lost()` resolves");
}

#[tokio::test]
async fn watching_ends_at_once_where_the_store_does_not_answer() {
    let server = server();
    let proxy = Proxy::start(server.port());
    let mut watching = Watching::start(&proxy.url(), &["a"]);
    watching.line().await;
    proxy.hold(Direction::ToClient);
    // It asks again and again, until one of its questions gets no answer.
    let asked = async || -> String {
        let mut connection = server.connection().await;
        let mut question = redis::cmd("INFO");
        let said: String = question.arg("commandstats").query_async(&mut connection).await.unwrap();
        let line = said.lines().find(|line| line.starts_with("cmdstat_evalsha:"));
        line.and_then(|line| line.split(',').next()).unwrap_or_default().to_owned()
    };
    let before = RefCell::new((String::new(), 0));
    eventually(ms(20_000), async || {
        let now = asked().await;
        let (last, same) = before.take();
        let same = if now == last { same + 1 } else { 0 };
        before.replace((now, same));
        // For longer than several intervals.
        if same >= 20 { Ok(()) } else { Err(same) }
    })
    .await;
    // If it had waited for the answer, it would have reported that there was none.
    assert_eq!(watching.interrupt().await, None);
}
