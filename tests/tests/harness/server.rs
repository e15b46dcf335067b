//! Servers: start, stop, restart, logins, TLS, keys and counts.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};

use lock_tests::{Certificates, CommandCounts, RedisServer};
use redis::{AsyncCommands, Client, TlsCertificates};

use super::{SILENCE, SOON, connect, ping};

/// Whether a process with this id exists, as a zombie or alive.
fn exists(process_id: u32) -> bool {
    let id = rustix::process::Pid::from_raw(i32::try_from(process_id).unwrap()).unwrap();
    rustix::process::test_kill_process(id).is_ok()
}

/// The text of a panic.
fn message(panic: Box<dyn std::any::Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
    }
}

#[tokio::test]
async fn dropping_a_server_leaves_nothing_behind() {
    let server = RedisServer::builder().unix_socket(true).start();
    let (process_id, directory) = (server.process_id(), server.directory().to_owned());
    ping(&mut server.connection().await).await.unwrap();
    assert!(exists(process_id) && directory.exists());
    drop(server);
    assert!(!exists(process_id) && !directory.exists());
}

#[tokio::test]
async fn a_stopped_server_is_dropped_while_the_test_unwinds() {
    let mut seen = None;
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let server = RedisServer::start();
        server.stop_process();
        seen = Some((server.process_id(), server.directory().to_owned()));
        panic!("the test fails");
    }));
    assert_eq!(message(panic.unwrap_err()), "the test fails");
    let (process_id, directory) = seen.unwrap();
    assert!(!exists(process_id) && !directory.exists());
}

#[tokio::test]
async fn servers_do_not_share_anything() {
    let (one, other) = (RedisServer::start(), RedisServer::start());
    assert_ne!(one.port(), other.port());
    let () = one.connection().await.set_ex("key", 1, 60).await.unwrap();
    assert_eq!(one.keys().await.len(), 1);
    assert_eq!(other.keys().await, []);
}

#[tokio::test]
async fn a_restarted_server_is_empty_unless_it_keeps_a_file() {
    for append_only in [false, true] {
        let server = RedisServer::builder().append_only(append_only).start();
        let (port, process_id) = (server.port(), server.process_id());
        let mut connection = server.connection().await;
        let () = connection.set("kept", 1).await.unwrap();

        server.kill();
        assert!(!exists(process_id));
        ping(&mut connection).await.unwrap_err();
        connect(&server.url(), SOON).await.unwrap_err();

        server.restart();
        assert_eq!(server.port(), port);
        assert_ne!(server.process_id(), process_id);
        let kept: bool = server.connection().await.exists("kept").await.unwrap();
        assert_eq!(kept, append_only);

        // The same for a running one.
        server.restart();
        ping(&mut server.connection().await).await.unwrap();
    }
}

#[tokio::test]
async fn the_append_only_file_can_be_read_and_lost() {
    let server = RedisServer::builder().append_only(true).start();
    let () = server.connection().await.set("kept", 1).await.unwrap();
    let log = std::fs::read(server.append_only_file()).unwrap();
    assert!(String::from_utf8_lossy(&log).contains("\r\nkept\r\n"));
    server.kill();
    server.lose_append_only_file();
    server.restart();
    assert_eq!(server.keys().await, []);
}

#[tokio::test]
async fn a_password_is_needed() {
    let password = "s3cret /:@%";
    // A cluster has one database.
    let server = RedisServer::builder().cluster_of_one(false).flag("--requirepass", password);
    let server = server.start();
    let mut connection = connect(&server.url(), SOON).await.unwrap();
    let refused = ping(&mut connection).await.unwrap_err();
    assert_eq!(refused.code(), Some("NOAUTH"));
    for user in ["", "default"] {
        let url = server.url_with(user, password, 3);
        let mut connection = connect(&url, SOON).await.unwrap();
        let () = connection.set_ex("key", user, 60).await.unwrap();
    }
    assert_eq!(server.keys().await.len(), 1);
    server.restart();
    ping(&mut server.connection().await).await.unwrap();
    assert!(server.watch_commands().await.finish().await.is_empty());
}

#[tokio::test]
async fn a_tls_client_needs_the_authority() {
    if RedisServer::leaves_out_tls() {
        return;
    }
    let server = RedisServer::builder().tls(true).start();
    let open = |authority: &str| {
        let certificates =
            TlsCertificates { client_tls: None, root_cert: Some(authority.as_bytes().to_vec()) };
        Client::build_with_tls(server.tls_url(), certificates).unwrap()
    };
    let client = open(server.certificate_authority());
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    assert_eq!(ping(&mut connection).await.unwrap(), "PONG");

    let client = open(Certificates::generate().authority());
    client.get_multiplexed_async_connection().await.unwrap_err();
}

