//! `debounce` and `calls`.

use lock::{Durable, Error, ErrorKind, Locks};
use lock_tests::{Cluster, eventually, ms};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::common::{Terminal, run_at, run_unread, server};

type Call = JoinHandle<Result<Option<()>, Error>>;

/// Starts a call that waits for an hour, and returns once the store knows of it.
async fn waits(locks: &Locks, id: &str) -> Call {
    let debounce = locks.debounce(id).wait(ms(3_600_000));
    let call = tokio::spawn(debounce.call(|| async {}));
    eventually(ms(10_000), async || {
        let status = locks.debounce(id).status().await;
        if status.as_ref().is_ok_and(|status| status.waiting.is_some()) {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    call
}

async fn debounced(url: &str) {
    let locks = Locks::builder().url(url).name("billing-7").build().await.unwrap();
    run_at(url, &["debounce"]).await.exits(0).says("no debounced call");
    run_at(url, &["debounce", "save:7"]).await.exits(3).says("no call waits");
    let call = waits(&locks, "save:7").await;

    let shown = run_at(url, &["debounce", "save:7", "--json"]).await.exits(0).json();
    assert_eq!((&shown["id"], &shown["waits"]), (&"save:7".into(), &true.into()), "{shown}");
    assert!(shown["due_in_ms"].as_u64().unwrap() > 3_000_000, "{shown}");
    assert_eq!((&shown["running"], &shown["remaining_ms"]), (&Value::Null, &Value::Null));
    let listed = run_at(url, &["debounce", "--json"]).await.exits(0).json();
    assert_eq!(
        (&listed["debounces"][0], &listed["more"]),
        (&shown_at(&listed, &shown), &false.into())
    );
    run_at(url, &["debounce"]).await.exits(0).says("DUE IN").says("save:7");

    run_at(url, &["debounce", "save:7", "--flush"]).await.exits(2).says("--yes");
    let done = run_at(url, &["debounce", "save:7", "--flush", "--yes", "--json"]).await;
    let done = done.exits(0).json();
    assert_eq!((&done["action"], &done["done"]), (&"flush".into(), &true.into()));
    assert_eq!(call.await.unwrap().unwrap(), Some(()));
    run_at(url, &["debounce", "save:7", "--flush", "--yes"]).await.exits(3);

    let call = waits(&locks, "save:8").await;
    run_at(url, &["debounce", "save:8", "--cancel", "--yes"]).await.exits(0).says("dropped");
    assert_eq!(call.await.unwrap().unwrap(), None);

    let hangs = locks.debounce("save:9").leading(true);
    let hangs = tokio::spawn(hangs.call(std::future::pending::<()>));
    let running = eventually(ms(10_000), async || {
        let shown = run_at(url, &["debounce", "save:9", "--json"]).await.json();
        if shown["running"].is_object() { Ok(shown) } else { Err(shown) }
    })
    .await;
    assert_eq!(running["running"]["name"], "billing-7", "{running}");
    assert!(running["remaining_ms"].is_u64(), "{running}");
    run_at(url, &["debounce", "save:9"]).await.exits(0).says("billing-7");
    run_at(url, &["debounce", "save:9", "--end-run", "--yes"]).await.exits(0).says("was ended");
    assert_eq!(hangs.await.unwrap().unwrap_err().kind(), ErrorKind::Lost);
    run_at(url, &["debounce", "save:9", "--end-run", "--yes"]).await.exits(3);
}

/// The same, except for the time that has passed.
fn shown_at(listed: &Value, shown: &Value) -> Value {
    let mut shown = shown.clone();
    shown["due_in_ms"] = listed["debounces"][0]["due_in_ms"].clone();
    shown
}

#[tokio::test]
async fn debounced_calls_on_one_server() {
    debounced(&server().url()).await;
}

#[tokio::test]
async fn debounced_calls_in_a_cluster() {
    debounced(&Cluster::start().await.url()).await;
}

fn failing(locks: &Locks, id: &str, wait: u64) -> Durable<u64> {
    let debounce = locks.debounce(id).wait(ms(wait));
    let fails = |_: u64, _| async { Err::<(), _>("the disk is full") };
    debounce.durable("reports", fails).unwrap().retry(1, ms(10))
}

async fn until_set_aside(url: &str, wanted: u64) -> Value {
    eventually(ms(20_000), async || {
        let functions = run_at(url, &["calls", "--json"]).await.json();
        let is = functions["functions"][0]["set_aside"] == wanted;
        if is { Ok(functions) } else { Err(functions) }
    })
    .await
}

async fn durable(url: &str) {
    let locks = Locks::connect(url).await.unwrap();
    run_at(url, &["calls"]).await.exits(0).says("no function has durable calls");
    run_at(url, &["calls", "reports"]).await.exits(3).says("0 wait, 0 set aside");
    let first = failing(&locks, "report:7", 10);
    first.call(&4711).await.unwrap();
    let functions = until_set_aside(url, 1).await;
    assert_eq!(functions["functions"][0]["name"], "reports", "{functions}");
    first.id("report:8").call(&4712).await.unwrap();
    until_set_aside(url, 2).await;

    let shown = run_at(url, &["calls", "reports", "--json"]).await.exits(0).json();
    assert_eq!(
        (&shown["name"], &shown["waiting_count"]),
        (&"reports".into(), &0.into()),
        "{shown}"
    );
    let aside = &shown["set_aside"][0];
    assert_eq!((&aside["attempts"], &aside["error"]), (&1.into(), &"the disk is full".into()));
    assert!(aside.get("arguments").is_none(), "they may be confidential: {aside}");
    let table = run_at(url, &["calls", "reports"]).await.exits(0);
    table.says("report:7").says("the disk is full");
    assert!(!table.stdout.contains("4711"), "{table}");
    run_at(url, &["calls", "reports", "--arguments"]).await.exits(0).says("4711");

    run_at(url, &["calls", "reports", "--forget", "report:8"]).await.exits(2).says("--yes");
    let done = run_at(url, &["calls", "reports", "--forget", "report:8", "--yes", "--json"]).await;
    let done = done.exits(0).json();
    assert_eq!((&done["action"], &done["done"]), (&"forget".into(), &true.into()), "{done}");
    until_set_aside(url, 1).await;
    run_at(url, &["calls", "reports", "--forget", "report:8", "--yes"]).await.exits(3);
    // It fails again.
    run_at(url, &["calls", "reports", "--run-again", "report:7", "--yes"]).await.exits(0);
    until_set_aside(url, 1).await;
    run_at(url, &["calls", "reports", "--forget", "report:7", "--yes"]).await.exits(0);
    run_at(url, &["calls", "reports"]).await.exits(3);
}

#[tokio::test]
async fn durable_calls_on_one_server() {
    durable(&server().url()).await;
}

#[tokio::test]
async fn durable_calls_in_a_cluster() {
    durable(&Cluster::start().await.url()).await;
}

#[tokio::test]
async fn durable_calls_that_wait_are_listed_with_their_time() {
    let server = server();
    let url = server.url();
    let locks = Locks::connect(&url).await.unwrap();
    let durable = failing(&locks, "report:7", 3_600_000);
    durable.call(&1).await.unwrap();
    durable.id("report:8").call(&1).await.unwrap();
    let shown = run_at(&url, &["calls", "reports", "--json", "--limit", "1"]).await.exits(0).json();
    assert_eq!(shown["waiting_count"], 2, "{shown}");
    assert_eq!(shown["waiting"].as_array().unwrap().len(), 1, "{shown}");
    assert_eq!(shown["waiting"][0]["id"], "report:7", "{shown}");
    assert!(shown["waiting"][0]["due_in_ms"].as_u64().unwrap() > 3_000_000, "{shown}");
    run_at(&url, &["calls", "reports", "--limit", "1"]).await.exits(0).says("and 1 more");
}

#[tokio::test]
async fn a_person_is_asked_before_calls_are_dropped() {
    let server = server();
    let url = server.url();
    let locks = Locks::connect(&url).await.unwrap();
    let call = waits(&locks, "save:7").await;
    let mut terminal = Terminal::start(&["--url", &url, "debounce", "save:7", "--cancel"]);
    terminal.is_asked().await;
    terminal.answer("n").await.exits(1).says("told that nothing ran");
    assert!(locks.debounce("save:7").status().await.unwrap().waiting.is_some());
    assert!(!call.is_finished());
    call.abort();
}

#[tokio::test]
async fn what_is_to_be_changed_is_changed_where_nobody_reads_on() {
    let server = server();
    let url = server.url();
    let locks = Locks::connect(&url).await.unwrap();
    for (id, change, ran) in [("save:7", "--flush", Some(())), ("save:8", "--cancel", None::<()>)] {
        let call = waits(&locks, id).await;
        run_unread(&url, &["debounce", id, change, "--yes"]).await.exits(0);
        assert_eq!(call.await.unwrap().unwrap(), ran, "{change}");
        run_unread(&url, &["debounce", id, change, "--yes"]).await.exits(3);
    }
    let call = waits(&locks, "save:9").await;
    let words = ["--url", &url, "debounce", "save:9", "--cancel"];
    Terminal::start_unread(&words).end().await.exits(1).says("nothing was changed");
    assert!(locks.debounce("save:9").status().await.unwrap().waiting.is_some());
    call.abort();

    let durable = failing(&locks, "report:7", 10);
    durable.call(&4711).await.unwrap();
    until_set_aside(&url, 1).await;
    run_unread(&url, &["calls", "reports", "--forget", "report:7", "--yes"]).await.exits(0);
    run_at(&url, &["calls", "reports"]).await.exits(3);
    for change in ["--forget", "--run-again"] {
        run_unread(&url, &["calls", "reports", change, "report:7", "--yes"]).await.exits(3);
    }
}
