//! Clusters: slots move by command, by failover and by resharding; nodes come, go and are cut off.

use std::time::Duration;

use lock_tests::{Certificates, Cluster, RedisServer, eventually};
use redis::{AsyncCommands, RedisResult, Value, aio::MultiplexedConnection};

#[tokio::test]
async fn a_cluster_of_one_serves_every_slot_at_once_and_again_after_a_restart() {
    let server = RedisServer::builder().cluster_of_one(true).append_only(true).start();
    for round in 0..2 {
        let mut connection = server.connection().await;
        for slot in [0, 5461, 16_383] {
            let key = format!("{{{}}}:{round}", Cluster::word_of(slot));
            let () = connection.set_ex(&key, 1, 60).await.unwrap();
        }
        assert_eq!(server.keys().await.len(), 3 * (round + 1));
        let url = format!("redis+cluster://127.0.0.1:{}", server.port());
        assert_eq!(server.locks_url(), url);
        server.restart();
    }
}

#[tokio::test]
async fn slots_are_what_the_servers_say() {
    let server = RedisServer::builder().cluster_of_one(true).start();
    let mut connection = server.connection().await;
    let keys =
        ["", "a", "{}", "}{", "a{b}c", "{b}", "{{b}}", "a{", "}", "{}{b}", "long and with ü"];
    for key in keys {
        let mut question = redis::cmd("CLUSTER");
        question.arg("KEYSLOT").arg(key);
        let slot: u16 = question.query_async(&mut connection).await.unwrap();
        assert_eq!(Cluster::slot_of(key), slot, "{key:?}");
    }
    assert_eq!(Cluster::slot_of(Cluster::word_of(12_345)), 12_345);
}

async fn role(server: &RedisServer) -> String {
    let report: String = redis::cmd("INFO")
        .arg("replication")
        .query_async(&mut server.connection().await)
        .await
        .unwrap();
    report.lines().find_map(|line| line.strip_prefix("role:")).unwrap().to_owned()
}

#[tokio::test]
async fn a_failover_by_command_loses_nothing() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.servers().len(), 6);
    assert_eq!(cluster.primaries().await.len(), 3);
    let slot = Cluster::slot_of("key");
    let old = cluster.primary_of(slot).await;
    let replica = cluster.replica_of(&old).await;
    let () = old.connection().await.set_ex("key", "kept", 60).await.unwrap();

    let new = cluster.fail_over(slot).await;
    assert_eq!(new.port(), replica.port());
    assert_eq!(cluster.primary_of(slot).await.port(), new.port());
    let kept: String = new.connection().await.get("key").await.unwrap();
    assert_eq!((kept, role(&old).await.as_str()), ("kept".to_owned(), "slave"));
    let error = old.connection().await.get::<_, String>("key").await.unwrap_err();
    assert_eq!(
        error.redirect_node().unwrap(),
        (format!("127.0.0.1:{}", new.port()).as_str(), slot)
    );
    cluster.settled().await;

    let back = cluster.fail_over(slot).await;
    assert_eq!(back.port(), old.port());
    let others = cluster.primaries().await;
    assert!(others.iter().any(|primary| primary.port() == old.port()) && others.len() == 3);
}

#[tokio::test]
async fn a_primary_that_is_killed_is_replaced_and_returns_as_a_replica() {
    let cluster = Cluster::start_with(&["--cluster-require-full-coverage", "no"]).await;
    let old = cluster.primary_of(0).await;
    old.kill();
    assert_eq!(cluster.primary_of(0).await.port(), old.port(), "no node knows it yet");
    let new = cluster.moved_from(0, old.port()).await;
    assert_ne!(new.port(), old.port());
    old.restart();
    cluster.settled().await;
    assert_eq!([role(&old).await, role(&new).await], ["slave", "master"]);
}

