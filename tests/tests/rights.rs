//! The rights of a user: those in docs/servers.md are sufficient, and none is superfluous.
//!
//! The commands are read from that document. The server lists what it has refused in `ACL LOG`.

use std::{collections::BTreeSet, error::Error as StdError, time::Duration};

use futures_util::{StreamExt, stream};
use lock::{ErrorKind, Locks, Status};
use lock_tests::{Cluster, RedisServer, eventually};
use redis::{FromRedisValue, Value, aio::MultiplexedConnection};
use tokio::time::{Instant, sleep};

use crate::common::{WatchedServer, ms};

const DOCUMENT: &str = include_str!("../../docs/servers.md");

/// What a server has refused to a user: commands, keys or channels.
type Refused = BTreeSet<String>;

/// The document's line for this user with this right, without the password, which is the tests'
/// own.
fn line(user: &str, with: &str) -> Vec<&'static str> {
    let begin = format!("ACL SETUSER {user} ");
    let lines = DOCUMENT.lines().filter_map(|line| line.strip_prefix(&begin));
    let words = |line: &'static str| line.split_whitespace().collect::<Vec<_>>();
    let mut lines = lines.map(words).filter(|words| words.contains(&with));
    let mut line = lines.next().unwrap_or_else(|| panic!("{user} has no line with {with}"));
    assert_eq!(lines.next(), None, "{user} has two lines with {with}");
    line.retain(|word| !["on", ">password"].contains(word));
    line
}

/// The commands of the first table, except those of `min_replicas`.
fn needed() -> Vec<&'static str> {
    let (_, table) = DOCUMENT.split_once("| commands | for |\n|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let rows = rows.filter(|row| !row.contains("`min_replicas` only"));
    rows.flat_map(|row| row.split('`').nth(1).unwrap().split_whitespace()).collect()
}

/// The right to set the name of the client's library, where the server has that command.
fn name_of_library() -> Vec<&'static str> {
    let version = RedisServer::version();
    let knows = version.is_before(7, 0) || !version.is_before(7, 2);
    if knows { line("billing", "+client|setinfo") } else { Vec::new() }
}

/// The whole line for a user of the server, and the right that keeps harmless refusals out of the
/// log.
fn of_server() -> Vec<&'static str> {
    [line("billing", "+ping"), name_of_library()].concat()
}

fn of_sentinel() -> Vec<&'static str> {
    [line("watcher", "+subscribe"), name_of_library()].concat()
}

async fn set_user(admin: &mut MultiplexedConnection, user: &str, rights: &[&str]) {
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg(user).arg("on").arg(">hush").arg(rights);
    command.exec_async(admin).await.unwrap();
}

async fn forget_refused(admin: &mut MultiplexedConnection) {
    redis::cmd("ACL").arg("LOG").arg("RESET").exec_async(admin).await.unwrap();
}

async fn refused(admin: &mut MultiplexedConnection, user: &str) -> Refused {
    let mut command = redis::cmd("ACL");
    let entries: Vec<Vec<(String, Value)>> =
        command.arg("LOG").arg(10_000).query_async(admin).await.unwrap();
    let mut refused = Refused::new();
    for entry in entries {
        let field = |name: &str| {
            let (_, value) = entry.iter().find(|(known, _)| known == name).unwrap();
            String::from_redis_value(value.clone()).unwrap()
        };
        if field("username") == user {
            refused.insert(field("object"));
        }
    }
    refused
}

/// Was this refused because that right was missing? Before Redis 7.0, the log does not name
/// subcommands.
fn is_for_want_of(right: &str, refused: &str) -> bool {
    if let Some(pattern) = right.strip_prefix(['~', '&']) {
        return match pattern.strip_suffix('*') {
            Some(begin) => refused.starts_with(begin),
            None => refused == pattern,
        };
    }
    let command = right.strip_prefix('+').unwrap();
    let command = match command.split_once('|') {
        Some((command, _)) if RedisServer::version().is_before(7, 0) => command,
        _ => command,
    };
    refused.eq_ignore_ascii_case(command)
}

