//! `doctor`: what it finds, and what it leaves behind.

use lock_tests::{Certificates, Cluster, RedisServer, Sentinels, eventually, ms};
use serde_json::Value;

use crate::common::{
    PASSWORD, Ran, command, file, finish, program, run, run_at, run_unread, server,
};

const DOCUMENT: &str = include_str!("../../../docs/servers.md");

async fn doctor(url: &str) -> Ran {
    run_at(url, &["--json", "doctor"]).await
}

/// The checks with this name and this result.
fn found(ran: &Ran, check: &str, result: &str) -> Vec<Value> {
    let report = ran.json();
    let checks = report["checks"].as_array().expect("there are checks");
    let is = |one: &&Value| one["check"] == check && one["result"] == result;
    checks.iter().filter(is).cloned().collect()
}

/// Asserts that one finding with this name and result has this message and this fix.
#[track_caller]
fn finds(ran: &Ran, check: &str, result: &str, message: &str, fix: &str) {
    let found = found(ran, check, result);
    let is = |one: &Value| {
        let has = |name: &str, text: &str| one[name].as_str().unwrap_or("").contains(text);
        has("message", message) && has("fix", fix)
    };
    assert!(found.iter().any(is), "no {result} of {check} with {message:?} and {fix:?}: {ran}");
}

