//! Whether what one client publishes reaches another.

use std::{future::poll_fn, pin::pin};

use futures_util::Stream as _;
use redis::RedisError;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    findings::Findings,
    rights::is_refusal,
    server::{PATIENCE, Server},
};

/// Subscribes on one connection and publishes on another. Returns false if the user may not
/// subscribe.
pub(crate) async fn check(server: &Server, findings: &mut Findings) -> bool {
    const CHECK: &str = "notices";
    let at = server.address.as_str();
    let failed = |findings: &mut Findings, why: &str| {
        findings.warning(
            CHECK,
            at,
            format!("{why}: waiters poll four times a second instead of being woken"),
            "use a server or a proxy that supports pub/sub (SUBSCRIBE, PUBLISH)",
        );
    };
    match timeout(PATIENCE * 2, heard(server)).await {
        Ok(Ok(true)) => findings.ok(CHECK, at, "notices that are published arrive"),
        // The check of the rights reports this.
        Ok(Ok(false)) => {}
        Ok(Err(error)) if is_refusal(&error) => return false,
        Ok(Err(_)) => failed(findings, "no connection can subscribe"),
        Err(_) => failed(findings, "notices that are published do not arrive"),
    }
    true
}

/// Returns true once the notice arrives, and false if this user may not publish.
async fn heard(server: &Server) -> Result<bool, RedisError> {
    let channel = format!("~wake:lockctl-doctor:{}", Uuid::new_v4().simple());
    let mut subscriber = server.client.get_async_pubsub().await?;
    subscriber.subscribe(&channel).await?;
    let answer = server.ask(&[&["PUBLISH", &channel, "look"]]).await?.pop();
    if matches!(answer, Some(redis::Value::ServerError(_))) {
        return Ok(false);
    }
    let mut messages = pin!(subscriber.on_message());
    poll_fn(|context| messages.as_mut().poll_next(context)).await;
    Ok(true)
}