/// `resetchannels` may be superfluous: it is for Redis 6.2.
fn is_checked(right: &&str) -> bool {
    *right != "resetchannels" && *right != "+client|setinfo"
}

/// Waits until `is_so` holds, and fails if it does not.
async fn soon(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool, lock::Error>) -> Outcome {
    let until = Instant::now() + Duration::from_secs(10);
    while !is_so().await? {
        if Instant::now() > until {
            return Err(format!("{what} has not happened").into());
        }
        sleep(ms(5)).await;
    }
    Ok(())
}

type Outcome = Result<(), Box<dyn StdError + Send + Sync>>;

/// Uses every operation, with ids of its own, until one fails. The other client has the same user.
async fn use_everything(
    [locks, other]: &[Locks; 2],
    user: &str,
    admin: &mut MultiplexedConnection,
) -> Outcome {
    let id = |name: &str| format!("{user}:{name}");
    let lock = |name: &str| locks.lock(id(name)).wait(ms(10_000));
    let guard = lock("a").lease(ms(300)).acquire().await?;
    guard.extend(ms(100)).await?;
    sleep(ms(500)).await;
    assert_or_err(guard.is_held(), "it was not renewed")?;
    // The server forgets the scripts, so they are sent again, and the connection breaks.
    redis::cmd("SCRIPT").arg("FLUSH").exec_async(admin).await?;
    lock("b").acquire().await?.release().await?;
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("USER").arg(user).exec_async(admin).await?;
    soon("a connect", async || Ok(lock("c").try_acquire().await.is_ok())).await?;

    let debounce = || locks.debounce(id("a")).wait(ms(10));
    let ran = debounce().call(|| async {}).await?;
    assert_or_err(ran.is_some(), "the call did not run")?;
    assert_or_err(!debounce().cancel().await?, "there was nothing to be cancelled")?;
    let failing = |_: u64, _| async { Err::<(), _>("no") };
    let durable = debounce().durable(format!("f:{user}"), failing)?.retry(1, ms(10));
    durable.call(&7).await?;
    soon("a failure", async || Ok(!durable.set_aside().await?.is_empty())).await?;
    assert_or_err(durable.run_again().await?, "there was nothing to be run again")?;
    assert_or_err(lock("a").force_release().await?, "it was held")?;

    let held = lock("d").acquire().await?;
    let waiter = tokio::spawn(other.lock(id("d")).wait(ms(10_000)).acquire());
    let waits = async || Ok(matches!(lock("d").status().await?, Status::Held { waiters: 1, .. }));
    soon("the waiter's turn", waits).await?;
    // The status of another client's lock, and a list, which works without that right.
    assert_or_err(
        matches!(other.lock(id("d")).status().await?, Status::Held { .. }),
        "it is free",
    )?;
    let _ = other.list(&id(""), 10).await;
    let _ = debounce().status().await?;
    let _ = locks.durable_calls(format!("f:{user}")).waiting(10).await?;
    held.release().await?;
    waiter.await??.release().await?;
    locks.flush().await;
    Ok(())
}

fn assert_or_err(is_so: bool, otherwise: &str) -> Outcome {
    if is_so { Ok(()) } else { Err(otherwise.into()) }
}

/// Uses everything as this user, including the connect.
async fn served(server: &RedisServer, user: &str) -> Outcome {
    let mut admin = server.connection().await;
    let url = server.url_with(user, "hush", 0);
    let locks = [Locks::connect(&url).await?, Locks::connect(&url).await?];
    use_everything(&locks, user, &mut admin).await
}

