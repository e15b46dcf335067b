//! Requests that do not come from a well-behaved browser: stalled connections, hand-written
//! requests, pages of other origins.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    thread::sleep,
    time::Duration,
};

use lock_tests::{RedisServer, eventually};
use serde_json::{Value, json};

use crate::{alone, browser::PATIENCE, copy::Copy};

/// Sends a request with these additional headers, and returns the status and the body of the
/// answer.
fn send(copy: &Copy, line: &str, headers: &str, body: &str) -> (u16, String) {
    let mut connection = connect(copy);
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    connection.write_all(request.as_bytes()).expect("it takes a request");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("it answers in text");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (status.expect("an answer has a status"), body.unwrap_or_default())
}

fn connect(copy: &Copy) -> TcpStream {
    let connection = TcpStream::connect(("127.0.0.1", copy.port())).expect("it listens");
    connection.set_read_timeout(Some(PATIENCE)).expect("a socket has a time-out");
    connection
}

fn host(copy: &Copy) -> String {
    format!("Host: 127.0.0.1:{}\r\n", copy.port())
}

/// An instance without a page.
struct Instance<'a> {
    copy: &'a Copy,
    id: String,
}

impl<'a> Instance<'a> {
    fn open(copy: &'a Copy) -> Self {
        let (status, body) = send(copy, "POST /instances", &host(copy), "");
        assert_eq!(status, 200, "{body}");
        let body: Value = serde_json::from_str(&body).expect("it answers in JSON");
        Self { copy, id: body["id"].as_str().expect("an instance has an id").to_owned() }
    }

    fn command(&self, command: &Value) -> u16 {
        let headers = format!("{}Content-Type: application/json\r\n", host(self.copy));
        let line = format!("POST /instances/{}/commands", self.id);
        send(self.copy, &line, &headers, &command.to_string()).0
    }

    fn watch(&self) -> Watching {
        let mut connection = connect(self.copy);
        let line = format!("GET /instances/{}/events?lock=invoice:7 HTTP/1.1\r\n", self.id);
        let request = format!("{line}{}\r\n", host(self.copy));
        connection.write_all(request.as_bytes()).expect("it takes a request");
        Watching(BufReader::new(connection))
    }
}

/// The stream of a page.
struct Watching(BufReader<TcpStream>);

impl Watching {
    /// Reads until a view satisfies `shows`; fails if none does.
    fn until(&mut self, shows: impl Fn(&Value) -> bool) -> Value {
        let began = std::time::Instant::now();
        let mut last = Value::Null;
        while began.elapsed() < PATIENCE {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("the stream goes on");
            assert!(!line.starts_with("event: gone"), "there is no such instance");
            let Some(data) = line.strip_prefix("data: ") else { continue };
            last = serde_json::from_str(data).expect("a view is JSON");
            if shows(&last) {
                return last;
            }
        }
        panic!("it shows {last}");
    }
}

fn acquire(id: &str) -> Value {
    json!({ "command": "acquire", "id": id, "lease_ms": 5000 })
}

#[tokio::test]
async fn a_connection_that_stands_still_does_not_hold_up_the_end() {
    let _alone = alone().await;
    let copy = Copy::start(None, 0);
    let mut half = connect(&copy);
    half.write_all(b"POST /instances HTTP/1.1\r\n").expect("it takes the half of a request");
    // By now, the demo has accepted the earlier connections.
    let instance = Instance::open(&copy);
    let _not_read = instance.watch();
    assert!(copy.end().success());
}

#[tokio::test]
async fn what_was_killed_does_nothing_more() {
    let _alone = alone().await;
    let copy = Copy::start(None, 0);
    let instance = Instance::open(&copy);
    let mut page = instance.watch();
    instance.command(&acquire("before"));
    page.until(|view| view["me"]["doing"] == "holding");
    instance.command(&json!({ "command": "block_runtime", "for_ms": 2000 }));
    page.until(|view| view["me"]["blocked_ms"].as_u64() > Some(0));
    // It does not get as far as these.
    instance.command(&json!({ "command": "release" }));
    instance.command(&acquire("ghost"));
    instance.command(&json!({ "command": "kill" }));
    instance.command(&json!({ "command": "restart" }));
    instance.command(&acquire("after"));
    page.until(|view| view["me"]["doing"] == "holding");
    // The blocked thread of the first life wakes up within this time.
    sleep(Duration::from_secs(3));
    let renewals = |view: &Value| view["me"]["guard"]["renewals"].as_u64().unwrap_or_default();
    let view = page.until(|view| view["me"]["doing"] != "holding" || renewals(view) > 1);
    assert_eq!(view["me"]["doing"], "holding");
    assert_eq!(view["me"]["lock"], "after");
    let answers = view["answers"].to_string();
    assert!(!answers.contains("The lock was kept"), "{answers}");
}

