//! What TLS does to a process: its default provider of cryptography is the application's to install.

use std::{fs, time::Duration};

use lock::{Error, Locks, LocksBuilder, Status};
use rustls::crypto::{CryptoProvider, ring};

/// Connects twice in this way (`url` or `client`, with the system's roots; `authority FILE`), and
/// lets one wait for the other: what to say of it.
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

/// How notices travel.
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

/// As an application does it, which fails where there is a default already.
pub(crate) fn install_provider() -> String {
    format!("installed {}", ring::default_provider().install_default().is_ok())
}