/// With the lines of the document nothing is refused, and the first table is sufficient.
#[tokio::test]
async fn the_rights_in_the_docs_are_enough() {
    let server = WatchedServer::start(RedisServer::builder().cluster_of_one(false));
    let mut admin = server.connection().await;
    let keys = of_server().into_iter().filter(|right| right.starts_with('~'));
    let few: Vec<_> = keys.chain(needed()).collect();
    for (user, rights, delivery) in [("all", of_server(), "push"), ("few", few, "polling")] {
        set_user(&mut admin, user, &rights).await;
        let url = server.url_with(user, "hush", 0);
        let shown = format!("{:?}", Locks::connect(&url).await.unwrap());
        assert!(shown.contains(&format!("delivery: \"{delivery}\"")), "{shown}");
        if user == "all" {
            forget_refused(&mut admin).await;
        }
        served(&server, user).await.unwrap();
        if user == "all" {
            assert_eq!(refused(&mut admin, user).await, Refused::new());
        }
        let elsewhere = Locks::builder().url(url).prefix("other:").build().await.unwrap();
        let error = elsewhere.lock("a").acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error:?}");
    }
}

/// Each right is tested on a server of its own, because a client that connects loads the scripts
/// that another one should have to send.
#[tokio::test]
async fn no_right_in_the_docs_is_too_many() {
    let all = &of_server();
    let without: Vec<_> = all.iter().copied().filter(is_checked).collect();
    assert!(without.len() > 30, "{without:?}");
    let missed = stream::iter(without).map(async |right| {
        let server = WatchedServer::start(RedisServer::builder().cluster_of_one(false));
        let mut admin = server.connection().await;
        let rights: Vec<_> = all.iter().copied().filter(|&other| other != right).collect();
        set_user(&mut admin, "user", &rights).await;
        // Some rights are optional, so the outcome may be a success.
        let outcome = served(&server, "user").await;
        let refused = refused(&mut admin, "user").await;
        let noticed = refused.iter().any(|object| is_for_want_of(right, object));
        (!noticed).then(|| format!("{right}: {outcome:?}, {refused:?}"))
    });
    let missed = missed.buffer_unordered(8).filter_map(async |missed| missed);
    let missed: Vec<_> = missed.collect().await;
    assert!(missed.is_empty(), "superfluous rights: {missed:#?}");
}