#[tokio::test]
async fn a_primary_that_is_stopped_is_replaced_and_goes_on_as_a_replica() {
    let cluster = Cluster::start().await;
    let old = cluster.primary_of(0).await;
    old.stop_process();
    let new = cluster.moved_from(0, old.port()).await;
    assert_ne!(new.port(), old.port());
    old.continue_process();
    cluster.settled().await;
    assert_eq!([role(&old).await, role(&new).await], ["slave", "master"]);
}

#[tokio::test]
async fn a_cluster_behind_tls_uses_it_among_its_nodes() {
    if RedisServer::leaves_out_tls() {
        return;
    }
    let certificates = Certificates::generate();
    let cluster = Cluster::builder().tls(&certificates).start().await;
    assert!(cluster.url().starts_with("rediss+cluster://127.0.0.1:"));
    let slot = 1;
    let old = cluster.primary_of(slot).await;
    let new = cluster.fail_over(slot).await;
    assert_ne!(old.port(), new.port());
    cluster.settled().await;
}

/// The server's answer to a command, as text.
async fn answer(connection: &mut MultiplexedConnection, words: &[&str], asking: bool) -> String {
    if asking {
        redis::cmd("ASKING").exec_async(connection).await.unwrap();
    }
    match redis::cmd(words[0]).arg(&words[1..]).query_async::<Value>(connection).await {
        Ok(value) => format!("{value:?}"),
        Err(error) => {
            let node = error.redirect_node().map(|(node, _)| node).unwrap_or_default();
            format!("{:?} {node}", error.kind())
        }
    }
}

#[tokio::test]
async fn a_slot_moves_in_steps() {
    let cluster = Cluster::start().await;
    let slot = Cluster::slot_of("word");
    let old = cluster.primary_of(slot).await;
    let new = cluster.primaries().await.into_iter().find(|node| node.port() != old.port()).unwrap();
    let [mut at_old, mut at_new] = [old.connection().await, new.connection().await];
    for key in ["{word}a", "{word}b"] {
        let () = at_old.set_ex(key, key, 60).await.unwrap();
    }
    let refused = |what: &str, by: &RedisServer| format!("Server({what}) 127.0.0.1:{}", by.port());

    let half = cluster.begin_move(slot, &new).await;
    assert_eq!([half.from().port(), half.to().port()], [old.port(), new.port()]);
    assert_eq!(answer(&mut at_old, &["EXISTS", "{word}a", "{word}b"], false).await, "int(2)");
    assert_eq!(answer(&mut at_old, &["EXISTS", "{word}c"], false).await, refused("Ask", &new));
    assert_eq!(answer(&mut at_new, &["EXISTS", "{word}a"], false).await, refused("Moved", &old));

    assert_eq!(half.move_keys(1).await, 1);
    let question = ["EXISTS", "{word}a", "{word}b"];
    let tried_again = answer(&mut at_new, &question, true).await;
    assert_eq!(tried_again, "Server(TryAgain) ");
    if !RedisServer::version().is_before(7, 0) {
        assert_eq!(answer(&mut at_old, &question, false).await, tried_again);
    }
    let mut found = 0;
    for key in ["{word}a", "{word}b"] {
        if answer(&mut at_old, &["EXISTS", key], false).await == refused("Ask", &new) {
            assert_eq!(answer(&mut at_new, &["EXISTS", key], true).await, "int(1)");
            found += 1;
        }
    }
    assert_eq!(found, 1);

    half.finish().await;
    assert_eq!(cluster.primary_of(slot).await.port(), new.port());
    assert_eq!(answer(&mut at_new, &question, false).await, "int(2)");
    assert_eq!(answer(&mut at_old, &question, false).await, refused("Moved", &new));
    cluster.settled().await;
}

#[tokio::test]
async fn a_fat_slot_moves_with_all_its_keys() {
    let cluster = Cluster::start().await;
    let [slot, keys] = [100, 20_000];
    let [old, new, _] = cluster.primaries().await.try_into().unwrap();
    assert_eq!(cluster.primary_of(slot).await.port(), old.port());
    cluster.fill_slot(slot, keys.into()).await;
    assert_eq!(old.keys().await.len(), usize::from(keys));
    cluster.move_slot(slot, &new).await;
    assert_eq!(old.keys().await, []);
    assert_eq!(new.keys().await.len(), usize::from(keys));
    new.assert_every_key_expires(&[]).await;
    cluster.settled().await;
}

