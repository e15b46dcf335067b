//! What the page says of the servers: which there are, which one is the primary, and what has
//! happened to the connections.

use lock_tests::{Cluster, RedisServer, Sentinels};

use crate::{
    SOON, alone,
    browser::{Browser, DESKTOP, TELEPHONE},
    copy::Copy,
    looks::picture,
};

fn connected(server: &RedisServer) -> String {
    format!("127.0.0.1:{}connected to the Redis server", server.port())
}

/// The library knows the address of a proxy. The page names the server.
#[tokio::test]
async fn what_happens_to_a_connection_is_said_under_the_name_of_its_server() {
    let _alone = alone().await;
    let server = RedisServer::start();
    let copy = Copy::start(Some(&server.url()), 0);
    let page = Browser::open(&copy.url, DESKTOP).await;
    let other = Browser::open(&copy.url, DESKTOP).await;
    // Only what is used is connected.
    page.press("acquire").await;
    page.shows("doing", "You hold invoice:7").await;
    page.shows("servers", &connected(&server)).await;
    for (button, report) in
        [("cut", "cannot connect"), ("repair", "reconnected to the Redis server")]
    {
        page.press(button).await;
        page.shows("servers", &format!("127.0.0.1:{}{report}", server.port())).await;
        let servers = page.text("servers").await;
        assert_eq!(servers.matches("127.0.0.1").count(), 1, "one server: {servers}");
        other.shows_within(SOON, "servers", &connected(&server)).await;
    }
    page.close().await;
    other.close().await;
    assert!(copy.end().success());
}

#[tokio::test]
async fn the_page_follows_the_primary_of_sentinels() {
    let _alone = alone().await;
    let sentinels = Sentinels::start().await;
    let copy = Copy::start(Some(&sentinels.url()), 0);
    let page = Browser::open(&copy.url, DESKTOP).await;
    page.shows("store", "redis+sentinel://").await;
    let primary = |server: &RedisServer| format!("127.0.0.1:{} (the primary)", server.port());
    page.shows("servers", &primary(sentinels.primary().await)).await;
    page.press("acquire").await;
    page.shows("doing", "You hold invoice:7").await;
    page.shows("store-says", &format!("held by {} (process ", page.text("name").await)).await;
    page.shows("condition", "stop a server").await;

    let new = sentinels.fail_over().await;
    page.shows("servers", &primary(new)).await;
    page.shows("store-says", "invoice:7 is ").await;
    picture(&page, TELEPHONE, "#servers-card", "#servers-card", "servers.webp").await;
    page.close().await;
    assert!(copy.end().success());
}

#[tokio::test]
async fn the_page_names_the_nodes_of_a_cluster() {
    let _alone = alone().await;
    let cluster = Cluster::start().await;
    let copy = Copy::start(Some(&cluster.url()), 0);
    let page = Browser::open(&copy.url, DESKTOP).await;
    page.press("acquire").await;
    page.shows("doing", "You hold invoice:7").await;
    for slot in [0, 8_192, 16_383] {
        let node = cluster.primary_of(slot).await;
        page.shows("servers", &connected(&node)).await;
    }
    page.close().await;
    assert!(copy.end().success());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_the_password() {
    let _alone = alone().await;
    let copy = Copy::start(Some("redis+cluster://billing:secret@127.0.0.1:1"), 0);
    let page = Browser::open(&copy.url, DESKTOP).await;
    page.shows("store", "The store of the locks is redis+cluster://127.0.0.1:1.").await;
    page.shows("store-says", "no node of the Redis Cluster at 127.0.0.1:1 ").await;
    let all = page.run("return document.documentElement.textContent", "").await;
    assert!(!all.to_string().contains("secret"), "{all}");
    page.close().await;
    assert!(copy.end().success());
}