#[tokio::test]
async fn the_unix_socket_answers() {
    let server = RedisServer::builder().unix_socket(true).start();
    let mut connection = connect(&server.unix_url(), SOON).await.unwrap();
    assert_eq!(ping(&mut connection).await.unwrap(), "PONG");
}

#[tokio::test]
async fn a_stopped_server_answers_when_it_goes_on() {
    let server = RedisServer::start();
    let mut connection = connect(&server.url(), SOON).await.unwrap();
    for _ in 0..2 {
        server.stop_process();
        let mut answer = std::pin::pin!(ping(&mut connection));
        tokio::time::timeout(SILENCE, &mut answer).await.unwrap_err();
        server.continue_process();
        assert_eq!(answer.await.unwrap(), "PONG");
    }
}

#[test]
fn a_flag_that_the_server_refuses_shows_its_log() {
    let panic = catch_unwind(|| RedisServer::builder().flag("--no-such-flag", "1").start());
    let message = message(panic.unwrap_err());
    assert!(message.contains("no-such-flag"), "{message}");
}

#[tokio::test]
async fn every_key_without_a_time_to_live_is_named() {
    // A cluster has one database.
    let server = RedisServer::builder().cluster_of_one(false).start();
    server.assert_every_key_expires(&[]).await;
    let mut connection = server.connection().await;
    let () = connection.set_ex("expires", 1, 60).await.unwrap();
    server.assert_every_key_expires(&[]).await;

    let () = connection.hset("stays", "field", 1).await.unwrap();
    let mut elsewhere = connect(&server.url_with("", "", 5), SOON).await.unwrap();
    let () = elsewhere.set("stays too", 1).await.unwrap();
    server.assert_every_key_expires(&["stays", "stays too"]).await;

    let keys = server.keys().await;
    let named: Vec<_> = keys.iter().map(|(key, kind, _)| (&**key, &**kind)).collect();
    let expected = [("expires", "string"), ("stays", "hash"), ("stays too", "string")];
    assert_eq!(named, expected);
    assert!((1..=60_000).contains(&keys[0].2) && keys[1].2 == -1);

    let check = tokio::spawn(async move { server.assert_every_key_expires(&["other"]).await });
    assert_eq!(
        message(check.await.unwrap_err().into_panic()),
        r#"2 of 3 keys never expire: "stays" (hash), "stays too" (string)"#,
    );
}

#[tokio::test]
async fn counts_include_scripts_and_a_watch_does_not() {
    let server = RedisServer::start();
    let mut connection = server.connection().await;
    let before = server.commands().await;
    let watch = server.watch_commands().await;
    let script = redis::Script::new("redis.call('SET', KEYS[1], 'a \"b\\n') return 1");
    for _ in 0..2 {
        let _: i64 = script.key("key").invoke_async(&mut connection).await.unwrap();
    }
    let () = connection.set("a", "quoted \" \\ é").await.unwrap();
    let sent = watch.finish().await;
    let since = server.commands().await.minus(&before);

    assert_eq!((since.calls("set"), since.calls("GET")), (3, 0));
    // The first one finds no script and loads it.
    assert_eq!(since.client_commands(&["evalsha", "eval", "script"]), 4);
    // Subcommands are counted separately since Redis 7.0.
    let loads = if RedisServer::version().is_before(7, 0) { 0 } else { 1 };
    assert_eq!((since.calls("script"), since.calls("script|load")), (1, loads));
    let names: Vec<_> = sent.iter().map(|command| command.name.as_str()).collect();
    assert_eq!(names, ["evalsha", "script", "evalsha", "evalsha", "set"]);
    let last = sent.last().unwrap();
    assert_eq!(last.arguments, ["a", r#"quoted " \ \xc3\xa9"#]);
    assert_eq!(last.database, 0);
    assert!(last.client.starts_with("127.0.0.1:"));
}

#[tokio::test]
async fn counts_of_another_life_are_not_compared() {
    let server = RedisServer::start();
    let mut connection = server.connection().await;
    let _: Option<String> = connection.get("key").await.unwrap();
    let before = server.commands().await;
    assert_eq!(before.iter().filter(|(name, _)| *name == "get").count(), 1);
    server.restart();
    let after = server.commands().await;
    catch_unwind(|| after.minus(&before)).unwrap_err();
    assert_eq!(after.minus(&CommandCounts::default()), after);
}

#[tokio::test]
async fn many_servers_start_at_once() {
    let starts = (0..12).map(|_| tokio::task::spawn_blocking(RedisServer::start));
    let mut directories = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        let server = start.await.unwrap();
        ping(&mut connect(&server.url(), Duration::from_secs(5)).await.unwrap()).await.unwrap();
        directories.push(server.directory().to_owned());
    }
    assert!(!directories.iter().any(|directory| Path::exists(directory)));
}