/// Asserts that nothing is left except the counter of fencing tokens and the records of its
/// clients, which expire.
async fn assert_clean(server: &RedisServer) {
    server.assert_every_key_expires(&["~fence"]).await;
    let keys = server.keys().await;
    let is_left = |key: &str| key.starts_with("lock:") && !key.starts_with("lock:~client:");
    let left = keys.iter().filter(|(key, ..)| is_left(key)).collect::<Vec<_>>();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_server_in_order_passes_and_nothing_is_left() {
    let server = RedisServer::builder().cluster_of_one(false).append_only(true).start();
    let ran = doctor(&server.url()).await.exits(0);
    let report = ran.json();
    assert_eq!(report["result"], "ok", "{ran}");
    for check in [
        "version",
        "replication",
        "memory",
        "persistence",
        "round trip",
        "notices",
        "rights",
        "clock",
        "locks",
    ] {
        assert_eq!(found(&ran, check, "ok").len(), 1, "{check}: {ran}");
    }
    let first = &report["checks"][0];
    assert!(first["servers"].is_array() && first["message"].is_string() && first["fix"].is_null());
    assert_clean(&server).await;
    // For people, and with the URL as an argument.
    let ran = run(&["doctor", &server.url(), "--strict"]).await.exits(0);
    ran.says("ok").says("0 to fix");
}

#[tokio::test]
async fn warnings_are_failures_only_if_that_is_wanted() {
    let server = server();
    let ran = doctor(&server.url()).await.exits(0);
    finds(&ran, "persistence", "warning", "restart frees all locks", "appendonly yes");
    run(&["doctor", &server.url(), "--strict"]).await.exits(1).says("warning");
}

#[tokio::test]
async fn a_server_that_evicts_fails() {
    let builder = RedisServer::builder().cluster_of_one(false);
    let builder = builder.flag("--maxmemory", "100mb");
    let server = builder.flag("--maxmemory-policy", "volatile-lru").start();
    let ran = doctor(&server.url()).await.exits(1);
    finds(&ran, "memory", "failure", "volatile-lru", "noeviction");
}

#[tokio::test]
async fn a_policy_that_waits_for_a_limit_is_a_warning() {
    let builder = RedisServer::builder().cluster_of_one(false);
    let server = builder.flag("--maxmemory-policy", "allkeys-lru").start();
    let ran = doctor(&server.url()).await.exits(0);
    finds(&ran, "memory", "warning", "allkeys-lru", "noeviction");
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() {
    let builder = RedisServer::builder().cluster_of_one(false);
    let server = builder.flag("--requirepass", PASSWORD).start();
    let wrong = server.url_with("", &format!("{PASSWORD}-2"), 0);
    let ran = doctor(&wrong).await.exits(5);
    assert_eq!(found(&ran, "connect", "failure").len(), 1, "{ran}");
    doctor(&server.url()).await.exits(5);
    // From a file, and from the URL.
    doctor(&server.url_with("", PASSWORD, 0)).await.exits(0);
    let password = file(&format!("{PASSWORD}\n"));
    let path = password.path().to_str().unwrap();
    run_at(&server.url(), &["--password-file", path, "doctor"]).await.exits(0);
    let mut command = program(&["doctor"]);
    command.env("LOCK_URL", server.url_with("", PASSWORD, 0));
    finish(command).await.exits(0);
}

#[tokio::test]
async fn a_replica_is_told_from_its_primary() {
    let primary = server();
    let port = primary.port().to_string();
    let builder = RedisServer::builder().cluster_of_one(false);
    let replica = builder.flags(["--replicaof", "127.0.0.1", port.as_str()]).start();
    eventually(ms(20_000), async || {
        let mut connection = replica.connection().await;
        let mut question = redis::cmd("INFO");
        let said: String = question.arg("replication").query_async(&mut connection).await.unwrap();
        said.contains("master_link_status:up")
    })
    .await;
    let ran = doctor(&replica.url()).await.exits(1);
    finds(&ran, "replication", "failure", "read-only replica", &format!("127.0.0.1:{port}"));
    let ran = doctor(&primary.url()).await.exits(0);
    finds(&ran, "replication", "ok", "replicas: 1", "");
}

/// The rights of docs/servers.md for a user of one server.
fn rights() -> Vec<&'static str> {
    let line =
        DOCUMENT.lines().find_map(|line| line.strip_prefix("ACL SETUSER billing on >password "));
    line.expect("the document has the line").split(' ').collect()
}

async fn with_rights(server: &RedisServer, user: &str, more: &[&str], less: &[&str]) -> String {
    let mut words = vec!["ACL", "SETUSER", user, "on"];
    let password = format!(">{PASSWORD}");
    words.push(&password);
    let rights = rights();
    words.extend(rights.iter().chain(more).filter(|right| !less.contains(right)));
    command(server, &words).await;
    server.url_with(user, PASSWORD, 0)
}

#[tokio::test]
async fn rights_that_are_missing_are_named_with_the_line_that_gives_them() {
    let server = server();
    let all = with_rights(&server, "all", &["+scan"], &[]).await;
    let ran = doctor(&all).await.exits(0);
    assert_eq!(found(&ran, "rights", "ok").len(), 1, "{ran}");

    for (number, (right, result)) in [
        ("+publish", "warning"),
        ("+subscribe", "warning"),
        ("+scan", "warning"),
        ("+client|kill", "warning"),
        ("+script|load", "warning"),
        ("&~wake:*", "warning"),
        ("+zadd", "failure"),
        ("+hset", "failure"),
        ("+evalsha", "failure"),
        ("~~fence", "failure"),
        ("~~queue:lock:*", "failure"),
        ("~lock:*", "failure"),
    ]
    .into_iter()
    .enumerate()
    {
        let user = format!("user{number}");
        let url = with_rights(&server, &user, &["+scan"], &[right]).await;
        let ran = doctor(&url).await.exits(i32::from(result == "failure"));
        assert!(found(&ran, "notices", "warning").is_empty(), "said once: {ran}");
        finds(&ran, "rights", result, right, &format!("ACL SETUSER {user} {right}"));
        assert!(found(&ran, "rights", "ok").is_empty(), "{ran}");
    }
    assert_clean(&server).await;
}

#[tokio::test]
async fn rights_to_read_a_key_are_not_taken_for_rights_to_write_it() {
    if RedisServer::version().is_before(7, 0) {
        eprintln!("left out: before Redis 7.0, the right to a key always includes writing it");
        return;
    }
    let server = server();
    let patterns = ["~fence", "~queue:lock:*", "lock:*"];
    for (number, pattern) in patterns.into_iter().enumerate() {
        let right = format!("~{pattern}");
        let user = format!("user{number}");
        let url =
            with_rights(&server, &user, &["+scan", &format!("%R~{pattern}")], &[&right]).await;
        let ran = doctor(&url).await.exits(1);
        finds(&ran, "rights", "failure", &right, &format!("ACL SETUSER {user} {right}"));
        assert!(found(&ran, "rights", "ok").is_empty(), "{ran}");
    }
    assert_clean(&server).await;
}

#[tokio::test]
async fn the_protocol_of_the_url_hides_no_check() {
    let server = server();
    let ran = doctor(&format!("{}?protocol=resp3", server.url())).await.exits(0);
    // Persistence is read with CONFIG GET, which answers with a map in RESP3.
    finds(&ran, "persistence", "warning", "nothing is kept on disk", "appendonly yes");
}

#[tokio::test]
async fn a_verdict_stands_where_nobody_reads_it() {
    let builder = RedisServer::builder().cluster_of_one(false);
    let builder = builder.flag("--maxmemory", "100mb");
    let server = builder.flag("--maxmemory-policy", "volatile-lru").start();
    run_unread(&server.url(), &["doctor"]).await.exits(1);
}

#[tokio::test]
async fn who_may_not_ask_info_is_told_what_was_not_checked() {
    let server = server();
    let url = with_rights(&server, "blind", &["+scan"], &["+info"]).await;
    let ran = doctor(&url).await.exits(0);
    finds(&ran, "version", "warning", "not checked", "+info");
    assert_eq!(found(&ran, "locks", "ok").len(), 1, "{ran}");
}

#[tokio::test]
async fn tls_and_unix_sockets_are_checked_too() {
    let builder = RedisServer::builder().cluster_of_one(false).unix_socket(true);
    let server = builder.start();
    doctor(&server.unix_url()).await.exits(0);
    if RedisServer::leaves_out_tls() {
        return;
    }
    let certificates = Certificates::generate();
    let builder = RedisServer::builder().cluster_of_one(false).certificates(&certificates);
    let server = builder.tls_auth_clients(true).start();
    let authority = file(certificates.authority());
    let client = certificates.client();
    let (certificate, key) = (file(&client.certificate), file(&client.key));
    let path = |file: &tempfile::NamedTempFile| file.path().to_str().unwrap().to_owned();
    let url = server.tls_url();
    let with =
        ["--root-certificate", &path(&authority), "--client-certificate", &path(&certificate)];
    let ran = run_at(&url, &[&with[..], &["--client-key", &path(&key), "doctor"]].concat()).await;
    ran.exits(0);
    // Without the certificate that it requires.
    run_at(&url, &["--root-certificate", &path(&authority), "doctor"]).await.exits(5);
    // Of another authority.
    let other = file(Certificates::generate().authority());
    run_at(&url, &["--root-certificate", &path(&other), "doctor"]).await.exits(4);
}

#[tokio::test]
async fn sentinels_are_asked_and_the_primary_behind_them() {
    let sentinels = Sentinels::start().await;
    let ran = doctor(&sentinels.url()).await.exits(0);
    finds(&ran, "sentinels", "ok", "3 of 3", "");
    finds(&ran, "replication", "warning", "without a replica", "min-replicas-to-write 1");
    let versions = found(&ran, "version", "ok");
    assert_eq!(versions[0]["servers"].as_array().unwrap().len(), 3, "with the replicas: {ran}");
    assert_eq!(found(&ran, "locks", "ok").len(), 1, "{ran}");

    // A plain URL of one of them.
    let ran = doctor(&sentinels.sentinels()[0].url()).await.exits(1);
    finds(&ran, "sentinels", "failure", "keeps no locks", "redis+sentinel://");
    // Another name.
    let unknown = sentinels.url().replace("/main", "/other");
    let ran = doctor(&unknown).await.exits(1);
    finds(&ran, "sentinels", "failure", "other", "SENTINEL MASTERS");

    let quorum = ["SENTINEL", "SET", "main", "quorum", "1"];
    command(&sentinels.sentinels()[0], &quorum).await;
    sentinels.sentinels()[2].kill();
    let ran = doctor(&sentinels.url()).await.exits(0);
    finds(&ran, "sentinels", "ok", "2 of 3", "");
    finds(&ran, "sentinels", "warning", "cannot be asked", "start it");
    finds(&ran, "sentinels", "warning", "quorum is 1", "quorum 2");
}

#[tokio::test]
async fn sentinels_have_users_of_their_own_and_replicas_are_looked_at() {
    let sentinels = Sentinels::start().await;
    let line =
        DOCUMENT.lines().find_map(|line| line.strip_prefix("ACL SETUSER watcher on >password "));
    let rights: Vec<_> = line.expect("the document has the line").split(' ').collect();
    let password = format!(">{PASSWORD}");
    let watcher = async |name: &str, less: &[&str]| {
        for sentinel in sentinels.sentinels() {
            let rights = rights.iter().filter(|right| !less.contains(right));
            let words = ["ACL", "SETUSER", name, "on", &password].into_iter();
            command(sentinel, &words.chain(rights.copied()).collect::<Vec<_>>()).await;
        }
    };
    watcher("watcher", &[]).await;
    watcher("deaf", &["+subscribe"]).await;
    let password = file(PASSWORD);
    let path = password.path().to_str().unwrap();
    let url = sentinels.url();
    let asked = async |user: &str| {
        let with = ["--sentinel-user", user, "--sentinel-password-file", path, "--json", "doctor"];
        run_at(&url, &with).await
    };
    let ran = asked("watcher").await.exits(0);
    finds(&ran, "sentinels", "ok", "3 of 3", "");
    assert!(found(&ran, "sentinels", "warning").is_empty(), "{ran}");
    finds(&asked("deaf").await.exits(1), "sentinels", "failure", "not subscribe", "+switch-master");
    let unknown = asked("unknown").await.exits(5);
    assert_eq!(found(&unknown, "sentinels", "warning").len(), 1, "{unknown}");
    // From the environment.
    let mut command = program(&["doctor"]);
    command.env("LOCK_URL", &url).env("LOCK_SENTINEL_USER", "watcher");
    command.env("LOCK_SENTINEL_PASSWORD", PASSWORD);
    finish(command).await.exits(0).says("3 of 3");

    // A replica that has other users than the primary.
    let primary = sentinels.primary().await;
    let url = sentinels.url().replace("://", &format!("://billing:{PASSWORD}@"));
    for server in [primary, sentinels.others(primary)[0]] {
        with_rights(server, "billing", &["+scan"], &[]).await;
    }
    let ran = doctor(&url).await.exits(0);
    let other = format!("127.0.0.1:{}", sentinels.others(primary)[1].port());
    let warnings = found(&ran, "replication", "warning");
    let is_named = |one: &Value| one["servers"] == serde_json::json!([other]);
    assert!(warnings.iter().any(is_named), "{other}: {ran}");
    finds(&ran, "replication", "warning", "accepts no connection", "the same users");
}

#[tokio::test]
async fn every_primary_of_a_cluster_is_checked_and_a_hole_is_found() {
    let cluster = Cluster::start().await;
    let ran = doctor(&cluster.url()).await.exits(0);
    finds(&ran, "cluster", "ok", "16384", "");
    finds(&ran, "cluster", "ok", "3 primaries", "");
    finds(&ran, "cluster", "warning", "cluster-require-full-coverage", "no");
    let versions = found(&ran, "version", "ok");
    assert_eq!(versions[0]["servers"].as_array().unwrap().len(), 6, "with the replicas: {ran}");
    assert_eq!(found(&ran, "rights", "ok").len(), 1, "{ran}");
    assert_eq!(found(&ran, "locks", "ok").len(), 1, "{ran}");
    for primary in cluster.primaries().await {
        let keys = primary.keys().await;
        let staying = keys.iter().filter(|(key, _, left)| *left < 0 && !key.starts_with("~fence:"));
        assert_eq!(staying.count(), 0, "{keys:?}");
        // The plain URL of a node leads to the others.
        let ran = doctor(&primary.url()).await.exits(0);
        finds(&ran, "cluster", "ok", "3 primaries", "");
    }

    for server in cluster.servers() {
        command(&server, &["CLUSTER", "DELSLOTS", "7"]).await;
    }
    let hole = async || {
        let ran = doctor(&cluster.url()).await;
        let holes = found(&ran, "cluster", "failure");
        let is = |text| holes.iter().any(|one| one["message"].as_str().unwrap().contains(text));
        if is("1 of 16384 slots") && is("`fail`") { Ok(ran) } else { Err(ran.to_string()) }
    };
    eventually(ms(20_000), hole).await.exits(1);
}
