//! The library in a few seconds: waiting, renewal, release on drop, fencing tokens, debounce, and
//! the attribute.
//!
//!     cargo run --example quickstart
//!
//! needs no server: locks live in this process's memory. With one it does the same there:
//!
//!     LOCK_URL=redis://127.0.0.1/ cargo run --example quickstart
//!
//! To see the library's own log of what it does:
//!
//!     RUST_LOG=lock=debug cargo run --example quickstart

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use lock::{Error, Locks, locked};
use tokio::time::sleep;
use tracing_subscriber::EnvFilter;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let locks = if ["LOCK_URL", "REDIS_URL"].iter().any(|name| std::env::var_os(name).is_some()) {
        println!("Using the server that LOCK_URL or REDIS_URL names.");
        Locks::from_env().await?
    } else {
        println!("Using this process's memory; set LOCK_URL=redis://127.0.0.1/ to use a server.");
        Locks::in_memory()
    };
    let began = Instant::now();
    let say = |text: String| println!("{:5} ms  {text}", began.elapsed().as_millis());

    println!("\nTwo workers want one lock; the second waits for the first.");
    let work = async |name: &str| -> Result<(), Error> {
        let guard = locks.lock("quickstart:report").acquire().await?;
        say(format!("worker {name} has the lock, fencing token {}", guard.fencing_token()));
        sleep(ms(400)).await;
        say(format!("worker {name} is done"));
        guard.release().await
    };
    tokio::try_join!(work("A"), work("B"))?;

    println!("\nA body three times longer than its lease keeps the lock: the lease renews itself.");
    let short = locks.lock("quickstart:long").lease(ms(400));
    let guard = short.acquire().await?;
    say("acquired with a lease of 400 ms".to_owned());
    for _ in 0..3 {
        sleep(ms(400)).await;
        let taken = short.try_acquire().await?.is_some();
        say(format!("still held: {}; somebody else could take it: {taken}", guard.is_held()));
    }

    println!("\nDropping the guard releases the lock, and every grant has a larger fencing token.");
    let before = guard.fencing_token();
    drop(guard);
    say("dropped".to_owned());
    let guard = short.acquire().await?;
    say(format!("acquired again: {} > {before}", guard.fencing_token()));
    drop(guard);

    println!("\nTen calls in a burst run once, with the last call's arguments.");
    let runs = AtomicU32::new(0);
    let reindex = locks.debounce("quickstart:reindex").wait(ms(300));
    let call = async |number: u32| -> Result<Option<u32>, Error> {
        sleep(ms(20) * number).await;
        let ran = reindex.call(|| async {
            runs.fetch_add(1, Ordering::Relaxed);
            number
        });
        ran.await
    };
    let mut outcomes = Vec::new();
    let calls = tokio::join!(
        call(1),
        call(2),
        call(3),
        call(4),
        call(5),
        call(6),
        call(7),
        call(8),
        call(9),
        call(10),
    );
    let (a, b, c, d, e, f, g, h, i, j) = calls;
    for outcome in [a, b, c, d, e, f, g, h, i, j] {
        outcomes.extend(outcome?);
    }
    say(format!("{} run, and it was call {outcomes:?}", runs.load(Ordering::Relaxed)));

    println!("\n#[locked(id = \"invoice:{{invoice_id}}\")] does all of this for a function.");
    #[locked(id = "invoice:{invoice_id}")]
    async fn charge(invoice_id: u64, began: Instant) -> Result<u64, Error> {
        println!("{:5} ms  charging invoice {invoice_id}", began.elapsed().as_millis());
        sleep(ms(200)).await;
        Ok(invoice_id)
    }
    locks
        .scope(async { tokio::try_join!(charge(7, began), charge(7, began), charge(8, began)) })
        .await?;
    say("invoice 7 was charged twice in turn, invoice 8 at the same time as the first".to_owned());

    // Dropped guards are released in the background: wait for that before the exit.
    locks.flush().await;
    Ok(())
}