#[tokio::test]
async fn a_node_comes_and_gets_slots_and_another_one_goes() {
    let cluster = Cluster::start().await;
    let added = cluster.add_node().await;
    assert_eq!([cluster.servers().len(), cluster.primaries().await.len()], [7, 3]);
    assert!(cluster.url().contains(&format!("127.0.0.1:{}", added.port())));
    let word = Cluster::word_of(7);
    cluster.fill_slot(7, 10).await;
    cluster.move_slots(0..100, &added).await;
    assert_eq!(cluster.primary_of(7).await.port(), added.port());
    assert_eq!(added.keys().await.len(), 10);
    let primaries = cluster.primaries().await;
    assert_eq!(primaries.len(), 4);

    // It has a replica, and too many slots to move them one by one.
    let gone = cluster.remove_node(&primaries[1]).await;
    assert_eq!([cluster.servers().len(), cluster.primaries().await.len()], [6, 3]);
    let key = format!("{{{word}}}");
    let error = gone.connection().await.get::<_, String>(&key).await.unwrap_err();
    assert!(error.to_string().to_lowercase().contains("slot not served"), "{error}");
    let gone = cluster.remove_node(&added).await;
    assert_eq!(gone.keys().await, []);
    let primary = cluster.primary_of(7).await;
    assert_ne!(primary.port(), added.port());
    let kept: u64 = primary.connection().await.get(format!("fill:{key}:7")).await.unwrap();
    assert_eq!(kept, 7);
    cluster.settled().await;
}

/// Sets a key on this server, and returns whether its replica has received it within `limit`
/// milliseconds.
async fn replicates(server: &RedisServer, key: &str, limit: u64) -> Result<bool, String> {
    let mut connection = server.connection().await;
    let set: RedisResult<()> = connection.set_ex(key, 1, 60).await;
    set.map_err(|error| error.to_string())?;
    let replicas: u64 =
        redis::cmd("WAIT").arg(1).arg(limit).query_async(&mut connection).await.unwrap();
    Ok(replicas > 0)
}

#[tokio::test]
async fn a_primary_that_is_cut_off_is_replaced_and_serves_clients_until_it_notices() {
    let cluster = Cluster::builder().severable(true).start().await;
    let slot = Cluster::slot_of("key");
    let old = cluster.primary_of(slot).await;
    assert_eq!(replicates(&old, "key", 9_000).await, Ok(true));
    cluster.cut_off(&old).await;
    assert_eq!(replicates(&old, "key", 200).await, Ok(false));

    let new = cluster.moved_from(slot, old.port()).await;
    assert_ne!(new.port(), old.port());
    assert_eq!(role(&old).await, "master", "it has heard nothing");
    eventually(Duration::from_secs(10), || async {
        let refused = replicates(&old, "key", 200).await.unwrap_err();
        if refused.to_lowercase().contains("cluster is down") { Ok(()) } else { Err(refused) }
    })
    .await;
    assert_eq!(replicates(&new, "key", 200).await, Ok(false));

    cluster.let_in(&old).await;
    cluster.settled().await;
    assert_eq!([role(&old).await, role(&new).await], ["slave", "master"]);
    assert_eq!(replicates(&new, "key", 9_000).await, Ok(true));
}

#[tokio::test]
async fn a_replica_that_is_cut_off_follows_nobody() {
    let cluster = Cluster::builder().severable(true).start().await;
    let primary = cluster.primary_of(0).await;
    let replica = cluster.replica_of(&primary).await;
    let key = Cluster::word_of(0);
    cluster.cut_off(&replica).await;
    assert_eq!(replicates(&primary, &key, 200).await, Ok(false));
    cluster.let_in(&replica).await;
    cluster.settled().await;
    assert_eq!(replicates(&primary, &key, 9_000).await, Ok(true));
}
