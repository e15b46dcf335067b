//! The harness itself: servers, certificates and faults do what they say.
#![allow(clippy::unwrap_used, reason = "all of this is test code, helpers included")]

mod children;
mod cluster;
mod host_clock;
mod proxy;
mod replies;
mod server;
mod worker;

use std::time::{Duration, Instant};

use lock_tests::eventually;
use redis::{AsyncConnectionConfig, Client, RedisResult, aio::MultiplexedConnection};

/// Bound on what should happen at once.
const SOON: Duration = Duration::from_secs(10);

/// Long enough for a reply that is not held back to arrive.
const SILENCE: Duration = Duration::from_millis(150);

async fn connect(url: &str, response_timeout: Duration) -> RedisResult<MultiplexedConnection> {
    let bounds = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(response_timeout))
        .set_response_timeout(Some(response_timeout));
    Client::open(url)?.get_multiplexed_async_connection_with_config(&bounds).await
}

async fn ping(connection: &mut MultiplexedConnection) -> RedisResult<String> {
    redis::cmd("PING").query_async(connection).await
}

#[tokio::test]
async fn eventually_returns_what_was_waited_for() {
    let mut looks = 0;
    let found = eventually(SOON, || {
        looks += 1;
        std::future::ready(if looks == 3 { Ok(looks) } else { Err(looks) })
    })
    .await;
    assert_eq!(found, 3);
    eventually(SOON, || async { true }).await;
}

#[tokio::test]
#[should_panic(expected = "seen last: \"two of three\"")]
async fn eventually_tells_what_was_seen_last() {
    let limit = Duration::from_millis(20);
    eventually(limit, || async { Err::<(), _>("two of three") }).await;
}

#[tokio::test(start_paused = true)]
async fn eventually_waits_in_real_time_and_leaves_a_paused_clock_alone() {
    let real = Instant::now();
    let paused = tokio::time::Instant::now();
    eventually(SOON, || async { real.elapsed() > Duration::from_millis(30) }).await;
    assert_eq!(paused.elapsed(), Duration::ZERO);
}