/// The user at the Sentinels only has the rights of its line, and the one at the server those of
/// the other.
#[tokio::test(flavor = "multi_thread")]
async fn the_rights_for_sentinels_are_enough_and_none_is_too_many() {
    let server = WatchedServer::start(RedisServer::builder().cluster_of_one(false));
    let sentinel = RedisServer::builder().sentinel_of(server.port()).start();
    let mut at_server = server.connection().await;
    let mut at_sentinel = sentinel.connection().await;
    let builder = |user: &str, watcher: &str| {
        let url = format!("redis+sentinel://{user}:hush@127.0.0.1:{}/main", sentinel.port());
        Locks::builder().url(url).sentinel_credentials(watcher, "hush")
    };
    set_user(&mut at_server, "billing", &of_server()).await;
    set_user(&mut at_sentinel, "watcher", &of_sentinel()).await;
    let build = async || builder("billing", "watcher").build().await.unwrap();
    let locks = [build().await, build().await];
    use_everything(&locks, "billing", &mut at_server).await.unwrap();
    // Also for the periodic requests.
    sleep(ms(1500)).await;
    assert_eq!(refused(&mut at_server, "billing").await, Refused::new());
    assert_eq!(refused(&mut at_sentinel, "watcher").await, Refused::new());

    for (number, right) in of_sentinel().into_iter().filter(is_checked).enumerate() {
        let user = format!("w{number}");
        let rights: Vec<_> = of_sentinel().into_iter().filter(|&other| other != right).collect();
        set_user(&mut at_sentinel, &user, &rights).await;
        let error = builder("billing", &user).build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{right}: {error:?}");
        assert!(error.to_string().contains("(NOPERM)"), "{right}: {error}");
        let refused = refused(&mut at_sentinel, &user).await;
        let noticed = refused.iter().any(|object| is_for_want_of(right, object));
        assert!(noticed, "{right} is superfluous: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_for_replicas_is_enough_and_needed() {
    let server = WatchedServer::start(RedisServer::builder().cluster_of_one(false));
    let port = server.port().to_string();
    let _replica = RedisServer::builder()
        .cluster_of_one(false)
        .flags(["--replicaof", "127.0.0.1", &port])
        .start();
    let mut admin = server.connection().await;
    set_user(&mut admin, "billing", &of_server()).await;
    let builder = || Locks::builder().url(server.url_with("billing", "hush", 0)).min_replicas(1);
    let error = builder().build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error:?}");
    assert!(error.to_string().contains("`+wait`"), "{error}");
    set_user(&mut admin, "billing", &line("billing", "+wait")).await;
    forget_refused(&mut admin).await;
    let locks = [builder().build().await.unwrap(), builder().build().await.unwrap()];
    eventually(ms(20_000), async || locks[0].lock("a").try_acquire().await.is_ok()).await;
    use_everything(&locks, "billing", &mut admin).await.unwrap();
    assert_eq!(refused(&mut admin, "billing").await, Refused::new());
}

/// On each node of a Cluster the user has the rights of both lines, and none of the second is
/// superfluous.
#[tokio::test(flavor = "multi_thread")]
async fn the_rights_for_a_cluster_are_enough_and_needed() {
    let cluster = Cluster::start().await;
    let of_node: Vec<_> = [of_server(), line("billing", "+cluster|slots")].concat();
    let set_everywhere = async |user: &str, rights: &[&str]| {
        for server in cluster.servers() {
            set_user(&mut server.connection().await, user, rights).await;
        }
    };
    let refused_anywhere = async |user: &str| {
        let mut all = Refused::new();
        for server in cluster.servers() {
            all.extend(refused(&mut server.connection().await, user).await);
        }
        all
    };
    let url = |user: &str| {
        let servers = cluster.servers();
        let hosts = servers.iter().map(|server| format!("127.0.0.1:{}", server.port()));
        format!("redis+cluster://{user}:hush@{}", hosts.collect::<Vec<_>>().join(","))
    };
    // One of the rights is for a slot in the middle of its move.
    let slot = 5000;
    let to = cluster.primary_of(12_000).await;
    let serve = async |user: &str, asks_by_the_clock: bool| -> Outcome {
        let locks = [Locks::connect(&url(user)).await?, Locks::connect(&url(user)).await?];
        let mut admin = cluster.primary_of(slot).await.connection().await;
        use_everything(&locks, user, &mut admin).await?;
        let id = format!("{{{}}}{user}", Cluster::word_of(slot));
        let held = locks[0].lock(id).lease(ms(400)).acquire().await?;
        let half = cluster.begin_move(slot, &to).await;
        half.move_keys(1000).await;
        sleep(ms(1000)).await;
        let is_held = held.is_held();
        half.finish().await;
        let back = cluster.primary_of(slot - 1).await;
        cluster.move_slot(slot, &back).await;
        // Also for the periodic requests: a node is asked every second whether anything has
        // changed.
        if asks_by_the_clock {
            sleep(ms(2500)).await;
        }
        assert_or_err(is_held, "it was not renewed while its slot was moved")
    };
    set_everywhere("billing", &of_node).await;
    serve("billing", true).await.unwrap();
    assert_eq!(refused_anywhere("billing").await, Refused::new());

    for (number, right) in line("billing", "+cluster|slots").into_iter().enumerate() {
        let user = format!("u{number}");
        let rights: Vec<_> = of_node.iter().copied().filter(|&other| other != right).collect();
        set_everywhere(&user, &rights).await;
        // Some rights are optional, and others are required.
        let outcome = serve(&user, right == "+cluster|info").await;
        let refused = refused_anywhere(&user).await;
        let is_named = |object: &String| match right.strip_prefix('~') {
            Some(pattern) => object.starts_with(pattern.split('?').next().unwrap()),
            None => is_for_want_of(right, object),
        };
        assert!(refused.iter().any(is_named), "{right} is superfluous: {outcome:?}, {refused:?}");
    }
}