#[tokio::test]
async fn a_page_may_be_loaded_anew_again_and_again() {
    let _alone = alone().await;
    let copy = Copy::start(None, 0);
    let instance = Instance::open(&copy);
    for _ in 0..3 {
        // Each time for less than the five seconds after which a page counts as closed.
        instance.watch().until(|view| view["me"]["doing"] == "nothing");
        sleep(Duration::from_millis(2500));
    }
    instance.watch().until(|view| view["me"]["doing"] == "nothing");
}

#[tokio::test]
async fn pages_of_others_are_refused() {
    let _alone = alone().await;
    let copy = Copy::start(None, 0);
    let own = format!("127.0.0.1:{}", copy.port());
    let status = |host: &str, origin: Option<&str>| {
        let origin = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
        send(&copy, "POST /instances", &format!("Host: {host}\r\n{origin}"), "").0
    };
    assert_eq!(status(&own, None), 200);
    assert_eq!(status(&own, Some(&format!("http://{own}"))), 200);
    assert_eq!(status("localhost:4080", Some("http://localhost:4080")), 200);
    assert_eq!(status(&own, Some("http://elsewhere.example")), 403);
    assert_eq!(status(&own, Some("null")), 403);
    // A foreign name that resolves to this machine.
    assert_eq!(status("elsewhere.example", Some("http://elsewhere.example")), 403);
    assert_eq!(status("127.0.0.1.elsewhere.example", None), 403);
    assert_eq!(send(&copy, "GET /", "Host: elsewhere.example\r\n", "").0, 403);

    let instance = Instance::open(&copy);
    let commands = format!("POST /instances/{}/commands", instance.id);
    let plain = format!("{}Content-Type: text/plain\r\n", host(&copy));
    assert_eq!(send(&copy, &commands, &plain, r#"{"command":"kill"}"#).0, 415);
}

#[tokio::test]
async fn what_is_written_by_hand_is_answered() {
    let _alone = alone().await;
    let copy = Copy::start(None, 0);
    let instance = Instance::open(&copy);
    let mut page = instance.watch();
    for refused in [json!({}), json!([]), json!({ "command": "nothing" }), json!("kill")] {
        assert_eq!(instance.command(&refused), 422, "{refused}");
    }
    assert_eq!(instance.command(&acquire(&"x".repeat(100_000))), 413);
    for (command, answer) in [
        (acquire(""), "an id must not be empty"),
        (acquire(&"x".repeat(1025)), "an id may have at most 1024 bytes"),
        (acquire("~a"), "an id may not begin with"),
        (json!({ "command": "acquire", "id": "a", "lease_ms": 0 }), "a lease of 0ns"),
        (json!({ "command": "acquire", "id": "a", "lease_ms": u64::MAX }), "a lease of"),
        (json!({ "command": "extend", "by_ms": u64::MAX }), "none"),
        (json!({ "command": "release" }), "none"),
        (json!({ "command": "restart" }), "already running"),
        (json!({ "command": "write" }), "no token"),
    ] {
        assert_eq!(instance.command(&command), 202, "{command}");
        page.until(|view| view["answers"][0]["answer"].to_string().contains(answer));
    }
    instance.command(&acquire("a\n{}\"'<img src=x onerror=alert(1)>"));
    page.until(|view| view["me"]["doing"] == "holding");

    // An instance that does not exist, and one that was killed.
    let nobody = Instance { copy: &copy, id: "nobody".to_owned() };
    assert_eq!(nobody.command(&acquire("a")), 410);
    instance.command(&json!({ "command": "block_runtime", "for_ms": u64::MAX }));
    page.until(|view| view["me"]["blocked_ms"].as_u64() > Some(0));
    instance.command(&json!({ "command": "kill" }));
    instance.command(&acquire("a"));
    page.until(|view| view["answers"][0]["answer"] == "the process is dead");
    assert!(copy.end().success());
}

#[tokio::test]
async fn instances_without_a_page_end_and_there_are_not_too_many() {
    let _alone = alone().await;
    let copy = Copy::start(None, 0);
    let first = Instance::open(&copy);
    let refused = (0..200).find_map(|_| {
        let (status, why) = send(&copy, "POST /instances", &host(&copy), "");
        (status != 200).then_some((status, why))
    });
    let (status, why) = refused.expect("there is a bound");
    assert_eq!(status, 503);
    assert!(why.contains("close a page"), "{why}");
    eventually(PATIENCE, || async {
        let status = first.command(&json!({ "command": "release" }));
        if status == 410 { Ok(()) } else { Err(status) }
    })
    .await;
    Instance::open(&copy);
}

#[tokio::test]
async fn calls_are_named_and_counted_as_they_are() {
    let _alone = alone().await;
    let copy = Copy::start(None, 0);
    let instance = Instance::open(&copy);
    let mut page = instance.watch();
    instance.command(&json!({ "command": "try_acquire", "id": "a", "lease_ms": 60_000 }));
    // It holds the lock a moment before its answer is written down.
    page.until(|view| view["me"]["doing"] == "holding");
    let view = page.until(|view| view["answers"][0]["call"].is_string());
    assert_eq!(view["answers"][0]["call"], "lock.try_acquire().await");
    for _ in 0..3 {
        instance.command(&json!({ "command": "extend", "by_ms": 10_000 }));
    }
    let extended = |view: &Value| {
        view["me"]["guard"]["remaining_ms"].as_u64().is_some_and(|left| left > 80_000)
    };
    let view = page.until(extended);
    assert_eq!(view["me"]["guard"]["renewals"], 0, "the lease is a minute");
}

#[tokio::test]
async fn a_copy_that_ends_while_it_is_blocked_leaves_no_lock() {
    let _alone = alone().await;
    let server = RedisServer::start();
    let copy = Copy::start(Some(&server.url()), 0);
    let instance = Instance::open(&copy);
    let mut page = instance.watch();
    instance.command(&json!({ "command": "acquire", "id": "invoice:7", "lease_ms": 60_000 }));
    page.until(|view| view["me"]["doing"] == "holding");
    instance.command(&json!({ "command": "block_runtime", "for_ms": 60_000 }));
    page.until(|view| view["me"]["blocked_ms"].as_u64() > Some(0));
    assert!(copy.end().success());
    let locked = |key: &str| key == "lock-demo:invoice:7";
    assert!(!server.keys().await.iter().any(|(key, ..)| locked(key)), "the lock is left");
}

#[tokio::test]
async fn errors_name_the_server_and_not_what_lies_between() {
    let _alone = alone().await;
    let server = RedisServer::start();
    let copy = Copy::start(Some(&server.url()), 0);
    let instance = Instance::open(&copy);
    let mut page = instance.watch();
    server.kill();
    instance.command(&acquire("a"));
    let failed = |view: &Value| view["answers"][0]["answer"].to_string().starts_with("\"Err(");
    let view = page.until(failed);
    let answer = view["answers"][0]["answer"].to_string();
    let address = server.url();
    let address = address.trim_start_matches("redis://").trim_end_matches('/');
    assert!(answer.contains(&format!("the Redis server at {address}")), "{answer}");
}

/// A client that gets no answer reconnects about once a second. None of these connections stays.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_silent_network_does_not_fill_up_with_connections() {
    let _alone = alone().await;
    let server = RedisServer::start();
    let copy = Copy::start(Some(&server.url()), 0);
    let instance = Instance::open(&copy);
    let mut page = instance.watch();
    instance.command(&acquire("invoice:7"));
    page.until(|view| view["me"]["doing"] == "holding");
    let before = copy.open_files();
    instance.command(&json!({ "command": "network", "condition": "silent" }));
    page.until(|view| view["me"]["doing"] == "lost");
    for _ in 0..4 {
        // Each gives up after two seconds.
        instance.command(&json!({ "command": "try_acquire", "id": "b", "lease_ms": 5000 }));
        let before = page.until(|view| view["answers"][0]["call"] == "lock.try_acquire().await");
        instance.command(&json!({ "command": "call" }));
        page.until(|view| view["answers"][0]["number"] != before["answers"][0]["number"]);
    }
    assert!(copy.open_files() <= before + 6, "{} and then {}", before, copy.open_files());
}
