//! The effect of TLS on a process, whose default cryptography provider is left to the application.

use std::{fs, time::Duration};

use lock::{Error, Locks, LocksBuilder, Status};
use rustls::crypto::{CryptoProvider, ring};

/// Connects twice in this way (`url` or `client`, with the system's roots; `authority FILE`), and
/// makes one client wait for the other. Returns the line to print.
pub(crate) async fn serve(way: &[&str], url: &str) -> String {
    let outcome = match *way {
        ["url"] => hand_over(|| Locks::builder().url(url)).await,
        ["client"] => {
            let client = redis::Client::open(url).expect("a URL of Redis");
            hand_over(|| Locks::builder().client(client.clone())).await
        }
        ["authority", file] => {
            let authority = fs::read(file).expect("the test has written it");
            hand_over(|| Locks::builder().url(url).root_certificate(authority.clone())).await
        }
        _ => panic!("no such way: {way:?}"),
    };
    let provider = if CryptoProvider::get_default().is_some() { "default" } else { "none" };
    match outcome {
        Ok(delivery) => format!("served {delivery} {provider}"),
        Err(error) => format!("refused {provider} {:?} {error}", error.kind()),
    }
}

/// Hands a lock over, and returns how notices are delivered.
async fn hand_over(builder: impl Fn() -> LocksBuilder) -> Result<String, Error> {
    let (one, other) = (builder().build().await?, builder().build().await?);
    let guard = one.lock("a").acquire().await?;
    let waiter = tokio::spawn(other.lock("a").wait(Duration::from_secs(30)).acquire());
    while !matches!(one.lock("a").status().await?, Status::Held { waiters: 1.., .. }) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    guard.release().await?;
    waiter.await.expect("it does not panic")?.release().await?;
    let shown = format!("{other:?}");
    let (_, delivery) = shown.split_once("delivery: \"").expect("it shows them");
    Ok(delivery.split('"').next().unwrap_or_default().to_owned())
}

/// Installs a provider like an application, which fails if there already is a default.
pub(crate) fn install_provider() -> String {
    format!("installed {}", ring::default_provider().install_default().is_ok())
}
